//! One connection of a viewer, over any transport that clients have: messages in, messages out, and the end.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

const PREFIX: &str = "/api/latest/fleet/results";
/// A connection that cannot be opened in this time is given up.
const OPEN_WITHIN: Duration = Duration::from_secs(10);

/// How a viewer is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// The bare WebSocket.
    Raw,
    /// SockJS frames in a WebSocket.
    WebSocket,
    /// One long response, a frame a line.
    XhrStreaming,
    /// One long response, a frame an event.
    EventSource,
    /// A response a poll.
    Xhr,
}

/// A connection; `None` from its methods means that it is over.
pub struct Stream {
    link: Link,
    messages: VecDeque<String>,
}

enum Link {
    Socket(Box<WebSocketStream<TcpStream>>, Transport),
    Http(Box<Session>),
}

/// A session over plain requests.
struct Session {
    client: Client<HttpConnector, Full<Bytes>>,
    transport: Transport,
    url: String,
    body: Option<Incoming>,
    unread: Vec<u8>,
}

impl Stream {
    /// Connects to a node at `ADDR:PORT`; the session's name must be new.
    pub async fn open(address: &str, transport: Transport, session: &str) -> Option<Self> {
        let opening = async {
            let link = match transport {
                Transport::Raw => socket(address, &format!("{PREFIX}/websocket"), transport).await,
                Transport::WebSocket => {
                    let path = format!("{PREFIX}/000/{session}/websocket");
                    socket(address, &path, transport).await
                }
                _ => Some(Link::Http(Box::new(Session {
                    client: Client::builder(TokioExecutor::new()).build(HttpConnector::new()),
                    transport,
                    url: format!("http://{address}{PREFIX}/000/{session}"),
                    body: None,
                    unread: Vec::new(),
                }))),
            };
            let mut stream = Self {
                link: link?,
                messages: VecDeque::new(),
            };
            if transport != Transport::Raw {
                stream.until_open().await?;
            }
            Some(stream)
        };
        tokio::time::timeout(OPEN_WITHIN, opening).await.ok()?
    }

    async fn until_open(&mut self) -> Option<()> {
        while self.frame().await? != "o" {}
        Some(())
    }

    /// Sends messages.
    pub async fn send(&mut self, messages: &[String]) -> Option<()> {
        let framed = serde_json::to_string(messages).ok()?;
        match &mut self.link {
            Link::Socket(socket, Transport::Raw) => {
                for message in messages {
                    socket.send(Message::text(message.as_str())).await.ok()?;
                }
                Some(())
            }
            Link::Socket(socket, _) => socket.send(Message::text(framed)).await.ok(),
            Link::Http(session) => session.send(framed).await,
        }
    }

    /// The next message, however long it takes. Safe to drop while it waits.
    pub async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(message) = self.messages.pop_front() {
                return Some(message);
            }
            let frame = self.frame().await?;
            if matches!(self.link, Link::Socket(_, Transport::Raw)) {
                return Some(frame);
            }
            match frame.as_bytes().first()? {
                b'a' => self
                    .messages
                    .extend(serde_json::from_str::<Vec<String>>(&frame[1..]).unwrap()),
                b'c' => return None,
                _ => {}
            }
        }
    }

    async fn frame(&mut self) -> Option<String> {
        match &mut self.link {
            Link::Http(session) => session.frame().await,
            Link::Socket(socket, _) => loop {
                match socket.next().await?.ok()? {
                    Message::Text(text) => return Some(text.to_string()),
                    Message::Close(_) => return None,
                    _ => {}
                }
            },
        }
    }
}

async fn socket(address: &str, path: &str, transport: Transport) -> Option<Link> {
    let tcp = TcpStream::connect(address).await.ok()?;
    let url = format!("ws://{address}{path}");
    let (socket, _) = tokio_tungstenite::client_async(url, tcp).await.ok()?;
    Some(Link::Socket(Box::new(socket), transport))
}

impl Session {
    async fn send(&self, framed: String) -> Option<()> {
        let request = Request::post(format!("{}/xhr_send", self.url));
        let request = request.body(Full::new(Bytes::from(framed))).ok()?;
        let reply = self.client.request(request).await.ok()?;
        (reply.status() == 204).then_some(())
    }

    async fn frame(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                let line = std::str::from_utf8(&line).unwrap().trim_end();
                let frame = line.strip_prefix("data: ").unwrap_or(line);
                if !frame.is_empty() {
                    return Some(frame.to_owned());
                }
                continue;
            }
            let body = match &mut self.body {
                Some(body) => body,
                None => self.body.insert(self.client_response().await?),
            };
            match body.frame().await {
                Some(Ok(part)) => self.unread.extend(part.into_data().unwrap_or_default()),
                Some(Err(_)) => return None,
                // The response's limit, or a poll's answer: the client asks again.
                None => self.body = None,
            }
        }
    }

    async fn client_response(&self) -> Option<Incoming> {
        let (method, suffix) = match self.transport {
            Transport::EventSource => (Method::GET, "eventsource"),
            Transport::XhrStreaming => (Method::POST, "xhr_streaming"),
            _ => (Method::POST, "xhr"),
        };
        let request = Request::builder()
            .method(method)
            .uri(format!("{}/{suffix}", self.url));
        let request = request.body(Full::default()).ok()?;
        let reply = self.client.request(request).await.ok()?;
        (reply.status() == 200).then(|| reply.into_body())
    }
}
