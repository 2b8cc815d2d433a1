//! What is known of the server: its process, and how a broker is furnished with hosts and campaigns.

use std::io::Write as _;
use std::net::SocketAddr;

use anyhow::Context;
use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::http::{Http, post};

/// CPU time of all threads so far.
pub(crate) fn cpu_ns(pid: u32) -> anyhow::Result<u64> {
    let mut sum = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).context("no such process")? {
        let text = std::fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
        let spent = text.split(' ').next().and_then(|text| text.parse().ok());
        sum += spent.unwrap_or(0_u64);
    }
    Ok(sum)
}

/// Resident memory.
pub(crate) fn rss_bytes(pid: u32) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    Ok(kib.context("no VmRSS")? * 1024)
}

/// A broker and those who are enrolled with it.
pub(crate) struct Broker {
    server: SocketAddr,
    pub(crate) token: String,
    secret: String,
    keys_file: String,
    pub(crate) keys: Vec<String>,
}

impl Broker {
    pub(crate) fn new(server: SocketAddr, secrets: &str, keys_file: &str) -> anyhow::Result<Self> {
        let (token, secret) = secrets.split_once(',').context("--secrets TOKEN,SECRET")?;
        let known = std::fs::read_to_string(keys_file).unwrap_or_default();
        Ok(Self {
            server,
            token: token.to_owned(),
            secret: secret.to_owned(),
            keys_file: keys_file.to_owned(),
            keys: known.lines().map(str::to_owned).collect(),
        })
    }

    /// Sees to it that so many hosts are there.
    pub(crate) async fn hosts(&mut self, count: usize) -> anyhow::Result<()> {
        let mut http = Http::open(&self.server.to_string()).await?;
        if let Some(key) = self.keys.last() {
            let body = json!({ "node_key": key }).to_string();
            let request = post("/api/osquery/config", "", body.as_bytes());
            if http.call(&request).await.is_err() {
                self.keys.clear();
                http = Http::open(&self.server.to_string()).await?;
            }
        }
        let lacking: Vec<usize> = (self.keys.len()..count).collect();
        let mut many = vec![http];
        while many.len() < 32 {
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
        std::fs::write(&self.keys_file, self.keys.join("\n"))?;
        Ok(())
    }

    /// A new campaign over all hosts, of which there are at least so many.
    pub(crate) async fn campaign(&mut self, hosts: usize) -> anyhow::Result<u64> {
        self.hosts(hosts).await?;
        let body = json!({"query": "SELECT 1", "selected": {"hosts": [], "labels": ["All Hosts"]}});
        let token = format!("Authorization: Bearer {}\r\n", self.token);
        let path = "/api/latest/fleet/queries/run_by_names";
        let mut http = Http::open(&self.server.to_string()).await?;
        let said = http
            .json(&post(path, &token, body.to_string().as_bytes()))
            .await?;
        said["campaign"]["id"].as_u64().context("no campaign")
    }

    /// The requests by which hosts answer. The message that viewers get is about `bytes` long.
    pub(crate) fn answers(&self, campaign: u64, count: usize, bytes: usize) -> Vec<Vec<u8>> {
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
const MESSAGE_BYTES: usize = 270;
