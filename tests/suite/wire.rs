//! A server with test services on a free port, and clients that speak in bytes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use answerback::clock::{Clock, Timestamp};
use answerback::limits::account::Party;
use answerback::net::body::{self, Limits};
use answerback::net::tls::{self, SelfSigned, Tls};
use answerback::net::{self, ConnInfo, Listener};
use answerback::sockjs::{Form, Slice};
use answerback::transport::upgrade::Handshake;
use answerback::transport::websocket::{Mode, Origin, Settings, Sockets};
use answerback::transport::{Application, Conversation, Next, Opened};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Response};
use hyper::upgrade::OnUpgrade;
use smallvec::smallvec;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use warp::Filter;

/// Long enough for a loaded machine, short enough for a test that fails.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Echoes; `flood` sends without end, `close` closes. Counts what happens to it.
#[derive(Debug, Default)]
pub struct Bench {
    pub opened: AtomicUsize,
    pub closed: AtomicUsize,
    pub handed: AtomicUsize,
    pub received: AtomicUsize,
}

struct Talk {
    bench: Arc<Bench>,
    waiting: Vec<Bytes>,
    flood: Option<Bytes>,
    close: bool,
    faulty: bool,
}

/// The application: its sessions share the counters.
#[derive(Debug)]
pub struct Shared(pub Arc<Bench>);

impl Application for Shared {
    fn open(&self, _opened: Opened, _now: Timestamp) -> Box<dyn Conversation> {
        self.0.opened.fetch_add(1, Ordering::SeqCst);
        Box::new(Talk {
            bench: Arc::clone(&self.0),
            waiting: Vec::new(),
            flood: None,
            close: false,
            faulty: false,
        })
    }
}

impl Conversation for Talk {
    fn message(&mut self, text: &str, _now: Timestamp) {
        self.bench.received.fetch_add(1, Ordering::SeqCst);
        match text {
            "flood" => {
                let mut frames = BytesMut::new();
                for _ in 0..64 {
                    answerback::sockjs::payload::encode(Form::RawFrame, &[b'x'; 1000], &mut frames);
                }
                self.flood = Some(frames.freeze());
            }
            "close" => self.close = true,
            "panic" => panic!("the application has a fault"),
            echo => {
                self.faulty = echo == "panic at the end";
                self.waiting.push(Bytes::copy_from_slice(echo.as_bytes()));
            }
        }
    }

    fn next(&mut self, _form: Form, _budget: usize, _now: Timestamp) -> Next {
        if let Some(frames) = &self.flood {
            self.bench.handed.fetch_add(frames.len(), Ordering::SeqCst);
            return Next::Slice(Slice {
                len: frames.len(),
                parts: smallvec![frames.clone()],
                messages: 64,
                drained: false,
            });
        }
        if !self.waiting.is_empty() {
            return Next::Messages(self.waiting.drain(..).collect());
        }
        if self.close {
            let reason = "Go away!".to_owned();
            return Next::Close { code: 3000, reason };
        }
        Next::Wait
    }

    fn deadline(&self) -> Option<Timestamp> {
        None
    }

    fn closed(&mut self, _now: Timestamp) {
        self.bench.closed.fetch_add(1, Ordering::SeqCst);
        assert!(!self.faulty, "the application has a fault at the end");
    }
}

/// A running server. `/raw` and `/framed` are WebSockets, `/body` tells the length of a body of at
/// most 10,000 bytes, `/slow` answers after 800 ms, `/peer` tells how the client is connected.
pub struct Server {
    pub address: SocketAddr,
    pub bench: Arc<Bench>,
    sockets: Arc<Sockets<Shared>>,
    tasks: TaskTracker,
    pub served: JoinHandle<()>,
    pub certificate: Option<SelfSigned>,
}

impl Server {
    /// No more connections, and goodbye to those that are there.
    pub fn stop(&self) {
        self.sockets.stop();
    }

