//! Framed and raw WebSockets over a hand-made handshake and hand-masked frames.

use std::net::SocketAddr;
use std::time::Duration;

use super::client::{Answer, Client, get, get_with, post, post_with};
use super::server::{session, shared};

const HANDSHAKE: [(&str, &str); 4] = [
    ("upgrade", "websocket"),
    ("connection", "Upgrade"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "x3JJHMbDL1EzLkh9GBhXDw=="),
];

/// The path of a framed socket of a service.
pub(super) fn framed(service: &str) -> String {
    format!("{}/websocket", session(service))
}

/// A WebSocket's client side.
pub(super) struct Socket(Client);

impl Socket {
    pub(super) fn open(path: &str) -> Self {
        Self::open_at(shared().address, path)
    }

    pub(super) fn open_at(address: SocketAddr, path: &str) -> Self {
        let mut client = Client::to(address);
        client.request("GET", path, &HANDSHAKE, b"");
        assert_eq!(client.head().status, 101, "{path}");
        Self(client)
    }

    /// Whether a handshake is answered with this status instead of 101.
    pub(super) fn refused(address: SocketAddr, path: &str, status: u16) -> bool {
        let mut client = Client::to(address);
        client.request("GET", path, &HANDSHAKE, b"");
        client.head().status == status
    }

    /// Sends a text message.
    pub(super) fn send(&mut self, text: &str) {
        self.send_frame(0x81, text.as_bytes());
    }

