//! WebSocket framing as RFC 6455 has it for servers: bytes in, events out; payloads in, frames out; no socket.

mod decoder;
#[cfg(test)]
mod families;

use bytes::BufMut;

pub use decoder::Decoder;

/// The longest payload of a ping, pong or close frame, in bytes (RFC 6455, 5.5).
pub const CONTROL_MAX: usize = 125;

/// The longest reason that fits a close frame beside its code, in bytes.
pub const REASON_MAX: usize = CONTROL_MAX - 2;

/// What a client has said. Payloads are unmasked and, where negotiated, inflated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A whole text message.
    Text(String),
    /// A whole binary message.
    Binary(Vec<u8>),
    /// A ping, to be answered by a pong with the same payload.
    Ping(Vec<u8>),
    /// A pong, asked for or not.
    Pong,
    /// The client closes; nothing after it is read. `None` where the frame carried no code.
    Close(Option<CloseFrame>),
    /// The client has broken the protocol; nothing after it is read.
    Violation(Violation),
}

/// What a close frame carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseFrame {
    /// A code that [`is_legal_close`] accepts.
    pub code: u16,
    /// For people; at most [`REASON_MAX`] bytes.
    pub reason: String,
}

/// How a client broke the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A frame without the mask that every client frame must have.
    #[error("frame is not masked")]
    Unmasked,
    /// A reserved bit that no negotiated extension gives a meaning.
    #[error("reserved bit is set")]
    ReservedBit,
    /// An opcode without a meaning.
    #[error("reserved opcode")]
    ReservedOpcode,
    /// A 64-bit length with its highest bit set.
    #[error("length is out of range")]
    BadLength,
    /// A control frame in parts.
    #[error("control frame is fragmented")]
    FragmentedControl,
    /// A control frame of more than [`CONTROL_MAX`] bytes.
    #[error("control frame is too long")]
    LongControl,
    /// A continuation where no message has begun.
    #[error("nothing to continue")]
    StrayContinuation,
    /// A new message before the last fragment of the one before.
    #[error("message inside a fragmented message")]
    InterruptedMessage,
    /// A close frame of one byte, or with a code that may not be sent.
    #[error("close code is not valid")]
    BadClose,
    /// Text, or the reason of a close, that is not UTF-8.
    #[error("text is not valid UTF-8")]
    BadText,
    /// A message that says it is compressed and is not.
    #[error("compressed data is broken")]
    BadDeflate,
    /// A message over the limit, before or after inflating.
    #[error("message is too big")]
    TooBig,
}

impl Violation {
    /// The close code that answers it (RFC 6455, 7.4.1).
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::BadText | Self::BadDeflate => 1007,
            Self::TooBig => 1009,
            Self::Unmasked
            | Self::ReservedBit
            | Self::ReservedOpcode
            | Self::BadLength
            | Self::FragmentedControl
            | Self::LongControl
            | Self::StrayContinuation
            | Self::InterruptedMessage
            | Self::BadClose => 1002,
        }
    }
}

/// Whether a close frame may carry `code`: what RFC 6455 (7.4) and the IANA registry define for the
/// wire, and the ranges left to libraries and applications.
#[must_use]
pub const fn is_legal_close(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// What a server frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A whole text message.
    Text,
    /// A whole text message, deflated as permessage-deflate wants it.
    DeflatedText,
    /// A whole binary message.
    Binary,
    /// See [`Event::Close`].
    Close,
    /// Asks for a pong.
    Ping,
    /// Answers a ping.
    Pong,
}

impl Kind {
    const fn first_byte(self) -> u8 {
        match self {
            Self::Text => 0x81,
            Self::DeflatedText => 0xc1,
            Self::Binary => 0x82,
            Self::Close => 0x88,
            Self::Ping => 0x89,
            Self::Pong => 0x8a,
        }
    }
}

/// The longest header of a server frame, in bytes.
pub const HEADER_MAX: usize = 10;

/// Writes the header of one unfragmented, unmasked frame whose payload of `len` bytes follows.
pub fn put_header(out: &mut impl BufMut, kind: Kind, len: usize) {
    out.put_u8(kind.first_byte());
    if let Ok(short) = u8::try_from(len)
        && usize::from(short) <= CONTROL_MAX
    {
        out.put_u8(short);
    } else if let Ok(medium) = u16::try_from(len) {
        out.put_u8(126);
        out.put_u16(medium);
    } else {
        out.put_u8(127);
        out.put_u64(len as u64);
    }
}

/// How long the header of a payload of `len` bytes is, in bytes.
#[must_use]
pub const fn header_len(len: usize) -> usize {
    if len <= CONTROL_MAX {
        2
    } else if len <= u16::MAX as usize {
        4
    } else {
        HEADER_MAX
    }
}

/// Writes one whole frame.
pub fn put_frame(out: &mut impl BufMut, kind: Kind, payload: &[u8]) {
    put_header(out, kind, payload.len());
    out.put_slice(payload);
}

/// Writes a close frame: with a code and as much of the reason as fits, or empty.
pub fn put_close(out: &mut impl BufMut, close: Option<(u16, &str)>) {
    let Some((code, reason)) = close else {
        return put_frame(out, Kind::Close, &[]);
    };
    let reason = &reason[..reason.floor_char_boundary(REASON_MAX)];
    put_header(out, Kind::Close, 2 + reason.len());
    out.put_u16(code);
    out.put_slice(reason.as_bytes());
}
