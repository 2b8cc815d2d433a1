//! The accept loop: one task a connection, HTTP/1.1 by hyper, timers for the silent, an orderly end.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use bytes::{Buf, Bytes};
use futures_util::FutureExt;
use futures_util::future::FusedFuture;
use http::header::STRICT_TRANSPORT_SECURITY;
use http::{HeaderValue, Request, Response};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower_service::Service;

use super::handover::{self, Handover, Writing};
use super::signal::Signal;
use super::socket::Place;
use super::tls::Tls;
use super::{Arrival, ConnInfo, Listener, Settings, Socket};
use crate::telemetry::metrics::names;

/// Beyond the header's bound, so that it is the header's bound that answers.
const BUFFER_SLACK: usize = 16 * 1024;

/// Whoever has come by TLS comes by nothing else for a year. Browsers believe it only of a certificate that they trust, and
/// never of an address.
const HSTS: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// Serves `service` (for filters it is [`Filtered`](super::Filtered)) until `stop` is cancelled, then finishes the
/// requests in flight for at most [`Settings::drain`] and drops what is left. Upgraded sockets are no
/// longer its own: whoever took one ends it.
///
/// An upgrade downcasts to `TokioIo<Socket>`.
pub async fn serve<S, B>(
    listener: Listener,
    tls: Option<Tls>,
    service: S,
    settings: Settings,
    stop: CancellationToken,
) where
    S: Service<Arrival, Response = Response<B>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
    B: Body + Send + 'static,
    B::Data: Buf + Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut connections = JoinSet::new();
    let ending = Signal::default();
    let drain = settings.drain;
    let shared = Arc::new(Shared {
        http: http_builder(&settings),
        tls,
        service,
        settings,
    });
    loop {
        let (stream, peer, place) = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            () = stop.cancelled() => break,
        };
        let (shared, ending) = (Arc::clone(&shared), ending.clone());
        connections.spawn(async move { shared.connection(stream, peer, place, ending).await });
    }
    ending.give();
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(drain, ended).await.is_err() {
        tracing::warn!(
            connections = connections.len(),
            "connections are cut at the deadline"
        );
        connections.shutdown().await;
    }
}

/// What every connection needs.
struct Shared<S> {
    http: http1::Builder,
    tls: Option<Tls>,
    service: S,
    settings: Settings,
}

fn http_builder(settings: &Settings) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(settings.idle)
        .max_headers(settings.headers)
        .max_header_size(settings.header_bytes)
        .max_buf_size(settings.header_bytes + BUFFER_SLACK)
        .keep_alive(true)
        // A closed sending half is how a client's leaving looks. An idle stream or poll must end then,
        // and not when its next heartbeat fails: SockJS frees the session's place at that moment.
        .half_close(false);
    http
}

