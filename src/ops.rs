//! What operators' machinery asks: is it alive, is it ready, how is it doing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use http::{HeaderValue, Method, StatusCode, header};
use tokio::sync::Mutex;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::path::FullPath;
use warp::reply::Response;

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

fn version() -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!("{{\"version\":\"{version}\"}}\n")
}

/// `GET /healthz`, `/readyz`, `/metrics` and `/version`; rejects every other path.
#[must_use]
pub fn routes(ops: Arc<Ops>) -> BoxedFilter<(Response,)> {
    warp::path::full()
        .and(warp::method())
        .and_then(move |path: FullPath, method: Method| {
            let ops = Arc::clone(&ops);
            async move {
                let (status, text) = match path.as_str() {
                    "/healthz" | "/readyz" | "/metrics" | VERSION
                        if method != Method::GET && method != Method::HEAD =>
                    {
                        (StatusCode::METHOD_NOT_ALLOWED, String::new())
                    }
                    "/healthz" => (StatusCode::OK, "ok\n".to_owned()),
                    "/readyz" => ops.readiness().await,
                    VERSION => (StatusCode::OK, version()),
                    "/metrics" => (
                        StatusCode::OK,
                        ops.metrics
                            .as_ref()
                            .map(Metrics::render)
                            .unwrap_or_default(),
                    ),
                    _ => return Err(warp::reject::not_found()),
                };
                let mut response = Response::new(text.into());
                *response.status_mut() = status;
                let headers = response.headers_mut();
                if status == StatusCode::METHOD_NOT_ALLOWED {
                    headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
                }
                let kind = match path.as_str() {
                    VERSION => "application/json; charset=utf-8",
                    _ => "text/plain; charset=utf-8",
                };
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
                headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
                Ok(response)
            }
        })
        .boxed()
}
