//! Sockets, TLS and HTTP/1.1 below the filters: everything a stranger's connection can do is bounded here.

pub mod arrival;
mod aside;
pub mod body;
pub mod handover;
pub mod listener;
pub mod peer;
pub mod pinned;
mod places;
mod refusal;
pub mod serve;
mod signal;
pub mod socket;
pub mod tls;
mod tls_error;

use std::time::Duration;

pub use arrival::{Filtered, IncomingRequest, ResponseFuture};
pub use aside::aside;
pub use body::{Body, BodyError};
pub use handover::SocketTakeover;
pub use listener::Listener;
pub use peer::{ConnInfo, TrustedProxies};
pub use serve::serve;
pub use socket::Socket;

/// How connections are accepted, kept and bounded.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Connections alive at once, TLS handshakes and WebSockets included. For the next one an idle one gives way, of
    /// whoever has most; are all busy, it waits in the kernel's backlog. One address alone may have four fifths. Each
    /// costs a file descriptor.
    pub connections: usize,
    /// Who is not one client: such an address may have as many connections as there are.
    pub proxies: TrustedProxies,
    /// Connections that wait in the kernel to be accepted; the kernel caps it at `somaxconn`.
    pub backlog: u32,
    /// From the accept to the end of the TLS handshake.
    pub handshake: Duration,
    /// From the accept (or handshake) to the end of the first request's header: what a stranger who
    /// never speaks, or speaks a byte at a time, can hold a connection for.
    pub first_request: Duration,
    /// How long a later request's header may take, idle time on a kept connection included: hyper has
    /// one timer for both. Above the 60 s that proxies keep idle connections.
    pub idle: Duration,
    /// Request line and headers together, in bytes; more is answered 431.
    pub header_bytes: usize,
    /// Headers of one request; more is answered 431.
    pub headers: usize,
    /// Silence after which the kernel probes whether the peer is alive.
    pub keepalive: Duration,
    /// How long sent bytes may stay unacknowledged. Linux counts a living peer's closed window too,
    /// so this must not be shorter than the time a stalled viewer is allowed.
    pub user_timeout: Duration,
    /// Bytes that a connection's peer has not taken and that the kernel holds for it unsent, at most about; what is more
    /// stays in the shared log. Without a bound a viewer who does not read costs megabytes.
    pub unsent_bytes: u32,
    /// How long a graceful stop waits for requests in flight.
    pub drain: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connections: 50_000,
            proxies: TrustedProxies::default(),
            backlog: 4096,
            handshake: Duration::from_secs(10),
            first_request: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            header_bytes: 32 * 1024,
            headers: 100,
            keepalive: Duration::from_mins(1),
            user_timeout: Duration::from_mins(5),
            unsent_bytes: 128 * 1024,
            drain: Duration::from_secs(10),
        }
    }
}

/// Serves a filter over plain HTTP at this address until the future is dropped, with the default bounds.
///
/// # Errors
/// If it cannot listen there.
pub async fn serve_filter<F, R>(address: std::net::SocketAddr, filter: F) -> std::io::Result<()>
where
    F: warp::Filter<Extract = R, Error = warp::Rejection> + Clone + Send + Sync + 'static,
    R: warp::Reply + Send + 'static,
{
    let settings = Settings::default();
    let listener = Listener::bind(address, &settings)?;
    let service = Filtered(warp::service(filter));
    serve(
        listener,
        None,
        service,
        settings,
        tokio_util::sync::CancellationToken::new(),
    )
    .await;
    Ok(())
}
