//! The accept loop: one task a connection, HTTP/1.1 by hyper, timers for the silent, an orderly end.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::FutureExt;
use futures_util::future::FusedFuture;
use http::header::{HOST, STRICT_TRANSPORT_SECURITY};
use http::{HeaderValue, Request, Response, Version};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1::{self, Parts};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower_service::Service;

use super::handover::{self, SocketTakeover, Writing};
use super::places::ConnectionPermit;
use super::refusal;
use super::signal::Signal;
use super::tls::Tls;
use super::{ConnInfo, IncomingRequest, Listener, Settings, Socket};
use crate::names;

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
    S: Service<IncomingRequest, Response = Response<B>, Error = Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send,
    B: Body + From<Bytes> + Send + 'static,
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
    S: Service<IncomingRequest, Response = Response<B>, Error = Infallible> + Clone + Sync,
    S::Future: Send,
    B: Body + From<Bytes> + Send + 'static,
    B::Data: Buf + Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    async fn connection(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        place: Arc<ConnectionPermit>,
        ending: Signal,
    ) {
        let mut info = ConnInfo {
            peer,
            tls: self.tls.is_some(),
            certified: false,
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
                    () = place.gives_way() => return,
                };
                match outcome {
                    Ok(Ok(stream)) => {
                        info.certified = stream.get_ref().1.peer_certificates().is_some();
                        Socket::tls(stream, place)
                    }
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

    async fn answer(&self, arrival: IncomingRequest) -> Result<Response<B>, Infallible> {
        match has_one_host(&arrival.request) {
            true => self.service.clone().call(arrival).await,
            false => Ok(refusal::no_host()),
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
        let place = socket.place();
        place.idle();
        let handed = HandedOver::default();
        let service = service_fn(|request: Request<Incoming>| {
            spoken.store(true, Ordering::Relaxed);
            place.busy();
            // What hyper has not written yet would be lost with it.
            let hands_over = handover::may_follow(&request) && flushed.get();
            let connection = ConnInfo { hands_over, ..info };
            let arrival = IncomingRequest {
                connection,
                request,
            };
            handed.unless(self.answer(arrival), (info.tls, &place))
        });
        let connection = self.http.serve_connection(TokioIo::new(socket), service);
        // In a box, because a future keeps room for every place that a value passes through.
        let mut connection = Box::pin(connection.with_upgrades());
        let mut gives_way = pin!(place.gives_way());
        let mut first_request = pin!(tokio::time::sleep(self.settings.first_request));
        if ending.is_terminated() {
            connection.as_mut().graceful_shutdown();
        }
        let ended = loop {
            // Whoever has spoken is not waited for any more, and that is known without asking the timer.
            let silent = poll_fn(|cx| match spoken.load(Ordering::Relaxed) {
                true => Poll::Pending,
                false => first_request.as_mut().poll(cx),
            });
            tokio::select! {
                // In this order, so that no lot is drawn for every request.
                biased;
                outcome = connection.as_mut() => break Ended::Over(outcome.err()),
                handover = handed.taken() => break Ended::HandedOver(handover),
                () = silent => break Ended::Silent,
                () = gives_way.as_mut() => return None,
                () = ending.as_mut() => connection.as_mut().graceful_shutdown(),
            }
        };
        let late = match ended {
            Ended::HandedOver((handover, head)) => {
                let parts = Pin::into_inner(connection).into_parts()?;
                return handover.begin(Socket::from_hyper(parts.io, parts.read_buf), head);
            }
            Ended::Over(fault) => refused(&fault?, spoken, info.peer)?,
            Ended::Silent => {
                dropped("silent", info.peer, &"no request in time");
                true
            }
        };
        part(Pin::into_inner(connection).into_parts()?, late).await;
        None
    }
}

/// Two servers in a row must not take a request for two different hosts' (RFC 9112, 3.2).
fn has_one_host<T>(request: &Request<T>) -> bool {
    let mut hosts = request.headers().get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(_), None) => true,
        (None, _) => request.version() != Version::HTTP_11,
        _ => false,
    }
}

/// Why hyper serves a connection no longer.
enum Ended {
    /// It is over; why, if it was not the client's will.
    Over(Option<hyper::Error>),
    HandedOver((SocketTakeover, Bytes)),
    /// The first request has not come.
    Silent,
}

/// Whether a request was refused because it came too late; none if no request was refused.
fn refused(fault: &hyper::Error, spoken: &AtomicBool, peer: SocketAddr) -> Option<bool> {
    if !spoken.load(Ordering::Relaxed) {
        dropped("http", peer, fault);
    }
    (fault.is_parse() || fault.is_timeout()).then(|| fault.is_timeout())
}

/// A response that hyper is not given, and its head.
#[derive(Default)]
struct HandedOver {
    slot: Mutex<Option<(SocketTakeover, Bytes)>>,
    /// Whether there is one: to look at that takes no lock.
    filled: AtomicBool,
}

impl HandedOver {
    /// The response, unless it is to be handed over: then hyper waits for it in vain.
    async fn unless<B>(
        &self,
        answer: impl Future<Output = Result<Response<B>, Infallible>>,
        (tls, place): (bool, &ConnectionPermit),
    ) -> Result<Response<B>, Infallible>
    where
        B: Body,
    {
        let mut response = answer.await?;
        if tls {
            response
                .headers_mut()
                .insert(STRICT_TRANSPORT_SECURITY, HSTS);
        }
        let Some(handover) = handover::take(&mut response) else {
            // What has no end yet is still at work.
            if response.body().size_hint().exact().is_some() {
                place.idle();
            }
            return Ok(response);
        };
        let head = handover::head(&response.into_parts().0);
        *self.slot() = Some((handover, head));
        self.filled.store(true, Ordering::Release);
        std::future::pending().await
    }

    /// Ready as soon as it is; to be asked after hyper.
    async fn taken(&self) -> (SocketTakeover, Bytes) {
        poll_fn(|_| {
            let taken = self
                .filled
                .load(Ordering::Acquire)
                .then(|| self.slot().take());
            taken.flatten().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    fn slot(&self) -> MutexGuard<'_, Option<(SocketTakeover, Bytes)>> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends a connection whose request was refused before any service has seen it. `late`: hyper has said nothing yet. What
/// comes still is read for a moment: closing a socket with unread input destroys the answer.
async fn part<S>(parts: Parts<TokioIo<Socket>, S>, late: bool) {
    /// More than a header that is too long by mistake.
    const READ_MAX: u64 = 1024 * 1024;
    const WITHIN: Duration = Duration::from_secs(2);
    let mut socket = parts.io.into_inner();
    if late && parts.read_buf.is_empty() {
        return;
    }
    let told = async {
        if late {
            // There is nothing unread.
            socket.write_all(&refusal::too_late()).await?;
            return socket.shutdown().await;
        }
        socket.shutdown().await?;
        let rest = tokio::io::copy(&mut socket.take(READ_MAX), &mut tokio::io::sink()).await;
        rest.map(drop)
    };
    // Whoever has left has left.
    let _ = tokio::time::timeout(WITHIN, told).await;
}

fn dropped(reason: &'static str, peer: SocketAddr, fault: &dyn std::fmt::Display) {
    metrics::counter!(names::CONNECTIONS_DROPPED, "reason" => reason).increment(1);
    tracing::debug!(%peer, reason, %fault, "connection dropped");
}
