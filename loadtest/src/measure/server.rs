//! How a broker is furnished with hosts and campaigns.

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::time::sleep;

use super::counter::Via;
use super::http::{Http, get, post};
use super::viewers::{Audience, Hello};

/// Between two campaigns: a user may start ten a second.
const CAMPAIGN_PAUSE: Duration = Duration::from_millis(110);
/// Connections by which hosts enrol.
const ENROLLING: usize = 32;
/// What contains every host.
const ALL_HOSTS: &str = "All Hosts";

/// A broker and those who are enrolled with it.
pub(crate) struct Broker {
    server: SocketAddr,
    pub(super) token: String,
    secret: String,
    /// Of the hosts that are enrolled so far.
    pub(super) keys: Vec<String>,
}

impl Broker {
    pub(crate) fn new(server: SocketAddr, token: &str, secret: &str) -> Self {
        Self {
            server,
            token: token.to_owned(),
            secret: secret.to_owned(),
            keys: Vec::new(),
        }
    }

    /// Sees to it that so many hosts are there.
    pub(crate) async fn hosts(&mut self, count: usize) -> anyhow::Result<()> {
        let lacking: Vec<usize> = (self.keys.len()..count).collect();
        let mut many = Vec::new();
        while many.len() < ENROLLING {
            many.push(Http::open(&self.server.to_string()).await?);
        }
        for some in lacking.chunks(many.len() * 4) {
            // Those on different connections share the store's transactions.
            for (at, host) in some.iter().enumerate() {
                let name = format!("measure-{host:07}");
                let body = json!({"enroll_secret": self.secret, "host_identifier": name,
                    "host_details": {"system_info": {"hostname": name, "computer_name": name},
                        "os_version": {"platform": "ubuntu", "name": "Ubuntu", "version": "24.04"},
                        "osquery_info": {"version": "5.16.0"}}});
                let request = post("/api/osquery/enroll", "", body.to_string().as_bytes());
                let http = &mut many[at / 4];
                http.stream.write_all(&request).await?;
            }
            for at in 0..some.len() {
                let body = many[at / 4].reply().await?;
                let said: serde_json::Value = serde_json::from_slice(&body)?;
                let key = said["node_key"].as_str().context("no node key")?;
                self.keys.push(key.to_owned());
            }
        }
        Ok(())
    }

    /// Hosts that are there, whoever enrolled them.
    pub(crate) async fn host_count(&self) -> anyhow::Result<usize> {
        let said = self.get("/api/latest/fleet/hosts/count").await?;
        let count = said["count"].as_u64().context("no count")?;
        Ok(usize::try_from(count)?)
    }

    /// Whether it takes requests and its store is well.
    pub(crate) async fn is_ready(&self) -> bool {
        let Ok(mut http) = Http::open(&self.server.to_string()).await else {
            return false;
        };
        http.call(&get("/readyz", "")).await.is_ok()
    }

    async fn get(&self, path: &str) -> anyhow::Result<serde_json::Value> {
        let mut http = Http::open(&self.server.to_string()).await?;
        http.json(&get(path, &self.authorization())).await
    }

    fn authorization(&self) -> String {
        format!("Authorization: Bearer {}\r\n", self.token)
    }

    /// Starts so many campaigns over all hosts, of which there must be `hosts`, one after the other and each with a
    /// viewer; how long the broker took to answer each request.
    pub(crate) async fn timed_campaigns(
        &self,
        audience: &mut Audience,
        count: usize,
        hosts: usize,
    ) -> anyhow::Result<Vec<Duration>> {
        let labels = self.get("/api/latest/fleet/labels/summary").await?;
        let mut labels = labels["labels"].as_array().into_iter().flatten();
        let all = labels.find(|label| label["name"] == ALL_HOSTS);
        let all = &all.context("no label of all hosts")?["id"];
        let body = json!({"query": "SELECT 1", "selected": {"hosts": [], "labels": [all]}});
        let body = body.to_string();
        let path = "/api/latest/fleet/queries/run";
        let request = post(path, &self.authorization(), body.as_bytes());
        let mut http = Http::open(&self.server.to_string()).await?;
        let mut took = Vec::new();
        for number in 0..count {
            let start = Instant::now();
            let reply = http.call(&request).await?;
            took.push(start.elapsed());
            let said: serde_json::Value = serde_json::from_slice(&reply)?;
            let campaign = &said["campaign"];
            let targets = campaign["Metrics"]["TotalHosts"].as_u64();
            ensure!(targets == Some(hosts as u64), "{targets:?} hosts are asked");
            let id = campaign["id"].as_u64().context("no campaign")?;
            self.listen(audience, number, id).await?;
            sleep(CAMPAIGN_PAUSE).await;
        }
        Ok(took)
    }

