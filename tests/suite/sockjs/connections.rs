//! What HTTP itself promises: versions, kept connections, pipelines, chunks.

use std::time::Duration;

use super::client::{Client, post};
use super::server::session;
use super::streaming::opened_stream;

mod http10 {
    use super::*;

    #[test]
    fn test_synchronous() {
        let mut client = Client::connect();
        client.write("GET /echo HTTP/1.0\r\nconnection: Keep-Alive\r\nhost: x\r\n\r\n");
        let answer = client.answer();
        assert_eq!(answer.body, "Welcome to SockJS!\n");
        assert_eq!(answer.header("transfer-encoding"), None);
        assert_eq!(answer.header("content-length"), Some("19"));
        if answer.header("connection") == Some("keep-alive") {
            client.write("GET /echo HTTP/1.0\r\n\r\n");
            assert_eq!(client.answer().body, "Welcome to SockJS!\n");
        }
        assert!(client.is_closed_within(Duration::from_secs(3)));
    }

    #[test]
    fn test_streaming() {
        let path = session("close");
        let mut client = Client::connect();
        client.write(format!(
            "POST {path}/xhr_streaming HTTP/1.0\r\nhost: x\r\n\r\n"
        ));
        let head = client.head();
        assert_eq!(head.status, 200);
        assert_eq!(head.header("transfer-encoding"), None);
        assert_eq!(head.header("content-length"), None);
        assert_eq!(client.take(2049).last(), Some(&b'\n'));
        assert_eq!(client.take(2), b"o\n");
        assert_eq!(client.rest(), b"c[3000,\"Go away!\"]\n");
    }

    #[test]
    fn a_poll_over_the_old_version_has_a_length() {
        let mut client = Client::connect();
        let path = session("echo");
        client.write(format!("POST {path}/xhr HTTP/1.0\r\nhost: x\r\n\r\n"));
        let answer = client.answer();
        assert_eq!(answer.header("content-length"), Some("2"));
        assert_eq!(answer.body, "o\n");
        assert!(client.is_closed_within(Duration::from_secs(3)));
    }
}

mod http11 {
    use super::*;

    #[test]
    fn test_synchronous() {
        let mut client = Client::connect();
        for _ in 0..3 {
            let answer = client.ask("GET", "/echo", &[], "");
            assert_eq!(answer.head.version, "HTTP/1.1");
            assert_eq!(answer.header("content-length"), Some("19"));
            assert_eq!(answer.body, "Welcome to SockJS!\n");
        }
    }

    #[test]
    fn test_streaming() {
        let path = session("close");
        let mut client = Client::connect();
        let head = client.open("POST", &format!("{path}/xhr_streaming"));
        assert_eq!(head.header("transfer-encoding"), Some("chunked"));
        assert_eq!(head.header("content-length"), None);
        assert_eq!(client.chunk().unwrap(), format!("{}\n", "h".repeat(2048)));
        assert_eq!(client.chunk().unwrap(), "o\n");
        assert_eq!(client.chunk().unwrap(), "c[3000,\"Go away!\"]\n");
        assert_eq!(client.chunk(), None);
        // The final chunk ends the response, not the connection.
        assert_eq!(client.ask("GET", "/echo", &[], "").status(), 200);
    }

    #[test]
    fn every_kind_of_answer_keeps_the_connection() {
        let path = session("echo");
        let mut client = Client::connect();
        for (method, path, status) in [
            ("POST", format!("{path}/xhr"), 200),
            ("POST", format!("{path}/xhr_send"), 500),
            ("OPTIONS", format!("{path}/xhr"), 204),
            ("GET", format!("{path}/nothing"), 404),
            ("GET", format!("{path}/xhr"), 405),
            ("GET", format!("{path}/jsonp"), 500),
            ("GET", format!("{path}/websocket"), 400),
            ("GET", "/echo".to_owned(), 200),
        ] {
            assert_eq!(
                client.ask(method, &path, &[], "").status(),
                status,
                "{path}"
            );
        }
    }
}

mod http_quirks {
    use super::*;

