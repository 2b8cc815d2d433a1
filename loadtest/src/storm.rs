//! `storm`: all viewers connect at once, and again and again, while answers arrive.

use std::sync::Arc;

use anyhow::ensure;
use tokio::sync::watch;

use crate::api;
use crate::cli::Storm;
use crate::crew::Crew;
use crate::epoch::{now_ns, seconds};
use crate::fanout::{QUERY, hosts, posted, with_complaints};
use crate::metrics::{Metrics, Unit};
use crate::process::ensure_files;
use crate::publish::{Published, Publishing, publish};
use crate::report::{Focus, Report, Series};
use crate::site::{Burnt, PlanOf, Site, Watcher, all_ready};

/// Runs the test.
pub(crate) async fn run(site: &Site, args: &Storm) -> anyhow::Result<Report> {
    let rounds = args.reconnect + 1;
    ensure!(
        args.hosts.hosts >= rounds,
        "storm needs a host for each of its {rounds} rounds"
    );
    // While a storm is on, old connections die as new ones are made.
    ensure_files(args.viewers.viewers * 2 + 64)?;
    let token = site.token().await?;
    let keys = hosts(site, &args.hosts, None).await?;
    let campaign = api::campaign(&site.target, &token, QUERY).await?;
    let publishing = publishing(site, args, keys, campaign);

    let (whistle, heard) = watch::channel(now_ns());
    let burnt = Burnt::now(site);
    let crew = site.crew(
        &args.viewers,
        PlanOf {
            token,
            campaigns: vec![campaign],
            length: args.hosts.bytes,
            resume: !args.from_start,
            rounds: Some(heard),
            ..PlanOf::default()
        },
    )?;
    let mut storm = Course {
        site,
        args,
        published: Published::default(),
        ready: Vec::new(),
        watcher: Watcher::new(0),
    };
    for round in 0..rounds {
        if let Err(error) = storm.round(round, &crew, &whistle, &publishing).await {
            return Err(with_complaints(crew, error));
        }
    }
    let spent = Burnt::now(site);
    report(storm, crew, (burnt, spent))
}

fn publishing(site: &Site, args: &Storm, keys: Arc<Vec<String>>, campaign: u64) -> Publishing {
    Publishing {
        target: site.target.clone(),
        keys,
        hosts: 0..0,
        campaigns: vec![campaign],
        run: site.run,
        length: args.hosts.bytes,
        failure_every: 0,
        rate: Some(args.rate),
        window: 0,
        viewers: args.viewers.viewers as u64,
        connections: 4,
        pipeline: 1,
        read_first: false,
        delivered_before: 0,
    }
}

fn report(storm: Course<'_>, crew: Crew, (burnt, spent): (Burnt, Burnt)) -> anyhow::Result<Report> {
    let (site, args) = (storm.site, storm.args);
    let mut metrics = Metrics::default();
    metrics.set("given_up", crew.counters.given_up() as f64);
    let accepted = std::slice::from_ref(&storm.published.accepted);
    let mut book = crew.stop()?.settle(accepted);
    for complaint in &storm.published.complaints {
        book.complain(complaint.clone());
    }
    let names = ("cpu_per_delivery", "client_cpu_per_delivery");
    spent.since(burnt, book.total().deliveries, names, &mut metrics);
    posted(&storm.published, &mut metrics);
    let total: f64 = storm.ready.iter().sum();
    if total > 0.0 {
        let setups = args.viewers.viewers * (args.reconnect + 1);
        metrics.set("setups_per_s", setups as f64 / total);
    }
    let expected = &site.common.expect;
    let mut report = Report::on_viewers("storm", Focus::Setup, &book, metrics, expected);
    report.parameters = parameters(site, args, &storm.ready);
    report.series.push(Series {
        title: "deliveries a second",
        unit: Unit::PerSecond,
        points: storm.watcher.points,
    });
    Ok(report)
}

/// A storm under way.
struct Course<'a> {
    site: &'a Site,
    args: &'a Storm,
    published: Published,
    /// Seconds until all viewers were ready, for each round.
    ready: Vec<f64>,
    watcher: Watcher,
}

impl Course<'_> {
    /// Cuts everybody off (but in the first round), sends a part of the answers meanwhile, and
    /// waits until everybody is back and has everything.
    async fn round(
        &mut self,
        round: usize,
        crew: &Crew,
        whistle: &watch::Sender<u64>,
        publishing: &Publishing,
    ) -> anyhow::Result<()> {
        let viewers = self.args.viewers.viewers as u64;
        let rounds = self.args.reconnect + 1;
        let hosts = self.args.hosts.hosts;
        let part = hosts * round / rounds..hosts * (round + 1) / rounds;
        let plan = Publishing {
            hosts: part,
            ..publishing.clone()
        };
        let counters = crew.counters.clone();
        let begun = if round == 0 {
            *whistle.borrow()
        } else {
            now_ns()
        };
        let work = tokio::task::spawn_blocking(move || publish(plan, counters));
        if round > 0 {
            // The first answers are on their way when the connections are cut.
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            whistle.send_replace(now_ns());
        }
        let bar = self.site.bar("connecting", viewers * (round as u64 + 1));
        let wanted = viewers * (round as u64 + 1);
        all_ready(crew, wanted, self.args.viewers.ready, &bar).await?;
        self.ready.push(seconds(begun, now_ns()));
        let bar = self.site.bar("delivering", hosts as u64 * viewers);
        let published = self.watcher.during(crew, &bar, work).await??;
        self.add(published);
        let wanted = self.published.accepted.len() * viewers;
        if !self.args.from_start {
            let patience = self.args.viewers.drain;
            self.watcher.drain(crew, &bar, || wanted, patience).await;
        } else {
            // Everything is delivered again each time: there is no number to wait for.
            tokio::time::sleep(self.args.viewers.drain.min(QUIET)).await;
        }
        Ok(())
    }

    fn add(&mut self, published: Published) {
        let all = &mut self.published;
        all.accepted.merge(&published.accepted);
        all.refused += published.refused;
        all.retries += published.retries;
        all.complaints.extend(published.complaints);
        all.post.add(&published.post);
        if all.first_ns == 0 {
            all.first_ns = published.first_ns;
        }
        all.last_ns = published.last_ns;
    }
}

/// How long a storm from the start waits after each round.
const QUIET: std::time::Duration = std::time::Duration::from_secs(2);

fn parameters(site: &Site, args: &Storm, ready: &[f64]) -> Vec<(&'static str, String)> {
    let ready: Vec<String> = ready.iter().map(|took| Unit::Seconds.show(*took)).collect();
    vec![
        ("server", site.common.url.clone()),
        ("viewers", args.viewers.viewers.to_string()),
        ("transports", args.viewers.transports.to_string()),
        ("hosts", args.hosts.hosts.to_string()),
        ("rounds", (args.reconnect + 1).to_string()),
        ("all viewers ready after", ready.join(", ")),
        (
            "viewers that come back",
            if args.from_start {
                "start from the beginning".to_owned()
            } else {
                "name the last position".to_owned()
            },
        ),
    ]
}
