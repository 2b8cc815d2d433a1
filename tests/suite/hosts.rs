//! Simulated osquery hosts for tests: they enroll, read and write as osquery's TLS plugins do.

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

use crate::broker::{Broker, SECRET};

/// An enrolled host.
#[derive(Clone, Debug)]
pub struct Host {
    /// Its identifier and hostname.
    pub name: String,
    /// What it shows the broker.
    pub node_key: String,
}

impl Host {
    /// Enrolls a host of this name.
    pub async fn enroll(broker: &Broker, name: &str) -> Self {
        let details = json!({
            "os_version": { "platform": "ubuntu", "name": "Ubuntu", "version": "22.04" },
            "system_info": { "hostname": name, "uuid": format!("uuid-{name}"), "computer_name": name },
            "osquery_info": { "version": "5.12.1" },
        });
        let body =
            json!({ "enroll_secret": SECRET, "host_identifier": name, "host_details": details });
        let (status, said) = agent(broker, "enroll", &body).await;
        assert_eq!(status, 200, "{said}");
        let node_key = said["node_key"].as_str().unwrap().to_owned();
        Self {
            name: name.to_owned(),
            node_key,
        }
    }

    /// Enrolls `count` hosts, many at a time.
    pub async fn enroll_many(broker: &Broker, count: usize) -> Vec<Self> {
        use futures_util::{StreamExt, stream};
        let names = (0..count).map(|at| format!("host-{at:05}"));
        stream::iter(names)
            .map(async |name| Self::enroll(broker, &name).await)
            .buffered(32)
            .collect()
            .await
    }

    /// Checks in; returns what is to be run, by name.
    pub async fn read(&self, broker: &Broker) -> Value {
        let (status, said) = agent(
            broker,
            "distributed/read",
            &json!({ "node_key": self.node_key }),
        )
        .await;
        assert_eq!(status, 200, "{said}");
        said["queries"].clone()
    }

    /// Whether a check-in hands out this campaign's query.
    pub async fn is_given(&self, broker: &Broker, campaign: u64) -> bool {
        self.read(broker)
            .await
            .get(format!("fleet_distributed_query_{campaign}"))
            .is_some()
    }

    /// Posts an answer of these rows and returns the status.
    pub async fn answer(&self, broker: &Broker, campaign: u64, rows: Value) -> u16 {
        let name = format!("fleet_distributed_query_{campaign}");
        let body = json!({
            "node_key": self.node_key,
            "queries": { name.clone(): rows },
            "statuses": { name.clone(): 0 },
            "messages": { name: "" },
        });
        agent(broker, "distributed/write", &body).await.0
    }

    /// Posts a failure with this message and returns the status.
    pub async fn fail(&self, broker: &Broker, campaign: u64, message: &str) -> u16 {
        let name = format!("fleet_distributed_query_{campaign}");
        let body = json!({
            "node_key": self.node_key,
            "queries": { name.clone(): "" },
            "statuses": { name.clone(): "1" },
            "messages": { name: message },
        });
        agent(broker, "distributed/write", &body).await.0
    }
}

/// POSTs to an osquery route.
pub async fn agent(broker: &Broker, route: &str, body: &Value) -> (u16, Value) {
    let body = Bytes::from(body.to_string());
    broker
        .send(
            Method::POST,
            &format!("/api/osquery/{route}"),
            &[("content-type", "application/json")],
            body,
        )
        .await
}
