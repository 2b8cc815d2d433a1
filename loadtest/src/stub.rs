//! A small server for the tests: just enough of the agents' API, the REST API and the streams. It can misbehave.

use std::collections::{HashMap, HashSet, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, stream};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Message, Role};

use crate::body::LIVE_PREFIX;

/// What the stub does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vice {
    None,
    /// Every 10th result is left out.
    Loses,
    /// Every 10th result is sent twice.
    Repeats,
    /// Every 10th result comes after its successor.
    Swaps,
    /// Rows are changed on the way.
    Corrupts,
}

/// Bytes after which a streaming response ends, small to see many of them.
const RESPONSE_BYTES: usize = 4096;

#[derive(Default)]
struct Campaign {
    /// Results as messages, with their positions.
    log: Vec<String>,
    answered: HashSet<String>,
    /// A result that waits for its successor to go first.
    held: Option<String>,
}

#[derive(Default)]
struct Session {
    opened: bool,
    campaign: Option<u64>,
    cursor: usize,
    pending: VecDeque<String>,
    authenticated: bool,
}

#[derive(Default)]
struct Inner {
    campaigns: HashMap<u64, Campaign>,
    hosts: HashMap<String, u64>,
    sessions: HashMap<String, Session>,
    writes: u64,
}

/// The server's state.
pub(crate) struct Stub {
    inner: Mutex<Inner>,
    grown: watch::Sender<u64>,
    vice: Vice,
}

type Body = BoxBody<Bytes, Infallible>;

/// Starts a server that lives as long as the runtime.
pub(crate) async fn serve(vice: Vice) -> (SocketAddr, Arc<Stub>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stub = Arc::new(Stub {
        inner: Mutex::default(),
        grown: watch::channel(0).0,
        vice,
    });
    let shared = stub.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let stub = shared.clone();
            let service = service_fn(move |request| {
                let stub = stub.clone();
                async move { Ok::<_, Infallible>(stub.answer(request).await) }
            });
            let connection = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades();
            tokio::spawn(connection);
        }
    });
    (address, stub)
}

fn plain(status: u16, body: impl Into<Bytes>) -> Response<Body> {
    let body = Full::new(body.into()).boxed();
    Response::builder().status(status).body(body).unwrap()
}

impl Stub {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// How many answers came, repeated ones included.
    pub(crate) fn writes(&self) -> u64 {
        self.inner().writes
    }

    async fn answer(self: Arc<Self>, mut request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        if path.ends_with("/websocket") {
            return self.upgrade(&mut request, path.contains("/000/"));
        }
        let body = request.into_body().collect().await.unwrap().to_bytes();
        if let Some((_, session)) = path.split_once("/results/000/") {
            let (session, transport) = session.split_once('/').unwrap();
            return self.sockjs(session, transport, &body).await;
        }
        let said: Value = serde_json::from_slice(&body).unwrap();
        let (status, reply) = match path.rsplit('/').next().unwrap() {
            "login" if said["password"] == "secret" => (200, json!({ "token": "t0ken" })),
            "login" => (401, json!({ "message": "Authentication failed" })),
            "run_by_names" => (200, self.create()),
            "enroll" if said["enroll_secret"] != "s3cret" => (401, json!({ "node_invalid": true })),
            "enroll" => (200, self.enroll(&said)),
            what => self.agent(what, &said),
        };
        plain(status, reply.to_string())
    }

    fn create(&self) -> Value {
        let mut inner = self.inner();
        let id = inner.campaigns.len() as u64 + 1;
        inner.campaigns.insert(id, Campaign::default());
        json!({ "campaign": { "id": id } })
    }

    fn enroll(&self, said: &Value) -> Value {
        let mut inner = self.inner();
        let key = format!("key of {}", said["host_identifier"].as_str().unwrap());
        let id = inner.hosts.len() as u64 + 1;
        inner.hosts.entry(key.clone()).or_insert(id);
        json!({ "node_key": key })
    }

