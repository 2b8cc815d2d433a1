//! A listening socket whose connections are counted before they are accepted.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};

use super::places::{ConnectionPermit, ConnectionPermits};
use super::{Settings, TrustedProxies};

/// Pause after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(250);

/// Between two keepalive probes, and how many may stay unanswered.
const PROBE_INTERVAL: Duration = Duration::from_secs(15);
const PROBES: u32 = 4;

/// A bound socket.
#[derive(Debug)]
pub struct Listener {
    inner: TcpListener,
    places: ConnectionPermits,
    proxies: TrustedProxies,
    keepalive: TcpKeepalive,
    user_timeout: Duration,
    unsent_bytes: u32,
}

impl Listener {
    /// Binds `address`; must be called inside a runtime.
    ///
    /// # Errors
    /// What the operating system says, e.g. that the address is in use.
    pub fn bind(address: SocketAddr, settings: &Settings) -> io::Result<Self> {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        // A restart must not wait for the last connections of its predecessor to time out.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(i32::try_from(settings.backlog).unwrap_or(i32::MAX))?;
        let keepalive = TcpKeepalive::new()
            .with_time(settings.keepalive)
            .with_interval(PROBE_INTERVAL)
            .with_retries(PROBES);
        Ok(Self {
            inner: TcpListener::from_std(socket.into())?,
            places: ConnectionPermits::new(settings.connections),
            proxies: settings.proxies.clone(),
            keepalive,
            user_timeout: settings.user_timeout,
            unsent_bytes: settings.unsent_bytes,
        })
    }

    /// The address bound, with the port the system chose where 0 was asked for.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    /// The next connection, once there is a place for it. Faults of single connections and shortages
    /// of the machine are waited out: a listener does not end by itself.
    pub(super) async fn accept(&self) -> (TcpStream, SocketAddr, Arc<ConnectionPermit>) {
        loop {
            self.places.free().await;
            match self.inner.accept().await {
                Ok((stream, peer)) => {
                    let address = peer.ip().to_canonical();
                    let client = (!self.proxies.is_trusted(address)).then_some(address);
                    let Some(place) = self.places.take(client) else {
                        tracing::debug!(%peer, "connection dropped: its address has too many");
                        continue;
                    };
                    if let Err(fault) = self.prepare(&stream) {
                        tracing::debug!(%fault, "connection ended before it was set up");
                        continue;
                    }
                    return (stream, peer, Arc::new(place));
                }
                Err(fault) if is_of_the_connection(&fault) => {
                    tracing::debug!(%fault, "connection ended before it was accepted");
                }
                Err(fault) => {
                    tracing::warn!(%fault, "cannot accept connections");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn prepare(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let socket = SockRef::from(stream);
        socket.set_tcp_keepalive(&self.keepalive)?;
        socket.set_tcp_notsent_lowat(self.unsent_bytes)?;
        socket.set_tcp_user_timeout(Some(self.user_timeout))
    }
}

fn is_of_the_connection(fault: &io::Error) -> bool {
    matches!(
        fault.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}
