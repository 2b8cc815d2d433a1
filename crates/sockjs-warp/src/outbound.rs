//! What waits to be written to one socket, in an order that never splits a frame.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncWrite;

use crate::net::Socket;
use crate::sockjs::codec::{Kind, header_len, put_close, put_frame, put_header};
use crate::sockjs::deflate::Deflater;
use crate::sockjs::frame::write_messages;
use crate::sockjs::{Form, Parts, Slice};

/// Pongs that wait behind one part; more pings than that go unanswered, as RFC 6455 (5.5.3) allows.
const URGENT_MAX: usize = 1024;

/// How many buffers one system call is given.
const VECTORS: usize = 16;

/// Shared slices of frames, control frames that may pass between two parts of them, and the close
/// frame that follows everything.
#[derive(Debug, Default)]
pub(super) struct Outbound {
    parts: Parts,
    /// The first part that is not wholly written, and how much of it is.
    index: usize,
    offset: usize,
    /// How many parts a cut leaves, begun or not.
    kept: usize,
    urgent: Vec<u8>,
    urgent_at: usize,
    last: Vec<u8>,
    last_at: usize,
}

impl From<Slice> for Outbound {
    fn from(slice: Slice) -> Self {
        Self {
            parts: slice.parts,
            ..Self::default()
        }
    }
}

impl AsMut<Outbound> for Outbound {
    fn as_mut(&mut self) -> &mut Outbound {
        self
    }
}

impl Outbound {
    pub(super) fn is_empty(&self) -> bool {
        self.index == self.parts.len() && self.urgent.is_empty() && self.last.is_empty()
    }

    /// Queues one frame or several.
    pub(super) fn push(&mut self, frames: Bytes) {
        self.parts.push(frames);
    }

    /// Queues what a session hands out.
    pub(super) fn extend(&mut self, parts: Parts) {
        if self.parts.is_empty() {
            self.parts = parts;
        } else {
            self.parts.extend(parts);
        }
    }

    /// Queues a pong, unless too many wait already.
    pub(super) fn pong(&mut self, payload: &[u8]) {
        if self.urgent.len() - self.urgent_at < URGENT_MAX {
            put_frame(&mut self.urgent, Kind::Pong, payload);
        }
    }

    /// Queues the close frame. Nothing may be queued after it.
    pub(super) fn close(&mut self, close: Option<(u16, &str)>) {
        put_close(&mut self.last, close);
    }

    /// Drops what has not begun to be written, down to the end of the part that has.
    pub(super) fn cut(&mut self) {
        let begun = self.index + usize::from(self.offset > 0);
        self.parts.truncate(begun.max(self.kept));
    }

    /// Saves what is queued from [`Outbound::cut`].
    pub(super) fn keep(&mut self) {
        self.kept = self.parts.len();
    }

    /// Writes until everything is written, the socket is full, or it fails. Gives the bytes that were
    /// taken, also in front of a `Pending`, in `taken`.
    pub(super) fn poll_write(
        &mut self,
        socket: &mut Socket,
        cx: &mut Context<'_>,
        taken: &mut usize,
    ) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let count = if let Some(part) = self.only_part() {
                // The commonest case, and the kernel has less to check then.
                ready!(Pin::new(&mut *socket).poll_write(cx, part))?
            } else {
                let mut vectors = [IoSlice::new(&[]); VECTORS];
                let used = self.gather(&mut vectors);
                ready!(Pin::new(&mut *socket).poll_write_vectored(cx, &vectors[..used]))?
            };
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            *taken += count;
            self.advance(count);
        }
        Pin::new(socket).poll_flush(cx)
    }

    /// What is left of the last part, if nothing else is left.
    fn only_part(&self) -> Option<&[u8]> {
        match &self.parts[self.index..] {
            [part] if self.urgent.is_empty() && self.last.is_empty() => Some(&part[self.offset..]),
            _ => None,
        }
    }

    fn gather<'a>(&'a self, vectors: &mut [IoSlice<'a>; VECTORS]) -> usize {
        let begun = &self.parts[self.index..];
        let (begun, rest) = begun.split_at(usize::from(self.offset > 0));
        let begun = begun.iter().map(|part| &part[self.offset..]);
        let urgent = std::iter::once(&self.urgent[self.urgent_at..]);
        let rest = rest.iter().map(|part| &part[..]);
        let last = std::iter::once(&self.last[self.last_at..]);
        let order = begun.chain(urgent).chain(rest).chain(last);
        let mut used = 0;
        for bytes in order.filter(|bytes| !bytes.is_empty()).take(VECTORS) {
            vectors[used] = IoSlice::new(bytes);
            used += 1;
        }
        used
    }

    /// Forgets the first `count` bytes, in the order of [`Outbound::gather`].
    fn advance(&mut self, mut count: usize) {
        if self.offset > 0 {
            self.advance_part(&mut count);
        }
        if self.offset == 0 {
            advance_buffer(&mut self.urgent, &mut self.urgent_at, &mut count);
        }
        while self.index < self.parts.len() && (count > 0 || self.parts[self.index].is_empty()) {
            self.advance_part(&mut count);
        }
        if self.index == self.parts.len() {
            self.parts.clear();
            self.index = 0;
            self.kept = 0;
            advance_buffer(&mut self.last, &mut self.last_at, &mut count);
        }
    }

    fn advance_part(&mut self, count: &mut usize) {
        let part = &mut self.parts[self.index];
        let step = (*count).min(part.len() - self.offset);
        *count -= step;
        self.offset += step;
        if self.offset == part.len() {
            // The log may forget its segment as soon as nobody refers to it.
            *part = Bytes::new();
            self.offset = 0;
            self.index += 1;
        }
    }
}

