//! What operators' machinery asks: is it alive, is it ready, how is it doing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use tokio::sync::Mutex;
use warp::filters::BoxedFilter;
use warp::path::FullPath;
use warp::reject::not_found;
use warp::reply::Response;
use warp::{Filter, Rejection};

use crate::net::ConnInfo;
use crate::store::{Store, StoreError};
use crate::telemetry::metrics::Metrics;

/// The store is asked whether it takes writes at most so often.
const SAID_HOLDS: Duration = Duration::from_secs(1);

/// What the answers are drawn from.
pub struct Ops {
    store: Arc<dyn Store>,
    metrics: Option<Metrics>,
    draining: AtomicBool,
    /// What the store said, and when: whoever asks needs no token, and asking writes.
    asked: Mutex<Option<(Instant, Result<(), StoreError>)>>,
}

impl Ops {
    /// Ready as soon as the store answers.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, metrics: Option<Metrics>) -> Self {
        Self {
            store,
            metrics,
            draining: AtomicBool::new(false),
            asked: Mutex::default(),
        }
    }

    /// From now on the node says that it is not ready: balancers send nobody new.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    async fn ping(&self) -> Result<(), StoreError> {
        let mut asked = self.asked.lock().await;
        if let Some((at, said)) = &*asked
            && at.elapsed() < SAID_HOLDS
        {
            return said.clone();
        }
        let said = self.store.ping().await;
        *asked = Some((Instant::now(), said.clone()));
        said
    }

    async fn readiness(&self) -> (StatusCode, String) {
        if self.draining.load(Ordering::Acquire) {
            return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n".to_owned());
        }
        match self.ping().await {
            Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
            Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")),
        }
    }
}

/// Where tools of Fleet's ask, without a token, whether there is a server at all.
const VERSION: &str = "/version";
/// To strangers who ask for metrics.
const NOT_HERE: &str = "metrics are for programs on the broker's machine: start it with --metrics-listen ADDR:PORT for a \
                        scraper elsewhere, or with --metrics-open\n";

fn version() -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!("{{\"version\":\"{version}\"}}\n")
}

/// Whose requests these are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Everybody; metrics and reasons are for programs on this machine.
    Strangers,
    /// Everybody, who may see all of it.
    Everybody,
    /// Nobody: `/readyz` and `/metrics` are served elsewhere.
    Nobody,
}

/// What a proxy in front of the broker adds, so that a stranger behind it is none of this machine's programs.
const FORWARDED: [&str; 4] = ["forwarded", "x-forwarded-for", "x-real-ip", "via"];

impl Audience {
    fn may_see(self, connection: Option<&ConnInfo>, headers: &HeaderMap) -> bool {
        let is_local = || {
            connection.is_some_and(|connection| connection.peer.ip().to_canonical().is_loopback())
                && !FORWARDED.iter().any(|name| headers.contains_key(*name))
        };
        match self {
            Self::Everybody => true,
            Self::Strangers => is_local(),
            Self::Nobody => false,
        }
    }
}

/// `GET /healthz`, `/readyz`, `/metrics` and `/version`; rejects every other path.
#[must_use]
pub fn routes(ops: Arc<Ops>, audience: Audience) -> BoxedFilter<(Response,)> {
    let request = warp::path::full()
        .and(warp::method())
        .and(warp::ext::optional::<ConnInfo>())
        .and(warp::header::headers_cloned());
    request
        .and_then(
            move |path: FullPath, method, connection: Option<ConnInfo>, headers| {
                let ops = Arc::clone(&ops);
                async move {
                    let may_see = audience.may_see(connection.as_ref(), &headers);
                    ops.answer(path.as_str(), &method, audience, may_see).await
                }
            },
        )
        .boxed()
}

impl Ops {
    async fn answer(
        &self,
        path: &str,
        method: &Method,
        audience: Audience,
        may_see: bool,
    ) -> Result<Response, Rejection> {
        let is_read = [Method::GET, Method::HEAD].contains(method);
        let (status, text) = match path {
            "/readyz" | "/metrics" if audience == Audience::Nobody => return Err(not_found()),
            "/healthz" | "/readyz" | "/metrics" | VERSION if !is_read => {
                (StatusCode::METHOD_NOT_ALLOWED, String::new())
            }
            "/healthz" => (StatusCode::OK, "ok\n".to_owned()),
            "/readyz" => match self.readiness().await {
                (status, _) if !may_see && !status.is_success() => {
                    (status, "not ready\n".to_owned())
                }
                told => told,
            },
            VERSION => (StatusCode::OK, version()),
            "/metrics" if !may_see => (StatusCode::FORBIDDEN, NOT_HERE.to_owned()),
            "/metrics" => {
                let metrics = self.metrics.as_ref();
                (
                    StatusCode::OK,
                    metrics.map(Metrics::render).unwrap_or_default(),
                )
            }
            _ => return Err(not_found()),
        };
        let mut response = Response::new(text.into());
        *response.status_mut() = status;
        let headers = response.headers_mut();
        if status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        let kind = match path {
            VERSION => "application/json; charset=utf-8",
            _ => "text/plain; charset=utf-8",
        };
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(response)
    }
}
