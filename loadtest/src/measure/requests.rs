//! Requests by many connections, each with one under way at a time, as agents send them.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::http::{Http, post};
use super::{Subject, awake};

/// What a limit is given for a node key.
const KEY: &str = "0123456789abcdef0123456789abcdef";
/// Campaigns that are answered one after the other: one alone is over in a fifth of a second, and that is as much luck as
/// cost.
const CAMPAIGNS: usize = 5;

/// Options of requests.
#[derive(Clone, Debug, Args)]
pub(crate) struct Load {
    #[arg(long, default_value_t = 32)]
    pub(crate) connections: usize,
    #[arg(long, default_value_t = 2.0)]
    pub(crate) seconds: f64,
    /// Hosts that take part
    #[arg(long, default_value_t = 20_000)]
    pub(crate) hosts: usize,
    /// Length of an answer's message
    #[arg(long, default_value_t = 400)]
    pub(crate) bytes: usize,
}

/// What requests took.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Requested {
    pub(crate) requests: usize,
    pub(crate) cpu_ns_per_request: f64,
    pub(crate) requests_per_s: f64,
}

/// Check-ins of hosts that have nothing to do, for [`Load::seconds`].
pub(crate) async fn checkin(subject: &mut Subject, load: &Load) -> anyhow::Result<Requested> {
    let keys = match &mut subject.broker {
        Some(broker) => {
            broker.hosts(load.hosts).await?;
            broker.keys[..load.hosts].to_vec()
        }
        None => vec![KEY.to_owned(); load.hosts],
    };
    let requests = keys.iter().map(|key| {
        let body = json!({ "node_key": key }).to_string();
        post("/api/osquery/distributed/read", "", body.as_bytes())
    });
    let requests: Rc<Vec<_>> = Rc::new(requests.collect());
    if subject.broker.is_some() {
        introduce(subject, load, &keys).await?;
    }
    rounds(subject, load, &requests, None).await
}

/// Has every host answer what the broker asks it about itself, with nothing, so that it is not asked again.
async fn introduce(subject: &Subject, load: &Load, keys: &[String]) -> anyhow::Result<()> {
    let mut work = JoinSet::new();
    for some in keys.chunks(keys.len().div_ceil(load.connections)) {
        let (some, mut http) = (
            some.to_vec(),
            Http::open(&subject.address.to_string()).await?,
        );
        work.spawn_local(async move {
            for key in some {
                let body = json!({ "node_key": key }).to_string();
                let asked = post("/api/osquery/distributed/read", "", body.as_bytes());
                let asked = http.json(&asked).await?;
                let names = asked["queries"].as_object().into_iter().flatten();
                let names: Vec<_> = names.map(|(name, _)| name.clone()).collect();
                let of = |value: Value| -> Value {
                    names
                        .iter()
                        .map(|name| (name.clone(), value.clone()))
                        .collect()
                };
                let body =
                    json!({"node_key": key, "queries": of(json!([])), "statuses": of(json!(0))});
                let body = body.to_string();
                http.call(&post("/api/osquery/distributed/write", "", body.as_bytes()))
                    .await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = work.join_next().await {
        done??;
    }
    Ok(())
}

/// Answers of [`Load::hosts`] hosts to [`CAMPAIGNS`] campaigns, once each.
pub(crate) async fn write(subject: &mut Subject, load: &Load) -> anyhow::Result<Requested> {
    let mut requests = Vec::new();
    for _ in 0..CAMPAIGNS {
        requests.extend(answers(subject, load).await?);
    }
    let count = requests.len();
    rounds(subject, load, &Rc::new(requests), Some(count)).await
}

/// The requests in which all hosts answer a new campaign.
async fn answers(subject: &mut Subject, load: &Load) -> anyhow::Result<Vec<Vec<u8>>> {
    let campaign = subject.campaign(load.hosts).await?;
    Ok(match &subject.broker {
        Some(broker) => broker.answers(campaign, load.hosts, load.bytes),
        None => {
            let padding = "x".repeat(load.bytes.saturating_sub(200));
            let body = format!(
                r#"{{"node_key":"{KEY}","queries":{{"fleet_distributed_query_12":[{{"v":"{padding}"}}]}},"statuses":{{"fleet_distributed_query_12":0}},"messages":{{"fleet_distributed_query_12":""}}}}"#
            );
            vec![post("/api/osquery/distributed/write", "", body.as_bytes()); load.hosts]
        }
    })
}

/// Sends each request once, or again and again until the time is over.
async fn rounds(
    subject: &Subject,
    load: &Load,
    requests: &Rc<Vec<Vec<u8>>>,
    count: Option<usize>,
) -> anyhow::Result<Requested> {
    let next = Rc::new(Cell::new(0));
    let mut connections = Vec::new();
    for _ in 0..load.connections {
        connections.push(Http::open(&subject.address.to_string()).await?);
    }
    let _awake = awake();
    let (before, start) = (subject.process.cpu_ns()?, Instant::now());
    let until = start + Duration::from_secs_f64(load.seconds);
    let tasks = connections.into_iter().map(|mut http| {
        let (next, requests) = (Rc::clone(&next), Rc::clone(requests));
        tokio::task::spawn_local(async move {
            loop {
                let at = next.get();
                if count.map_or_else(|| Instant::now() > until, |count| at >= count) {
                    return anyhow::Ok(());
                }
                next.set(at + 1);
                http.call(&requests[at % requests.len()]).await?;
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await??;
    }
    let cpu = subject.process.cpu_ns_since(before)?;
    let count = next.get();
    Ok(Requested {
        requests: count,
        cpu_ns_per_request: cpu as f64 / count.max(1) as f64,
        requests_per_s: count as f64 / start.elapsed().as_secs_f64(),
    })
}
