//! Connections to other nodes: one bounded pool for each, which knows the node by its certificate.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls_pki_types::ServerName;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::record::NodeAddress;
use crate::net::pinned;

/// How long a connection to a node may take to come about; after that the node counts as dead.
const CONNECT_TIME: Duration = Duration::from_secs(1);
/// Requests on their way to one node at a time, each with a connection of its own. Below the local ports that Linux
/// has for one destination (28,232).
const REQUESTS_PER_NODE: usize = 20_000;
/// Nodes that pools are kept for; starts of the same node count anew.
const NODES_MAX: usize = 64;
/// Idle connections that are kept to one node, and for how long: well below the 75 s after which it closes them.
const IDLE_PER_NODE: usize = 128;
const IDLE_TIME: Duration = Duration::from_secs(20);
/// The most that one connection reads ahead of what its client has taken, in bytes.
const READ_AHEAD: usize = 64 * 1024;
/// Silence after which the kernel probes whether a node's machine is alive, and between probes; four unanswered ones
/// end the connection.
const KEEPALIVE: Duration = Duration::from_secs(5);
const PROBES: u32 = 4;

/// Why a request has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unanswered {
    /// Too many are on their way to this node.
    Full,
    /// The node cannot be reached, or broke off.
    Dead,
}

/// One node's pool.
pub(super) struct Upstream {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    places: Arc<Semaphore>,
}

/// The pools by the nodes' places.
#[derive(Default)]
pub(super) struct Upstreams(Mutex<HashMap<NodeAddress, Arc<Upstream>>>);

impl Upstreams {
    /// The pool of a node that the directory has named.
    pub(super) fn of(&self, place: &NodeAddress) -> Result<Arc<Upstream>, Unanswered> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.get(place) {
            return Ok(Arc::clone(known));
        }
        if all.len() >= NODES_MAX {
            // Dead nodes' pools, for the most part; a living one's is made again.
            all.retain(|_, upstream| !upstream.is_idle());
        }
        let made = Arc::new(Upstream::new(place).map_err(|error| {
            tracing::warn!(%error, "no TLS client can be made");
            Unanswered::Dead
        })?);
        all.insert(place.clone(), Arc::clone(&made));
        Ok(made)
    }
}

impl Upstream {
    fn new(place: &NodeAddress) -> Result<Self, rustls::Error> {
        let pin = place.pin();
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(CONNECT_TIME));
        http.set_keepalive(Some(KEEPALIVE));
        http.set_keepalive_interval(Some(KEEPALIVE));
        http.set_keepalive_retries(Some(PROBES));
        let mut builder = HttpsConnectorBuilder::new()
            .with_tls_config(pinned::client(pin)?)
            .https_or_http();
        if pin.is_some()
            && let Ok(name) = ServerName::try_from(pinned::NAME)
        {
            builder = builder.with_server_name_resolver(FixedServerNameResolver::new(name));
        }
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIME)
            .pool_max_idle_per_host(IDLE_PER_NODE)
            .http1_max_buf_size(READ_AHEAD)
            .build(builder.enable_http1().wrap_connector(http));
        Ok(Self {
            client,
            places: Arc::new(Semaphore::new(REQUESTS_PER_NODE)),
        })
    }

    /// Sends a request and awaits the answer's head; the permit goes with the body.
    pub(super) async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<(Response<Incoming>, OwnedSemaphorePermit), Unanswered> {
        let place = Arc::clone(&self.places).try_acquire_owned();
        let place = place.map_err(|_| Unanswered::Full)?;
        match self.client.request(request).await {
            Ok(response) => Ok((response, place)),
            Err(error) => {
                tracing::debug!(%error, connecting = error.is_connect(), "a node does not answer");
                Err(Unanswered::Dead)
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.places.available_permits() == REQUESTS_PER_NODE
    }
}
