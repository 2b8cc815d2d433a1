//! SockJS 0.3 as a client meets it: frames out of a response body, messages out of a frame.

use std::borrow::Cow;
use std::sync::LazyLock;

use memchr::memmem::{self, Finder};

/// How often JSON quoting was applied to a message on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// The bare JSON object (raw WebSocket).
    Bare,
    /// An object inside a JSON string (`a["…"]`).
    Quoted,
    /// A frame inside a JSON string (jsonp).
    Twice,
}

/// How frames stand in a response body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrapping {
    /// One frame a line (xhr, xhr_streaming).
    Lines,
    /// `data: ` lines of an event stream.
    Events,
    /// `/**/callback("…");`, the whole body.
    Call,
}

/// The largest frame that is put together from pieces.
const FRAME_BYTES_MAX: usize = 64 << 20;

/// A frame too large to be one.
#[derive(Debug)]
pub(crate) struct Endless;

impl std::fmt::Display for Endless {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a SockJS frame of more than {FRAME_BYTES_MAX} bytes")
    }
}

impl std::error::Error for Endless {}

/// Cuts a body into frames. All three wrappings end a frame with LF.
#[derive(Debug)]
pub(crate) struct Splitter {
    wrapping: Wrapping,
    torn: Vec<u8>,
}

impl Splitter {
    pub(crate) fn new(wrapping: Wrapping) -> Self {
        Self {
            wrapping,
            torn: Vec::new(),
        }
    }

    pub(crate) fn depth(&self) -> Depth {
        match self.wrapping {
            Wrapping::Lines | Wrapping::Events => Depth::Quoted,
            Wrapping::Call => Depth::Twice,
        }
    }

    /// Takes a piece of the body; calls `sink` for each frame that is complete.
    ///
    /// # Errors
    /// When a frame passes 64 MiB.
    pub(crate) fn feed(
        &mut self,
        mut input: &[u8],
        sink: &mut dyn FnMut(&[u8]),
    ) -> Result<(), Endless> {
        while let Some(end) = memchr::memchr(b'\n', input) {
            let (line, rest) = input.split_at(end + 1);
            input = rest;
            if self.torn.is_empty() {
                self.unwrap(line, sink);
            } else {
                self.torn.extend_from_slice(line);
                let torn = std::mem::take(&mut self.torn);
                self.unwrap(&torn, sink);
            }
        }
        if self.torn.len() + input.len() > FRAME_BYTES_MAX {
            return Err(Endless);
        }
        self.torn.extend_from_slice(input);
        Ok(())
    }

    /// The response ended: what is torn can never be completed.
    pub(crate) fn reset(&mut self) {
        self.torn.clear();
    }

    fn unwrap(&self, line: &[u8], sink: &mut dyn FnMut(&[u8])) {
        let line = line.trim_ascii_end();
        let frame = match self.wrapping {
            // The prelude is 2048 letters h, each a heartbeat.
            Wrapping::Lines if line.len() > 1 && line.starts_with(b"hh") => None,
            Wrapping::Lines => Some(line),
            Wrapping::Events => line.strip_prefix(b"data: "),
            Wrapping::Call => called(line),
        };
        match frame.filter(|frame| !frame.is_empty()) {
            Some(frame) if self.wrapping == Wrapping::Events => sink(&unescape_event(frame)),
            Some(frame) => sink(frame),
            None => {}
        }
    }
}

/// The string literal's inside in `/**/callback("…");`.
fn called(line: &[u8]) -> Option<&[u8]> {
    let open = memmem::find(line, b"(\"")?;
    line.get(open + 2..)?.strip_suffix(b"\");")
}

/// What a frame is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame<'a> {
    Open,
    Heartbeat,
    /// The inside of `a[…]`.
    Messages(&'a [u8]),
    /// The inside of `c[…]`.
    Close(&'a [u8]),
    Unknown,
}

/// Tells what kind of frame `frame` is.
pub(crate) fn frame(frame: &[u8]) -> Frame<'_> {
    let inside = |bytes: &'_ [u8]| bytes.len() >= 3 && bytes[1] == b'[' && bytes.ends_with(b"]");
    match frame.first() {
        Some(b'o') if frame.len() == 1 => Frame::Open,
        Some(b'h') if frame.len() == 1 => Frame::Heartbeat,
        Some(b'a') if inside(frame) => Frame::Messages(&frame[2..frame.len() - 1]),
        Some(b'c') if inside(frame) => Frame::Close(&frame[2..frame.len() - 1]),
        _ => Frame::Unknown,
    }
}

/// The messages inside `a[…]`, still quoted. Messages are objects, so that no text inside
/// one can look like the end of it: every quote in there has a backslash before it.
pub(crate) fn messages(inside: &[u8], depth: Depth) -> impl Iterator<Item = &[u8]> {
    static ONCE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\",\""));
    static TWICE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\\\",\\\""));
    let (quote, separator): (&[u8], &'static Finder<'static>) = match depth {
        Depth::Bare | Depth::Quoted => (b"\"", &ONCE),
        Depth::Twice => (b"\\\"", &TWICE),
    };
    let mut rest = inside.strip_prefix(quote);
    std::iter::from_fn(move || {
        let all = rest?;
        let (message, after) = match separator.find(all) {
            Some(end) => (&all[..end], Some(&all[end + separator.needle().len()..])),
            None => (all.strip_suffix(quote).unwrap_or(all), None),
        };
        rest = after;
        Some(message)
    })
}

