//! Reading HTTP/1.1 responses without copying their bodies: for streams that never end and for plain answers.

/// The longest response head that is read.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// The longest line before a chunk.
const CHUNK_LINE_BYTES_MAX: usize = 256;

/// What a response's head says, as far as a client of this kind needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) status: u16,
    /// Whether the connection stays open behind the response.
    pub(crate) keep_alive: bool,
    length: Length,
    /// `Sec-WebSocket-Accept`.
    pub(crate) accept: Option<String>,
    /// Seconds of `Retry-After`.
    pub(crate) retry_after_s: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Length {
    Fixed(u64),
    Chunked,
    UntilClose,
}

/// The next thing in the bytes given.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step<'a> {
    /// Nothing more without more bytes.
    More,
    Head(Head),
    Body(&'a [u8]),
    /// The response is over; what follows in the input is the next one.
    End,
}

/// Why bytes are no HTTP response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Broken(&'static str);

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "not an HTTP response: {}", self.0)
    }
}

impl std::error::Error for Broken {}

#[derive(Debug)]
enum State {
    Head,
    Fixed(u64),
    ChunkLine,
    Chunk(u64),
    ChunkEnd,
    Trailer,
    UntilClose,
    Over,
}

/// Reads one response after the other out of whatever pieces the socket gives.
#[derive(Debug)]
pub(crate) struct ResponseReader {
    state: State,
    /// The beginning of a head or line whose end has not come.
    torn: Vec<u8>,
}

impl Default for ResponseReader {
    fn default() -> Self {
        Self {
            state: State::Head,
            torn: Vec::new(),
        }
    }
}

impl ResponseReader {
    /// Takes the next thing off the front of `input`.
    ///
    /// # Errors
    /// When the bytes are no HTTP/1.x response; the reader is then useless.
    pub(crate) fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Step<'a>, Broken> {
        loop {
            match self.state {
                State::Over => {
                    self.state = State::Head;
                    return Ok(Step::End);
                }
                State::Head => return self.head(input),
                _ if input.is_empty() => return Ok(Step::More),
                State::UntilClose => return Ok(Step::Body(std::mem::take(input))),
                State::Fixed(left) => {
                    let (body, left) = body(input, left);
                    self.state = if left == 0 {
                        State::Over
                    } else {
                        State::Fixed(left)
                    };
                    return Ok(Step::Body(body));
                }
                State::Chunk(left) => {
                    let (body, left) = body(input, left);
                    self.state = if left == 0 {
                        State::ChunkEnd
                    } else {
                        State::Chunk(left)
                    };
                    return Ok(Step::Body(body));
                }
                State::ChunkLine | State::ChunkEnd | State::Trailer => {
                    if !self.line(input)? {
                        return Ok(Step::More);
                    }
                }
            }
        }
    }

    /// Whether the response in progress may end where the connection does.
    pub(crate) fn may_end_here(&self) -> bool {
        matches!(self.state, State::UntilClose)
            || (matches!(self.state, State::Head) && self.torn.is_empty())
    }

    fn head<'a>(&mut self, input: &mut &'a [u8]) -> Result<Step<'a>, Broken> {
        let before = self.torn.len();
        let (end, owned) = if before == 0 {
            (memchr::memmem::find(input, b"\r\n\r\n"), false)
        } else {
            self.torn.extend_from_slice(input);
            let from = before.saturating_sub(3);
            let found = memchr::memmem::find(&self.torn[from..], b"\r\n\r\n");
            (found.map(|at| at + from), true)
        };
        let Some(end) = end else {
            if !owned {
                self.torn.extend_from_slice(input);
            }
            if self.torn.len() > HEAD_BYTES_MAX {
                return Err(Broken("endless head"));
            }
            *input = &[];
            return Ok(Step::More);
        };
        let head = parse_head(if owned {
            &self.torn[..end]
        } else {
            &input[..end]
        })?;
        *input = &input[end + 4 - before..];
        self.torn.clear();
        self.state = match (head.status, head.length) {
            (101, _) => State::Over,
            (100..200 | 204 | 304, _) | (_, Length::Fixed(0)) => State::Over,
            (_, Length::Fixed(length)) => State::Fixed(length),
            (_, Length::Chunked) => State::ChunkLine,
            (_, Length::UntilClose) => State::UntilClose,
        };
        Ok(Step::Head(head))
    }

    /// Takes one line of the chunk framing; whether it was complete.
    fn line(&mut self, input: &mut &[u8]) -> Result<bool, Broken> {
        let Some(end) = memchr::memchr(b'\n', input) else {
            self.torn.extend_from_slice(input);
            *input = &[];
            if self.torn.len() > CHUNK_LINE_BYTES_MAX {
                return Err(Broken("endless chunk line"));
            }
            return Ok(false);
        };
        let (line, rest) = input.split_at(end + 1);
        *input = rest;
        self.torn.extend_from_slice(line);
        let line = self.torn.trim_ascii();
        self.state = match self.state {
            State::ChunkLine => match chunk_length(line)? {
                0 => State::Trailer,
                length => State::Chunk(length),
            },
            State::ChunkEnd if line.is_empty() => State::ChunkLine,
            State::ChunkEnd => return Err(Broken("chunk longer than it says")),
            State::Trailer if line.is_empty() => State::Over,
            _ => State::Trailer,
        };
        self.torn.clear();
        Ok(true)
    }
}

