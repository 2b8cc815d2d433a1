//! xhr: one frame a response; and what every session does whatever its transport.

use super::client::{Client, assert_cors, assert_no_cache, options, post, post_with};
use super::server::session;

mod protocol {
    use super::*;

    #[test]
    #[expect(non_snake_case, reason = "the suite's own name")]
    fn test_simpleSession() {
        let path = session("echo");
        let poll = format!("{path}/xhr");
        let send = format!("{path}/xhr_send");
        assert_eq!(post(&poll, "").body, "o\n");
        let answer = post(&send, "[\"a\"]");
        assert_eq!((answer.status(), answer.body.as_str()), (204, ""));
        assert_eq!(post(&poll, "").body, "a[\"a\"]\n");
        assert_eq!(
            post("/echo/000/bad_session/xhr_send", "[\"a\"]").status(),
            404
        );

        let mut first = Client::connect();
        first.request("POST", &poll, &[], b"");
        assert!(first.is_silent());
        let second = post(&poll, "");
        assert_eq!(second.status(), 200);
        assert_eq!(second.body, "c[2010,\"Another connection still open\"]\n");
        // The first is not disturbed.
        assert_eq!(post(&send, "[\"b\"]").status(), 204);
        assert_eq!(first.answer().body, "a[\"b\"]\n");
    }

    #[test]
    #[expect(non_snake_case, reason = "the suite's own name")]
    fn test_closeSession() {
        let path = format!("{}/xhr", session("close"));
        assert_eq!(post(&path, "").body, "o\n");
        for _ in 0..3 {
            assert_eq!(post(&path, "").body, "c[3000,\"Go away!\"]\n");
        }
    }

    #[test]
    fn a_close_frame_goes_to_a_receiver_of_any_transport() {
        let path = session("close");
        assert_eq!(post(&format!("{path}/xhr"), "").body, "o\n");
        let close = r#"c[3000,"Go away!"]"#;
        let mut client = Client::connect();
        client.open("POST", &format!("{path}/xhr_streaming"));
        client.chunk().unwrap();
        assert_eq!(client.chunk().unwrap(), format!("{close}\n"));
        assert_eq!(client.chunk(), None);
        client.open("GET", &format!("{path}/eventsource"));
        client.chunk().unwrap();
        assert_eq!(client.chunk().unwrap(), format!("data: {close}\r\n\r\n"));
        assert_eq!(client.chunk(), None);
        let script = client.ask("GET", &format!("{path}/jsonp?c=x"), &[], "");
        assert_eq!(script.body, "/**/x(\"c[3000,\\\"Go away!\\\"]\");\r\n");
    }

    #[test]
    fn what_was_queued_before_the_close_goes_first() {
        let path = format!("{}/xhr", session("farewell"));
        let bodies: Vec<String> = (0..4).map(|_| post(&path, "").body).collect();
        let close = "c[3001,\"bye\"]\n";
        assert_eq!(bodies, ["o\n", "a[\"one\",\"two\"]\n", close, close]);
    }

    #[test]
    fn messages_for_a_closed_session_are_discarded() {
        let path = session("close");
        assert_eq!(post(&format!("{path}/xhr"), "").body, "o\n");
        post(&format!("{path}/xhr"), "");
        assert_eq!(post(&format!("{path}/xhr_send"), "[\"a\"]").status(), 204);
        assert_eq!(post(&format!("{path}/jsonp_send"), "[\"a\"]").body, "ok");
    }
}

mod xhr_polling {
    use super::*;

    #[test]
    fn test_options() {
        let path = session("echo");
        for endpoint in ["xhr", "xhr_send"] {
            let answer = options(
                &format!("{path}/{endpoint}"),
                &[("origin", "http://a.example")],
            );
            assert_eq!((answer.status(), answer.body.as_str()), (204, ""));
            assert_cors(&answer.head, Some("http://a.example"));
            let methods = answer.header("access-control-allow-methods");
            assert_eq!(methods, Some("OPTIONS, POST"));
            assert_eq!(answer.header("access-control-max-age"), Some("31536000"));
            let caching = answer.header("cache-control");
            assert_eq!(caching, Some("public, max-age=31536000"));
        }
        // A preflight opens nothing.
        assert_eq!(post(&format!("{path}/xhr_send"), "[\"a\"]").status(), 404);
    }

    #[test]
    fn test_transport() {
        let path = session("echo");
        let origin = [("origin", "http://a.example")];
        let answer = post_with(&format!("{path}/xhr"), &origin, "");
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.body, "o\n");
        let kind = answer.header("content-type");
        assert_eq!(kind, Some("application/javascript; charset=UTF-8"));
        assert_cors(&answer.head, Some("http://a.example"));
        assert_no_cache(&answer.head);