    fn agent(&self, what: &str, said: &Value) -> (u16, Value) {
        let key = said["node_key"].as_str().unwrap_or_default().to_owned();
        let mut inner = self.inner();
        let Some(host) = inner.hosts.get(&key).copied() else {
            return (401, json!({ "node_invalid": true }));
        };
        match what {
            "read" => {
                let open = inner.campaigns.iter();
                let open = open.filter(|(_, campaign)| !campaign.answered.contains(&key));
                let queries: serde_json::Map<_, _> = open
                    .map(|(id, _)| (format!("{LIVE_PREFIX}{id}"), "select".into()))
                    .collect();
                (200, json!({ "queries": queries }))
            }
            "write" => {
                inner.writes += 1;
                for (name, rows) in said["queries"].as_object().unwrap() {
                    let id: u64 = name[LIVE_PREFIX.len()..].parse().unwrap();
                    let failed = said["statuses"][name] != 0;
                    let error = failed.then(|| said["messages"][name].clone());
                    let campaign = inner.campaigns.get_mut(&id).unwrap();
                    if campaign.answered.insert(key.clone()) {
                        campaign.append(id, host, rows, error, self.vice);
                    }
                }
                drop(inner);
                self.grown.send_modify(|count| *count += 1);
                (200, json!({}))
            }
            _ => (200, json!({})),
        }
    }

    /// Takes a message of a viewer; whether the session may go on.
    fn hear(session: &mut Session, message: &str) -> bool {
        let said: Value = serde_json::from_str(message).unwrap();
        let data = &said["data"];
        if said["type"] == "auth" {
            session.authenticated = data["token"] == "t0ken";
            if !session.authenticated {
                let error = json!({ "type": "error", "data": "unauthorized" });
                session.pending.push_back(error.to_string());
            }
            return session.authenticated;
        }
        session.campaign = data["campaign_id"].as_u64();
        session.cursor = data["after"].as_u64().unwrap_or(0) as usize;
        let totals = json!({ "count": 1, "online": 1, "offline": 0, "missing_in_action": 0 });
        let totals = json!({ "type": "totals", "data": totals });
        session.pending.push_back(totals.to_string());
        true
    }

    /// What a session is to be sent now; nothing if it has to wait.
    fn take(campaigns: &HashMap<u64, Campaign>, session: &mut Session, most: usize) -> Vec<String> {
        let mut taken: Vec<String> = session.pending.drain(..).collect();
        if let Some(campaign) = session.campaign {
            let log = &campaigns[&campaign].log;
            let end = log.len().min(session.cursor.saturating_add(most));
            taken.extend_from_slice(&log[session.cursor.min(end)..end]);
            session.cursor = end;
        }
        taken
    }

    fn upgrade(self: Arc<Self>, request: &mut Request<Incoming>, framed: bool) -> Response<Body> {
        let key = request.headers().get("sec-websocket-key").unwrap();
        let accept = derive_accept_key(key.as_bytes());
        let upgrading = hyper::upgrade::on(request);
        tokio::spawn(async move {
            let io = TokioIo::new(upgrading.await.unwrap());
            let socket = WebSocketStream::from_raw_socket(io, Role::Server, None).await;
            self.websocket(socket, framed).await;
        });
        Response::builder()
            .status(101)
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Accept", accept)
            .body(Full::default().boxed())
            .unwrap()
    }

    async fn websocket(
        &self,
        mut socket: WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>,
        framed: bool,
    ) -> Option<()> {
        let mut session = Session::default();
        let mut grown = self.grown.subscribe();
        if framed {
            socket.send(Message::text("o")).await.ok()?;
        } else {
            socket
                .send(Message::Ping(Bytes::from_static(b"hi")))
                .await
                .ok()?;
        }
        loop {
            tokio::select! {
                heard = socket.next() => {
                    if let Message::Text(text) = heard?.ok()? {
                        let messages = if framed {
                            serde_json::from_str(&text).unwrap()
                        } else {
                            vec![text.to_string()]
                        };
                        for message in messages {
                            Self::hear(&mut session, &message);
                        }
                    }
                }
                _ = grown.changed() => {}
            }
            let taken = Self::take(&self.inner().campaigns, &mut session, usize::MAX);
            if framed && !taken.is_empty() {
                let frame = format!("a{}", Value::from(taken));
                socket.send(Message::text(frame)).await.ok()?;
            } else if !framed {
                for message in taken {
                    socket.send(Message::text(message)).await.ok()?;
                }
            }
        }
    }

