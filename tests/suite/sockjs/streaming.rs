//! xhr_streaming and eventsource: frames as chunks of one response.

use super::bodies::messages_of;
use super::client::{Client, assert_cors, assert_no_cache, options, post};
use super::server::session;

/// A stream that has been opened: prelude and open frame have come as chunks of their own.
pub(super) fn opened_stream(path: &str) -> Client {
    let mut client = Client::connect();
    assert_eq!(
        client.open("POST", &format!("{path}/xhr_streaming")).status,
        200
    );
    assert_eq!(client.chunk().unwrap(), format!("{}\n", "h".repeat(2048)));
    assert_eq!(client.chunk().unwrap(), "o\n");
    client
}

mod xhr_streaming {
    use super::*;

    #[test]
    fn test_options() {
        let path = format!("{}/xhr_streaming", session("echo"));
        let answer = options(&path, &[]);
        assert_eq!(answer.status(), 204);
        assert_cors(&answer.head, None);
        let methods = answer.header("access-control-allow-methods");
        assert_eq!(methods, Some("OPTIONS, POST"));
    }

    #[test]
    fn test_transport() {
        let path = session("echo");
        let mut client = Client::connect();
        let head = client.open("POST", &format!("{path}/xhr_streaming"));
        assert_eq!((head.status, head.version.as_str()), (200, "HTTP/1.1"));
        let kind = head.header("content-type");
        assert_eq!(kind, Some("application/javascript; charset=UTF-8"));
        assert_eq!(head.header("transfer-encoding"), Some("chunked"));
        assert_eq!(head.header("content-length"), None);
        assert_eq!(head.header("x-accel-buffering"), Some("no"));
        assert_cors(&head, None);
        assert_no_cache(&head);
        assert_eq!(client.chunk().unwrap(), format!("{}\n", "h".repeat(2048)));
        assert_eq!(client.chunk().unwrap(), "o\n");
        assert_eq!(post(&format!("{path}/xhr_send"), "[\"x\"]").status(), 204);
        assert_eq!(client.chunk().unwrap(), "a[\"x\"]\n");
    }

    #[test]
    fn test_response_limit() {
        let path = session("echo");
        let mut client = opened_stream(&path);
        let message = format!("\"{}\"", "x".repeat(128));
        for _ in 0..31 {
            let answer = post(&format!("{path}/xhr_send"), format!("[{message}]"));
            assert_eq!(answer.status(), 204);
            assert_eq!(client.chunk().unwrap(), format!("a[{message}]\n"));
        }
        assert_eq!(client.chunk(), None);
        // The session goes on with the next response, on the same connection.
        assert_eq!(post(&format!("{path}/xhr_send"), "[\"y\"]").status(), 204);
        client.open("POST", &format!("{path}/xhr_streaming"));
        client.chunk().unwrap();
        assert_eq!(client.chunk().unwrap(), "a[\"y\"]\n");
    }

    #[test]
    fn what_was_queued_before_the_close_goes_first() {
        let mut client = opened_stream(&session("farewell"));
        assert_eq!(client.chunk().unwrap(), "a[\"one\",\"two\"]\n");
        assert_eq!(client.chunk().unwrap(), "c[3001,\"bye\"]\n");
        assert_eq!(client.chunk(), None);
    }

    #[test]
    fn a_deadline_of_the_application_is_kept_without_a_bell() {
        let mut client = opened_stream(&session("ticker"));
        assert_eq!(client.chunk().unwrap(), "a[\"tick!\"]\n");
        assert_eq!(client.chunk().unwrap(), "a[\"tick!\"]\n");
    }

    #[test]
    fn messages_survive_many_recycled_responses_in_order() {
        let path = session("echo");
        let mut client = opened_stream(&path);
        let sending = std::thread::spawn({
            let path = format!("{path}/xhr_send");
            move || {
                let mut sender = Client::connect();
                for number in 0..400 {
                    let body = format!("[\"{number}{}\"]", " ".repeat(200));
                    assert_eq!(sender.ask("POST", &path, &[], body).status(), 204);
                }
            }
        });
        let mut next = 0;
        let mut responses = 1;
        while next < 400 {
            let Some(chunk) = client.chunk() else {
                client.open("POST", &format!("{path}/xhr_streaming"));
                client.chunk().unwrap();
                responses += 1;
                continue;
            };
            for message in messages_of(chunk.trim_end()) {
                assert_eq!(message.trim(), next.to_string());
                next += 1;
            }
        }
        sending.join().unwrap();
        assert!(responses > 10, "{responses}");
    }

    #[test]
    fn everybody_hears_a_broadcast() {
        let paths: Vec<String> = (0..20).map(|_| session("broadcast")).collect();
        let mut clients: Vec<Client> = paths.iter().map(|path| opened_stream(path)).collect();
        assert_eq!(
            post(&format!("{}/xhr_send", paths[7]), "[\"all\"]").status(),
            204
        );
        for client in &mut clients {
            assert_eq!(client.chunk().unwrap(), "a[\"all\"]\n");
        }
    }

