//! Viewers that only count what they get: frames, lines or events.

use std::cell::{Cell, RefCell};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::rc::Rc;

use anyhow::{Context, bail};
use clap::ValueEnum;
use memchr::memmem::Finder;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Notify;

use crate::http::{Http, post};

/// Frames shorter than this are the broker's counts of hosts and not results.
const RESULT_BYTES_MIN: usize = 256;
/// New sessions that one address may open in a second, about.
const ADDRESSES: usize = 50;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Via {
    Raw,
    Ws,
    XhrStreaming,
    Eventsource,
}

/// What all viewers count together.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) results: Cell<u64>,
    pub(crate) bytes: Cell<u64>,
    pub(crate) reads: Cell<u64>,
    pub(crate) lost: Cell<u64>,
    pub(crate) read_something: Notify,
    space: RefCell<Vec<u8>>,
}

/// What the viewers say before they listen.
#[derive(Clone)]
pub(crate) struct Hello {
    pub(crate) token: String,
    pub(crate) campaign: u64,
    pub(crate) after: Option<u64>,
}

impl Hello {
    fn messages(&self) -> [String; 2] {
        let auth = serde_json::json!({"type": "auth", "data": {"token": self.token}});
        let mut select = serde_json::json!({"type": "select_campaign",
            "data": {"campaign_id": self.campaign}});
        if let Some(after) = self.after {
            select["data"]["after"] = after.into();
        }
        [auth.to_string(), select.to_string()]
    }
}

const PREFIX: &str = "/api/v1/fleet/results";

/// Connects one viewer, says its hello and counts from then on.
pub(crate) async fn connect(
    server: SocketAddr,
    via: Via,
    number: usize,
    hello: Option<&Hello>,
    counts: &Rc<Counts>,
) -> anyhow::Result<()> {
    let socket = TcpSocket::new_v4()?;
    let last = u8::try_from(2 + number % ADDRESSES)?;
    socket.bind(SocketAddr::from(([127, 0, 0, last], 0)))?;
    let mut stream = socket.connect(server).await?;
    stream.set_nodelay(true)?;
    let session = format!("{PREFIX}/000/viewer{}x{number}", std::process::id());
    let websocket = |path: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
    };
    let request = match via {
        Via::Raw => websocket(&format!("{PREFIX}/websocket")),
        Via::Ws => websocket(&format!("{session}/websocket")),
        Via::XhrStreaming => {
            format!("POST {session}/xhr_streaming HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        }
        Via::Eventsource => format!("GET {session}/eventsource HTTP/1.1\r\nHost: a\r\n\r\n"),
    };
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    while memchr::memmem::find(&head, b"\r\n\r\n").is_none() {
        stream.readable().await?;
        match stream.try_read_buf(&mut head) {
            Ok(0) => bail!("closed: {}", String::from_utf8_lossy(&head)),
            Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error.into()),
            _ => {}
        }
    }
    if !head.starts_with(b"HTTP/1.1 101") && !head.starts_with(b"HTTP/1.1 200") {
        bail!("{}", String::from_utf8_lossy(&head));
    }
    if let Some(hello) = hello {
        greet(&mut stream, server, via, &session, hello).await?;
    }
    let mut counter = Counter::new(via);
    let end = memchr::memmem::find(&head, b"\r\n\r\n").map_or(head.len(), |at| at + 4);
    counter.read(&head[end..]);
    let counts = Rc::clone(counts);
    tokio::task::spawn_local(async move {
        if listen(&mut stream, counter, request.as_bytes(), &counts)
            .await
            .is_err()
        {
            counts.lost.set(counts.lost.get() + 1);
        }
    });
    Ok(())
}

async fn greet(
    stream: &mut TcpStream,
    server: SocketAddr,
    via: Via,
    session: &str,
    hello: &Hello,
) -> anyhow::Result<()> {
    let messages = hello.messages();
    match via {
        Via::Raw | Via::Ws => {
            for message in messages {
                let text = if via == Via::Raw {
                    message
                } else {
                    serde_json::json!([message]).to_string()
                };
                let length = u16::try_from(text.len())?;
                let mut frame = vec![0x81, 0x80 | 126];
                frame.extend_from_slice(&length.to_be_bytes());
                // A mask of zeros leaves the text as it is.
                frame.extend_from_slice(&[0; 4]);
                frame.extend_from_slice(text.as_bytes());
                stream.write_all(&frame).await?;
            }
        }
        Via::XhrStreaming | Via::Eventsource => {
            let mut http = Http::open(&server.to_string()).await?;
            let body = serde_json::json!(messages).to_string();
            let request = post(&format!("{session}/xhr_send"), "", body.as_bytes());
            http.call(&request).await.context("xhr_send")?;
        }
    }
    Ok(())
}