    async fn sockjs(self: Arc<Self>, name: &str, transport: &str, body: &[u8]) -> Response<Body> {
        match transport {
            "xhr_send" => self.sent(name, body, 204),
            "jsonp_send" => {
                let escaped = std::str::from_utf8(body)
                    .unwrap()
                    .strip_prefix("d=")
                    .unwrap();
                self.sent(name, &unescaped(escaped), 200)
            }
            "xhr" => {
                let frame = self.frame(name).await;
                plain(200, format!("{frame}\n"))
            }
            "jsonp" => {
                let frame = Value::from(self.frame(name).await).to_string();
                plain(200, format!("/**/_jp.a1({frame});\r\n"))
            }
            "xhr_streaming" => self.streaming(name, format!("{}\n", "h".repeat(2048)), |frame| {
                format!("{frame}\n")
            }),
            "eventsource" => self.streaming(name, "\r\n".to_owned(), |frame| {
                format!("data: {}\r\n\r\n", frame.replace('%', "%25"))
            }),
            _ => plain(404, ""),
        }
    }

    fn sent(&self, name: &str, body: &[u8], status: u16) -> Response<Body> {
        let messages: Vec<String> = serde_json::from_slice(body).unwrap();
        let mut inner = self.inner();
        let Some(session) = inner.sessions.get_mut(name) else {
            return plain(404, "");
        };
        for message in messages {
            if !Self::hear(session, &message) {
                break;
            }
        }
        drop(inner);
        self.grown.send_modify(|count| *count += 1);
        plain(status, "")
    }

    /// The next frame of a session.
    async fn frame(&self, name: &str) -> String {
        let mut grown = self.grown.subscribe();
        loop {
            let taken = {
                let inner = &mut *self.inner();
                let session = inner.sessions.entry(name.to_owned()).or_default();
                if !std::mem::replace(&mut session.opened, true) {
                    return "o".to_owned();
                }
                Self::take(&inner.campaigns, session, 7)
            };
            if !taken.is_empty() {
                return format!("a{}", Value::from(taken));
            }
            let waiting = tokio::time::timeout(Duration::from_secs(1), grown.changed());
            if waiting.await.is_err() {
                return "h".to_owned();
            }
        }
    }

    fn streaming(
        self: Arc<Self>,
        name: &str,
        prelude: String,
        wrap: fn(String) -> String,
    ) -> Response<Body> {
        let name = name.to_owned();
        let first = stream::once(async move { Bytes::from(prelude) });
        let rest = stream::unfold((self, name, 0), move |(stub, name, sent)| async move {
            if sent >= RESPONSE_BYTES {
                return None;
            }
            let frame = wrap(stub.frame(&name).await);
            let sent = sent + frame.len();
            Some((Bytes::from(frame), (stub, name, sent)))
        });
        let frames = first.chain(rest).map(|bytes| Ok(Frame::data(bytes)));
        let body = BodyExt::boxed(StreamBody::new(SyncStream(Box::pin(frames))));
        Response::builder().status(200).body(body).unwrap()
    }
}

/// A stream that only its owner polls: what `BoxBody` wants to hear.
struct SyncStream<S>(std::pin::Pin<Box<S>>);

impl<S: futures_util::Stream> futures_util::Stream for SyncStream<S> {
    type Item = S::Item;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<S::Item>> {
        self.0.as_mut().poll_next(cx)
    }
}

impl Campaign {
    fn append(&mut self, id: u64, host: u64, rows: &Value, error: Option<Value>, vice: Vice) {
        let name = format!("host {host}");
        let mut rows = rows.as_array().cloned().unwrap_or_default();
        for row in &mut rows {
            row["host_hostname"] = name.clone().into();
            row["host_display_name"] = name.clone().into();
            if vice == Vice::Corrupts {
                let text = row["probe"].as_str().unwrap().to_uppercase();
                row["probe"] = text.into();
            }
        }
        let seq = (self.log.len() + usize::from(self.held.is_some())) as u64 + 1;
        let result = |seq: u64| {
            let data = json!({
                "distributed_query_execution_id": id,
                "host": { "id": host, "hostname": name, "display_name": name },
                "rows": rows, "error": error, "seq": seq,
            });
            // The type stands first, as in every server known.
            format!("{{\"type\":\"result\",\"data\":{data}}}")
        };
        let tenth = self.answered.len() % 10 == 5;
        match vice {
            Vice::Loses if tenth => {}
            Vice::Repeats if tenth => self.log.extend([result(seq), result(seq + 1)]),
            Vice::Swaps if tenth => self.held = Some(result(seq)),
            _ => self.log.push(result(seq)),
        }
        if !tenth {
            self.log.extend(self.held.take());
        }
    }
}

fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        if *first == b'%' {
            let hex = std::str::from_utf8(&after[..2]).unwrap();
            bytes.push(u8::from_str_radix(hex, 16).unwrap());
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    bytes
}
