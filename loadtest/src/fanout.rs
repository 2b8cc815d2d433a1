//! `fanout`: the answers of many hosts to many viewers, each of whom must get every one.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;

use crate::api;
use crate::cli::{Fanout, Hosts};
use crate::crew::Crew;
use crate::enroll::{Enrolment, node_keys};
use crate::epoch::seconds;
use crate::metrics::{Metrics, Unit};
use crate::process::ensure_files;
use crate::publish::{Published, Publishing, publish};
use crate::report::{Focus, Report, Series};
use crate::site::{Burnt, PlanOf, Site, Watcher, all_ready};
use crate::tally::Set;

/// The SQL of the campaigns. Simulated hosts do not read it.
pub(crate) const QUERY: &str = "SELECT probe FROM loadtest";

/// Connections that viewers on HTTP transports use for a moment, to say what they want.
const SENDING: usize = 256;

/// Runs the test.
pub(crate) async fn run(site: &Site, args: &Fanout) -> anyhow::Result<Report> {
    ensure!(args.campaigns > 0 && args.hosts.hosts > 0, "nothing to do");
    let viewers = args.viewers.viewers;
    ensure_files(viewers + args.connections + SENDING)?;
    let token = site.token().await?;
    let keys = hosts(site, &args.hosts, args.keys.as_deref()).await?;
    let mut campaigns = Vec::with_capacity(args.campaigns);
    for _ in 0..args.campaigns {
        campaigns.push(api::campaign(&site.target, &token, QUERY).await?);
    }

    let mut metrics = Metrics::default();
    let crew = audience(site, args, token, &campaigns, &mut metrics).await?;
    let publishing = publishing(site, args, keys, campaigns.clone());
    let burnt = Burnt::now(site);
    let (published, watcher) = deliver(site, args, &crew, publishing).await?;
    let spent = Burnt::now(site);
    metrics.set("given_up", crew.counters.given_up() as f64);
    let accepted: Vec<Set> = vec![published.accepted.clone(); campaigns.len()];
    let mut book = crew.stop()?.settle(&accepted);
    for complaint in &published.complaints {
        book.complain(complaint.clone());
    }
    let deliveries = book.total().deliveries;
    let names = ("cpu_per_delivery", "client_cpu_per_delivery");
    spent.since(burnt, deliveries, names, &mut metrics);
    posted(&published, &mut metrics);
    let took = seconds(published.first_ns, book.last_ns);
    if took > 0.0 {
        metrics.set("deliveries_per_s", deliveries as f64 / took);
    }
    let expected = &site.common.expect;
    let mut report = Report::on_viewers("fanout", Focus::Latency, &book, metrics, expected);
    report.parameters = parameters(site, args);
    report.series.push(Series {
        title: "deliveries a second",
        unit: Unit::PerSecond,
        points: watcher.points,
    });
    Ok(report)
}

/// Enrols the hosts; their node keys.
pub(crate) async fn hosts(
    site: &Site,
    hosts: &Hosts,
    file: Option<&Path>,
) -> anyhow::Result<Arc<Vec<String>>> {
    let enrolment = Enrolment {
        secret: site.enroll_secret()?,
        prefix: hosts.prefix.clone(),
        hosts: hosts.hosts,
    };
    let bar = site.bar("enrolling", hosts.hosts as u64);
    let keys = node_keys(&site.target, &enrolment, file, &bar).await?;
    bar.finish_and_clear();
    Ok(keys)
}

/// Connects the viewers and measures what they cost while nothing happens.
async fn audience(
    site: &Site,
    args: &Fanout,
    token: String,
    campaigns: &[u64],
    metrics: &mut Metrics,
) -> anyhow::Result<Crew> {
    let viewers = args.viewers.viewers;
    let before = site.resident()?;
    let crew = site.crew(
        &args.viewers,
        PlanOf {
            token,
            campaigns: campaigns.to_vec(),
            length: args.hosts.bytes,
            resume: true,
            ..PlanOf::default()
        },
    )?;
    let bar = site.bar("connecting", viewers as u64);
    if let Err(error) = all_ready(&crew, viewers as u64, args.viewers.ready, &bar).await {
        return Err(with_complaints(crew, error));
    }
    // What a server does just after a burst of connects is no cost of idle viewers.
    tokio::time::sleep(Duration::from_millis(300)).await;
    if let (Some(before), Some(after)) = (before, site.resident()?) {
        // A server that keeps memory of earlier loads for reuse shows nothing here.
        if after > before {
            let grown = (after - before) as f64;
            metrics.set("rss_per_viewer", grown / viewers as f64);
        }
    }
    Ok(crew)
}

fn publishing(
    site: &Site,
    args: &Fanout,
    keys: Arc<Vec<String>>,
    campaigns: Vec<u64>,
) -> Publishing {
    Publishing {
        target: site.target.clone(),
        keys,
        hosts: 0..args.hosts.hosts,
        campaigns,
        run: site.run,
        length: args.hosts.bytes,
        failure_every: args.failure_every,
        rate: args.rate,
        window: args.window,
        viewers: args.viewers.viewers as u64,
        connections: args.connections,
        pipeline: args.pipeline,
        read_first: args.read_first,
        delivered_before: 0,
    }
}

/// Sends everything and waits until it is there.
async fn deliver(
    site: &Site,
    args: &Fanout,
    crew: &Crew,
    publishing: Publishing,
) -> anyhow::Result<(Published, Watcher)> {
    let viewers = args.viewers.viewers as u64;
    let bar = site.bar("delivering", args.hosts.hosts as u64 * viewers);
    let mut watcher = Watcher::new(0);
    let counters = crew.counters.clone();
    let work = tokio::task::spawn_blocking(move || publish(publishing, counters));
    let published = watcher.during(crew, &bar, work).await??;
    let wanted = published.accepted.len() * viewers;
    watcher
        .drain(crew, &bar, || wanted, args.viewers.drain)
        .await;
    Ok((published, watcher))
}

/// The error of a test that did not begin, with what the viewers heard.
pub(crate) fn with_complaints(crew: Crew, error: anyhow::Error) -> anyhow::Error {
    match crew.stop() {
        Ok(outcome) if !outcome.book.complaints.is_empty() => {
            error.context(outcome.book.complaints.join("; "))
        }
        _ => error.context("the viewers are not ready"),
    }
}

/// What the sending side measured.
pub(crate) fn posted(published: &Published, metrics: &mut Metrics) {
    let results = published.accepted.len();
    metrics.set("results", results as f64);
    let took = seconds(published.first_ns, published.last_ns);
    if took > 0.0 {
        metrics.set("results_per_s", results as f64 / took);
    }
    metrics.set("posts_refused", published.refused as f64);
    metrics.set("post_retries", published.retries as f64);
    metrics.latencies("post_", &published.post);
}

fn parameters(site: &Site, args: &Fanout) -> Vec<(&'static str, String)> {
    let rate = args.rate.map_or_else(
        || format!("as fast as it goes, window {}", args.window),
        |rate| format!("{rate}/s"),
    );
    vec![
        ("server", site.common.url.clone()),
        ("viewers", args.viewers.viewers.to_string()),
        ("transports", args.viewers.transports.to_string()),
        (
            "verify",
            format!("{:?}", args.viewers.verify).to_lowercase(),
        ),
        ("hosts", args.hosts.hosts.to_string()),
        ("value in each row", format!("{} B", args.hosts.bytes)),
        ("campaigns", args.campaigns.to_string()),
        ("rate", rate),
        ("posting connections", args.connections.to_string()),
        ("threads", args.viewers.threads.to_string()),
    ]
}
