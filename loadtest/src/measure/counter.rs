//! Counts results in a stream of bytes that is cut anywhere.

use memchr::memmem;

use clap::ValueEnum;
use serde::Serialize;

/// How viewers are connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Via {
    Raw,
    Ws,
    #[value(name = "xhr_streaming")]
    XhrStreaming,
    Eventsource,
    /// Long polling
    Xhr,
    /// NATS over WebSocket
    Nats,
}

impl Via {
    /// Whether a new request has to follow every response.
    pub(super) const fn is_http(self) -> bool {
        matches!(self, Self::XhrStreaming | Self::Eventsource | Self::Xhr)
    }
}

/// What every result contains, as it stands inside a SockJS array.
const QUOTED: &[u8] = br#"\"type\":\"result\""#;
/// What stands before every message of NATS; the load tester's own messages do not contain it.
const NATS_MESSAGE: &[u8] = b"MSG ";
/// Frames shorter than this are counts of hosts and not results.
const RESULT_BYTES_MIN: usize = 256;

/// What a viewer has just read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Body {
    pub(super) results: u64,
    /// Whether an HTTP response has ended.
    pub(super) ended: bool,
}

pub(super) enum Counter {
    Frames(Frames),
    Responses(Responses),
    /// A stream of messages of which many may share a frame.
    Marks(Marks),
}

impl Counter {
    pub(super) fn new(via: Via) -> Self {
        match via {
            Via::Raw | Via::Ws => Self::Frames(Frames::default()),
            Via::XhrStreaming | Via::Eventsource | Via::Xhr => {
                Self::Responses(Responses::default())
            }
            Via::Nats => Self::Marks(Marks::of(NATS_MESSAGE)),
        }
    }

    pub(super) fn read(&mut self, bytes: &[u8]) -> Body {
        match self {
            Self::Frames(frames) => frames.read(bytes),
            Self::Responses(responses) => responses.read(bytes),
            Self::Marks(marks) => Body {
                results: marks.count(bytes),
                ended: false,
            },
        }
    }
}

/// Counts what is always the same before or in a message.
pub(super) struct Marks {
    mark: &'static [u8],
    /// The last bytes, shorter than the mark, in which one may have begun.
    tail: Vec<u8>,
}

impl Marks {
    fn of(mark: &'static [u8]) -> Self {
        Self {
            mark,
            tail: Vec::new(),
        }
    }

    fn count(&mut self, bytes: &[u8]) -> u64 {
        // A mark that lies across two reads has at most so many bytes in either.
        let across_max = self.mark.len() - 1;
        let first = &bytes[..bytes.len().min(across_max)];
        self.tail.extend_from_slice(first);
        let across = memmem::find_iter(&self.tail, self.mark).count();
        let within = memmem::find_iter(bytes, self.mark).count();
        if bytes.len() > first.len() {
            self.tail.clear();
            self.tail
                .extend_from_slice(&bytes[bytes.len().saturating_sub(across_max)..]);
        }
        let surplus = self.tail.len().saturating_sub(across_max);
        self.tail.drain(..surplus);
        (across + within) as u64
    }
}

/// A WebSocket behind its handshake.
#[derive(Default)]
pub(super) struct Frames {
    upgraded: bool,
    /// What is left of the frame's payload, and the header so far.
    left: usize,
    header: Vec<u8>,
}

impl Frames {
    fn read(&mut self, mut bytes: &[u8]) -> Body {
        let mut body = Body::default();
        if !self.upgraded {
            // The first call is given the whole head.
            self.upgraded = true;
            let end = memmem::find(bytes, b"\r\n\r\n").map_or(bytes.len(), |at| at + 4);
            bytes = &bytes[end..];
        }
        loop {
            let skip = self.left.min(bytes.len());
            self.left -= skip;
            bytes = &bytes[skip..];
            let Some((byte, rest)) = bytes.split_first() else {
                return body;
            };
            self.header.push(*byte);
            bytes = rest;
            let length = match self.header.get(1) {
                Some(126) if self.header.len() == 4 => {
                    usize::from(self.header[2]) << 8 | usize::from(self.header[3])
                }
                Some(127) if self.header.len() == 10 => {
                    let length = self.header[2..].iter();
                    length.fold(0, |sum, byte| sum << 8 | usize::from(*byte))
                }
                Some(126 | 127) | None => continue,
                Some(length) => usize::from(*length),
            };
            self.header.clear();
            self.left = length;
            body.results += u64::from(length >= RESULT_BYTES_MIN);
        }
    }
}

