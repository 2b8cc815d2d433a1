//! Viewers that only count what they get.

use std::cell::{Cell, RefCell};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use hdrhistogram::Histogram;
use memchr::memmem;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::counter::{Body, Counter, Via};
use super::http::{Http, post};
use super::trigger::{subscription, websocket};

/// How many source addresses viewers use: a server may limit the sessions that one address opens in a second.
const ADDRESSES: usize = 100;
/// Longer ones count as this.
const LATENCY_MAX_US: u64 = 60_000_000;
/// Room for one read, shared by all viewers of a thread.
const READ_BYTES: usize = 512 * 1024;
const PREFIX: &str = "/api/v1/fleet/results";

/// Sessions that this process has opened.
static OPENED: AtomicUsize = AtomicUsize::new(0);

/// When each result of a paced run was due, and how much later viewers had it.
pub(super) struct Pace {
    start: Instant,
    gap: Duration,
    /// The first result of the run; those before came without a pace.
    first: u64,
    /// In microseconds.
    pub(super) latencies: Histogram<u64>,
}

impl Pace {
    pub(super) fn new(start: Instant, rate: f64, first: u64) -> anyhow::Result<Self> {
        let latencies = Histogram::new_with_max(LATENCY_MAX_US, 3).context("a histogram")?;
        let gap = Duration::from_secs_f64(1.0 / rate);
        Ok(Self {
            start,
            gap,
            first,
            latencies,
        })
    }

    /// A viewer has just got the results from number `first` on.
    fn received(&mut self, first: u64, count: u64) {
        let now = self.start.elapsed();
        for number in first..first + count {
            // A result is published once the clock has passed its number.
            let place = (number + 1).saturating_sub(self.first);
            let due = self.gap * u32::try_from(place).unwrap_or(u32::MAX);
            let late = now.saturating_sub(due).as_micros();
            self.latencies
                .saturating_record(u64::try_from(late).unwrap_or(u64::MAX));
        }
    }
}

/// What all viewers count together.
#[derive(Default)]
pub(crate) struct Counts {
    pub(super) results: Cell<u64>,
    pub(super) bytes: Cell<u64>,
    pub(super) reads: Cell<u64>,
    pub(super) read_something: Notify,
    pub(super) pace: RefCell<Option<Pace>>,
    space: RefCell<Vec<u8>>,
}