    #[test]
    fn a_large_message_arrives_whole() {
        let path = session("amplify");
        let mut client = opened_stream(&path);
        assert_eq!(post(&format!("{path}/xhr_send"), "[\"18\"]").status(), 204);
        let frame = client.chunk().unwrap();
        assert_eq!(frame.len(), (1 << 18) + "a[\"\"]\n".len());
        assert_eq!(client.chunk(), None);
    }
}

mod event_source {
    use super::*;

    fn opened(path: &str) -> Client {
        let mut client = Client::connect();
        assert_eq!(
            client.open("GET", &format!("{path}/eventsource")).status,
            200
        );
        assert_eq!(client.chunk().unwrap(), "\r\n");
        assert_eq!(client.chunk().unwrap(), "data: o\r\n\r\n");
        client
    }

    #[test]
    fn test_transport() {
        let path = session("echo");
        let mut client = Client::connect();
        let head = client.open("GET", &format!("{path}/eventsource"));
        assert_eq!(head.status, 200);
        assert_eq!(head.header("content-type"), Some("text/event-stream"));
        assert_no_cache(&head);
        assert_eq!(client.chunk().unwrap(), "\r\n");
        assert_eq!(client.chunk().unwrap(), "data: o\r\n\r\n");
        assert_eq!(post(&format!("{path}/xhr_send"), "[\"x\"]").status(), 204);
        assert_eq!(client.chunk().unwrap(), "data: a[\"x\"]\r\n\r\n");
        let escaped = "[\"  \\u0000\\n\\r \"]";
        assert_eq!(post(&format!("{path}/xhr_send"), escaped).status(), 204);
        let event = "data: a[\"  \\u0000\\n\\r \"]\r\n\r\n";
        assert_eq!(client.chunk().unwrap(), event);
    }

    #[test]
    fn test_response_limit() {
        let path = session("echo");
        let mut client = opened(&path);
        let message = format!("[\"{}\"]", "x".repeat(4096));
        assert_eq!(post(&format!("{path}/xhr_send"), &message).status(), 204);
        assert_eq!(client.chunk().unwrap(), format!("data: a{message}\r\n\r\n"));
        assert_eq!(client.chunk(), None);
    }

    #[test]
    fn percent_signs_survive_the_clients_decoding() {
        let path = session("echo");
        let mut client = opened(&path);
        assert_eq!(
            post(&format!("{path}/xhr_send"), "[\"%41 100%\"]").status(),
            204
        );
        assert_eq!(client.chunk().unwrap(), "data: a[\"%2541 100%25\"]\r\n\r\n");
    }
}

mod handling_close {
    use super::*;

    const CLOSE: &str = "c[3000,\"Go away!\"]\n";
    const BUSY: &str = "c[2010,\"Another connection still open\"]\n";

    #[test]
    fn test_close_frame() {
        let path = session("close");
        let mut first = opened_stream(&path);
        assert_eq!(first.chunk().unwrap(), CLOSE);
        assert_eq!(first.chunk(), None);
        let mut second = Client::connect();
        second.open("POST", &format!("{path}/xhr_streaming"));
        second.chunk().unwrap();
        assert_eq!(second.chunk().unwrap(), CLOSE);
        assert_eq!(second.chunk(), None);
    }

    #[test]
    fn test_close_request() {
        let path = session("echo");
        let mut first = opened_stream(&path);
        for _ in 0..3 {
            let mut second = Client::connect();
            assert_eq!(
                second.open("POST", &format!("{path}/xhr_streaming")).status,
                200
            );
            assert_eq!(second.chunk().unwrap().len(), 2049);
            assert_eq!(second.chunk().unwrap(), BUSY);
            assert_eq!(second.chunk(), None);
        }
        assert_eq!(post(&format!("{path}/xhr_send"), "[\"x\"]").status(), 204);
        assert_eq!(first.chunk().unwrap(), "a[\"x\"]\n");
    }

    #[test]
    fn test_abort_xhr_streaming() {
        let path = session("echo");
        let first = opened_stream(&path);
        let mut second = Client::connect();
        second.open("POST", &format!("{path}/xhr_streaming"));
        second.chunk().unwrap();
        assert_eq!(second.chunk().unwrap(), BUSY);
        assert_eq!(second.chunk(), None);
        drop(first);
        // At once, and the news of the drop may come later than the request.
        opened_stream(&path);
    }

    #[test]
    fn a_client_that_drops_a_stream_and_asks_at_once_never_hears_2010() {
        let path = session("echo");
        for _ in 0..50 {
            drop(opened_stream(&path));
        }
    }
}
