//! Enrols many simulated hosts before a run, over a few connections.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context;
use indicatif::ProgressBar;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::api::said;
use crate::body::{enrolment, key};
use crate::exchange::Connection;
use crate::target::Target;

/// A server that takes no more from this address for now.
const TOO_MANY: u16 = 429;
/// How long it is left alone then.
const PAUSE: Duration = Duration::from_millis(200);
/// Connections that enrol side by side.
const CONNECTIONS: usize = 16;

/// Who is to be enrolled, and how.
#[derive(Clone, Debug)]
pub(crate) struct Enrolment {
    pub(crate) secret: String,
    /// What the hosts' names begin with.
    pub(crate) prefix: String,
    pub(crate) hosts: usize,
}

/// The node keys of all hosts: from `file` if it has as many, else by enrolling (and then kept there).
pub(crate) async fn node_keys(
    target: &Arc<Target>,
    enrolment: &Enrolment,
    file: Option<&Path>,
    progress: &ProgressBar,
) -> anyhow::Result<Arc<Vec<String>>> {
    if let Some(file) = file
        && let Ok(text) = std::fs::read_to_string(file)
    {
        let keys: Vec<String> = text
            .lines()
            .take(enrolment.hosts)
            .map(str::to_owned)
            .collect();
        if keys.len() == enrolment.hosts && still_valid(target, &keys).await? {
            return Ok(Arc::new(keys));
        }
    }
    let keys = enrol_all(target, enrolment, progress).await?;
    if let Some(file) = file {
        std::fs::write(file, keys.join("\n")).with_context(|| format!("{}", file.display()))?;
    }
    Ok(Arc::new(keys))
}

/// Whether the server still knows the first and the last key.
async fn still_valid(target: &Target, keys: &[String]) -> anyhow::Result<bool> {
    let mut connection = Connection::open(target).await?;
    for node_key in keys.first().into_iter().chain(keys.last()) {
        let body = key(node_key);
        let request = target.request("POST", "/api/osquery/config", JSON, body.as_bytes());
        if connection.exchange(&request).await?.status != 200 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The header of every agent's request.
pub(crate) const JSON: &str = "Content-Type: application/json\r\nUser-Agent: osquery/5.16.0\r\n";

async fn enrol_all(
    target: &Arc<Target>,
    enrolment: &Enrolment,
    progress: &ProgressBar,
) -> anyhow::Result<Vec<String>> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..CONNECTIONS.min(enrolment.hosts) {
        let (target, enrolment) = (target.clone(), enrolment.clone());
        let (next, progress) = (next.clone(), progress.clone());
        tasks.spawn(async move { enrol_some(&target, &enrolment, &next, &progress).await });
    }
    let mut keys = vec![String::new(); enrolment.hosts];
    while let Some(some) = tasks.join_next().await {
        for (host, node_key) in some?? {
            keys[host] = node_key;
        }
    }
    Ok(keys)
}

async fn enrol_some(
    target: &Target,
    who: &Enrolment,
    next: &AtomicUsize,
    progress: &ProgressBar,
) -> anyhow::Result<Vec<(usize, String)>> {
    let mut connection = Connection::open(target).await?;
    let mut enrolled = Vec::new();
    loop {
        let host = next.fetch_add(1, Ordering::Relaxed);
        if host >= who.hosts {
            return Ok(enrolled);
        }
        let number = u32::try_from(host).context("more than 2^32 hosts")?;
        let body = enrolment(&who.secret, &who.prefix, number);
        let request = target.request("POST", "/api/osquery/enroll", JSON, body.as_bytes());
        let mut reply = connection.exchange(&request).await.context("enroll")?;
        while reply.status == TOO_MANY {
            // As osquery would: all these hosts come from one address.
            progress.set_message("the server takes so many a second (Answerback: --enroll-rate)");
            sleep(PAUSE).await;
            reply = connection.exchange(&request).await.context("enroll")?;
        }
        let keep_alive = reply.keep_alive;
        enrolled.push((host, node_key(&said("enroll", &reply)?)?));
        progress.inc(1);
        if !keep_alive {
            connection = Connection::open(target).await?;
        }
    }
}

/// The node key in the reply to `enroll`.
pub(crate) fn node_key(said: &Value) -> anyhow::Result<String> {
    let key = said.get("node_key").and_then(Value::as_str);
    let key = key.filter(|key| !key.is_empty());
    Ok(key.context("enroll gave no node key")?.to_owned())
}
