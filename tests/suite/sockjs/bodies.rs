//! What clients send: every refusal, every code point there and back on every transport.

use super::client::{Client, get, post, post_with};
use super::server::session;
use super::streaming::opened_stream;
use super::websocket::{Socket, framed};

/// The messages of an `a` frame.
pub(super) fn messages_of(frame: &str) -> Vec<String> {
    serde_json::from_str(frame.strip_prefix('a').unwrap()).unwrap()
}

/// What the server must escape, apart from quotation marks and backslashes.
pub(super) fn fragile() -> impl Iterator<Item = char> {
    let ranges = [
        0..=0x1F,
        0x200C..=0x200F,
        0x2028..=0x202F,
        0x2060..=0x206F,
        0xFFF0..=0xFFFF,
    ];
    ranges.into_iter().flatten().filter_map(char::from_u32)
}

/// The text with exactly the server's escapes.
pub(super) fn json_escaped(text: &str) -> String {
    let escape = |c: char| match c {
        '\u{8}' => "\\b".to_owned(),
        '\t' => "\\t".to_owned(),
        '\n' => "\\n".to_owned(),
        '\u{c}' => "\\f".to_owned(),
        '\r' => "\\r".to_owned(),
        other => format!("\\u{:04x}", u32::from(other)),
    };
    text.chars().map(escape).collect()
}

#[test]
fn every_refused_body_is_told_why_and_the_session_goes_on() {
    let path = session("echo");
    assert_eq!(post(&format!("{path}/xhr"), "").body, "o\n");
    let deep = "[".repeat(100_000);
    for (body, text) in [
        (&b""[..], "Payload expected."),
        (b"\"a\"", "Payload expected."),
        (b"{}", "Payload expected."),
        (b"null", "Payload expected."),
        (b"12", "Payload expected."),
        (b"[1]", "must be a string"),
        (b"[\"a\",{\"b\":[]}]", "must be a string"),
        (b"[\"a\"", "Broken JSON encoding."),
        (b"[\"a\",]", "Broken JSON encoding."),
        (b"[\"a\"]]", "Broken JSON encoding."),
        (b"[\"\\ud8\"]", "Broken JSON encoding."),
        (b"\xff\xfe", "Broken JSON encoding."),
        (b"\0", "Broken JSON encoding."),
        (deep.as_bytes(), "Broken JSON encoding."),
    ] {
        for endpoint in ["xhr_send", "jsonp_send"] {
            let answer = post(&format!("{path}/{endpoint}"), body);
            assert_eq!(answer.status(), 500, "{body:?}");
            assert!(answer.body.contains(text), "{body:?}: {}", answer.body);
        }
        // The body is judged before the session is looked for.
        let unknown = post("/echo/000/unknown/xhr_send", body);
        assert_eq!(unknown.status(), 500);
    }
    assert_eq!(
        post(&format!("{path}/xhr_send"), "[\"alive\"]").status(),
        204
    );
    assert_eq!(post(&format!("{path}/xhr"), "").body, "a[\"alive\"]\n");
}

#[test]
fn lone_surrogates_and_bytes_that_are_no_text_are_replaced() {
    let path = session("echo");
    assert_eq!(post(&format!("{path}/xhr"), "").body, "o\n");
    let body = &b"[\"\\ud800\",\"\\udc00x\",\"\\ud83d\\ude00\",\"\xff\"]"[..];
    assert_eq!(post(&format!("{path}/xhr_send"), body).status(), 204);
    let frame = post(&format!("{path}/xhr"), "").body;
    assert_eq!(
        frame,
        "a[\"\\ufffd\",\"\\ufffdx\",\"\u{1F600}\",\"\\ufffd\"]\n"
    );
}

#[test]
fn a_body_over_the_limit_is_refused_at_its_header() {
    let path = session("echo");
    assert_eq!(post(&format!("{path}/xhr"), "").body, "o\n");
    let mut client = Client::connect();
    client.write(format!(
        "POST {path}/xhr_send HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\n\
         content-length: 10000000000\r\n\r\n"
    ));
    let answer = client.answer();
    assert_eq!(answer.status(), 413);
    assert_eq!(answer.header("connection"), Some("close"));
    let chunked = [("transfer-encoding", "chunked")];
    let mut client = Client::connect();
    client.write(format!("POST {path}/xhr_send HTTP/1.1\r\nhost: x\r\n"));
    client.write(format!("{}: {}\r\n\r\n", chunked[0].0, chunked[0].1));
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
    for _ in 0..20 {
        if !client.try_write(chunk.as_bytes()) {
            break;
        }
    }
    assert_eq!(client.answer().status(), 413);
    assert_eq!(
        post(&format!("{path}/xhr_send"), "[\"alive\"]").status(),
        204
    );
}

#[test]
fn chunked_and_expected_bodies_are_read() {
    let path = session("echo");
    assert_eq!(post(&format!("{path}/xhr"), "").body, "o\n");
    let mut client = Client::connect();
    client.write(format!(
        "POST {path}/xhr_send HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n\
         2\r\n[\"\r\n3\r\na\"]\r\n0\r\n\r\n"
    ));
    assert_eq!(client.answer().status(), 204);
    client.write(format!(
        "POST {path}/xhr_send HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\n\
         content-length: 5\r\n\r\n"
    ));
    assert_eq!(client.head().status, 100);
    client.write("[\"b\"]");
    assert_eq!(client.answer().status(), 204);
    assert_eq!(post(&format!("{path}/xhr"), "").body, "a[\"a\",\"b\"]\n");
}

