//! Everything outside of sessions: greeting, iframe page, information, and the paths themselves.

use super::client::{
    Client, assert_cors, assert_no_cache, get, get_with, options, post, post_with,
};
use super::server::session;

mod base_url_greeting {
    use super::*;

    #[test]
    fn test_greeting() {
        for path in ["/echo", "/echo/"] {
            let answer = get(path);
            assert_eq!(answer.status(), 200);
            assert_eq!(
                answer.header("content-type"),
                Some("text/plain; charset=UTF-8")
            );
            assert_eq!(answer.body, "Welcome to SockJS!\n");
            assert_eq!(answer.header("set-cookie"), None);
        }
    }

    #[test]
    #[expect(non_snake_case, reason = "the suite's own name")]
    fn test_notFound() {
        for suffix in ["/a", "/a.html", "//", "///", "/a/a", "/a/a/", "/a/"] {
            assert_eq!(get(&format!("/echo{suffix}")).status(), 404, "{suffix}");
        }
    }

    #[test]
    fn what_is_not_below_a_prefix_is_left_to_others() {
        for path in ["/echos", "/ech", "/", "/a/echo"] {
            assert_eq!(get(path).status(), 404, "{path}");
        }
    }
}

mod iframe_page {
    use super::*;

    fn verify(path: &str) -> String {
        let answer = get(path);
        assert_eq!(answer.status(), 200, "{path}");
        assert_eq!(
            answer.header("content-type"),
            Some("text/html; charset=UTF-8")
        );
        let caching = answer.header("cache-control").unwrap();
        assert!(caching.contains("public") && caching.contains("max-age=31536000"));
        assert!(answer.header("expires").is_some());
        assert_eq!(answer.header("last-modified"), None);
        assert_eq!(answer.header("set-cookie"), None);
        let library = answer
            .body
            .find("<script src=\"iframe.js\"></script>")
            .unwrap();
        let start = answer.body.find("SockJS.bootstrap_iframe();").unwrap();
        assert!(library < start);
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors *"));
        answer.header("etag").unwrap().to_owned()
    }

    #[test]
    #[expect(non_snake_case, reason = "the suite's own name")]
    fn test_simpleUrl() {
        verify("/echo/iframe.html");
    }

    #[test]
    #[expect(non_snake_case, reason = "the suite's own name")]
    fn test_versionedUrl() {
        for name in ["-a", "-", "-0.1.2", "-0.1.2abc-dirty.2144"] {
            verify(&format!("/echo/iframe{name}.html"));
        }
    }

    #[test]
    #[expect(non_snake_case, reason = "the suite's own name")]
    fn test_queriedUrl() {
        for query in ["?t=1234", "?t=234234-a&b=/../"] {
            verify(&format!("/echo/iframe-a.html{query}"));
        }
    }

    #[test]
    #[expect(non_snake_case, reason = "the suite's own name")]
    fn test_invalidUrl() {
        for name in [
            "iframe.htm",
            "iframe",
            "IFRAME.HTML",
            "IFRAME",
            "iframe.HTML",
            "iframe.xml",
            "iframe-/.html",
        ] {
            assert_eq!(get(&format!("/echo/{name}")).status(), 404, "{name}");
        }
    }

    #[test]
    fn its_script_is_served_and_asked_for_again() {
        let script = get("/echo/iframe.js");
        assert_eq!(script.status(), 200);
        let kind = Some("application/javascript; charset=UTF-8");
        assert_eq!(script.header("content-type"), kind);
        assert_eq!(script.header("cache-control"), Some("no-cache"));
        assert!(script.body.contains("bootstrap_iframe"));
        let tag = script.header("etag").unwrap();
        let known = get_with("/echo/iframe.js", &[("if-none-match", tag)]);
        assert_eq!((known.status(), known.body.as_str()), (304, ""));
        assert_eq!(post("/echo/iframe.js", "").status(), 405);
    }

    #[test]
    fn test_cacheability() {
        let etag = verify("/echo/iframe-a.html");
        assert_eq!(etag, verify("/echo/iframe-b.html"));
        let known = get_with("/echo/iframe-a.html", &[("if-none-match", &etag)]);
        assert_eq!(known.status(), 304);
        assert_eq!(known.header("content-type"), None);
        assert_eq!(known.body, "");
        let other = get_with("/echo/iframe-a.html", &[("if-none-match", "\"x\"")]);
        assert_eq!(other.status(), 200);
    }
}

mod info_test {
    use super::*;

    fn info(path: &str) -> serde_json::Value {
        serde_json::from_str(&get(path).body).unwrap()
    }

