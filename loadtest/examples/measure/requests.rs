//! Requests by many connections, each with one under way at a time, as agents send them.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::Cli;
use crate::http::{Http, post};
use crate::server::{Broker, cpu_ns};

#[derive(Debug, clap::Args)]
pub(crate) struct Load {
    #[arg(long, default_value_t = 32)]
    connections: usize,
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Hosts that take part
    #[arg(long, default_value_t = 20_000)]
    hosts: usize,
    /// Length of an answer's message
    #[arg(long, default_value_t = 400)]
    bytes: usize,
}

pub(crate) async fn checkin(cli: &Cli, broker: Option<Broker>, load: &Load) -> anyhow::Result<()> {
    let mut keys = vec!["0123456789abcdef0123456789abcdef".to_owned(); load.hosts];
    if let Some(mut broker) = broker {
        broker.hosts(load.hosts).await?;
        keys = broker.keys;
    }
    let requests = keys.iter().take(load.hosts).map(|key| {
        let body = json!({ "node_key": key }).to_string();
        post("/api/osquery/distributed/read", "", body.as_bytes())
    });
    let requests: Rc<Vec<_>> = Rc::new(requests.collect());
    // Answers the server's own questions first, if it has any: once round without counting.
    rounds(cli, load, &requests, Some(requests.len())).await?;
    report(cli, "checkin", rounds(cli, load, &requests, None).await?)
}

pub(crate) async fn write(cli: &Cli, broker: Option<Broker>, load: &Load) -> anyhow::Result<()> {
    let requests = match broker {
        Some(mut broker) => {
            let campaign = broker.campaign(load.hosts).await?;
            broker.answers(campaign, load.hosts, load.bytes)
        }
        None => {
            let key = "0123456789abcdef0123456789abcdef";
            let padding = "x".repeat(load.bytes.saturating_sub(200));
            let body = format!(
                r#"{{"node_key":"{key}","queries":{{"fleet_distributed_query_12":[{{"v":"{padding}"}}]}},"statuses":{{"fleet_distributed_query_12":0}},"messages":{{"fleet_distributed_query_12":""}}}}"#
            );
            vec![post("/api/osquery/distributed/write", "", body.as_bytes()); load.hosts]
        }
    };
    let count = requests.len();
    report(
        cli,
        "write",
        rounds(cli, load, &Rc::new(requests), Some(count)).await?,
    )
}

/// Requests, seconds, CPU nanoseconds.
type Spent = (usize, f64, u64);

/// Sends each request once, or again and again until the time is over.
async fn rounds(
    cli: &Cli,
    load: &Load,
    requests: &Rc<Vec<Vec<u8>>>,
    count: Option<usize>,
) -> anyhow::Result<Spent> {
    let next = Rc::new(Cell::new(0));
    let until = Instant::now() + Duration::from_secs_f64(load.seconds);
    let mut connections = Vec::new();
    for _ in 0..load.connections {
        connections.push(Http::open(&cli.server.to_string()).await?);
    }
    let (before, start) = (cpu_ns(cli.pid)?, Instant::now());
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
    let cpu = cpu_ns(cli.pid)? - before;
    Ok((next.get(), start.elapsed().as_secs_f64(), cpu))
}

fn report(cli: &Cli, what: &str, (count, seconds, cpu): Spent) -> anyhow::Result<()> {
    println!(
        "{what} {} requests={count} cpu_ns_per_request={:.0} requests_per_s={:.0}",
        if cli.secrets.is_some() {
            "broker"
        } else {
            "limit"
        },
        cpu as f64 / count as f64,
        count as f64 / seconds,
    );
    Ok(())
}