    #[test]
    #[expect(non_snake_case, reason = "the suite's own name")]
    fn test_emptyContentLengthForPost() {
        let path = session("echo");
        let mut client = Client::connect();
        client.write(format!("POST {path}/xhr HTTP/1.1\r\nhost: x\r\n\r\n"));
        assert_eq!(client.answer().body, "o\n");
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let path = session("echo");
    let mut client = Client::connect();
    let poll = format!("POST {path}/xhr HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n");
    let send = |text: &str| {
        format!("POST {path}/xhr_send HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\n[\"{text}\"]")
    };
    client.write(
        [
            poll.clone(),
            send("a"),
            poll.clone(),
            send("b"),
            send("c"),
            poll,
        ]
        .concat(),
    );
    assert_eq!(client.answer().body, "o\n");
    assert_eq!(client.answer().status(), 204);
    assert_eq!(client.answer().body, "a[\"a\"]\n");
    assert_eq!(client.answer().status(), 204);
    assert_eq!(client.answer().status(), 204);
    assert_eq!(client.answer().body, "a[\"b\",\"c\"]\n");
}

#[test]
fn a_request_behind_a_stream_waits_for_its_end() {
    let path = session("echo");
    let mut client = opened_stream(&path);
    client.request("GET", "/echo", &[], b"");
    assert!(client.is_silent());
    let body = format!("[\"{}\"]", "x".repeat(5000));
    assert_eq!(post(&format!("{path}/xhr_send"), body).status(), 204);
    assert_eq!(client.chunk().unwrap().len(), 5006);
    assert_eq!(client.chunk(), None);
    assert_eq!(client.answer().body, "Welcome to SockJS!\n");
}

#[test]
fn all_that_was_sent_ahead_during_a_stream_is_heard_after_the_next_one_too() {
    let (path, next) = (session("echo"), session("close"));
    let mut client = opened_stream(&path);
    // More than is read at once when the connection goes on.
    let late = format!("[\"{}\"]", "y".repeat(12_000));
    let length = late.len();
    let ahead = format!(
        "POST {next}/xhr_streaming HTTP/1.1\r\nhost: x\r\n\r\n\
         POST {path}/xhr_send HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{late}"
    );
    client.write(ahead);
    assert!(client.is_silent());
    let body = format!("[\"{}\"]", "x".repeat(5000));
    assert_eq!(post(&format!("{path}/xhr_send"), body).status(), 204);
    assert_eq!(client.chunk().unwrap().len(), 5006);
    assert_eq!(client.chunk(), None);
    assert_eq!(client.head().status, 200);
    while client.chunk().is_some() {}
    assert_eq!(client.answer().status(), 204);
    let frame = client.ask("POST", &format!("{path}/xhr"), &[], "").body;
    assert_eq!(frame, format!("a{late}\n"));
}

#[test]
fn a_stream_behind_other_requests_comes_after_their_answers() {
    let path = session("close");
    let mut client = Client::connect();
    let get = "GET /echo HTTP/1.1\r\nhost: x\r\n\r\n";
    let stream = format!("POST {path}/xhr_streaming HTTP/1.1\r\nhost: x\r\n\r\n");
    client.write([get, &stream, get, &stream, get].concat());
    assert_eq!(client.answer().body, "Welcome to SockJS!\n");
    for first in ["o\n", "c[3000,\"Go away!\"]\n"] {
        assert_eq!(client.head().status, 200);
        assert_eq!(client.chunk().unwrap().len(), 2049);
        assert_eq!(client.chunk().unwrap(), first);
        while client.chunk().is_some() {}
        assert_eq!(client.answer().body, "Welcome to SockJS!\n");
    }
}

#[test]
fn a_stream_ends_its_connection_if_that_was_asked_for_and_may_have_a_body() {
    for (header, body, closes) in [
        ("connection: Close\r\n", "", true),
        ("content-length: 2\r\n", "{}", false),
        ("connection: keep-alive\r\n", "", false),
    ] {
        let path = session("close");
        let mut client = Client::connect();
        client.write(format!(
            "POST {path}/xhr_streaming HTTP/1.1\r\nhost: x\r\n{header}\r\n{body}"
        ));
        assert_eq!(client.head().status, 200);
        let mut frames = Vec::new();
        frames.extend(std::iter::from_fn(|| client.chunk()).skip(1));
        assert_eq!(frames, ["o\n", "c[3000,\"Go away!\"]\n"], "{header}");
        if closes {
            assert!(client.is_closed_within(Duration::from_secs(3)));
        } else {
            assert_eq!(client.ask("GET", "/echo", &[], "").status(), 200);
        }
    }
}

#[test]
fn head_and_odd_methods_get_a_plain_405() {
    for method in ["PUT", "DELETE", "PATCH", "BREW"] {
        let answer = Client::connect().ask(method, "/echo", &[], "");
        assert_eq!((answer.status(), answer.body.as_str()), (405, ""));
        assert_eq!(answer.header("allow"), Some("GET"));
    }
}