    #[test]
    fn test_basic() {
        let answer = get_with("/echo/info", &[("origin", "http://a.example")]);
        assert_eq!(answer.status(), 200);
        let kind = answer.header("content-type");
        assert_eq!(kind, Some("application/json; charset=UTF-8"));
        assert_no_cache(&answer.head);
        assert_cors(&answer.head, Some("http://a.example"));
        assert_eq!(answer.header("set-cookie"), None);
        let value = info("/echo/info");
        assert_eq!(value["websocket"], true);
        assert_eq!(value["cookie_needed"], false);
        assert_eq!(value["origins"], serde_json::json!(["*:*"]));
        assert!(value["entropy"].is_u64());
    }

    #[test]
    fn test_entropy() {
        let (one, two) = (info("/echo/info"), info("/echo/info"));
        assert_ne!(one["entropy"], two["entropy"]);
    }

    #[test]
    fn test_options() {
        for origin in ["http://a.example", "null"] {
            let answer = options("/echo/info", &[("origin", origin)]);
            assert_eq!((answer.status(), answer.body.as_str()), (204, ""));
            assert_cors(&answer.head, Some(origin));
            let methods = answer.header("access-control-allow-methods");
            assert_eq!(methods, Some("OPTIONS, GET"));
            let age = answer.header("access-control-max-age").unwrap();
            assert!(age.parse::<u64>().unwrap() > 1_000_000);
            assert!(answer.header("cache-control").unwrap().contains("public"));
            assert!(answer.header("expires").is_some());
        }
    }

    #[test]
    fn test_options_null_origin() {
        let answer = options("/echo/info", &[("origin", "null")]);
        assert_eq!(answer.header("access-control-allow-origin"), Some("null"));
    }

    #[test]
    fn test_disabled_websocket() {
        assert_eq!(info("/disabled_websocket_echo/info")["websocket"], false);
    }
}

mod session_urls {
    use super::*;

    #[test]
    #[expect(non_snake_case, reason = "the suite's own name")]
    fn test_anyValue() {
        for part in ["/a/a", "/_/_", "/1/1", "/abcdefgh_i-j%20/abcdefg_i-j%20"] {
            let fresh = session("x").replace("/x/000/", "");
            let answer = post(&format!("/echo{part}{fresh}/xhr"), "");
            assert_eq!(
                (answer.status(), answer.body.as_str()),
                (200, "o\n"),
                "{part}"
            );
        }
    }

    #[test]
    #[expect(non_snake_case, reason = "the suite's own name")]
    fn test_invalidPaths() {
        for suffix in ["//", "/a./a", "/a/a.", "/./.", "/", "///"] {
            let path = format!("/echo{suffix}/xhr");
            assert_eq!(get(&path).status(), 404, "{path}");
            assert_eq!(post(&path, "").status(), 404, "{path}");
        }
    }

    #[test]
    #[expect(non_snake_case, reason = "the suite's own name")]
    fn test_ignoringServerId() {
        let path = session("echo");
        assert_eq!(post(&format!("{path}/xhr"), "").body, "o\n");
        let other = path.replace("/000/", "/999/");
        assert_eq!(post(&format!("{other}/xhr_send"), "[\"a\"]").status(), 204);
        assert_eq!(post(&format!("{path}/xhr"), "").body, "a[\"a\"]\n");
    }

    #[test]
    fn an_id_of_ten_kilobytes_is_not_found_and_an_encoded_dot_harms_nobody() {
        let long = format!("/echo/000/{}/xhr", "a".repeat(10_000));
        assert_eq!(post(&long, "").status(), 404);
        let dotted = format!("{}%2e/xhr", session("echo"));
        assert_eq!(post(&dotted, "").body, "o\n");
        assert_eq!(post("/echo//s/xhr", "").status(), 404);
    }

    #[test]
    fn ids_belong_to_their_mount() {
        let path = session("echo");
        assert_eq!(post(&format!("{path}/xhr"), "").body, "o\n");
        let other = path.replace("/echo/", "/cookie_needed_echo/");
        assert_eq!(post(&format!("{other}/xhr_send"), "[\"a\"]").status(), 404);
    }