/// HTTP responses, one after the other on a connection that asks again after each.
pub(super) struct Responses {
    head: Vec<u8>,
    framing: Option<Framing>,
    marks: Marks,
}

impl Default for Responses {
    fn default() -> Self {
        Self {
            head: Vec::new(),
            framing: None,
            marks: Marks::of(QUOTED),
        }
    }
}

#[derive(Clone, Copy)]
enum Framing {
    /// So many bytes are left.
    Length(usize),
    Chunked,
}

impl Responses {
    fn read(&mut self, bytes: &[u8]) -> Body {
        let framing = match self.framing {
            Some(framing) => framing,
            None => {
                self.head.extend_from_slice(bytes);
                let Some(end) = memmem::find(&self.head, b"\r\n\r\n") else {
                    return Body::default();
                };
                let rest = self.head.split_off(end + 4);
                let framing = framing_of(&self.head);
                self.head.clear();
                self.marks.tail.clear();
                return self.read_body(framing, &rest);
            }
        };
        self.read_body(framing, bytes)
    }

    fn read_body(&mut self, framing: Framing, bytes: &[u8]) -> Body {
        let results = self.marks.count(bytes);
        // Nothing follows the end of a response until the next request.
        let (framing, ended) = match framing {
            Framing::Length(left) => {
                let left = left.saturating_sub(bytes.len());
                (Framing::Length(left), left == 0)
            }
            Framing::Chunked => (framing, self.marks.tail.ends_with(b"\r\n0\r\n\r\n")),
        };
        self.framing = (!ended).then_some(framing);
        Body { results, ended }
    }
}

fn framing_of(head: &[u8]) -> Framing {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let length = head.split("content-length: ").nth(1);
    let length = length.and_then(|rest| rest.lines().next()?.trim().parse().ok());
    length.map_or(Framing::Chunked, Framing::Length)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads `bytes` in steps of every size and expects the same each time.
    fn count(via: Via, head: &str, bytes: &[u8], results: u64, ends: u64) {
        for step in 1..bytes.len() {
            let mut counter = Counter::new(via);
            let mut sum = counter.read(head.as_bytes()).results;
            let mut ended = 0;
            for some in bytes.chunks(step) {
                let body = counter.read(some);
                sum += body.results;
                ended += u64::from(body.ended);
            }
            assert_eq!((sum, ended), (results, ends), "step {step}");
        }
    }

    #[test]
    fn long_frames_count_and_short_ones_do_not() {
        let mut bytes = b"\x81\x02{}".to_vec();
        for _ in 0..3 {
            bytes.extend_from_slice(&[0x81, 126, 1, 44]);
            bytes.extend_from_slice(&[b'x'; 300]);
        }
        count(Via::Raw, "HTTP/1.1 101 S\r\n\r\n", &bytes, 3, 0);
    }

    #[test]
    fn messages_of_nats_count_however_they_are_framed() {
        let mut bytes = b"\x82\x06PING\r\n".to_vec();
        let one = [b"MSG viewers 1 300\r\n".to_vec(), vec![b'x'; 300]].concat();
        for count in 1..4 {
            let payload = one.repeat(count);
            bytes.extend_from_slice(&[0x82, 126]);
            bytes.extend_from_slice(&u16::try_from(payload.len()).unwrap().to_be_bytes());
            bytes.extend_from_slice(&payload);
        }
        count(Via::Nats, "HTTP/1.1 101 S\r\n\r\n", &bytes, 6, 0);
    }

    #[test]
    fn results_are_found_wherever_reads_are_cut() {
        let one = String::from_utf8_lossy(QUOTED).into_owned();
        let line = format!("a[\"{{{one},{one}}}\"]\n");
        let body = format!("{:x}\r\n{line}\r\n3\r\nabc\r\n0\r\n\r\n", line.len());
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        count(Via::XhrStreaming, head, body.as_bytes(), 2, 1);
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", line.len());
        count(Via::Xhr, &head, line.as_bytes(), 2, 1);
        let both = format!("{line}{head}{line}");
        for step in line.len()..both.len() {
            let mut counter = Counter::new(Via::Xhr);
            counter.read(head.as_bytes());
            let (first, rest) = both.as_bytes().split_at(line.len());
            let mut sum = counter.read(first).results;
            for some in rest.chunks(step) {
                sum += counter.read(some).results;
            }
            assert_eq!(sum, 4);
        }
    }
}
