//! htmlfile and jsonp: frames as scripts that call back.

use super::client::{Client, assert_no_cache, get, post, post_with};
use super::server::session;

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

/// What a callback must never be.
const HOSTILE: [&str; 8] = [
    "%20",
    "*",
    "abc(",
    "abc%28",
    "%3Cscript%3E",
    "a;b",
    "%00",
    "a%0d%0ab",
];

fn assert_refuses_callbacks(endpoint: &str) {
    let path = session("echo");
    for query in ["", "?c=", "?callback=", "?t=1"] {
        let answer = get(&format!("{path}/{endpoint}{query}"));
        assert_eq!(answer.status(), 500);
        assert!(answer.body.contains("\"callback\" parameter required"));
    }
    for bad in HOSTILE {
        let answer = get(&format!("{path}/{endpoint}?c={bad}"));
        assert_eq!(answer.status(), 500, "{bad}");
        assert!(answer.body.contains("invalid \"callback\" parameter"));
        assert_eq!(
            answer.header("content-type"),
            Some("text/plain; charset=UTF-8")
        );
        assert_no_cache(&answer.head);
    }
    // None of them has opened a session.
    assert_eq!(post(&format!("{path}/xhr_send"), "[\"a\"]").status(), 404);
}

mod html_file {
    use super::*;

    const PAGE: &str = "<!doctype html>\n<html><head>\n  \
        <meta http-equiv=\"X-UA-Compatible\" content=\"IE=edge\" />\n  \
        <meta http-equiv=\"Content-Type\" content=\"text/html; charset=UTF-8\" />\n\
        </head><body><h2>Don't panic!</h2>\n  <script>\n    \
        document.domain = document.domain;\n    var c = parent.callback;\n    c.start();\n    \
        function p(d) {c.message(d);};\n    window.onload = function() {c.stop();};\n  </script>";

    fn opened(path: &str) -> Client {
        let mut client = Client::connect();
        let head = client.open("GET", &format!("{path}/htmlfile?c=%63allback"));
        assert_eq!(head.status, 200);
        assert_eq!(
            head.header("content-type"),
            Some("text/html; charset=UTF-8")
        );
        assert_no_cache(&head);
        let page = client.chunk().unwrap();
        assert_eq!(page.trim(), PAGE);
        assert!(page.len() > 1024);
        assert_eq!(
            client.chunk().unwrap(),
            "<script>\np(\"o\");\n</script>\r\n"
        );
        client
    }

    #[test]
    fn test_transport() {
        let path = session("echo");
        let mut client = opened(&path);
        assert_eq!(post(&format!("{path}/xhr_send"), "[\"x\"]").status(), 204);
        let script = "<script>\np(\"a[\\\"x\\\"]\");\n</script>\r\n";
        assert_eq!(client.chunk().unwrap(), script);
    }

    #[test]
    fn test_no_callback() {
        assert_refuses_callbacks("htmlfile");
    }

    #[test]
    fn test_invalid_callback() {
        assert_refuses_callbacks("htmlfile");
    }

    #[test]
    fn test_response_limit() {
        let path = session("echo");
        let mut client = opened(&path);
        let message = "x".repeat(4096);
        let body = format!("[\"{message}\"]");
        assert_eq!(post(&format!("{path}/xhr_send"), body).status(), 204);
        let script = format!("<script>\np(\"a[\\\"{message}\\\"]\");\n</script>\r\n");
        assert_eq!(client.chunk().unwrap(), script);
        assert_eq!(client.chunk(), None);
    }

    #[test]
    fn a_message_cannot_end_its_script_block() {
        let path = session("echo");
        let mut client = opened(&path);
        let body = "[\"</script><img src=x onerror=alert(1)>\"]";
        assert_eq!(post(&format!("{path}/xhr_send"), body).status(), 204);
        let script = client.chunk().unwrap();
        assert_eq!(script.matches("</script>").count(), 1);
        assert!(script.ends_with("\n</script>\r\n"));
    }
}