/// What the viewers say before they listen.
#[derive(Clone)]
pub(super) struct Hello {
    pub(super) token: String,
    pub(super) campaign: u64,
    pub(super) after: Option<u64>,
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

/// Viewers and what they have heard; dropping it cuts them off.
#[derive(Default)]
pub(crate) struct Audience {
    pub(super) counts: Rc<Counts>,
    viewers: JoinSet<()>,
}

impl Audience {
    /// Connects one viewer, says its hello and counts from then on.
    pub(super) async fn connect(
        &mut self,
        server: SocketAddr,
        via: Via,
        number: usize,
        hello: Option<&Hello>,
    ) -> anyhow::Result<()> {
        let (mut viewer, head) = open(server, via, number, hello, &self.counts, None).await?;
        viewer.take(&head).await?;
        self.viewers.spawn_local(viewer.listen());
        Ok(())
    }
}

/// Connects a viewer and says its hello; gives what it has read so far too.
async fn open(
    server: SocketAddr,
    via: Via,
    number: usize,
    hello: Option<&Hello>,
    counts: &Rc<Counts>,
    receive_buffer: Option<u32>,
) -> anyhow::Result<(Viewer, Vec<u8>)> {
    let socket = TcpSocket::new_v4()?;
    if let Some(bytes) = receive_buffer {
        socket.set_recv_buffer_size(bytes)?;
    }
    let last = u8::try_from(2 + number % ADDRESSES)?;
    socket.bind(SocketAddr::from(([127, 0, 0, last], 0)))?;
    let mut stream = socket.connect(server).await?;
    stream.set_nodelay(true)?;
    // Never one of before: the server may still have that session, and the campaign that it watches.
    let turn = OPENED.fetch_add(1, Ordering::Relaxed);
    let session = format!("{PREFIX}/000/viewer{}x{turn}", std::process::id());
    let request = request(via, &session);
    stream.write_all(request.as_bytes()).await?;
    let head = read_head(&stream).await?;
    let mut viewer = Viewer {
        stream,
        counter: Counter::new(via),
        request,
        counts: Rc::clone(counts),
        heard: 0,
    };
    match hello {
        Some(hello) => viewer.greet(server, via, &session, hello).await?,
        None => viewer.stream.write_all(&subscription(via)).await?,
    }
    Ok((viewer, head))
}

/// Connects a viewer who takes next to nothing: it has a small buffer and never reads.
pub(super) async fn stall(
    server: SocketAddr,
    via: Via,
    number: usize,
    hello: Option<&Hello>,
) -> anyhow::Result<TcpStream> {
    let counts = Rc::default();
    let (viewer, _) = open(server, via, number, hello, &counts, Some(4096)).await?;
    Ok(viewer.stream)
}

/// What opens a viewer's connection, and goes on where a response has ended.
fn request(via: Via, session: &str) -> String {
    let post = |path: &str| {
        format!("POST {session}/{path} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
    };
    match via {
        Via::Raw | Via::Nats => websocket(&format!("{PREFIX}/websocket")),
        Via::Ws => websocket(&format!("{session}/websocket")),
        Via::XhrStreaming => post("xhr_streaming"),
        Via::Xhr => post("xhr"),
        Via::Eventsource => format!("GET {session}/eventsource HTTP/1.1\r\nHost: a\r\n\r\n"),
    }
}

/// Everything up to the end of the response's head, and perhaps more.
async fn read_head(stream: &TcpStream) -> anyhow::Result<Vec<u8>> {
    let mut head = Vec::new();
    while memmem::find(&head, b"\r\n\r\n").is_none() {
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
    Ok(head)
}

struct Viewer {
    stream: TcpStream,
    counter: Counter,
    request: String,
    counts: Rc<Counts>,
    heard: u64,
}

impl Viewer {
    async fn greet(
        &mut self,
        server: SocketAddr,
        via: Via,
        session: &str,
        hello: &Hello,
    ) -> anyhow::Result<()> {
        let messages = hello.messages();
        if via.is_http() {
            let mut http = Http::open(&server.to_string()).await?;
            let body = serde_json::json!(messages).to_string();
            let request = post(&format!("{session}/xhr_send"), "", body.as_bytes());
            http.call(&request).await.context("xhr_send")?;
            return Ok(());
        }
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
            self.stream.write_all(&frame).await?;
        }
        Ok(())
    }

    async fn listen(mut self) {
        let counts = Rc::clone(&self.counts);
        while self.stream.readable().await.is_ok() {
            // The space is shared by all viewers, so it is taken while one of them uses it.
            let mut space = counts.space.take();
            space.resize(READ_BYTES, 0);
            let outcome = self.stream.try_read(&mut space);
            let going_on = match outcome {
                Ok(0) => false,
                Ok(count) => self.take(&space[..count]).await.is_ok(),
                Err(error) => error.kind() == ErrorKind::WouldBlock,
            };
            counts.space.replace(space);
            if !going_on {
                return;
            }
        }
    }

    /// Counts what has come, and asks for more where a response has ended.
    async fn take(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let Body { results, ended } = self.counter.read(bytes);
        let counts = &self.counts;
        counts.results.set(counts.results.get() + results);
        counts.bytes.set(counts.bytes.get() + bytes.len() as u64);
        counts.reads.set(counts.reads.get() + 1);
        if results > 0
            && let Some(pace) = &mut *counts.pace.borrow_mut()
        {
            pace.received(self.heard, results);
        }
        self.heard += results;
        counts.read_something.notify_one();
        if ended {
            self.stream.write_all(self.request.as_bytes()).await?;
        }
        Ok(())
    }
}
