//! A small HTTP/1.1 client that hides nothing: chunks as they were cut, headers as they came, the end as it was.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::server::shared;

/// How long a test waits for bytes that must come.
const PATIENCE: Duration = Duration::from_secs(10);

/// One connection.
pub(super) struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// Status line and headers of a response.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) version: String,
    pub(super) status: u16,
    headers: Vec<(String, String)>,
}

/// A whole response.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) head: Head,
    pub(super) body: String,
}

impl Head {
    /// The header's value, of which there must not be two.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(found, _)| found == name);
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} stands twice");
        value
    }
}

impl Answer {
    pub(super) fn status(&self) -> u16 {
        self.head.status
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }
}

impl Client {
    /// Connects to the shared server.
    pub(super) fn connect() -> Self {
        Self::to(shared().address)
    }

    pub(super) fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    /// Writes bytes as they are.
    pub(super) fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// Writes as much as the server takes; false if it has closed.
    pub(super) fn try_write(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Writes a request with a length, as HTTP/1.1.
    pub(super) fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) {
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if method == "POST" || !body.is_empty() {
            head.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        self.write(bytes);
    }

    /// Sends a request and reads the whole answer.
    pub(super) fn ask(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl AsRef<[u8]>,
    ) -> Answer {
        self.request(method, path, headers, body.as_ref());
        self.answer()
    }

    /// Sends a request and reads the head of a streaming answer.
    pub(super) fn open(&mut self, method: &str, path: &str) -> Head {
        self.request(method, path, &[], b"");
        self.head()
    }

    pub(super) fn head(&mut self) -> Head {
        let end = loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                break at;
            }
            assert!(self.fill() > 0, "closed within a head");
        };
        let head: Vec<u8> = self.buffer.drain(..end + 4).collect();
        let head = String::from_utf8_lossy(&head);
        let mut lines = head.trim_end().split("\r\n");
        let (version, status) = lines.next().unwrap().split_once(' ').unwrap();
        let header = |line: &str| {
            let (name, value) = line.split_once(':').unwrap();
            (name.to_ascii_lowercase(), value.trim().to_owned())
        };
        Head {
            version: version.to_owned(),
            status: status[..3].parse().unwrap(),
            headers: lines.map(header).collect(),
        }
    }

    /// The rest of an answer to anything but HEAD.
    pub(super) fn answer(&mut self) -> Answer {
        let head = self.head();
        let length = head.header("content-length").map(|n| n.parse().unwrap());
        let body = match (length, head.header("transfer-encoding")) {
            (Some(length), None) => self.take(length),
            (None, Some("chunked")) => {
                let mut body = Vec::new();
                while let Some(chunk) = self.chunk_bytes() {
                    body.extend(chunk);
                }
                body
            }
            (None, None) if matches!(head.status, 204 | 304 | 100..=199) => Vec::new(),
            (None, None) => self.rest(),
            both => panic!("two framings: {both:?}"),
        };
        Answer {
            head,
            body: String::from_utf8(body).unwrap(),
        }
    }

    /// The next chunk of a chunked body, exactly as it was cut; nothing at the final one.
    pub(super) fn chunk(&mut self) -> Option<String> {
        let chunk = self.chunk_bytes()?;
        Some(String::from_utf8(chunk).unwrap())
    }

    pub(super) fn chunk_bytes(&mut self) -> Option<Vec<u8>> {
        let line = loop {
            if let Some(at) = find(&self.buffer, b"\r\n") {
                break at;
            }
            assert!(self.fill() > 0, "closed within a chunked body");
        };
        let line: Vec<u8> = self.buffer.drain(..line + 2).collect();
        let size = std::str::from_utf8(&line).unwrap().trim();
        let size = usize::from_str_radix(size, 16).unwrap();
        let chunk = self.take(size);
        assert_eq!(self.take(2), b"\r\n");
        (size > 0).then_some(chunk)
    }

    /// Exactly so many bytes.
    pub(super) fn take(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            assert!(
                self.fill() > 0,
                "closed {} bytes early",
                count - self.buffer.len()
            );
        }
        self.buffer.drain(..count).collect()
    }

    /// Everything until the server closes.
    pub(super) fn rest(&mut self) -> Vec<u8> {
        while self.fill() > 0 {}
        std::mem::take(&mut self.buffer)
    }

    /// Whether nothing comes for a moment, while the connection stays open.
    pub(super) fn is_silent(&mut self) -> bool {
        if !self.buffer.is_empty() {
            return false;
        }
        let moment = Duration::from_millis(150);
        self.stream.set_read_timeout(Some(moment)).unwrap();
        let read = self.read(&mut [0]);
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let kind = read.map_err(|fault| fault.kind());
        matches!(kind, Err(ErrorKind::WouldBlock | ErrorKind::TimedOut))
    }

    /// Whether the server has closed, or does so within the given time, without sending more.
    pub(super) fn is_closed_within(&mut self, time: Duration) -> bool {
        self.stream.set_read_timeout(Some(time)).unwrap();
        let read = self.read(&mut [0]);
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        self.buffer.is_empty() && matches!(read, Ok(0))
    }

    /// A read with a deadline is cut short by signals, such as that of a child's end, and never begun again by itself.
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.stream.read(bytes) {
                Err(fault) if fault.kind() == ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }

    fn fill(&mut self) -> usize {
        let mut bytes = [0; 16 * 1024];
        let count = match self.read(&mut bytes) {
            Ok(count) => count,
            Err(fault) if fault.kind() == ErrorKind::ConnectionReset => 0,
            Err(fault) => panic!("nothing came in time: {fault}; so far {:?}", self.buffer),
        };
        self.buffer.extend_from_slice(&bytes[..count]);
        count
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    let mut windows = haystack.windows(needle.len());
    windows.position(|window| window == needle)
}

/// One GET on a connection of its own.
pub(super) fn get(path: &str) -> Answer {
    Client::connect().ask("GET", path, &[], "")
}

/// One GET with headers.
pub(super) fn get_with(path: &str, headers: &[(&str, &str)]) -> Answer {
    Client::connect().ask("GET", path, headers, "")
}

/// One POST on a connection of its own.
pub(super) fn post(path: &str, body: impl AsRef<[u8]>) -> Answer {
    Client::connect().ask("POST", path, &[], body)
}

/// One POST with headers.
pub(super) fn post_with(path: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Answer {
    Client::connect().ask("POST", path, headers, body)
}

/// One OPTIONS with headers.
pub(super) fn options(path: &str, headers: &[(&str, &str)]) -> Answer {
    Client::connect().ask("OPTIONS", path, headers, "")
}

/// The recipe for answers that nobody may keep.
pub(super) fn assert_no_cache(answer: &Head) {
    assert_eq!(
        answer.header("cache-control"),
        Some("no-store, no-cache, no-transform, must-revalidate, max-age=0")
    );
    assert_eq!(answer.header("expires"), None);
    assert_eq!(answer.header("last-modified"), None);
}

/// The recipe for pages of other origins.
pub(super) fn assert_cors(answer: &Head, origin: Option<&str>) {
    let allowed = answer.header("access-control-allow-origin");
    assert_eq!(allowed, Some(origin.unwrap_or("*")));
    let credentials = answer.header("access-control-allow-credentials");
    assert_eq!(credentials, Some("true"));
    assert_eq!(answer.header("vary"), Some("Origin"));
}