impl<S, B> Shared<S>
where
    S: Service<Arrival, Response = Response<B>, Error = Infallible> + Clone + Sync,
    S::Future: Send,
    B: Body + Send + 'static,
    B::Data: Buf + Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    async fn connection(&self, stream: TcpStream, peer: SocketAddr, place: Place, ending: Signal) {
        let info = ConnInfo {
            peer,
            tls: self.tls.is_some(),
            hands_over: false,
        };
        let socket = match &self.tls {
            None => Socket::plain(stream, place),
            Some(tls) => {
                let handshake = Box::pin(tls.accept(stream));
                let handshake = tokio::time::timeout(self.settings.handshake, handshake);
                let outcome = tokio::select! {
                    outcome = handshake => outcome,
                    () = ending.given() => return,
                };
                match outcome {
                    Ok(Ok(stream)) => Socket::tls(stream, place),
                    Ok(Err(fault)) => return dropped("tls", peer, &fault),
                    Err(elapsed) => return dropped("tls_timeout", peer, &elapsed),
                }
            }
        };
        self.http(socket, info, ending).await;
    }

    /// Serves one request after the other, whoever writes its response.
    async fn http(&self, mut socket: Socket, info: ConnInfo, ending: Signal) {
        // Set by the first request; until then the shorter timer rules.
        let spoken = AtomicBool::new(false);
        let mut ending = pin!(ending.given().fuse());
        // In a box of its own, so that a stream's task is small and what hyper needs is there only while it is needed.
        while let Some(writing) =
            Box::pin(self.requests(socket, info, ending.as_mut(), &spoken)).await
        {
            match writing.await {
                Some(back) => socket = back,
                None => return,
            }
        }
    }

    /// Serves requests until the connection ends or a response is handed over; who writes that.
    async fn requests(
        &self,
        mut socket: Socket,
        info: ConnInfo,
        mut ending: Pin<&mut impl FusedFuture<Output = ()>>,
        spoken: &AtomicBool,
    ) -> Option<Writing> {
        let flushed = socket.watch_flushes();
        let handed = HandedOver::default();
        let service = service_fn(|request: Request<Incoming>| {
            spoken.store(true, Ordering::Relaxed);
            // What hyper has not written yet would be lost with it.
            let hands_over = handover::may_follow(&request) && flushed.get();
            let connection = ConnInfo { hands_over, ..info };
            let arrival = Arrival {
                connection,
                request,
            };
            handed.unless(self.service.clone().call(arrival), info.tls)
        });
        let connection = self.http.serve_connection(TokioIo::new(socket), service);
        // In a box, because a future keeps room for every place that a value passes through.
        let mut connection = Box::pin(connection.with_upgrades());
        let mut first_request = pin!(tokio::time::sleep(self.settings.first_request));
        if ending.is_terminated() {
            connection.as_mut().graceful_shutdown();
        }
        let handover = loop {
            // Whoever has spoken is not waited for any more, and that is known without asking the timer.
            let silent = poll_fn(|cx| match spoken.load(Ordering::Relaxed) {
                true => Poll::Pending,
                false => first_request.as_mut().poll(cx),
            });
            tokio::select! {
                // In this order, so that no lot is drawn for every request.
                biased;
                outcome = connection.as_mut() => {
                    if let Err(fault) = outcome && !spoken.load(Ordering::Relaxed) {
                        dropped("http", info.peer, &fault);
                    }
                    return None;
                }
                handover = handed.taken() => break handover,
                () = silent => {
                    dropped("silent", info.peer, &"no request in time");
                    return None;
                }
                () = ending.as_mut() => connection.as_mut().graceful_shutdown(),
            }
        };
        let parts = Pin::into_inner(connection).into_parts()?;
        let socket = Socket::from_hyper(parts.io, parts.read_buf);
        let (handover, head) = handover;
        handover.begin(socket, head)
    }
}

/// A response that hyper is not given, and its head.
#[derive(Default)]
struct HandedOver {
    slot: Mutex<Option<(Handover, Bytes)>>,
    /// Whether there is one: to look at that takes no lock.
    filled: AtomicBool,
}

impl HandedOver {
    /// The response, unless it is to be handed over: then hyper waits for it in vain.
    async fn unless<B>(
        &self,
        answer: impl Future<Output = Result<Response<B>, Infallible>>,
        tls: bool,
    ) -> Result<Response<B>, Infallible> {
        let mut response = answer.await?;
        if tls {
            response
                .headers_mut()
                .insert(STRICT_TRANSPORT_SECURITY, HSTS);
        }
        let Some(handover) = handover::take(&mut response) else {
            return Ok(response);
        };
        let head = handover::head(&response.into_parts().0);
        *self.slot() = Some((handover, head));
        self.filled.store(true, Ordering::Release);
        std::future::pending().await
    }

    /// Ready as soon as it is; to be asked after hyper.
    async fn taken(&self) -> (Handover, Bytes) {
        poll_fn(|_| {
            let taken = self
                .filled
                .load(Ordering::Acquire)
                .then(|| self.slot().take());
            taken.flatten().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    fn slot(&self) -> MutexGuard<'_, Option<(Handover, Bytes)>> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn dropped(reason: &'static str, peer: SocketAddr, fault: &dyn std::fmt::Display) {
    metrics::counter!(names::CONNECTIONS_DROPPED, "reason" => reason).increment(1);
    tracing::debug!(%peer, reason, %fault, "connection dropped");
}