fn body<'a>(input: &mut &'a [u8], left: u64) -> (&'a [u8], u64) {
    let length = usize::try_from(left).map_or(input.len(), |left| left.min(input.len()));
    let (body, rest) = input.split_at(length);
    *input = rest;
    (body, left - length as u64)
}

fn chunk_length(line: &[u8]) -> Result<u64, Broken> {
    let digits = line.split(|byte| *byte == b';').next().unwrap_or(line);
    let digits = std::str::from_utf8(digits.trim_ascii()).unwrap_or("");
    u64::from_str_radix(digits, 16).map_err(|_| Broken("chunk without a length"))
}

fn parse_head(bytes: &[u8]) -> Result<Head, Broken> {
    let text = std::str::from_utf8(bytes).map_err(|_| Broken("head is no text"))?;
    let mut lines = text.split("\r\n");
    let first = lines.next().unwrap_or("");
    let rest = first
        .strip_prefix("HTTP/1.")
        .ok_or(Broken("no status line"))?;
    let status = rest.get(2..5).and_then(|digits| digits.parse().ok());
    let mut head = Head {
        status: status.ok_or(Broken("no status"))?,
        keep_alive: rest.starts_with('1'),
        length: Length::UntilClose,
        accept: None,
        retry_after_s: None,
    };
    for line in lines {
        let Some((name, value)) = line.split_once(':') else {
            return Err(Broken("header without a colon"));
        };
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" if head.length != Length::Chunked => {
                let length = value.parse().map_err(|_| Broken("bad Content-Length"))?;
                head.length = Length::Fixed(length);
            }
            "transfer-encoding" if value.to_ascii_lowercase().ends_with("chunked") => {
                head.length = Length::Chunked;
            }
            "connection" => {
                let value = value.to_ascii_lowercase();
                if value.contains("close") {
                    head.keep_alive = false;
                } else if value.contains("keep-alive") {
                    head.keep_alive = true;
                }
            }
            "sec-websocket-accept" => head.accept = Some(value.to_owned()),
            "retry-after" => head.retry_after_s = value.parse().ok(),
            _ => {}
        }
    }
    if head.length == Length::UntilClose {
        head.keep_alive = false;
    }
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All steps of `stream` fed in pieces of `step` bytes, bodies joined.
    fn read(stream: &[u8], step: usize) -> Result<Vec<(u16, Vec<u8>, bool)>, Broken> {
        let mut reader = ResponseReader::default();
        let mut responses: Vec<(u16, Vec<u8>, bool)> = Vec::new();
        for piece in stream.chunks(step) {
            let mut input = piece;
            loop {
                match reader.next(&mut input)? {
                    Step::More => break,
                    Step::Head(head) => responses.push((head.status, Vec::new(), false)),
                    Step::Body(body) => responses.last_mut().unwrap().1.extend_from_slice(body),
                    Step::End => responses.last_mut().unwrap().2 = true,
                }
            }
        }
        Ok(responses)
    }

    const STREAM: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello\
        HTTP/1.1 204 No Content\r\n\r\n\
        HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n5;x=y\r\ndefgh\r\n0\r\nT: v\r\n\r\n\
        HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";

    #[test]
    fn pipelined_responses_are_told_apart_however_they_are_torn() {
        let expected = vec![
            (200, b"hello".to_vec(), true),
            (204, Vec::new(), true),
            (200, b"abcdefgh".to_vec(), true),
            (404, Vec::new(), true),
        ];
        for step in 1..STREAM.len() + 1 {
            assert_eq!(read(STREAM, step).unwrap(), expected, "pieces of {step}");
        }
    }

    #[test]
    fn a_body_without_length_lasts_until_the_close() {
        let stream = b"HTTP/1.0 200 OK\r\n\r\nall of this";
        assert_eq!(
            read(stream, 7).unwrap(),
            [(200, b"all of this".to_vec(), false)]
        );
    }

    #[test]
    fn connection_headers_are_understood() {
        let head = |text: &str| parse_head(text.as_bytes()).unwrap();
        assert!(head("HTTP/1.1 200 OK\r\nContent-Length: 1").keep_alive);
        assert!(!head("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: Close").keep_alive);
        assert!(!head("HTTP/1.0 200 OK\r\nContent-Length: 1").keep_alive);
        assert!(!head("HTTP/1.1 200 OK").keep_alive);
        let switched = head("HTTP/1.1 101 x\r\nSec-WebSocket-Accept: abc");
        assert_eq!(switched.accept.as_deref(), Some("abc"));
        assert_eq!(
            head("HTTP/1.1 429 x\r\nRetry-After: 7").retry_after_s,
            Some(7)
        );
    }

    #[test]
    fn what_is_no_response_is_refused() {
        for bad in [
            &b"SSH-2.0-x\r\n\r\n"[..],
            b"HTTP/1.1 abc\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nnonsense\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n",
        ] {
            assert!(read(bad, 1000).is_err());
        }
    }
}