    fn send_frame(&mut self, first: u8, payload: &[u8]) {
        const MASK: [u8; 4] = [1, 2, 3, 4];
        let mut frame = vec![first];
        match payload.len() {
            length @ 0..=125 => frame.push(0x80 | u8::try_from(length).unwrap()),
            length @ 126..=65_535 => {
                frame.push(0x80 | 126);
                frame.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
            length => {
                frame.push(0x80 | 127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        frame.extend(MASK);
        let masked = payload.iter().zip(MASK.iter().cycle());
        frame.extend(masked.map(|(byte, mask)| byte ^ mask));
        self.0.write(frame);
    }

    /// The next frame: its first byte and payload.
    fn frame(&mut self) -> (u8, Vec<u8>) {
        let head = self.0.take(2);
        let length = match head[1] {
            126 => self
                .0
                .take(2)
                .iter()
                .fold(0, |n, byte| n << 8 | usize::from(*byte)),
            127 => self
                .0
                .take(8)
                .iter()
                .fold(0, |n, byte| n << 8 | usize::from(*byte)),
            short => usize::from(short),
        };
        (head[0], self.0.take(length))
    }

    /// The next frame, which must be a text message.
    pub(super) fn text(&mut self) -> String {
        let (first, payload) = self.frame();
        assert_eq!(first, 0x81, "{payload:?}");
        String::from_utf8(payload).unwrap()
    }

    /// Code and reason of the next frame, which must be a close; it is answered.
    fn close(&mut self) -> (u16, String) {
        let (first, payload) = self.frame();
        assert_eq!(first, 0x88, "{payload:?}");
        self.send_frame(0x88, &payload);
        let code = u16::from_be_bytes([payload[0], payload[1]]);
        (code, String::from_utf8(payload[2..].to_vec()).unwrap())
    }

    /// Whether a close frame comes, and the end of the connection once it is answered.
    pub(super) fn is_closed(&mut self) -> bool {
        self.close();
        self.0.is_closed_within(Duration::from_secs(5))
    }
}

fn upgrade(path: &str, headers: &[(&str, &str)]) -> Answer {
    get_with(path, headers)
}

mod websocket_http_errors {
    use super::*;

    #[test]
    #[expect(non_snake_case, reason = "the suite's own name")]
    fn test_httpMethod() {
        for path in [framed("echo"), "/echo/websocket".to_owned()] {
            let answer = get(&path);
            assert_eq!(answer.status(), 400);
            assert!(
                answer
                    .body
                    .contains("Can \"Upgrade\" only to \"WebSocket\".")
            );
        }
    }

    #[test]
    #[expect(non_snake_case, reason = "the suite's own name")]
    fn test_invalidConnectionHeader() {
        let headers = [("upgrade", "WebSocket"), ("connection", "close")];
        let answer = upgrade(&framed("echo"), &headers);
        assert_eq!(answer.status(), 400);
        assert!(answer.body.contains("\"Connection\" must be \"Upgrade\"."));
    }

    #[test]
    #[expect(non_snake_case, reason = "the suite's own name")]
    fn test_invalidMethod() {
        for headers in [&HANDSHAKE[..], &[]] {
            let answer = post_with(&framed("echo"), headers, "");
            assert_eq!(answer.status(), 405);
            assert_eq!(answer.header("allow"), Some("GET"));
            assert_eq!(answer.header("content-type"), None);
            assert_eq!(answer.body, "");
        }
    }

    #[test]
    fn a_transport_that_is_off_is_not_found() {
        let path = framed("disabled_websocket_echo");
        for path in [path.as_str(), "/disabled_websocket_echo/websocket"] {
            assert_eq!(upgrade(path, &HANDSHAKE).status(), 404);
        }
    }
}

mod framed_websocket {
    use super::*;

    #[test]
    fn test_transport() {
        let mut socket = Socket::open(&framed("echo"));
        assert_eq!(socket.text(), "o");
        socket.send("[\"a\"]");
        assert_eq!(socket.text(), "a[\"a\"]");
        socket.send("\"b\"");
        assert_eq!(socket.text(), "a[\"b\"]");
    }

    #[test]
    fn test_close() {
        let mut socket = Socket::open(&framed("close"));
        assert_eq!(socket.text(), "o");
        assert_eq!(socket.text(), "c[3000,\"Go away!\"]");
        assert!(socket.is_closed());
    }

    #[test]
    fn test_empty_frame() {
        let mut socket = Socket::open(&framed("echo"));
        assert_eq!(socket.text(), "o");
        socket.send("");
        socket.send("[]");
        socket.send("[\"a\"]");
        assert_eq!(socket.text(), "a[\"a\"]");
    }

    #[test]
    #[expect(non_snake_case, reason = "the suite's own name")]
    fn test_reuseSessionId() {
        let path = framed("echo");
        let (mut one, mut two) = (Socket::open(&path), Socket::open(&path));
        assert_eq!((one.text(), two.text()), ("o".into(), "o".into()));
        one.send("[\"a\"]");
        assert_eq!(one.text(), "a[\"a\"]");
        two.send("[\"b\"]");
        assert_eq!(two.text(), "a[\"b\"]");
        drop((one, two));
        let mut third = Socket::open(&path);
        assert_eq!(third.text(), "o");
        // Sockets are in no table.
        let send = path.replace("/websocket", "/xhr_send");
        assert_eq!(post(&send, "[\"a\"]").status(), 404);
    }

    #[test]
    fn test_broken_json() {
        for broken in ["[\"a", "{}", "[1]", "\"a", "x"] {
            let mut socket = Socket::open(&framed("echo"));
            assert_eq!(socket.text(), "o");
            socket.send(broken);
            // A close frame and no message.
            assert_eq!(socket.close().0, 3000, "{broken}");
            assert!(socket.0.is_closed_within(Duration::from_secs(5)));
        }
    }

    #[test]
    #[expect(non_snake_case, reason = "the suite's own name")]
    fn test_headersSanity() {
        for version in ["13", "8", "7"] {
            let mut headers = HANDSHAKE;
            headers[2].1 = version;
            let mut client = Client::connect();
            client.request("GET", &framed("echo"), &headers, b"");
            let head = client.head();
            assert_eq!(head.status, 101);
            let accept = head.header("sec-websocket-accept");
            assert_eq!(accept, Some("HSmrc0sMlYUkAGmm5OPpG2HaGWk="));
            assert_eq!(head.header("content-length"), None);
            assert_eq!(head.header("set-cookie"), None);
            assert_eq!(head.header("sec-websocket-protocol"), None);
        }
    }

    #[test]
    fn a_connection_header_may_list_more() {
        let mut headers = HANDSHAKE;
        headers[1].1 = "keep-alive, Upgrade";
        let mut client = Client::connect();
        client.request("GET", &framed("echo"), &headers, b"");
        assert_eq!(client.head().status, 101);
    }

    #[test]
    fn what_was_queued_before_the_close_goes_first() {
        let mut socket = Socket::open(&framed("farewell"));
        assert_eq!(socket.text(), "o");
        assert_eq!(socket.text(), "a[\"one\",\"two\"]");
        assert_eq!(socket.text(), "c[3001,\"bye\"]");
        assert!(socket.is_closed());
    }
}

mod raw_websocket {
    use super::*;

    #[test]
    fn test_transport() {
        let mut socket = Socket::open("/echo/websocket");
        let text = "Hello world!\u{ffff}\u{2028}";
        socket.send(text);
        assert_eq!(socket.text(), text);
    }

    #[test]
    fn test_close() {
        let mut socket = Socket::open("/close/websocket");
        assert_eq!(socket.close(), (3000, "Go away!".to_owned()));
        assert!(socket.0.is_closed_within(Duration::from_secs(5)));
    }
}