/// What there is to read: bytes, results, and whether the response has ended. The space is shared by all viewers, so
/// it is never held while one of them waits.
fn take(
    stream: &TcpStream,
    counter: &mut Counter,
    counts: &Counts,
) -> anyhow::Result<Option<(usize, u64, bool)>> {
    let mut space = counts.space.borrow_mut();
    space.resize(512 * 1024, 0);
    match stream.try_read(&mut space) {
        Ok(0) => bail!("closed"),
        Ok(count) => {
            let (results, ended) = counter.read(&space[..count]);
            Ok(Some((count, results, ended)))
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error.into()),
    }
}

async fn listen(
    stream: &mut TcpStream,
    mut counter: Counter,
    request: &[u8],
    counts: &Counts,
) -> anyhow::Result<()> {
    loop {
        stream.readable().await?;
        let Some((count, results, ended)) = take(stream, &mut counter, counts)? else {
            continue;
        };
        counts.results.set(counts.results.get() + results);
        counts.bytes.set(counts.bytes.get() + count as u64);
        counts.reads.set(counts.reads.get() + 1);
        counts.read_something.notify_one();
        if ended {
            // The response has reached its limit; the next one goes on.
            stream.write_all(request).await?;
        }
    }
}

/// Counts results in a stream of bytes that is cut anywhere.
struct Counter {
    via: Via,
    /// WebSocket: what is left of the frame's payload, and the header so far.
    left: usize,
    header: Vec<u8>,
    /// HTTP: the last bytes, which may be the beginning of a mark.
    tail: Vec<u8>,
    mark: Finder<'static>,
    end: Finder<'static>,
}

impl Counter {
    fn new(via: Via) -> Self {
        let mark: &[u8] = match via {
            Via::Eventsource => b"]\r",
            _ => b"]\n",
        };
        Self {
            via,
            left: 0,
            header: Vec::new(),
            tail: Vec::new(),
            mark: Finder::new(mark),
            end: Finder::new(b"\r\n0\r\n\r\n"),
        }
    }

    /// How many results, and whether an HTTP response has ended.
    fn read(&mut self, bytes: &[u8]) -> (u64, bool) {
        match self.via {
            Via::Raw | Via::Ws => (self.read_frames(bytes), false),
            Via::XhrStreaming | Via::Eventsource => self.read_body(bytes),
        }
    }

    fn read_frames(&mut self, mut bytes: &[u8]) -> u64 {
        let mut results = 0;
        loop {
            let skip = self.left.min(bytes.len());
            self.left -= skip;
            bytes = &bytes[skip..];
            let Some((byte, rest)) = bytes.split_first() else {
                return results;
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
            results += u64::from(length >= RESULT_BYTES_MIN);
        }
    }

    fn read_body(&mut self, bytes: &[u8]) -> (u64, bool) {
        let kept = self.tail.len();
        self.tail.extend_from_slice(&bytes[..bytes.len().min(8)]);
        // What lies across the two reads.
        let across = |finder: &Finder<'_>, need: usize| {
            let from = kept.saturating_sub(need - 1);
            let to = (kept + need - 1).min(self.tail.len());
            finder.find_iter(&self.tail[from..to]).count() as u64
        };
        let results = across(&self.mark, 2) + self.mark.find_iter(bytes).count() as u64;
        // Nothing follows the end of a response until the next request.
        let last = &bytes[bytes.len().saturating_sub(16)..];
        let ended = across(&self.end, 7) > 0 || self.end.find(last).is_some();
        if bytes.len() >= 8 {
            self.tail.clear();
        }
        let keep = &bytes[bytes.len().saturating_sub(8)..];
        if bytes.len() >= 8 {
            self.tail.extend_from_slice(keep);
        } else {
            let surplus = self.tail.len().saturating_sub(8);
            self.tail.drain(..surplus);
        }
        (results, ended)
    }
}