        let answer = post_with(&format!("{path}/xhr_send"), &origin, "[\"x\"]");
        assert_eq!((answer.status(), answer.body.as_str()), (204, ""));
        assert_eq!(
            answer.header("content-type"),
            Some("text/plain; charset=UTF-8")
        );
        assert_cors(&answer.head, Some("http://a.example"));
        assert_no_cache(&answer.head);
        assert_eq!(post(&format!("{path}/xhr"), "").body, "a[\"x\"]\n");
    }

    #[test]
    fn test_invalid_session() {
        let path = session("echo");
        let answer = post_with(
            &format!("{path}/xhr_send"),
            &[("origin", "null")],
            "[\"x\"]",
        );
        assert_eq!(answer.status(), 404);
        assert_cors(&answer.head, Some("null"));
    }

    #[test]
    fn test_invalid_json() {
        let path = session("echo");
        assert_eq!(post(&format!("{path}/xhr"), "").body, "o\n");
        let answer = post(&format!("{path}/xhr_send"), "[\"x");
        assert_eq!(answer.status(), 500);
        assert!(answer.body.contains("Broken JSON encoding."));
        let answer = post(&format!("{path}/xhr_send"), "");
        assert_eq!(answer.status(), 500);
        assert!(answer.body.contains("Payload expected."));
        assert_eq!(post(&format!("{path}/xhr_send"), "[\"a\"]").status(), 204);
        assert_eq!(post(&format!("{path}/xhr"), "").body, "a[\"a\"]\n");
    }

    #[test]
    fn test_content_types() {
        let path = session("echo");
        assert_eq!(post(&format!("{path}/xhr"), "").body, "o\n");
        let kinds = [
            "text/plain",
            "T",
            "application/json",
            "application/xml",
            "",
            "application/json; charset=utf-8",
            "text/xml; charset=utf-8",
            "text/xml",
        ];
        for kind in kinds {
            let kind = [("content-type", kind)];
            let answer = post_with(&format!("{path}/xhr_send"), &kind, "[\"a\"]");
            assert_eq!(answer.status(), 204, "{kind:?}");
        }
        let all = format!("a[{}]\n", ["\"a\""; 8].join(","));
        assert_eq!(post(&format!("{path}/xhr"), "").body, all);
    }

    #[test]
    fn test_request_headers_cors() {
        let path = format!("{}/xhr", session("echo"));
        let wanted = [("access-control-request-headers", "a, b, c")];
        for answer in [options(&path, &wanted), post_with(&path, &wanted, "")] {
            assert_eq!(
                answer.header("access-control-allow-headers"),
                Some("a, b, c")
            );
        }
        let path = format!("{}/xhr", session("echo"));
        for wanted in [&[("access-control-request-headers", "")][..], &[]] {
            let answer = options(&path, wanted);
            assert_eq!(answer.header("access-control-allow-headers"), None);
        }
    }

    #[test]
    fn test_sending_empty_frame() {
        let path = session("echo");
        assert_eq!(post(&format!("{path}/xhr"), "").body, "o\n");
        assert_eq!(post(&format!("{path}/xhr_send"), "[]").status(), 204);
        assert_eq!(post(&format!("{path}/xhr_send"), "[\"a\"]").status(), 204);
        assert_eq!(post(&format!("{path}/xhr"), "").body, "a[\"a\"]\n");
    }
}

mod json_encoding {
    use super::super::bodies::{fragile, json_escaped};
    use super::*;

    #[test]
    fn test_xhr_server_encodes() {
        let path = session("echo");
        assert_eq!(post(&format!("{path}/xhr"), "").body, "o\n");
        let text: String = fragile().collect();
        let body = format!("[\"{}\"]", json_escaped(&text));
        assert_eq!(post(&format!("{path}/xhr_send"), &body).status(), 204);
        // Literally: the same escapes come back.
        assert_eq!(post(&format!("{path}/xhr"), "").body, format!("a{body}\n"));
    }

    #[test]
    fn test_xhr_server_decodes() {
        let path = session("echo");
        assert_eq!(post(&format!("{path}/xhr"), "").body, "o\n");
        // What clients escape, which is more than what the server must.
        let many = (0..=0x2F).chain([0x5C, 0xAD]).chain(0x600..=0x604);
        let many = many.chain([0x70F, 0x17B4, 0x17B5]).chain(0x2000..=0x20FF);
        let many = many.chain([0xFEFF]).chain(0xFF00..=0xFFFF);
        let text: String = many.filter_map(char::from_u32).collect();
        let escaped: String = text
            .encode_utf16()
            .map(|unit| format!("\\u{unit:04x}"))
            .collect();
        let body = format!("[\"{escaped}\"]");
        assert_eq!(post(&format!("{path}/xhr_send"), body).status(), 204);
        let frame = post(&format!("{path}/xhr"), "").body;
        let back: Vec<String> = serde_json::from_str(&frame[1..]).unwrap();
        assert_eq!(back, [text]);
    }
}

mod handling_close {
    use super::*;

    #[test]
    fn test_abort_xhr_polling() {
        let path = format!("{}/xhr", session("echo"));
        assert_eq!(post(&path, "").body, "o\n");
        let mut first = Client::connect();
        first.request("POST", &path, &[], b"");
        assert!(first.is_silent());
        let second = post(&path, "").body;
        assert_eq!(second, "c[2010,\"Another connection still open\"]\n");
        drop(first);
        assert_eq!(post(&path, "").body, "o\n");
    }

    #[test]
    fn polls_that_follow_each_other_closely_lose_nothing() {
        let path = session("echo");
        let (mut poller, mut sender) = (Client::connect(), Client::connect());
        assert_eq!(
            poller.ask("POST", &format!("{path}/xhr"), &[], "").body,
            "o\n"
        );
        let sending = std::thread::spawn({
            let path = format!("{path}/xhr_send");
            move || {
                for number in 0..500 {
                    let body = format!("[\"{number}\"]");
                    assert_eq!(sender.ask("POST", &path, &[], body).status(), 204);
                }
            }
        });
        let mut next = 0;
        while next < 500 {
            let frame = poller.ask("POST", &format!("{path}/xhr"), &[], "").body;
            let messages: Vec<String> = serde_json::from_str(&frame[1..]).unwrap();
            for message in messages {
                assert_eq!(message, next.to_string());
                next += 1;
            }
        }
        sending.join().unwrap();
    }
}
