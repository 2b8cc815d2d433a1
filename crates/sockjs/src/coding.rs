//! How a response's bytes are coded on the connection: as they are, or as chunks of HTTP/1.1 (RFC 9112, 7.1).

use bytes::{BufMut, Bytes, BytesMut};

use super::form::Form;

/// The end of a response in chunks.
pub const LAST_CHUNK: Bytes = Bytes::from_static(b"0\r\n\r\n");

/// What a chunk has more than its data, in bytes, at most.
pub(super) const CHUNK_EXTRA_MAX: usize = 20;

/// Who codes what is handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// Whoever writes the response, if anybody has to.
    Plain,
    /// Whoever makes a frame: what is handed out is written as it is.
    Chunked,
}

impl Coding {
    /// The form in which a log keeps what is to be handed out, if there is one that is coded.
    #[must_use]
    pub const fn form(self, plain: Form) -> Form {
        match (self, plain) {
            (Coding::Chunked, Form::Line) => Form::ChunkedLine,
            (Coding::Chunked, Form::Event) => Form::ChunkedEvent,
            (_, other) => other,
        }
    }

    /// Codes what is not coded.
    #[must_use]
    pub fn code(self, bytes: Bytes) -> Bytes {
        // An empty chunk would end the response.
        if self == Coding::Plain || bytes.is_empty() {
            return bytes;
        }
        let mut chunk = BytesMut::with_capacity(bytes.len() + CHUNK_EXTRA_MAX);
        put_chunk_header(&mut chunk, bytes.len());
        chunk.put_slice(&bytes);
        chunk.put_slice(CHUNK_END);
        chunk.freeze()
    }
}

/// What follows a chunk's data.
pub(super) const CHUNK_END: &[u8] = b"\r\n";

/// Appends what comes before `len` bytes of a chunk's data.
pub(super) fn put_chunk_header(out: &mut BytesMut, len: usize) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let digits = (usize::BITS - len.leading_zeros()).div_ceil(4).max(1);
    for digit in (0..digits).rev() {
        out.put_u8(HEX[len >> (digit * 4) & 0xf]);
    }
    out.put_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_say_their_length_in_hexadecimal() {
        for len in [0, 1, 9, 15, 16, 255, 256, 4095, 65_536, usize::MAX] {
            let mut header = BytesMut::new();
            put_chunk_header(&mut header, len);
            assert_eq!(header, format!("{len:x}\r\n"));
            assert!(header.len() + CHUNK_END.len() <= CHUNK_EXTRA_MAX);
        }
    }

    #[test]
    fn only_what_is_there_is_coded() {
        let code = |text: &'static str| Coding::Chunked.code(Bytes::from_static(text.as_bytes()));
        assert_eq!(code("a[\"0123456789\"]\n"), "10\r\na[\"0123456789\"]\n\r\n");
        assert_eq!(code(""), "");
        assert_eq!(Coding::Plain.code("x".into()), "x");
    }
}