mod json_polling {
    use super::*;

    #[test]
    fn test_transport() {
        let path = session("echo");
        let answer = get(&format!("{path}/jsonp?c=%63allback"));
        assert_eq!(answer.status(), 200);
        let kind = answer.header("content-type");
        assert_eq!(kind, Some("application/javascript; charset=UTF-8"));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_no_cache(&answer.head);
        assert_eq!(answer.body, "/**/callback(\"o\");\r\n");

        let answer = post_with(&format!("{path}/jsonp_send"), &[FORM], "d=%5B%22x%22%5D");
        assert_eq!((answer.status(), answer.body.as_str()), (200, "ok"));
        assert_eq!(
            answer.header("content-type"),
            Some("text/plain; charset=UTF-8")
        );
        assert_no_cache(&answer.head);
        let answer = get(&format!("{path}/jsonp?c=%63allback"));
        assert_eq!(answer.body, "/**/callback(\"a[\\\"x\\\"]\");\r\n");
    }

    #[test]
    fn test_no_callback() {
        assert_refuses_callbacks("jsonp");
    }

    #[test]
    fn test_invalid_callback() {
        assert_refuses_callbacks("jsonp");
    }

    #[test]
    fn test_invalid_json() {
        let path = session("echo");
        let send = format!("{path}/jsonp_send");
        assert_eq!(get(&format!("{path}/jsonp?c=x")).body, "/**/x(\"o\");\r\n");
        let answer = post_with(&send, &[FORM], "d=%5B%22x");
        assert_eq!(answer.status(), 500);
        assert!(answer.body.contains("Broken JSON encoding."));
        for empty in ["", "d=", "p=p"] {
            let answer = post_with(&send, &[FORM], empty);
            assert_eq!(answer.status(), 500, "{empty}");
            assert!(answer.body.contains("Payload expected."));
        }
        assert_eq!(post_with(&send, &[FORM], "d=%5B%22b%22%5D").body, "ok");
        let answer = get(&format!("{path}/jsonp?c=x"));
        assert_eq!(answer.body, "/**/x(\"a[\\\"b\\\"]\");\r\n");
    }

    #[test]
    fn test_content_types() {
        let path = session("echo");
        let send = format!("{path}/jsonp_send");
        assert_eq!(get(&format!("{path}/jsonp?c=x")).body, "/**/x(\"o\");\r\n");
        let body = "d=%5B%22abc%22%5D";
        assert_eq!(post_with(&send, &[FORM], body).body, "ok");
        let plain = [("content-type", "text/plain")];
        assert_eq!(post_with(&send, &plain, "[\"%61bc\"]").body, "ok");
        let answer = get(&format!("{path}/jsonp?c=x"));
        assert_eq!(answer.body, "/**/x(\"a[\\\"abc\\\",\\\"%61bc\\\"]\");\r\n");
    }

    #[test]
    fn test_close() {
        let path = format!("{}/jsonp?c=x", session("close"));
        assert_eq!(get(&path).body, "/**/x(\"o\");\r\n");
        for _ in 0..2 {
            assert_eq!(get(&path).body, "/**/x(\"c[3000,\\\"Go away!\\\"]\");\r\n");
        }
    }

    #[test]
    fn test_sending_empty_frame() {
        let path = session("echo");
        assert_eq!(get(&format!("{path}/jsonp?c=x")).body, "/**/x(\"o\");\r\n");
        assert_eq!(post(&format!("{path}/jsonp_send"), "[]").body, "ok");
        assert_eq!(post(&format!("{path}/jsonp_send"), "[\"x\"]").body, "ok");
        let answer = get(&format!("{path}/jsonp?c=x"));
        assert_eq!(answer.body, "/**/x(\"a[\\\"x\\\"]\");\r\n");
    }
}
