//! The physical limit to compare a broker with: one thread that writes prebuilt frames, and bare hyper handlers.
//!
//! `limit ADDR write|batch|http [PAYLOAD BYTES]`. A connection whose path ends in `/publish` publishes one message
//! with each byte it sends; all others become subscribers. `write` makes one system call for each message, `batch`
//! one for all that are due. `http` reads a POST's JSON as a broker must and answers with a constant.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io::ErrorKind;
use std::rc::Rc;
use std::task::Poll;

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;

/// Bytes handed to one system call at most, as the broker does it.
const WRITE_MAX: usize = 256 * 1024;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().context("limit ADDR write|batch|http")?;
    let mode = arguments.next().context("write, batch or http")?;
    let payload = arguments.next().map_or(Ok(400), |text| text.parse())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let local = LocalSet::new();
    runtime.block_on(local.run_until(async {
        let listener = TcpListener::bind(&address).await?;
        match mode.as_str() {
            "write" => fan_out(listener, Hub::new(payload, false)).await,
            "batch" => fan_out(listener, Hub::new(payload, true)).await,
            "http" => bare_http(listener).await,
            other => bail!("{other}: neither write nor batch nor http"),
        }
    }))
}

struct Hub {
    /// The same frame again and again.
    frames: Vec<u8>,
    frame: usize,
    batch: bool,
    /// Bytes published so far.
    published: u64,
    subscribers: Vec<(TcpStream, u64)>,
}

impl Hub {
    fn new(payload: usize, batch: bool) -> Rc<RefCell<Self>> {
        let mut one = vec![0x81, 126];
        one.extend_from_slice(&u16::try_from(payload).unwrap_or(u16::MAX).to_be_bytes());
        one.resize(4 + payload, b'x');
        Rc::new(RefCell::new(Self {
            frames: one.repeat(WRITE_MAX / one.len() + 2),
            frame: one.len(),
            batch,
            published: 0,
            subscribers: Vec::new(),
        }))
    }

    /// Writes what is due to everybody; whether some could not take it all.
    fn write_all(&mut self) -> bool {
        let mut behind = false;
        let (frames, frame, batch, published) =
            (&self.frames, self.frame, self.batch, self.published);
        self.subscribers.retain_mut(|(stream, sent)| {
            while *sent < published {
                let start = usize::try_from(*sent % frame as u64).unwrap_or(0);
                let due = usize::try_from(published - *sent).unwrap_or(usize::MAX);
                let most = if batch { WRITE_MAX } else { frame - start };
                match stream.try_write(&frames[start..start + due.min(most)]) {
                    Ok(count) => *sent += count as u64,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        behind = true;
                        return true;
                    }
                    Err(_) => return false,
                }
            }
            true
        });
        behind
    }
}

async fn fan_out(listener: TcpListener, hub: Rc<RefCell<Hub>>) -> anyhow::Result<()> {
    loop {
        let (mut stream, _) = listener.accept().await?;
        let hub = Rc::clone(&hub);
        tokio::task::spawn_local(async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                match stream.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(_) => return,
                }
            }
            let accept: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                Connection: Upgrade\r\n\r\n";
            if stream.write_all(accept).await.is_err() || stream.set_nodelay(true).is_err() {
                return;
            }
            if head.starts_with(b"GET /publish ") {
                publish(stream, &hub).await;
            } else {
                let published = hub.borrow().published;
                hub.borrow_mut().subscribers.push((stream, published));
            }
        });
    }
}

async fn publish(mut stream: TcpStream, hub: &Rc<RefCell<Hub>>) {
    let mut space = [0; 4096];
    let mut behind = false;
    loop {
        let count = if behind {
            tokio::select! {
                count = stream.read(&mut space) => count,
                () = some_room(hub) => { behind = hub.borrow_mut().write_all(); continue; }
            }
        } else {
            stream.read(&mut space).await
        };
        match count {
            Ok(count @ 1..) => {
                let mut hub = hub.borrow_mut();
                hub.published += (count * hub.frame) as u64;
                behind = hub.write_all();
            }
            _ => return,
        }
    }
}

/// Waits until one who is behind can take more.
async fn some_room(hub: &Rc<RefCell<Hub>>) {
    poll_fn(|cx| {
        let hub = hub.borrow();
        let mut late = hub.subscribers.iter();
        let ready = late
            .any(|(stream, sent)| *sent < hub.published && stream.poll_write_ready(cx).is_ready());
        if ready {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

/// What every agent sends; the rest of an answer is taken as it is.
#[derive(Deserialize)]
struct Agent<'a> {
    node_key: &'a str,
    #[serde(borrow)]
    queries: Option<&'a RawValue>,
}

async fn bare_http(listener: TcpListener) -> anyhow::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::task::spawn_local(async move {
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service_fn(answer));
            let _ = connection.await;
        });
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let Ok(body) = request.into_body().collect().await else {
        return Ok(Response::default());
    };
    let body = body.to_bytes();
    let reply: &[u8] = match serde_json::from_slice::<Agent<'_>>(&body) {
        Ok(agent) if agent.node_key.is_empty() => b"{\"node_invalid\":true}",
        Ok(agent) if agent.queries.is_some() => b"{}",
        Ok(_) => b"{\"queries\":{},\"discovery\":{}}",
        Err(_) => b"{\"error\":\"bad request\"}",
    };
    let mut response = Response::new(Full::new(Bytes::from_static(reply)));
    let json = hyper::header::HeaderValue::from_static("application/json; charset=utf-8");
    let headers = response.headers_mut();
    headers.insert(hyper::header::CONTENT_TYPE, json);
    Ok(response)
}