/// Every character of the basic plane, in sixteen messages.
fn plane() -> Vec<String> {
    let characters: Vec<char> = (0..=0xFFFF).filter_map(char::from_u32).collect();
    characters
        .chunks(4096)
        .map(|some| some.iter().collect())
        .collect()
}

fn escaped_body(text: &str) -> String {
    let units = text.encode_utf16();
    let escaped: String = units.map(|unit| format!("\\u{unit:04x}")).collect();
    format!("[\"{escaped}\"]")
}

/// The next frame of a stream, on a new response if the old one has reached its limit.
fn next_frame(client: &mut Client, method: &str, path: &str) -> String {
    client.chunk().unwrap_or_else(|| {
        client.open(method, path);
        client.chunk().unwrap();
        client.chunk().unwrap()
    })
}

#[test]
fn every_character_there_and_back_by_xhr() {
    let path = session("echo");
    let mut client = Client::connect();
    assert_eq!(
        client.ask("POST", &format!("{path}/xhr"), &[], "").body,
        "o\n"
    );
    for text in plane() {
        for body in [
            escaped_body(&text),
            serde_json::to_string(&[&text]).unwrap(),
        ] {
            let send = format!("{path}/xhr_send");
            assert_eq!(client.ask("POST", &send, &[], body).status(), 204);
            let frame = client.ask("POST", &format!("{path}/xhr"), &[], "").body;
            assert_eq!(messages_of(&frame), [text.as_str()]);
        }
    }
}

#[test]
fn every_character_there_and_back_by_xhr_streaming() {
    let path = session("broadcast");
    let mut client = opened_stream(&path);
    for text in plane() {
        let body = escaped_body(&text);
        assert_eq!(post(&format!("{path}/xhr_send"), body).status(), 204);
        let frame = next_frame(&mut client, "POST", &format!("{path}/xhr_streaming"));
        assert_eq!(messages_of(&frame), [text.as_str()]);
    }
}

#[test]
fn every_character_there_and_back_by_eventsource() {
    let path = session("broadcast");
    let mut client = Client::connect();
    let source = format!("{path}/eventsource");
    client.open("GET", &source);
    assert_eq!(
        (client.chunk().unwrap().len(), client.chunk().unwrap().len()),
        (2, 11)
    );
    for text in plane() {
        let body = escaped_body(&text);
        assert_eq!(post(&format!("{path}/xhr_send"), body).status(), 204);
        let event = next_frame(&mut client, "GET", &source);
        let data = event
            .strip_prefix("data: ")
            .unwrap()
            .strip_suffix("\r\n\r\n")
            .unwrap();
        assert!(!data.contains(['\r', '\n', '\0']));
        assert_eq!(messages_of(&data.replace("%25", "%")), [text.as_str()]);
    }
}

#[test]
fn every_character_there_and_back_by_htmlfile() {
    let path = session("broadcast");
    let mut client = Client::connect();
    let page = format!("{path}/htmlfile?c=x");
    client.open("GET", &page);
    assert!(client.chunk().is_some() && client.chunk().is_some());
    for text in plane() {
        let body = escaped_body(&text);
        assert_eq!(post(&format!("{path}/xhr_send"), body).status(), 204);
        let script = next_frame(&mut client, "GET", &page);
        let literal = script.strip_prefix("<script>\np(").unwrap();
        let literal = literal.strip_suffix(");\n</script>\r\n").unwrap();
        let frame: String = serde_json::from_str(literal).unwrap();
        assert_eq!(messages_of(&frame), [text.as_str()]);
    }
}

#[test]
fn every_character_there_and_back_by_jsonp() {
    let path = session("echo");
    let form = [("content-type", "application/x-www-form-urlencoded")];
    assert_eq!(get(&format!("{path}/jsonp?c=x")).body, "/**/x(\"o\");\r\n");
    for text in plane() {
        let body = serde_json::to_string(&[&text]).unwrap();
        let encoded: String = body.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let answer = post_with(&format!("{path}/jsonp_send"), &form, format!("d={encoded}"));
        assert_eq!(answer.body, "ok");
        let script = get(&format!("{path}/jsonp?c=x")).body;
        let literal = script
            .strip_prefix("/**/x(")
            .unwrap()
            .strip_suffix(");\r\n")
            .unwrap();
        let frame: String = serde_json::from_str(literal).unwrap();
        assert_eq!(messages_of(&frame), [text.as_str()]);
    }
}

#[test]
fn every_character_there_and_back_by_websocket() {
    let mut socket = Socket::open(&framed("echo"));
    assert_eq!(socket.text(), "o");
    for text in plane() {
        socket.send(&escaped_body(&text));
        assert_eq!(messages_of(&socket.text()), [text.as_str()]);
    }
    let mut socket = Socket::open("/echo/websocket");
    for text in plane() {
        socket.send(&text);
        assert_eq!(socket.text(), text);
    }
}
