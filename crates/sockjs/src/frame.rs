//! SockJS frames, and the wrapping that each HTTP transport puts around one.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use super::close::Close;
use super::codec::{Kind, put_frame};
use super::form::{Form, Slice};
use super::payload::{escape_event, quote, quote_for_script};

/// One unit from server to client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// `o`: the session is open.
    Open,
    /// `h`: the connection is alive.
    Heartbeat,
    /// `c[code,"reason"]`: the session is over.
    Close(Close),
}

impl Frame {
    /// Appends the frame without any wrapping.
    pub fn write(&self, out: &mut BytesMut) {
        match self {
            Frame::Open => out.put_u8(b'o'),
            Frame::Heartbeat => out.put_u8(b'h'),
            Frame::Close(close) => close.write(out),
        }
    }
}

/// Appends `a["x","y"]` around plain messages. Without messages it is `a[]`, which no client minds.
pub fn write_messages<'m>(messages: impl IntoIterator<Item = &'m [u8]>, out: &mut BytesMut) {
    out.put_slice(b"a[");
    for (index, message) in messages.into_iter().enumerate() {
        if index > 0 {
            out.put_u8(b',');
        }
        quote(message, out);
    }
    out.put_u8(b']');
}

/// Appends `a["x","y"]` around a run of [`Form::Piece`] encodings, given part by part.
pub fn write_pieces<'p>(parts: impl IntoIterator<Item = &'p [u8]>, out: &mut BytesMut) {
    out.put_slice(b"a[");
    let start = out.len();
    for part in parts {
        out.put_slice(part);
    }
    if out.len() > start {
        out.truncate(out.len() - 1);
    }
    out.put_u8(b']');
}

/// How a transport wraps its frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Framing {
    /// One frame and LF, then the response ends.
    Xhr,
    /// Frames with LF after a prelude.
    XhrStreaming,
    /// Server-sent events.
    EventSource,
    /// Script blocks; the callback is named in the prelude.
    HtmlFile {
        /// A checked name, see [`callback`].
        callback: Arc<str>,
    },
    /// One script, then the response ends.
    Jsonp {
        /// A checked name, see [`callback`].
        callback: Arc<str>,
    },
    /// Text messages of a WebSocket.
    WebSocket,
}

impl Framing {
    /// Whether a response ends after one frame.
    #[must_use]
    pub const fn is_polling(&self) -> bool {
        matches!(self, Framing::Xhr | Framing::Jsonp { .. })
    }

    /// The form in which an application's slices are asked for.
    #[must_use]
    pub const fn form(&self) -> Form {
        match self {
            Framing::XhrStreaming => Form::Line,
            Framing::EventSource => Form::Event,
            Framing::WebSocket => Form::SockJsFrame,
            Framing::Xhr | Framing::HtmlFile { .. } | Framing::Jsonp { .. } => Form::Piece,
        }
    }

    /// What a response begins with, before any frame; not counted toward its limit. Polls and
    /// sockets have none.
    #[must_use]
    pub fn prelude(&self) -> Option<Bytes> {
        match self {
            Framing::Xhr | Framing::Jsonp { .. } | Framing::WebSocket => None,
            Framing::XhrStreaming => Some(Bytes::from_static(&XHR_STREAMING_PRELUDE)),
            Framing::EventSource => Some(Bytes::from_static(b"\r\n")),
            Framing::HtmlFile { callback } => Some(htmlfile_prelude(callback)),
        }
    }

    /// A protocol frame, wrapped.
    #[must_use]
    pub fn frame(&self, frame: &Frame) -> Bytes {
        let mut bare = BytesMut::new();
        frame.write(&mut bare);
        self.wrap(&bare)
    }

    /// Plain messages of an application, all in one frame.
    #[must_use]
    pub fn messages(&self, messages: &[Bytes]) -> Bytes {
        let mut bare = BytesMut::new();
        write_messages(messages.iter().map(|message| &**message), &mut bare);
        self.wrap(&bare)
    }

