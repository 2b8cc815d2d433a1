//! Close codes that the protocol itself gives a meaning, and the frame that carries one.

use bytes::{BufMut, BytesMut};

use super::codec::REASON_MAX;
use super::payload::quote;

/// Why a session ends: a code and a reason for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    /// 1000 to 4999; applications use 3000 to 4999.
    pub code: u16,
    /// For people. A raw WebSocket carries the first 123 bytes (RFC 6455, 5.5).
    pub reason: String,
}

impl Close {
    /// The close with this code and reason.
    pub fn new(code: u16, reason: impl Into<String>) -> Self {
        Self {
            code,
            reason: reason.into(),
        }
    }

    /// An application's close without a reason of its own.
    #[must_use]
    pub fn normal() -> Self {
        Self::new(1000, "Normal closure")
    }

    /// The answer to a second receiver while one is attached.
    #[must_use]
    pub fn another_connection() -> Self {
        Self::new(2010, "Another connection still open")
    }

    /// The session is lost, e.g. with the node that held it.
    #[must_use]
    pub fn interrupted() -> Self {
        Self::new(1002, "Connection interrupted")
    }

    /// The server wants the client gone, as when it shuts down.
    #[must_use]
    pub fn go_away() -> Self {
        Self::new(3000, "Go away!")
    }

    /// Appends the SockJS frame: `c[code,"reason"]`.
    pub fn write(&self, out: &mut BytesMut) {
        out.put_slice(b"c[");
        out.put_slice(self.code.to_string().as_bytes());
        out.put_u8(b',');
        quote(self.reason.as_bytes(), out);
        out.put_u8(b']');
    }

    /// The reason, cut at a character boundary to what a WebSocket close frame can carry.
    #[must_use]
    pub fn short_reason(&self) -> &str {
        &self.reason[..self.reason.floor_char_boundary(REASON_MAX)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_frames_are_arrays_without_spaces() {
        let mut out = BytesMut::new();
        Close::new(3000, "a \"b\"").write(&mut out);
        assert_eq!(out, &br#"c[3000,"a \"b\""]"#[..]);
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let close = Close::new(1000, "é".repeat(100));
        assert_eq!(close.short_reason().len(), 122);
        assert_eq!(Close::go_away().short_reason(), "Go away!");
    }
}