fn advance_buffer(buffer: &mut Vec<u8>, at: &mut usize, count: &mut usize) {
    let step = (*count).min(buffer.len() - *at);
    *count -= step;
    *at += step;
    if *at == buffer.len() {
        *buffer = Vec::new();
        *at = 0;
    }
}

thread_local! {
    /// One a thread, not one a session: it holds 300 KiB. Made with the first large message.
    static DEFLATER: RefCell<Option<Deflater>> = const { RefCell::new(None) };
}

/// Frames an application's own messages in `form`: one WebSocket frame each, or one SockJS frame
/// around all of them.
pub(super) fn frame_messages(messages: &[Bytes], form: Form) -> Bytes {
    let mut out = BytesMut::new();
    match form {
        Form::RawDeflated => messages.iter().for_each(|one| put_deflated(one, &mut out)),
        Form::SockJsFrame | Form::SockJsDeflated => {
            let mut array = BytesMut::new();
            write_messages(messages.iter().map(|one| &one[..]), &mut array);
            if form == Form::SockJsDeflated {
                put_deflated(&array, &mut out);
            } else {
                put_frame(&mut out, Kind::Text, &array);
            }
        }
        _ => {
            let size = |one: &Bytes| header_len(one.len()) + one.len();
            out.reserve(messages.iter().map(size).sum());
            for one in messages {
                put_header(&mut out, Kind::Text, one.len());
                out.extend_from_slice(one);
            }
        }
    }
    out.freeze()
}

fn put_deflated(payload: &[u8], out: &mut BytesMut) {
    DEFLATER.with_borrow_mut(|slot| {
        let deflater = slot.get_or_insert_with(Deflater::default);
        deflater.put_text_frame(out, payload);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(parts: &[&'static str]) -> Slice {
        Slice {
            parts: parts
                .iter()
                .map(|part| Bytes::from_static(part.as_bytes()))
                .collect(),
            len: parts.iter().map(|part| part.len()).sum(),
            messages: parts.len(),
            drained: false,
        }
    }

    /// Writes `steps` bytes at a time and gives everything written.
    fn drain(outbound: &mut Outbound, step: usize) -> String {
        let mut written = Vec::new();
        while !outbound.is_empty() {
            let mut vectors = [IoSlice::new(&[]); VECTORS];
            let used = outbound.gather(&mut vectors);
            let flat: Vec<u8> = vectors[..used]
                .iter()
                .flat_map(|one| one.to_vec())
                .collect();
            let count = step.min(flat.len());
            written.extend_from_slice(&flat[..count]);
            outbound.advance(count);
        }
        String::from_utf8_lossy(&written).into_owned()
    }

    #[test]
    fn every_byte_is_written_once_however_the_socket_cuts() {
        for step in 1..12 {
            let mut outbound = Outbound::from(slice(&["abc", "", "defgh", "i"]));
            outbound.close(None);
            assert_eq!(drain(&mut outbound, step), "abcdefghi\u{fffd}\0", "{step}");
        }
    }

    #[test]
    fn a_pong_passes_parts_but_never_splits_one() {
        let mut outbound = Outbound::from(slice(&["abc", "def"]));
        outbound.advance(1);
        outbound.pong(b"!");
        assert_eq!(drain(&mut outbound, 2), "bc\u{fffd}\u{1}!def");
        outbound = Outbound::from(slice(&["abc"]));
        outbound.pong(b"?");
        outbound.advance(1);
        outbound.pong(b"!");
        assert_eq!(drain(&mut outbound, 99), "\u{1}?\u{fffd}\u{1}!abc");
    }

    #[test]
    fn pongs_are_bounded_while_nothing_is_written() {
        let mut outbound = Outbound::default();
        outbound.push(Bytes::from_static(b"x"));
        for _ in 0..10_000 {
            outbound.pong(&[0; 100]);
        }
        assert!(outbound.urgent.len() < URGENT_MAX + 200);
    }

    #[test]
    fn a_cut_keeps_the_part_that_has_begun() {
        let mut outbound = Outbound::from(slice(&["abc", "def"]));
        outbound.advance(1);
        outbound.cut();
        assert_eq!(drain(&mut outbound, 9), "bc");
        outbound = Outbound::from(slice(&["abc", "def"]));
        outbound.cut();
        assert!(outbound.is_empty());
    }

    #[test]
    fn messages_are_framed_singly_or_in_one_array() {
        let messages = [Bytes::from_static(b"{}"), Bytes::from_static(b"\"")];
        let raw = frame_messages(&messages, Form::RawFrame);
        assert_eq!(&raw[..], b"\x81\x02{}\x81\x01\"");
        let framed = frame_messages(&messages, Form::SockJsFrame);
        assert_eq!(&framed[..], b"\x81\x0ca[\"{}\",\"\\\"\"]");
        let large = [Bytes::from("row,".repeat(1000))];
        assert_eq!(frame_messages(&large, Form::RawDeflated)[0], 0xc1);
        assert_eq!(frame_messages(&large, Form::SockJsDeflated)[0], 0xc1);
    }
}