    /// A slice in [`Form::Piece`], all in one frame.
    #[must_use]
    pub fn pieces(&self, slice: &Slice) -> Bytes {
        let mut bare = BytesMut::with_capacity(slice.len + 2);
        write_pieces(slice.parts.iter().map(|part| &**part), &mut bare);
        self.wrap(&bare)
    }

    /// Wraps a bare frame such as `o` or `a["x"]`.
    #[must_use]
    pub fn wrap(&self, frame: &[u8]) -> Bytes {
        let mut out = BytesMut::with_capacity(frame.len() + frame.len() / 8 + 40);
        match self {
            Framing::Xhr | Framing::XhrStreaming => {
                out.put_slice(frame);
                out.put_u8(b'\n');
            }
            Framing::EventSource => {
                out.put_slice(b"data: ");
                escape_event(frame, &mut out);
                out.put_slice(b"\r\n\r\n");
            }
            Framing::HtmlFile { .. } => {
                out.put_slice(b"<script>\np(");
                quote_for_script(frame, &mut out);
                out.put_slice(b");\n</script>\r\n");
            }
            Framing::Jsonp { callback } => {
                // The comment guards against content smuggled in the callback's name.
                out.put_slice(b"/**/");
                out.put_slice(callback.as_bytes());
                out.put_u8(b'(');
                quote(frame, &mut out);
                out.put_slice(b");\r\n");
            }
            Framing::WebSocket => put_frame(&mut out, Kind::Text, frame),
        }
        out.freeze()
    }
}

/// The client takes 2048 `h` and LF for one heartbeat; it is long because old browsers hand nothing
/// to a page before 2 KiB have come.
static XHR_STREAMING_PRELUDE: [u8; 2049] = {
    let mut prelude = [b'h'; 2049];
    prelude[2048] = b'\n';
    prelude
};

fn htmlfile_prelude(callback: &str) -> Bytes {
    /// Browsers render nothing before 1 KiB.
    const LENGTH_MIN: usize = 1024;
    let mut page = String::with_capacity(LENGTH_MIN + 8);
    page.push_str(
        "<!doctype html>\n<html><head>\n  \
         <meta http-equiv=\"X-UA-Compatible\" content=\"IE=edge\" />\n  \
         <meta http-equiv=\"Content-Type\" content=\"text/html; charset=UTF-8\" />\n\
         </head><body><h2>Don't panic!</h2>\n  <script>\n    \
         document.domain = document.domain;\n    var c = parent.",
    );
    page.push_str(callback);
    page.push_str(
        ";\n    c.start();\n    function p(d) {c.message(d);};\n    \
         window.onload = function() {c.stop();};\n  </script>",
    );
    while page.len() <= LENGTH_MIN {
        page.push(' ');
    }
    page.push_str("\r\n\r\n");
    Bytes::from(page)
}

/// What is wrong with a `callback` parameter. Both are answered with status 500.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadCallback {
    /// It is missing or empty.
    Missing,
    /// It holds a character that could leave the script's call, or is too long.
    Invalid,
}

impl BadCallback {
    /// The text of the answer; never the bad value itself.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            BadCallback::Missing => "\"callback\" parameter required",
            BadCallback::Invalid => "invalid \"callback\" parameter",
        }
    }
}