    #[test]
    fn the_wrong_method_is_told_the_right_ones() {
        let path = session("echo");
        for (method, endpoint, allow) in [
            ("GET", "xhr", "OPTIONS, POST"),
            ("PUT", "xhr_send", "OPTIONS, POST"),
            ("POST", "eventsource", "GET"),
            ("POST", "htmlfile", "GET"),
            ("DELETE", "jsonp", "GET"),
            ("GET", "jsonp_send", "POST"),
            ("POST", "websocket", "GET"),
        ] {
            let path = format!("{path}/{endpoint}");
            let answer = Client::connect().ask(method, &path, &[], "");
            assert_eq!(answer.status(), 405, "{method} {endpoint}");
            assert_eq!(answer.header("allow"), Some(allow));
            assert_eq!(answer.header("content-type"), None);
            assert_eq!(answer.body, "");
        }
    }
}

mod jsessionid_cookie {
    use super::*;

    const SERVICE: &str = "cookie_needed_echo";

    fn cookie(path: &str, method: &str, headers: &[(&str, &str)]) -> String {
        let mut client = Client::connect();
        client.request(method, path, headers, b"");
        let head = client.head();
        head.header("set-cookie").unwrap().to_owned()
    }

    #[test]
    fn test_basic() {
        let answer = get(&format!("/{SERVICE}/info"));
        assert!(answer.body.contains("\"cookie_needed\":true"));
        assert_eq!(answer.header("set-cookie"), None);
    }

    #[test]
    fn test_xhr() {
        let path = session(SERVICE);
        let answer = post(&format!("{path}/xhr"), "");
        assert_eq!(
            answer.header("set-cookie"),
            Some("JSESSIONID=dummy; path=/")
        );
        let own = [("cookie", "JSESSIONID=abcdef")];
        for endpoint in ["xhr_send", "xhr"] {
            let answer = post_with(&format!("{path}/{endpoint}"), &own, "[\"x\"]");
            let cookie = answer.header("set-cookie");
            assert_eq!(cookie, Some("JSESSIONID=abcdef; path=/"));
        }
        let answer = options(&format!("{path}/xhr"), &own);
        assert_eq!(
            answer.header("set-cookie"),
            Some("JSESSIONID=abcdef; path=/")
        );
    }

    #[test]
    fn test_xhr_streaming() {
        let path = format!("{}/xhr_streaming", session(SERVICE));
        assert_eq!(cookie(&path, "POST", &[]), "JSESSIONID=dummy; path=/");
    }

    #[test]
    fn test_eventsource() {
        let path = format!("{}/eventsource", session(SERVICE));
        assert_eq!(cookie(&path, "GET", &[]), "JSESSIONID=dummy; path=/");
    }

    #[test]
    fn test_htmlfile() {
        let path = format!("{}/htmlfile?c=%63allback", session(SERVICE));
        assert_eq!(cookie(&path, "GET", &[]), "JSESSIONID=dummy; path=/");
    }

    #[test]
    fn test_jsonp() {
        let path = session(SERVICE);
        let poll = format!("{path}/jsonp?c=callback");
        assert_eq!(cookie(&poll, "GET", &[]), "JSESSIONID=dummy; path=/");
        let own = [("cookie", "a=b; JSESSIONID=abc.n1")];
        let answer = post_with(&format!("{path}/jsonp_send"), &own, "[\"x\"]");
        assert_eq!(
            answer.header("set-cookie"),
            Some("JSESSIONID=abc.n1; path=/")
        );
        assert_eq!(cookie(&poll, "GET", &own), "JSESSIONID=abc.n1; path=/");
    }
}

#[test]
fn no_answer_is_to_be_taken_for_another_type_than_it_says() {
    let path = session("echo");
    let answers = [
        get("/echo"),
        get("/echo/info"),
        get("/echo/iframe.html"),
        get("/echo/iframe.js"),
        get("/echo/nothing"),
        post("/echo/info", ""),
        options("/echo/info", &[]),
        post(&format!("{path}/xhr"), ""),
        post(&format!("{path}/xhr_send"), "[\"a\"]"),
        post(&format!("{path}/xhr_send"), "["),
        get(&format!("{path}/jsonp?c=f")),
        get(&format!("{path}/jsonp")),
        get(&format!("{path}/htmlfile")),
        get("/echo/websocket"),
        get(&format!("{path}/websocket")),
        post("/echo/websocket", ""),
    ];
    for answer in answers {
        let said = answer.header("x-content-type-options");
        assert_eq!(said, Some("nosniff"), "{answer:?}");
    }
    for (method, transport) in [
        ("POST", "xhr_streaming"),
        ("GET", "eventsource"),
        ("GET", "htmlfile?c=f"),
    ] {
        let head = Client::connect().open(method, &format!("{}/{transport}", session("echo")));
        let said = head.header("x-content-type-options");
        assert_eq!(said, Some("nosniff"), "{transport}");
    }
}