/// Undoes the quoting of one message from [`messages`].
pub(crate) fn unquote(message: &[u8], depth: Depth) -> Result<Cow<'_, [u8]>, serde_json::Error> {
    let once = |bytes: &[u8]| -> Result<Vec<u8>, serde_json::Error> {
        let mut literal = Vec::with_capacity(bytes.len() + 2);
        literal.push(b'"');
        literal.extend_from_slice(bytes);
        literal.push(b'"');
        serde_json::from_slice::<String>(&literal).map(String::into_bytes)
    };
    match depth {
        Depth::Bare => Ok(Cow::Borrowed(message)),
        Depth::Quoted => once(message).map(Cow::Owned),
        Depth::Twice => once(&once(message)?).map(Cow::Owned),
    }
}

/// Undoes the percent-escaping of event streams.
fn unescape_event(frame: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'%', frame).is_none() {
        return Cow::Borrowed(frame);
    }
    let mut plain = Vec::with_capacity(frame.len());
    let mut rest = frame;
    while let Some((&byte, after)) = rest.split_first() {
        let hex = (byte == b'%').then(|| after.get(..2)).flatten();
        let code = hex
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        if let Some(code) = code {
            plain.push(code);
            rest = &after[2..];
        } else {
            plain.push(byte);
            rest = after;
        }
    }
    Cow::Owned(plain)
}

/// The body that sends `messages` upstream: a JSON array of strings.
pub(crate) fn upstream(messages: &[String]) -> String {
    serde_json::Value::from(messages).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(wrapping: Wrapping, body: &[u8], step: usize) -> Vec<Vec<u8>> {
        let mut splitter = Splitter::new(wrapping);
        let mut found = Vec::new();
        for piece in body.chunks(step) {
            splitter
                .feed(piece, &mut |frame| found.push(frame.to_vec()))
                .unwrap();
        }
        found
    }

    #[test]
    fn frames_come_out_of_every_wrapping_however_torn() {
        let mut lines = vec![b'h'; 2048];
        lines.extend_from_slice(b"\no\na[\"x\",\"y\"]\nh\n");
        let events = b"\r\ndata: o\r\n\r\ndata: a[\"x\",\"y\"]\r\n\r\ndata: h\r\n\r\n".to_vec();
        let frames = [&b"o"[..], b"a[\"x\",\"y\"]", b"h"];
        for step in [1, 2, 5, 100, 5000] {
            assert_eq!(split(Wrapping::Lines, &lines, step), frames);
            assert_eq!(split(Wrapping::Events, &events, step), frames);
            let call = b"/**/_jp.a(\"a[\\\"x\\\"]\");\r\n";
            assert_eq!(split(Wrapping::Call, call, step), [b"a[\\\"x\\\"]"]);
        }
    }

    #[test]
    fn kinds_of_frames_are_told() {
        assert_eq!(frame(b"o"), Frame::Open);
        assert_eq!(frame(b"h"), Frame::Heartbeat);
        assert_eq!(frame(b"a[\"x\"]"), Frame::Messages(b"\"x\""));
        assert_eq!(
            frame(b"c[3000,\"Go away!\"]"),
            Frame::Close(b"3000,\"Go away!\"")
        );
        for odd in [&b""[..], b"x", b"oo", b"a", b"a[", b"c[1"] {
            assert_eq!(frame(odd), Frame::Unknown);
        }
    }

    #[test]
    fn messages_are_split_only_where_one_ends() {
        let objects = [
            r#"{"type":"result","data":{"a":"x","b":"\",\"","c":"}\",\"{"}}"#,
            r#"{"type":"status","data":{"tricky":"\\\",\\"}}"#,
            r#"{}"#,
        ];
        let strings: Vec<String> = objects.iter().map(|text| (*text).to_owned()).collect();
        let frame_text = format!("a{}", upstream(&strings));
        let Frame::Messages(inside) = frame(frame_text.as_bytes()) else {
            panic!("no messages");
        };
        let found: Vec<_> = messages(inside, Depth::Quoted)
            .map(|message| unquote(message, Depth::Quoted).unwrap().into_owned())
            .collect();
        assert_eq!(found, objects.map(|text| text.as_bytes().to_vec()));

        let literal = serde_json::Value::from(frame_text).to_string();
        let call = format!("/**/cb({literal});\r\n");
        let frames = split(Wrapping::Call, call.as_bytes(), 7);
        let Frame::Messages(inside) = frame(&frames[0]) else {
            panic!("no messages");
        };
        let found: Vec<_> = messages(inside, Depth::Twice)
            .map(|message| unquote(message, Depth::Twice).unwrap().into_owned())
            .collect();
        assert_eq!(found, objects.map(|text| text.as_bytes().to_vec()));
    }

    #[test]
    fn percent_escapes_of_event_streams_are_undone() {
        assert_eq!(
            unescape_event(b"100%25 %0A %zz %").as_ref(),
            b"100% \n %zz %"
        );
        assert!(matches!(unescape_event(b"plain"), Cow::Borrowed(_)));
    }
}
