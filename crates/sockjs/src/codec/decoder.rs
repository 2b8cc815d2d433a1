//! The reading half: a client's bytes, cut anywhere, become events.

use super::{CONTROL_MAX, CloseFrame, Event, Violation, is_legal_close};
use crate::inflate::{InflateError, inflate};

/// Two bytes, an eight byte length and the mask.
const HEAD_MAX: usize = 14;

/// Reads the frames of one client.
///
/// It owns memory only while a message is incomplete, and never more than has arrived (times the
/// growth of a vector): a length that is announced is not allocated.
#[derive(Debug)]
pub struct Decoder {
    max_message: usize,
    deflate: bool,
    ended: bool,
    head: [u8; HEAD_MAX],
    head_len: usize,
    frames: u32,
    frame: Option<Frame>,
    message: Option<Message>,
    /// The data message so far, unmasked.
    body: Vec<u8>,
    /// How much of `body` is known to be whole UTF-8 characters.
    checked: usize,
    /// The control frame so far, unmasked.
    control: Vec<u8>,
}

/// A frame whose header is known.
#[derive(Clone, Copy, Debug)]
struct Frame {
    opcode: Opcode,
    fin: bool,
    remaining: usize,
    /// Turned so that its first byte belongs to the next byte of the payload.
    mask: [u8; 4],
}

