//! The test server in this process: one for all tests that need no settings of their own.

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use answerback::clock::Clock;
use answerback::net::{self, Listener};
use answerback::transport::{Mount, MountContext};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::services;

/// A server that lives until it is dropped.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) mounts: Vec<Mount>,
    pub(super) runtime: Runtime,
}

impl Server {
    /// Serves what `build` mounts.
    pub(super) fn start(
        build: impl FnOnce(&MountContext) -> (Vec<Mount>, BoxedFilter<(Response,)>),
    ) -> Self {
        let runtime = Runtime::new().unwrap();
        let guard = runtime.enter();
        let around = MountContext::new(Clock::System);
        let (mounts, filter) = build(&around);
        let settings = net::Settings::default();
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = Listener::bind(loopback, &settings).unwrap();
        let address = listener.local_address().unwrap();
        let service = net::Filtered(warp::service(filter));
        let never = CancellationToken::new();
        runtime.spawn(net::serve(listener, None, service, settings, never));
        drop(guard);
        Self {
            address,
            mounts,
            runtime,
        }
    }
}

/// The server with all test services.
pub(super) fn shared() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| Server::start(services::all))
}

/// A path below a service with a fresh session: `/echo/000/s17`.
pub(super) fn session(service: &str) -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("/{service}/000/s{number}")
}