    /// Waits until no session, nor what drives it, is left, and says what was expected if one is.
    pub async fn until_no_task_is_left(&self, expected: &str) {
        self.tasks.close();
        timeout(PATIENCE, self.tasks.wait()).await.expect(expected);
    }
}

pub fn start(net_settings: net::Settings, settings: Settings) -> Server {
    run(net_settings, settings, None)
}

pub fn start_tls(net_settings: net::Settings, settings: Settings) -> Server {
    let pair = tls::self_signed(&[]).unwrap();
    run(net_settings, settings, Some(pair))
}

fn run(net_settings: net::Settings, settings: Settings, pair: Option<SelfSigned>) -> Server {
    let bench = Arc::new(Bench::default());
    let stop = CancellationToken::new();
    let tasks = TaskTracker::new();
    let sockets = Sockets::new(
        Arc::new(Shared(Arc::clone(&bench))),
        settings,
        Clock::System,
        tasks.clone(),
        stop.clone(),
    );
    let tls = pair.as_ref().map(|pair| {
        let directory = tempfile::tempdir().unwrap();
        let settings = tls::Settings {
            client_ca: None,
            certificate: directory.path().join("certificate.pem"),
            key: directory.path().join("key.pem"),
        };
        std::fs::write(&settings.certificate, &pair.certificate).unwrap();
        std::fs::write(&settings.key, &pair.key).unwrap();
        Tls::new(settings).unwrap()
    });
    let listener = Listener::bind(([127, 0, 0, 1], 0).into(), &net_settings).unwrap();
    Server {
        address: listener.local_address().unwrap(),
        bench,
        tasks,
        served: tokio::spawn(net::serve(
            listener,
            tls,
            net::Filtered(warp::service(routes(Arc::clone(&sockets)))),
            net_settings,
            stop,
        )),
        sockets,
        certificate: pair,
    }
}

fn routes(
    sockets: Arc<Sockets<Shared>>,
) -> impl Filter<Extract = (impl warp::Reply,), Error = warp::Rejection> + Clone + Send + Sync + 'static
{
    let limits = Limits {
        time: Duration::from_millis(500),
        ..Limits::of(10_000)
    };
    let body = warp::path("body")
        .and(warp::header::headers_cloned())
        .and(warp::body::stream())
        .then(move |headers: HeaderMap, stream| {
            let limits = limits.clone();
            async move {
                match body::read(&headers, stream, &limits, || Party::Host(1)).await {
                    Ok(body) => answer(200, format!("{}", body.len())),
                    Err(fault) => answer(fault.status().as_u16(), fault.label().to_owned()),
                }
            }
        });
    let slow = warp::path("slow").then(|| async {
        tokio::time::sleep(Duration::from_millis(800)).await;
        answer(200, "slow".to_owned())
    });
    let peer = warp::path("peer")
        .and(warp::ext::get::<ConnInfo>())
        .map(|info: ConnInfo| answer(200, format!("{} {}", info.peer.ip(), info.tls)));
    let socket = warp::path!(String)
        .and(warp::method())
        .and(warp::header::headers_cloned())
        .and(warp::ext::optional::<OnUpgrade>())
        .map(
            move |name: String, method: Method, headers: HeaderMap, upgrade| {
                let mode = if name == "raw" {
                    Mode::Raw
                } else {
                    Mode::Framed
                };
                let deflate = sockets.settings().deflate;
                let origin = Origin {
                    address: [127, 0, 0, 1].into(),
                    prefix: Arc::from("/"),
                    place: None,
                };
                match Handshake::judge(&method, &headers, upgrade, deflate) {
                    Ok(handshake) => sockets.accept(handshake, mode, origin),
                    Err(refusal) => refusal.response(),
                }
            },
        );
    body.or(slow).unify().or(peer).unify().or(socket).unify()
}

fn answer(status: u16, text: String) -> Response<Bytes> {
    let response = Response::builder().status(status).body(Bytes::from(text));
    response.unwrap()
}

