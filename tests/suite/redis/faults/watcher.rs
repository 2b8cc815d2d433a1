//! A viewer that stays with one node while that lives, then goes on at another from where it was; it counts everything.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::stream::{Stream, Transport};
use crate::broker::TOKEN;

/// Before another node is tried, as clients do that do not want to hurry a broker in trouble.
const PAUSE: Duration = Duration::from_millis(200);

/// What a viewer has heard.
#[derive(Debug, Default)]
pub struct Heard {
    /// The position of every result that counts, in the order of arrival.
    pub seqs: Vec<u64>,
    /// Its host.
    pub hosts: Vec<String>,
    /// Warnings that it was told while it stayed connected: one number a connection.
    pub warnings: Vec<usize>,
    /// How often it had to start from the beginning, because its place in the log was gone.
    pub restarts: usize,
    /// What other errors said.
    pub refusals: Vec<String>,
    /// The epoch that it was told last.
    pub epoch: u64,
    /// Whether it has been told totals.
    pub told: bool,
    known: HashSet<String>,
    after: u64,
}

/// One viewer.
pub struct Watcher {
    /// Its transport.
    pub transport: Transport,
    /// All nodes, `ADDR:PORT`; it begins with the one at `at`.
    pub nodes: Arc<Vec<String>>,
    /// Where it is.
    pub at: usize,
    /// Its name, for sessions.
    pub name: String,
    /// The campaign.
    pub campaign: u64,
    /// What it has heard so far.
    pub heard: Arc<Mutex<Heard>>,
}

impl Watcher {
    /// Watches until `over`.
    pub async fn watch(mut self, over: CancellationToken) {
        for connection in 0.. {
            let session = format!("{}-{connection}", self.name);
            let watching = self.stay(&session);
            if over.run_until_cancelled(watching).await.is_none() {
                return;
            }
            self.at = (self.at + 1) % self.nodes.len();
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// One connection, until it ends.
    async fn stay(&self, session: &str) -> Option<()> {
        let mut stream = Stream::open(&self.nodes[self.at], self.transport, session).await?;
        let select = {
            let mut heard = self.heard.lock().unwrap();
            heard.warnings.push(0);
            let mut data = json!({ "campaign_id": self.campaign, "after": heard.after });
            if heard.after > 0 {
                data["epoch"] = json!(heard.epoch);
            }
            json!({ "type": "select_campaign", "data": data })
        };
        let auth = json!({ "type": "auth", "data": { "token": TOKEN } });
        stream.send(&[auth.to_string(), select.to_string()]).await?;
        loop {
            let message: Value = serde_json::from_str(&stream.next().await?).unwrap();
            self.heard
                .lock()
                .unwrap()
                .take(&message["type"], &message["data"]);
        }
    }
}

impl Heard {
    fn take(&mut self, kind: &Value, data: &Value) {
        match kind.as_str().unwrap() {
            "totals" => {
                self.epoch = data["epoch"].as_u64().unwrap();
                self.told = true;
            }
            "result" => self.take_result(data),
            "error" => self.take_error(data.as_str().unwrap()),
            _ => {}
        }
    }

    fn take_result(&mut self, data: &Value) {
        let seq = data["seq"].as_u64().unwrap();
        assert_eq!(seq, self.after + 1, "the log has a gap or goes back");
        self.after = seq;
        let host = data["host"]["hostname"].as_str().unwrap().to_owned();
        let new = self.known.insert(host.clone());
        // Who starts from the beginning hears again what it knows.
        assert!(new || self.restarts > 0, "{host} came twice, at {seq}");
        if new {
            self.seqs.push(seq);
            self.hosts.push(host);
        }
    }

    fn take_error(&mut self, text: &str) {
        if text.starts_with("pubsub error: ") {
            *self.warnings.last_mut().unwrap() += 1;
        } else if text.starts_with("cannot resume") {
            self.restarts += 1;
            self.after = 0;
        } else {
            self.refusals.push(text.to_owned());
        }
    }
}
