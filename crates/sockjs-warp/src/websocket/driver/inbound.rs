//! What a client sends: read, decoded, given to the application.

use std::mem::MaybeUninit;
use std::task::{Context, Poll};

use tokio::io::ReadBuf;

use super::{Asked, Driver, Phase};
use crate::outbound::Outbound;
use crate::sockjs::codec::Event;
use crate::sockjs::inbound::decode_socket;
use crate::websocket::Mode;

/// How much is read at a time, on the stack, in bytes.
const READ: usize = 8 * 1024;

impl Driver {
    /// Whether something was read.
    pub(super) fn read(&mut self, cx: &mut Context<'_>) -> bool {
        if self.fed_while_stuck || self.phase == Phase::Over {
            return false;
        }
        let mut space = [const { MaybeUninit::uninit() }; READ];
        let mut buffer = ReadBuf::uninit(&mut space);
        match self.socket.poll_input(cx, &mut buffer) {
            Poll::Pending => false,
            Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                self.receive(buffer.filled());
                true
            }
            Poll::Ready(_) => {
                self.phase = Phase::Over;
                false
            }
        }
    }

    pub(super) fn receive(&mut self, mut input: &[u8]) {
        while let Some(event) = self.seldom.decoder.read(&mut input) {
            match event {
                Event::Ping(payload) if self.phase == Phase::Live => self.outbound().pong(&payload),
                Event::Ping(_) | Event::Pong => {}
                Event::Text(text) => self.handle_text(&text),
                Event::Binary(bytes) => self.handle_binary(&bytes),
                Event::Close(close) => {
                    self.peer_closed = true;
                    // The answer carries the same code; an empty frame is answered by an empty one.
                    self.conclude(close.map(|close| (close.code, "")), "client");
                }
                Event::Violation(violation) => {
                    self.peer_closed = true;
                    self.answer_what_came_before();
                    let text = violation.to_string();
                    self.conclude(Some((violation.code(), &text)), "violation");
                }
            }
        }
        let frames = self.seldom.decoder.take_frames();
        if frames > 0 && !self.seldom.pace.keeps(frames, self.shared.clock.now()) {
            self.peer_closed = true;
            self.conclude(Some((1008, "too many frames")), "violation");
        }
    }

    /// A message may have come in the same bytes as the violation behind it; what the application has
    /// to say to it goes out before the close.
    fn answer_what_came_before(&mut self) {
        if self.phase != Phase::Live || !self.is_written() {
            return;
        }
        if let Asked::Slice(slice) = self.ask(self.shared.clock.now()) {
            self.outbound = Some(Outbound::from(slice).into());
        }
        if let Some(waiting) = &mut self.outbound {
            waiting.keep();
        }
    }

    fn handle_text(&mut self, text: &str) {
        if self.phase != Phase::Live || !self.session.takes_messages() {
            return;
        }
        self.fed_while_stuck = self.stuck_since.is_some();
        let now = self.shared.clock.now();
        match self.mode {
            Mode::Raw => self.conversation.message(text, now),
            Mode::Framed => match decode_socket(text.as_bytes()) {
                Ok(messages) => messages
                    .iter()
                    .for_each(|message| self.conversation.message(message, now)),
                Err(_) => self.conclude(Some((3000, "Broken framing.")), "violation"),
            },
        }
    }

    fn handle_binary(&mut self, bytes: &[u8]) {
        if self.phase != Phase::Live || !self.session.takes_messages() {
            return;
        }
        self.fed_while_stuck = self.stuck_since.is_some();
        let now = self.shared.clock.now();
        let raw = self.mode == Mode::Raw;
        if !(raw && self.conversation.binary(bytes, now)) {
            self.conclude(Some((1003, "only text is understood")), "violation");
        }
    }
}
