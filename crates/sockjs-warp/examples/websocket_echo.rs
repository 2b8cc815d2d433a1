//! A WebSocket echo through the transport's public face, for conformance suites: raw at `/`, framed at `/framed`.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use answerback_base::clock::{Clock, Timestamp};
use answerback_sockjs::codec::{Kind, put_frame};
use answerback_sockjs::{Form, Slice};
use answerback_sockjs_warp::net::{self, ConnInfo, Listener};
use answerback_sockjs_warp::upgrade::Handshake;
use answerback_sockjs_warp::websocket::{Mode, Origin, Settings, Sockets};
use answerback_sockjs_warp::{Application, Conversation, Next, Opened};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method};
use hyper::upgrade::OnUpgrade;
use smallvec::smallvec;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use warp::Filter;

#[derive(Debug)]
struct Echo;

impl Application for Echo {
    fn open(&self, _opened: Opened, _now: Timestamp) -> Box<dyn Conversation> {
        Box::new(Waiting::default())
    }
}

/// What has come in and not gone out. The transport stops reading from a client that does not read,
/// so there is little of it.
#[derive(Default)]
struct Waiting(VecDeque<Message>);

enum Message {
    Text(Bytes),
    Binary(Bytes),
}

impl Conversation for Waiting {
    fn message(&mut self, text: &str, _now: Timestamp) {
        let text = Bytes::copy_from_slice(text.as_bytes());
        self.0.push_back(Message::Text(text));
    }

    fn binary(&mut self, bytes: &[u8], _now: Timestamp) -> bool {
        let bytes = Bytes::copy_from_slice(bytes);
        self.0.push_back(Message::Binary(bytes));
        true
    }

    fn next(&mut self, _form: Form, _budget: usize, _now: Timestamp) -> Next {
        match self.0.pop_front() {
            Some(Message::Text(text)) => Next::Messages(smallvec![text]),
            Some(Message::Binary(bytes)) => {
                let mut frame = BytesMut::new();
                put_frame(&mut frame, Kind::Binary, &bytes);
                Next::Slice(Slice {
                    len: frame.len(),
                    parts: smallvec![frame.freeze()],
                    messages: 1,
                    drained: self.0.is_empty(),
                })
            }
            None => Next::Wait,
        }
    }

    fn deadline(&self) -> Option<Timestamp> {
        None
    }

    fn closed(&mut self, _now: Timestamp) {}
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let address: SocketAddr = match std::env::args().nth(1) {
        Some(address) => address.parse()?,
        None => ([127, 0, 0, 1], 9001).into(),
    };
    let stop = CancellationToken::new();
    let tasks = TaskTracker::new();
    let settings = Settings {
        // The largest message of the Autobahn suite has 16 MiB.
        max_message: 32 << 20,
        ..Settings::default()
    };
    let sockets = Sockets::new(
        Arc::new(Echo),
        settings,
        Clock::System,
        tasks.clone(),
        stop.clone(),
    );
    let route = warp::method()
        .and(warp::path::full())
        .and(warp::header::headers_cloned())
        .and(warp::ext::optional::<OnUpgrade>())
        .and(warp::ext::get::<ConnInfo>())
        .map(
            move |method: Method,
                  path: warp::path::FullPath,
                  headers: HeaderMap,
                  upgrade: Option<OnUpgrade>,
                  info: ConnInfo| {
                let deflate = sockets.settings().deflate;
                let handshake = match Handshake::judge(&method, &headers, upgrade, deflate) {
                    Ok(handshake) => handshake,
                    Err(refusal) => return refusal.response(),
                };
                let framed = path.as_str() == "/framed";
                let mode = if framed { Mode::Framed } else { Mode::Raw };
                let origin = Origin {
                    address: info.peer.ip(),
                    prefix: Arc::from("/"),
                    place: None,
                };
                sockets.accept(handshake, mode, origin)
            },
        );
    let net_settings = net::Settings::default();
    let listener = Listener::bind(address, &net_settings)?;
    let served = net::serve(
        listener,
        None,
        net::Filtered(warp::service(route)),
        net_settings,
        stop.clone(),
    );
    tokio::select! {
        () = served => {}
        _ = tokio::signal::ctrl_c() => stop.cancel(),
    }
    tasks.close();
    tasks.wait().await;
    Ok(())
}