    /// A new campaign over all hosts, of which there are at least so many.
    pub(crate) async fn campaign(&mut self, hosts: usize) -> anyhow::Result<u64> {
        self.hosts(hosts).await?;
        self.run(&json!({"hosts": [], "labels": [ALL_HOSTS]})).await
    }

    /// A new campaign, and the pause before a user may start the next.
    async fn run(&self, selected: &serde_json::Value) -> anyhow::Result<u64> {
        let body = json!({"query": "SELECT 1", "selected": selected});
        let path = "/api/latest/fleet/queries/run_by_names";
        let mut http = Http::open(&self.server.to_string()).await?;
        let request = post(path, &self.authorization(), body.to_string().as_bytes());
        let said = http.json(&request).await?;
        sleep(CAMPAIGN_PAUSE).await;
        said["campaign"]["id"].as_u64().context("no campaign")
    }

    /// So many campaigns, each with a viewer, so that none is cancelled: over all hosts, or over one host that is not
    /// among the first.
    pub(crate) async fn watched_campaigns(
        &mut self,
        count: usize,
        all_hosts: bool,
    ) -> anyhow::Result<Audience> {
        let last = format!("measure-{:07}", self.keys.len().saturating_sub(1));
        let selected = if all_hosts {
            json!({"hosts": [], "labels": [ALL_HOSTS]})
        } else {
            json!({"hosts": [last], "labels": []})
        };
        let mut audience = Audience::default();
        for number in 0..count {
            let campaign = self.run(&selected).await?;
            self.listen(&mut audience, number, campaign).await?;
        }
        Ok(audience)
    }

    /// One viewer of this campaign.
    pub(crate) async fn watch(&self, campaign: u64) -> anyhow::Result<Audience> {
        let mut audience = Audience::default();
        self.listen(&mut audience, 0, campaign).await?;
        Ok(audience)
    }

    async fn listen(
        &self,
        audience: &mut Audience,
        number: usize,
        campaign: u64,
    ) -> anyhow::Result<()> {
        let hello = Hello {
            token: self.token.clone(),
            campaign,
            after: None,
        };
        let (server, raw) = (self.server, Via::Raw);
        audience.connect(server, raw, number, Some(&hello)).await
    }

    /// The requests by which hosts answer. The message that viewers get is about `bytes` long.
    pub(super) fn answers(&self, campaign: u64, count: usize, bytes: usize) -> Vec<Vec<u8>> {
        let keys = self.keys.iter().take(count);
        let padding = "x".repeat(bytes.saturating_sub(MESSAGE_BYTES));
        keys.map(|key| {
            let mut body = Vec::new();
            let name = format!("fleet_distributed_query_{campaign}");
            // Writing into a vector cannot fail.
            let _ = write!(
                body,
                r#"{{"node_key":"{key}","queries":{{"{name}":[{{"v":"{padding}"}}]}},"statuses":{{"{name}":0}},"messages":{{"{name}":""}}}}"#
            );
            post("/api/osquery/distributed/write", "", &body)
        })
        .collect()
    }

    /// Posts the answers of so many hosts, as fast as they are taken.
    pub(crate) async fn post_all(
        &self,
        campaign: u64,
        count: usize,
        bytes: usize,
    ) -> anyhow::Result<()> {
        let mut http = Http::open(&self.server.to_string()).await?;
        for some in self.answers(campaign, count, bytes).chunks(64) {
            http.stream.write_all(&some.concat()).await?;
            for _ in some {
                http.reply().await?;
            }
        }
        Ok(())
    }
}

/// Bytes of a message beside the row's value.
pub(super) const MESSAGE_BYTES: usize = 270;
