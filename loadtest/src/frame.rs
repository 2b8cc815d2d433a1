//! WebSocket frames as a client meets them (RFC 6455): a reader that copies only what is torn, and a masked writer.

/// The largest message that is read; far above anything a campaign sends.
const MESSAGE_BYTES_MAX: u64 = 64 << 20;
/// The longest head of an unmasked frame.
const HEAD_BYTES_MAX: usize = 10;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A whole text or binary message.
    Message,
    Ping,
    Pong,
    Close,
}

/// Why a server's bytes are no WebSocket frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A reserved bit is set though no extension was agreed on.
    Reserved,
    /// Servers must not mask.
    Masked,
    Opcode(u8),
    /// A control frame that is fragmented or above 125 bytes.
    Control,
    /// A continuation of nothing, or a new message inside one.
    Fragment,
    TooLong(u64),
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Fault::Reserved => write!(f, "reserved bit set in a WebSocket frame"),
            Fault::Masked => write!(f, "the server masked a WebSocket frame"),
            Fault::Opcode(code) => write!(f, "unknown WebSocket opcode {code}"),
            Fault::Control => write!(f, "control frame fragmented or too long"),
            Fault::Fragment => write!(f, "WebSocket fragments out of order"),
            Fault::TooLong(length) => write!(f, "WebSocket message of {length} bytes"),
        }
    }
}

impl std::error::Error for Fault {}

/// Reads frames out of whatever pieces the socket gives.
#[derive(Debug, Default)]
pub(crate) struct FrameReader {
    /// The beginning of a frame whose end has not come.
    torn: Vec<u8>,
    /// Fragments of a message whose last one has not come.
    fragments: Option<Vec<u8>>,
}

struct Head {
    first: u8,
    /// Bytes of the head and of the payload.
    head: usize,
    payload: usize,
}

impl FrameReader {
    /// Takes `input`, calls `sink` for every message and control frame that is complete.
    ///
    /// # Errors
    /// The fault of the first frame that breaks the protocol; the reader is then useless.
    pub(crate) fn feed(
        &mut self,
        mut input: &[u8],
        sink: &mut dyn FnMut(Kind, &[u8]),
    ) -> Result<(), Fault> {
        while !self.torn.is_empty() && !input.is_empty() {
            input = self.mend(input, sink)?;
        }
        while !input.is_empty() {
            match head(input)? {
                Some(head) if input.len() >= head.head + head.payload => {
                    let (frame, rest) = input.split_at(head.head + head.payload);
                    self.take(&head, &frame[head.head..], sink)?;
                    input = rest;
                }
                _ => {
                    self.torn.extend_from_slice(input);
                    break;
                }
            }
        }
        Ok(())
    }

    /// Adds to the torn frame just what it lacks, as far as `input` has it.
    fn mend<'a>(
        &mut self,
        input: &'a [u8],
        sink: &mut dyn FnMut(Kind, &[u8]),
    ) -> Result<&'a [u8], Fault> {
        let wanted = match head(&self.torn)? {
            Some(head) => head.head + head.payload,
            None => (self.torn.len() + 1).min(HEAD_BYTES_MAX),
        };
        let lacking = wanted.saturating_sub(self.torn.len()).min(input.len());
        let (piece, rest) = input.split_at(lacking);
        self.torn.extend_from_slice(piece);
        if let Some(head) = head(&self.torn)?
            && self.torn.len() == head.head + head.payload
        {
            let mut frame = std::mem::take(&mut self.torn);
            self.take(&head, &frame[head.head..], sink)?;
            if frame.capacity() <= 64 << 10 {
                frame.clear();
                self.torn = frame;
            }
        }
        Ok(rest)
    }

    fn take(
        &mut self,
        head: &Head,
        payload: &[u8],
        sink: &mut dyn FnMut(Kind, &[u8]),
    ) -> Result<(), Fault> {
        let last = head.first & 0x80 != 0;
        match head.first & 0x0f {
            0 => {
                let mut whole = self.fragments.take().ok_or(Fault::Fragment)?;
                let length = (whole.len() + payload.len()) as u64;
                if length > MESSAGE_BYTES_MAX {
                    return Err(Fault::TooLong(length));
                }
                whole.extend_from_slice(payload);
                if last {
                    sink(Kind::Message, &whole);
                } else {
                    self.fragments = Some(whole);
                }
            }
            1 | 2 if self.fragments.is_some() => return Err(Fault::Fragment),
            1 | 2 if last => sink(Kind::Message, payload),
            1 | 2 => self.fragments = Some(payload.to_vec()),
            8 => sink(Kind::Close, payload),
            9 => sink(Kind::Ping, payload),
            _ => sink(Kind::Pong, payload),
        }
        Ok(())
    }
}

