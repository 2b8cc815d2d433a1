//! Two thousand osquery hosts: they check in at any node, keep an answer until it is taken, and send it again.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::hosts::Host;

/// Hosts that speak at the same time.
const AT_ONCE: usize = 16;
/// Between two hosts of one of these.
const PACE: Duration = Duration::from_millis(25);
/// After this an agent gives up on a request.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the hosts have done.
#[derive(Default)]
pub struct Done {
    /// Hosts whose answer was acknowledged.
    pub acknowledged: Mutex<BTreeSet<String>>,
    /// POSTs of answers that were refused with 503.
    pub refused: AtomicUsize,
    /// Hosts that answered again because they were asked again.
    pub asked_again: AtomicUsize,
    /// The longest time in which a node said 503, in milliseconds.
    pub slowest_refusal_ms: AtomicUsize,
}

impl Done {
    /// How many hosts' answers are acknowledged.
    pub fn count(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }
}

/// The hosts of one campaign.
#[derive(Clone)]
pub struct Crew {
    /// All nodes, `ADDR:PORT`.
    pub nodes: Arc<Vec<String>>,
    /// Everybody.
    pub hosts: Arc<Vec<Host>>,
    /// What they are asked.
    pub campaign: u64,
    /// What they have done.
    pub done: Arc<Done>,
}

impl Crew {
    /// All hosts check in again and again until `over`.
    pub async fn play(self, over: CancellationToken) {
        let parts = (0..AT_ONCE).map(|part| over.run_until_cancelled(self.part(part)));
        futures_util::future::join_all(parts).await;
    }

    async fn part(&self, part: usize) {
        let client = client();
        let mine: Vec<usize> = (part..self.hosts.len()).step_by(AT_ONCE).collect();
        let mut kept = vec![false; self.hosts.len()];
        for round in 0.. {
            for &at in &mine {
                let (host, node) = (
                    &self.hosts[at],
                    &self.nodes[(at + round) % self.nodes.len()],
                );
                kept[at] = kept[at] || self.is_asked(&client, node, host).await;
                if kept[at] {
                    kept[at] = !self.flush(&client, node, host).await;
                }
                tokio::time::sleep(PACE).await;
            }
        }
    }

    fn query(&self) -> String {
        format!("fleet_distributed_query_{}", self.campaign)
    }

    async fn is_asked(&self, client: &Http, node: &str, host: &Host) -> bool {
        let body = json!({ "node_key": host.node_key });
        match post(client, node, "distributed/read", &body).await {
            Some((200, said)) => {
                let said: Value = serde_json::from_slice(&said).unwrap();
                said["queries"].get(self.query()).is_some()
            }
            Some((status, said)) => panic!("a check-in was refused: {status} {said:?}"),
            None => false,
        }
    }

    /// Sends the answer; false if the host keeps it.
    async fn flush(&self, client: &Http, node: &str, host: &Host) -> bool {
        let name = self.query();
        let body = json!({
            "node_key": host.node_key,
            "queries": { name.clone(): [{ "name": host.name }] },
            "statuses": { name.clone(): 0 },
            "messages": { name: "" },
        });
        let since = Instant::now();
        match post(client, node, "distributed/write", &body).await {
            Some((200, _)) => {
                let new = self
                    .done
                    .acknowledged
                    .lock()
                    .unwrap()
                    .insert(host.name.clone());
                self.done
                    .asked_again
                    .fetch_add(usize::from(!new), Ordering::Relaxed);
                true
            }
            Some((503, _)) => {
                self.done.refused.fetch_add(1, Ordering::Relaxed);
                let took = usize::try_from(since.elapsed().as_millis()).unwrap();
                self.done
                    .slowest_refusal_ms
                    .fetch_max(took, Ordering::Relaxed);
                false
            }
            Some((status, said)) => panic!("an answer was refused: {status} {said:?}"),
            None => false,
        }
    }
}

/// An agent's connections.
pub type Http = Client<HttpConnector, Full<Bytes>>;

/// A client that keeps connections open.
pub fn client() -> Http {
    Client::builder(TokioExecutor::new()).build(HttpConnector::new())
}

/// POSTs to an osquery route; `None` if no reply came.
pub async fn post(client: &Http, node: &str, route: &str, body: &Value) -> Option<(u16, Bytes)> {
    let request = Request::post(format!("http://{node}/api/osquery/{route}"))
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body.to_string())))
        .unwrap();
    let reply = async {
        let reply = client.request(request).await.ok()?;
        let status = reply.status().as_u16();
        Some((status, reply.into_body().collect().await.ok()?.to_bytes()))
    };
    tokio::time::timeout(PATIENCE, reply).await.ok()?
}
