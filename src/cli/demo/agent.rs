//! The life of one simulated host: enrol, fetch the configuration, check in, answer.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep, timeout};

use super::answer::Answers;
use super::host::Host;
use super::row::Moment;
use super::tables;
use crate::cli::tls::{self, Trust};
use crate::clock::Clock;

/// The longest a request may take; osquery's own limit is of this size.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(20);
/// The largest reply that is read.
const REPLY_BYTES_MAX: usize = 4 << 20;
/// Connections kept for the next request; all hosts of a demo share them.
const IDLE_CONNECTIONS: usize = 16;
/// Time between check-ins while the server asks for haste.
const HASTE: Duration = Duration::from_secs(2);
/// The longest wait before a host that cannot enrol tries again.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// The way to the server, shared by all hosts of a demo.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    base: String,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// What a server says to a request of a host.
enum Reply {
    Said(Value),
    /// The node key is not valid (any more).
    NotEnrolled,
}

impl Endpoint {
    pub(super) fn new(url: &str) -> anyhow::Result<Self> {
        let uri: Uri = url.parse().context("not a URL")?;
        anyhow::ensure!(
            matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some(),
            "not an http or https URL: {url}"
        );
        // A demo talks to its own server, whose certificate is often self-signed: any will do.
        let tls = tls::client(&Trust::Anybody)?;
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .build();
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .build(connector);
        let base = url.trim_end_matches('/').to_owned();
        Ok(Self { base, client })
    }

    async fn post(&self, what: &str, body: &Value) -> anyhow::Result<Reply> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("{}/api/osquery/{what}", self.base))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, "osquery/5.16.0")
            .body(Full::new(Bytes::from(body.to_string())))?;
        let exchange = async {
            let reply = self.client.request(request).await?;
            let status = reply.status();
            let body = Limited::new(reply.into_body(), REPLY_BYTES_MAX);
            let body = body.collect().await.map_err(anyhow::Error::from_boxed)?;
            anyhow::Ok((status, body.to_bytes()))
        };
        let (status, body) = timeout(REQUEST_TIME_MAX, exchange).await??;
        let said: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let invalid = said.get("node_invalid").and_then(Value::as_bool);
        if status == StatusCode::UNAUTHORIZED || invalid == Some(true) {
            return Ok(Reply::NotEnrolled);
        }
        anyhow::ensure!(status.is_success(), "{what}: the server answered {status}");
        Ok(Reply::Said(said))
    }
}

/// One simulated host.
pub(super) struct Agent {
    host: Host,
    endpoint: Endpoint,
    answers: Answers,
    enroll_secret: String,
    interval: Duration,
    arrival: Duration,
    started: Instant,
    clock: Clock,
}

/// What `distributed/read` hands out.
#[derive(Debug, Default, Deserialize)]
struct HandOut {
    #[serde(default)]
    queries: BTreeMap<String, String>,
    #[serde(default)]
    discovery: BTreeMap<String, String>,
    /// For how many seconds the host is asked to check in often.
    #[serde(default)]
    accelerate: u64,
}

impl Agent {
    pub(super) fn new(
        host: Host,
        endpoint: Endpoint,
        answers: Answers,
        enroll_secret: String,
        interval: Duration,
        arrival: Duration,
    ) -> Self {
        Self {
            host,
            endpoint,
            answers,
            enroll_secret,
            interval,
            arrival,
            started: Instant::now(),
            clock: Clock::System,
        }
    }

    /// Lives until dropped.
    pub(super) async fn live(self) {
        sleep(self.arrival).await;
        loop {
            let node_key = self.enrol().await;
            self.check_in(&node_key).await;
            tracing::debug!(host = %self.host.hostname, "demo host has to enrol again");
            sleep(Duration::from_secs(1)).await;
        }
    }

    /// Tries until the server gives a node key.
    async fn enrol(&self) -> String {
        let mut retry = Duration::from_secs(1);
        loop {
            match self.endpoint.post("enroll", &self.enrolment()).await {
                Ok(Reply::Said(said)) => match said.get("node_key").and_then(Value::as_str) {
                    Some(key) => return key.to_owned(),
                    None => tracing::warn!("the server enrolled a demo host without a node key"),
                },
                Ok(Reply::NotEnrolled) => {
                    tracing::warn!(host = %self.host.hostname, "the server refused to enrol a demo host");
                }
                Err(error) => {
                    tracing::debug!(host = %self.host.hostname, %error, "demo host cannot enrol");
                }
            }
            sleep(retry).await;
            retry = (retry * 2).min(RETRY_MAX);
        }
    }