impl Server {
    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    pub async fn websocket(&self, path: &str) -> Client<TcpStream> {
        Client::upgrade(self.connect().await, path, "").await
    }

    /// Waits until a counter of the application shows `count`.
    pub async fn until(&self, counter: impl Fn(&Bench) -> &AtomicUsize, count: usize) {
        let reached = async {
            while counter(&self.bench).load(Ordering::SeqCst) < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, reached).await.expect("the counter moves");
    }
}

/// One whole exchange on a connection of its own.
pub async fn exchange(server: &Server, request: &[u8]) -> String {
    let mut stream = server.connect().await;
    stream.write_all(request).await.unwrap();
    read_to_end(&mut stream).await
}

/// Everything up to the end of the connection, however it ends.
pub async fn read_to_end(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    let ended = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
    let _ = ended.expect("the server ends the connection");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A WebSocket client that sends whatever it is told.
pub struct Client<S> {
    pub stream: S,
    pub head: String,
}

/// A frame from the server: its first byte and its payload.
pub type Frame = (u8, Vec<u8>);

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub async fn upgrade(stream: S, path: &str, headers: &str) -> Self {
        Self::upgrade_with(stream, path, headers, b"").await
    }

    /// Sends `more` in one piece with the handshake.
    pub async fn upgrade_with(mut stream: S, path: &str, headers: &str, more: &[u8]) -> Self {
        let request = format!(
            "GET /{path} HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
        );
        stream
            .write_all(&[request.as_bytes(), more].concat())
            .await
            .unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(timeout(PATIENCE, stream.read_u8()).await.unwrap().unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        Self { stream, head }
    }

    pub async fn send(&mut self, first: u8, payload: &[u8]) {
        self.stream
            .write_all(&masked(first, payload))
            .await
            .unwrap();
    }

    pub async fn text(&mut self, text: &str) {
        self.send(0x81, text.as_bytes()).await;
    }

    /// The next frame, `None` at the end of the connection.
    pub async fn frame(&mut self) -> Option<Frame> {
        timeout(PATIENCE, read_frame(&mut self.stream))
            .await
            .expect("a frame in time")
    }

    pub async fn expect(&mut self, first: u8, payload: &[u8]) {
        assert_eq!(self.frame().await, Some((first, payload.to_vec())));
    }

    /// The next frame is a close with `code`, and then the connection ends cleanly.
    pub async fn expect_close(&mut self, code: u16) -> String {
        let (first, payload) = self.frame().await.expect("a close frame");
        assert_eq!(first, 0x88, "{payload:?}");
        assert_eq!(payload[..2], code.to_be_bytes(), "{payload:?}");
        String::from_utf8(payload[2..].to_vec()).unwrap()
    }

    pub async fn expect_end(&mut self) {
        assert_eq!(self.frame().await, None);
    }
}

async fn read_frame(stream: &mut (impl AsyncRead + Unpin)) -> Option<Frame> {
    let first = stream.read_u8().await.ok()?;
    let len = match stream.read_u8().await.ok()? {
        126 => u64::from(stream.read_u16().await.ok()?),
        127 => stream.read_u64().await.ok()?,
        short => u64::from(short),
    };
    let mut payload = vec![0; usize::try_from(len).unwrap()];
    stream.read_exact(&mut payload).await.ok()?;
    Some((first, payload))
}

/// A masked client frame.
pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];
    let mut frame = vec![first];
    match payload.len() {
        short @ 0..=125 => frame.push(0x80 | u8::try_from(short).unwrap()),
        medium @ 126..=65_535 => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&u16::try_from(medium).unwrap().to_be_bytes());
        }
        long => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&MASK);
    frame.extend(
        payload
            .iter()
            .zip(MASK.iter().cycle())
            .map(|(byte, key)| byte ^ key),
    );
    frame
}