/// The checked callback of a query string: field `c`, else `callback`, percent-decoded.
///
/// # Errors
/// See [`BadCallback`].
pub fn callback(query: &str) -> Result<Arc<str>, BadCallback> {
    /// sockjs-node's limit; the clients' own names have ten characters.
    const LENGTH_MAX: usize = 32;
    let field = |name: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
    };
    let raw = field("c").or_else(|| field("callback")).unwrap_or("");
    let decoded: Vec<u8> = percent_encoding::percent_decode_str(raw).collect();
    if decoded.is_empty() {
        return Err(BadCallback::Missing);
    }
    let harmless = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    match String::from_utf8(decoded) {
        Ok(name) if name.len() <= LENGTH_MAX && name.as_bytes().iter().all(harmless) => {
            Ok(name.into())
        }
        _ => Err(BadCallback::Invalid),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Arc<str> {
        name.into()
    }

    #[test]
    fn each_transport_wraps_a_frame_its_own_way() {
        let frame = br#"a["x%"]"#;
        assert_eq!(Framing::Xhr.wrap(frame), &b"a[\"x%\"]\n"[..]);
        assert_eq!(Framing::XhrStreaming.wrap(frame), &b"a[\"x%\"]\n"[..]);
        assert_eq!(
            Framing::EventSource.wrap(frame),
            &b"data: a[\"x%25\"]\r\n\r\n"[..]
        );
        let callback = named("cb");
        assert_eq!(
            Framing::Jsonp { callback }.wrap(frame),
            &b"/**/cb(\"a[\\\"x%\\\"]\");\r\n"[..]
        );
        let callback = named("cb");
        assert_eq!(
            Framing::HtmlFile { callback }.wrap(frame),
            &b"<script>\np(\"a[\\\"x%\\\"]\");\n</script>\r\n"[..]
        );
    }

    #[test]
    fn pieces_and_messages_make_the_same_array() {
        let mut pieces = BytesMut::new();
        write_pieces([&b"\"a\",\"b\","[..], b"\"c\","], &mut pieces);
        let mut messages = BytesMut::new();
        write_messages([&b"a"[..], b"b", b"c"], &mut messages);
        assert_eq!(pieces, &br#"a["a","b","c"]"#[..]);
        assert_eq!(pieces, messages);
        let mut none = BytesMut::new();
        write_pieces([], &mut none);
        assert_eq!(none, &b"a[]"[..]);
    }

    #[test]
    fn messages_share_a_frame() {
        let two = [Bytes::from("x"), Bytes::from("y")];
        assert_eq!(Framing::Xhr.messages(&two), &b"a[\"x\",\"y\"]\n"[..]);
        assert_eq!(
            Framing::WebSocket.messages(&two),
            &b"\x81\x0aa[\"x\",\"y\"]"[..]
        );
    }

    #[test]
    fn slices_of_pieces_become_one_frame() {
        let parts = ["\"x\",", "\"y\",\"z\","];
        let slice = Slice {
            parts: parts.map(Bytes::from).into_iter().collect(),
            len: parts.concat().len(),
            messages: 3,
            drained: false,
        };
        assert_eq!(Framing::Xhr.pieces(&slice), "a[\"x\",\"y\",\"z\"]\n");
    }

    #[test]
    fn preludes_have_the_sizes_that_browsers_wait_for() {
        let prelude = Framing::XhrStreaming.prelude().unwrap();
        assert_eq!(prelude.len(), 2049);
        assert!(prelude.ends_with(b"h\n"));
        let callback = named("_jp.abc");
        let page = Framing::HtmlFile { callback }.prelude().unwrap();
        assert!(page.len() > 1024 && page.ends_with(b" \r\n\r\n"));
        let text = std::str::from_utf8(&page).unwrap();
        assert!(text.contains("\n    var c = parent._jp.abc;\n    c.start();\n"));
        assert_eq!(text.trim().lines().count(), 12);
        assert_eq!(Framing::Xhr.prelude(), None);
    }

    #[test]
    fn a_callback_is_a_name_and_nothing_else() {
        assert_eq!(callback("c=%63allback"), Ok(named("callback")));
        assert_eq!(callback("t=1&callback=_jp.a1-b"), Ok(named("_jp.a1-b")));
        assert_eq!(callback("c=x&callback=y"), Ok(named("x")));
        for missing in ["", "c=", "callback=", "t=12", "callback"] {
            assert_eq!(callback(missing), Err(BadCallback::Missing), "{missing}");
        }
        let long = format!("c={}", "a".repeat(33));
        for invalid in [
            "c=%20",
            "c=*",
            "c=abc(",
            "c=abc%28",
            "c=%3Cscript%3E",
            "c=%FF",
            "c=a+b",
            &long,
        ] {
            assert_eq!(callback(invalid), Err(BadCallback::Invalid), "{invalid}");
        }
    }
}