/// The head at the start of `bytes`, if it is all there.
fn head(bytes: &[u8]) -> Result<Option<Head>, Fault> {
    let &[first, second, ..] = bytes else {
        return Ok(None);
    };
    if first & 0x70 != 0 {
        return Err(Fault::Reserved);
    }
    if second & 0x80 != 0 {
        return Err(Fault::Masked);
    }
    let opcode = first & 0x0f;
    match opcode {
        0..=2 => {}
        8..=10 if first & 0x80 == 0 || second > 125 => return Err(Fault::Control),
        8..=10 => {}
        _ => return Err(Fault::Opcode(opcode)),
    }
    let (head, length) = match second {
        126 => match bytes.get(2..4) {
            Some(&[a, b]) => (4, u64::from(u16::from_be_bytes([a, b]))),
            _ => return Ok(None),
        },
        127 => match bytes.get(2..10).and_then(|eight| eight.try_into().ok()) {
            Some(eight) => (10, u64::from_be_bytes(eight)),
            None => return Ok(None),
        },
        short => (2, u64::from(short)),
    };
    if length > MESSAGE_BYTES_MAX {
        return Err(Fault::TooLong(length));
    }
    let payload = usize::try_from(length).map_err(|_| Fault::TooLong(length))?;
    Ok(Some(Head {
        first,
        head,
        payload,
    }))
}

/// Opcode of a text message.
pub(crate) const TEXT: u8 = 1;
/// Opcode of a binary message.
pub(crate) const BINARY: u8 = 2;
/// Opcode of the answer to a ping.
pub(crate) const PONG: u8 = 10;

/// A whole masked frame. The mask hides nothing from a server under test, so it is constant.
pub(crate) fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = Vec::with_capacity(payload.len() + 14);
    frame.push(0x80 | opcode);
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short), _) if short < 126 => frame.push(0x80 | short),
        (_, Ok(medium)) => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&medium.to_be_bytes());
        }
        _ => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&MASK);
    let hidden = payload.iter().zip(MASK.iter().cycle());
    frame.extend(hidden.map(|(byte, mask)| byte ^ mask));
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first];
        match payload.len() {
            short @ 0..126 => frame.push(short as u8),
            medium @ 126..65_536 => {
                frame.push(126);
                frame.extend_from_slice(&(medium as u16).to_be_bytes());
            }
            long => {
                frame.push(127);
                frame.extend_from_slice(&(long as u64).to_be_bytes());
            }
        }
        frame.extend_from_slice(payload);
        frame
    }

    fn read(pieces: &[&[u8]]) -> Result<Vec<(Kind, Vec<u8>)>, Fault> {
        let mut reader = FrameReader::default();
        let mut found = Vec::new();
        for piece in pieces {
            reader.feed(piece, &mut |kind, payload| {
                found.push((kind, payload.to_vec()))
            })?;
        }
        Ok(found)
    }

    #[test]
    fn frames_of_every_length_survive_every_way_of_tearing() {
        let mut stream = Vec::new();
        let mut sent = Vec::new();
        for length in [0_usize, 1, 125, 126, 127, 300, 65_535, 65_536, 70_000] {
            let payload: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            stream.extend(plain(0x81, &payload));
            sent.push((Kind::Message, payload));
        }
        assert_eq!(read(&[&stream]).unwrap(), sent);
        for step in [1, 2, 3, 7, 64, 1000, 65_000] {
            let pieces: Vec<&[u8]> = stream.chunks(step).collect();
            assert!(read(&pieces).unwrap() == sent, "pieces of {step}");
        }
    }

    #[test]
    fn fragments_are_joined_around_a_ping() {
        let mut stream = plain(0x01, b"ab");
        stream.extend(plain(0x89, b"!"));
        stream.extend(plain(0x00, b"cd"));
        stream.extend(plain(0x80, b"ef"));
        stream.extend(plain(0x88, &[0x03, 0xe8]));
        let found = read(&[&stream]).unwrap();
        assert_eq!(
            found,
            [
                (Kind::Ping, b"!".to_vec()),
                (Kind::Message, b"abcdef".to_vec()),
                (Kind::Close, vec![0x03, 0xe8]),
            ]
        );
    }

    #[test]
    fn broken_frames_are_faults() {
        assert_eq!(read(&[&[0xc1, 0x00]]), Err(Fault::Reserved));
        assert_eq!(read(&[&[0x81, 0x80]]), Err(Fault::Masked));
        assert_eq!(read(&[&[0x83, 0x00]]), Err(Fault::Opcode(3)));
        assert_eq!(read(&[&[0x09, 0x00]]), Err(Fault::Control));
        assert_eq!(read(&[&[0x89, 0x7e]]), Err(Fault::Control));
        assert_eq!(read(&[&[0x80, 0x00]]), Err(Fault::Fragment));
        assert_eq!(read(&[&[0x01, 0x00], &[0x81, 0x00]]), Err(Fault::Fragment));
        let huge = [0x81, 127, 0, 0, 1, 0, 0, 0, 0, 0];
        assert!(matches!(read(&[&huge]), Err(Fault::TooLong(_))));
    }

    #[test]
    fn a_masked_frame_unmasks_to_what_was_sent() {
        for length in [3_usize, 125, 126, 70_000] {
            let payload = vec![b'x'; length];
            let frame = masked(TEXT, &payload);
            let head = frame.len() - length;
            let mask = &frame[head - 4..head];
            let opened: Vec<u8> = frame[head..]
                .iter()
                .zip(mask.iter().cycle())
                .map(|(byte, mask)| byte ^ mask)
                .collect();
            assert_eq!(frame[0], 0x81);
            assert!(frame[1] & 0x80 != 0 && opened == payload);
        }
    }
}