    fn enrolment(&self) -> Value {
        let first = |table| {
            let rows = tables::rows(table, &self.host, self.moment()).unwrap_or_default();
            let cells = rows.into_iter().next().unwrap_or_default().into_iter();
            Value::Object(
                cells
                    .map(|(name, value)| (name.to_owned(), value.into()))
                    .collect(),
            )
        };
        json!({
            "enroll_secret": self.enroll_secret,
            "host_identifier": self.host.uuid,
            "host_details": {
                "os_version": first("os_version"),
                "osquery_info": first("osquery_info"),
                "system_info": first("system_info"),
                "platform_info": first("platform_info"),
            },
        })
    }

    fn moment(&self) -> Moment {
        Moment {
            unix_s: self.clock.now().secs(),
            running_s: self.started.elapsed().as_secs(),
        }
    }

    /// Checks in at every interval until the node key is no longer valid.
    async fn check_in(&self, node_key: &str) {
        let key = json!({ "node_key": node_key });
        if let Ok(Reply::NotEnrolled) = self.endpoint.post("config", &key).await {
            return;
        }
        let mut haste_until = Instant::now();
        loop {
            match self.round(node_key, &key).await {
                Ok(Some(haste)) => haste_until = haste_until.max(Instant::now() + haste),
                Ok(None) => return,
                Err(error) => {
                    tracing::debug!(host = %self.host.hostname, %error, "demo host cannot check in");
                }
            }
            let hasty = Instant::now() < haste_until;
            sleep(if hasty {
                HASTE.min(self.interval)
            } else {
                self.interval
            })
            .await;
        }
    }

    /// One check-in with its answers: how long to hurry from now on, or `None` if not enrolled.
    async fn round(&self, node_key: &str, key: &Value) -> anyhow::Result<Option<Duration>> {
        let Reply::Said(said) = self.endpoint.post("distributed/read", key).await? else {
            return Ok(None);
        };
        let handed: HandOut = serde_json::from_value(said).context("distributed/read")?;
        // An hour is more haste than any server asks for.
        let haste = Duration::from_secs(handed.accelerate.min(3600));
        if !handed.queries.is_empty() {
            let (answers, host) = (self.answers.clone(), self.host.clone());
            let (key, moment) = (node_key.to_owned(), self.moment());
            let run = move || run_all(&answers, &host, moment, &key, &handed);
            let answers = tokio::task::spawn_blocking(run).await?;
            if let Reply::NotEnrolled = self.endpoint.post("distributed/write", &answers).await? {
                return Ok(None);
            }
        }
        Ok(Some(haste))
    }
}

/// The body of `distributed/write` for what was handed out.
fn run_all(
    answers: &Answers,
    host: &Host,
    moment: Moment,
    node_key: &str,
    handed: &HandOut,
) -> Value {
    let mut rows = Map::new();
    let (mut statuses, mut messages, mut stats) = (Map::new(), Map::new(), Map::new());
    for (at, (name, sql)) in handed.queries.iter().enumerate() {
        let discovery = handed.discovery.get(name);
        let applies = discovery.is_none_or(|sql| {
            answers
                .answer(sql, host, moment)
                .is_ok_and(|found| !found.is_empty())
        });
        if !applies {
            continue;
        }
        match answers.answer(sql, host, moment) {
            Ok(found) => {
                rows.insert(name.clone(), found.into());
                statuses.insert(name.clone(), 0.into());
                messages.insert(name.clone(), "".into());
            }
            Err(message) => {
                rows.insert(name.clone(), "".into());
                statuses.insert(name.clone(), 1.into());
                messages.insert(name.clone(), message.into());
            }
        }
        let wall = 1 + host.pick(at as u64 + moment.unix_s, 40);
        let took = json!({
            "wall_time_ms": wall,
            "user_time": wall / 2,
            "system_time": wall / 4,
            "memory": 4096 * (1 + host.pick(wall, 90)),
        });
        stats.insert(name.clone(), took);
    }
    json!({
        "node_key": node_key,
        "queries": rows,
        "statuses": statuses,
        "messages": messages,
        "stats": stats,
    })
}