/// A data message whose first frame has been seen.
#[derive(Clone, Copy, Debug)]
struct Message {
    text: bool,
    deflated: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Opcode {
    const fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

impl Decoder {
    /// A decoder that refuses messages over `max_message` bytes, as sent and as inflated, and reads
    /// compressed messages if `deflate` was negotiated.
    #[must_use]
    pub const fn new(max_message: usize, deflate: bool) -> Self {
        Self {
            max_message,
            deflate,
            ended: false,
            head: [0; HEAD_MAX],
            head_len: 0,
            frames: 0,
            frame: None,
            message: None,
            body: Vec::new(),
            checked: 0,
            control: Vec::new(),
        }
    }

    /// Takes bytes off `input` up to the end of the next event; `None` once they are used up.
    /// After a close or a violation everything is swallowed.
    pub fn read(&mut self, input: &mut &[u8]) -> Option<Event> {
        match self.advance(input) {
            Ok(event) => {
                if matches!(event, Some(Event::Close(_))) {
                    self.end();
                }
                event
            }
            Err(violation) => {
                self.end();
                Some(Event::Violation(violation))
            }
        }
    }

    /// How many frames, empty ones and parts of messages included, have come since this was asked last.
    pub const fn take_frames(&mut self) -> u32 {
        std::mem::replace(&mut self.frames, 0)
    }

    fn end(&mut self) {
        self.ended = true;
        self.body = Vec::new();
        self.control = Vec::new();
    }

    fn advance(&mut self, input: &mut &[u8]) -> Result<Option<Event>, Violation> {
        loop {
            if self.ended {
                *input = &[];
                return Ok(None);
            }
            let mut frame = match self.frame {
                Some(frame) => frame,
                None => match self.take_header(input)? {
                    Some(frame) => frame,
                    None => return Ok(None),
                },
            };
            self.take_payload(&mut frame, input)?;
            if frame.remaining > 0 {
                self.frame = Some(frame);
                return Ok(None);
            }
            self.frame = None;
            self.head_len = 0;
            self.frames = self.frames.saturating_add(1);
            if let Some(event) = self.finish(frame)? {
                return Ok(Some(event));
            }
        }
    }

    fn take_header(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, Violation> {
        loop {
            let need = if self.head_len < 2 {
                2
            } else {
                2 + length_bytes(self.head[1]) + 4
            };
            let count = (need - self.head_len).min(input.len());
            let (taken, rest) = input.split_at(count);
            self.head[self.head_len..self.head_len + count].copy_from_slice(taken);
            self.head_len += count;
            *input = rest;
            if self.head_len < need {
                return Ok(None);
            }
            // The first two bytes can condemn a frame before the rest of its header has come.
            let opcode = self.judge_start()?;
            if need > 2 {
                return self.begin(opcode).map(Some);
            }
        }
    }

    fn judge_start(&self) -> Result<Opcode, Violation> {
        let [first, second, ..] = self.head;
        let opcode = match first & 0x0f {
            0x0 => Opcode::Continuation,
            0x1 => Opcode::Text,
            0x2 => Opcode::Binary,
            0x8 => Opcode::Close,
            0x9 => Opcode::Ping,
            0xa => Opcode::Pong,
            _ => return Err(Violation::ReservedOpcode),
        };
        let starts_message = matches!(opcode, Opcode::Text | Opcode::Binary);
        let rsv1_has_meaning = self.deflate && starts_message;
        if first & 0x30 != 0 || (first & 0x40 != 0 && !rsv1_has_meaning) {
            return Err(Violation::ReservedBit);
        }
        if second & 0x80 == 0 {
            return Err(Violation::Unmasked);
        }
        if opcode.is_control() {
            if first & 0x80 == 0 {
                return Err(Violation::FragmentedControl);
            }
            if usize::from(second & 0x7f) > CONTROL_MAX {
                return Err(Violation::LongControl);
            }
        }
        match (opcode, self.message) {
            (Opcode::Continuation, None) => Err(Violation::StrayContinuation),
            (Opcode::Text | Opcode::Binary, Some(_)) => Err(Violation::InterruptedMessage),
            _ => Ok(opcode),
        }
    }

    fn begin(&mut self, opcode: Opcode) -> Result<Frame, Violation> {
        let [first, second, ..] = self.head;
        let extended = length_bytes(second);
        // A longer length form than needed is let pass: nothing here can be confused by it.
        let declared = match extended {
            0 => u64::from(second & 0x7f),
            _ => self.head[2..2 + extended]
                .iter()
                .fold(0, |sum, &byte| (sum << 8) | u64::from(byte)),
        };
        if declared >> 63 != 0 {
            return Err(Violation::BadLength);
        }
        let remaining = usize::try_from(declared).map_err(|_| Violation::TooBig)?;
        if !opcode.is_control() && remaining > self.max_message - self.body.len() {
            return Err(Violation::TooBig);
        }
        if matches!(opcode, Opcode::Text | Opcode::Binary) {
            self.message = Some(Message {
                text: opcode == Opcode::Text,
                deflated: first & 0x40 != 0,
            });
        }
        let mut mask = [0; 4];
        mask.copy_from_slice(&self.head[2 + extended..2 + extended + 4]);
        Ok(Frame {
            opcode,
            fin: first & 0x80 != 0,
            remaining,
            mask,
        })
    }

    fn take_payload(&mut self, frame: &mut Frame, input: &mut &[u8]) -> Result<(), Violation> {
        let count = frame.remaining.min(input.len());
        let (taken, rest) = input.split_at(count);
        *input = rest;
        frame.remaining -= count;
        let into = if frame.opcode.is_control() {
            &mut self.control
        } else {
            &mut self.body
        };
        let start = into.len();
        into.extend_from_slice(taken);
        for chunk in into[start..].chunks_mut(4) {
            for (byte, key) in chunk.iter_mut().zip(frame.mask) {
                *byte ^= key;
            }
        }
        frame.mask.rotate_left(count % 4);
        match self.message {
            Some(message) if message.text && !message.deflated => self.check_text(),
            _ => Ok(()),
        }
    }

    /// Fails on the first byte that no continuation could make valid, so that a bad message is
    /// refused where it goes wrong and not at its end.
    fn check_text(&mut self) -> Result<(), Violation> {
        match std::str::from_utf8(&self.body[self.checked..]) {
            Ok(_) => self.checked = self.body.len(),
            Err(fault) if fault.error_len().is_none() => self.checked += fault.valid_up_to(),
            Err(_) => return Err(Violation::BadText),
        }
        Ok(())
    }

    fn finish(&mut self, frame: Frame) -> Result<Option<Event>, Violation> {
        match frame.opcode {
            Opcode::Ping => Ok(Some(Event::Ping(std::mem::take(&mut self.control)))),
            Opcode::Pong => {
                self.control = Vec::new();
                Ok(Some(Event::Pong))
            }
            Opcode::Close => self.finish_close().map(Some),
            Opcode::Continuation | Opcode::Text | Opcode::Binary if frame.fin => {
                self.finish_message()
            }
            Opcode::Continuation | Opcode::Text | Opcode::Binary => Ok(None),
        }
    }

    fn finish_close(&mut self) -> Result<Event, Violation> {
        let payload = std::mem::take(&mut self.control);
        let close = match payload.as_slice() {
            [] => None,
            [_] => return Err(Violation::BadClose),
            [high, low, reason @ ..] => {
                let code = u16::from_be_bytes([*high, *low]);
                if !is_legal_close(code) {
                    return Err(Violation::BadClose);
                }
                let reason = std::str::from_utf8(reason).map_err(|_| Violation::BadText)?;
                Some(CloseFrame {
                    code,
                    reason: reason.to_owned(),
                })
            }
        };
        Ok(Event::Close(close))
    }

    fn finish_message(&mut self) -> Result<Option<Event>, Violation> {
        let Some(message) = self.message.take() else {
            return Ok(None);
        };
        let mut body = std::mem::take(&mut self.body);
        self.checked = 0;
        if message.deflated {
            body = inflate(&body, self.max_message).map_err(|fault| match fault {
                InflateError::TooLarge => Violation::TooBig,
                InflateError::Broken => Violation::BadDeflate,
            })?;
        }
        if !message.text {
            return Ok(Some(Event::Binary(body)));
        }
        let text = String::from_utf8(body).map_err(|_| Violation::BadText)?;
        Ok(Some(Event::Text(text)))
    }
}

/// How many bytes of length follow the second byte of a header.
const fn length_bytes(second: u8) -> usize {
    match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    }
}
