//! `soak`: agents, viewers and faults of every kind, campaign after campaign, with a verdict.

use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::ensure;
use tokio::time::Instant;

use crate::api;
use crate::cli::Soak;
use crate::crew::Crew;
use crate::epoch::{now_ns, seconds};
use crate::fanout::{QUERY, with_complaints};
use crate::fleet;
use crate::fleet::engine::Engine;
use crate::metrics::{Metrics, Unit};
use crate::process::ensure_files;
use crate::report::{Focus, Report, Series};
use crate::site::{Burnt, PlanOf, Site, Watcher, all_ready};
use crate::stats::{Book, Latencies};
use crate::viewer::Disturbance;

/// How long the agents get to enrol before the first campaign, beside their spread.
const ENROL_TIME_MAX: Duration = Duration::from_secs(120);

/// How long viewers get to come back when the faults are over.
const COMING_BACK: Duration = Duration::from_secs(2);

/// Runs the test until the time is over or the user interrupts.
pub(crate) async fn run(site: &Site, args: &Soak) -> anyhow::Result<Report> {
    ensure!(
        args.round > args.behaviour.interval,
        "a round must be longer than the agents' interval"
    );
    ensure_files(args.viewers.viewers * 2 + args.behaviour.connections)?;
    let token = site.token().await?;
    let threads = args.viewers.threads;
    let hosts = 0..args.hosts.hosts;
    let plan = fleet::plan(site, hosts, threads, (&args.hosts, &args.behaviour))?;
    let engine = Engine::start(plan)?;
    enrolled(site, args, &engine).await?;

    let mut course = Course {
        site,
        args,
        token,
        began_ns: now_ns(),
        book: Book::default(),
        checkins: Latencies::default(),
        rates: Vec::new(),
        memory: Vec::new(),
        results: 0,
        given_up: 0,
        campaigns: 0,
    };
    course.remember()?;
    let burnt = Burnt::now(site);
    let deadline = Instant::now() + args.duration;
    let mut outcome = Ok(());
    while outcome.is_ok() && Instant::now() < deadline {
        tokio::select! {
            done = course.round(&engine, deadline) => outcome = done,
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    outcome?;
    let spent = Burnt::now(site);
    engine_report(course, engine, (burnt, spent))
}

/// Waits until all agents are enrolled.
async fn enrolled(site: &Site, args: &Soak, engine: &Engine) -> anyhow::Result<()> {
    let wanted = args.hosts.hosts as u64;
    let bar = site.bar("enrolling", wanted);
    let spread = args.behaviour.spread.unwrap_or(args.behaviour.interval);
    let deadline = Instant::now() + spread + ENROL_TIME_MAX;
    while engine.totals.checkins.get() < wanted {
        ensure!(
            Instant::now() < deadline,
            "only {} of {wanted} agents are enrolled ({} requests failed)",
            engine.totals.enrolled.get(),
            engine.totals.errors.get()
        );
        bar.set_position(engine.totals.enrolled.get());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bar.finish_and_clear();
    Ok(())
}

/// A soak under way.
struct Course<'a> {
    site: &'a Site,
    args: &'a Soak,
    token: String,
    began_ns: u64,
    book: Book,
    checkins: Latencies,
    rates: Vec<(f64, f64)>,
    /// Seconds, and the server's resident bytes.
    memory: Vec<(f64, f64)>,
    results: u64,
    given_up: u64,
    campaigns: u64,
}

impl Course<'_> {
    /// One campaign: viewers come, are disturbed, and must have everything in the end.
    async fn round(&mut self, engine: &Engine, deadline: Instant) -> anyhow::Result<()> {
        let site = self.site;
        let viewers = self.args.viewers.viewers as u64;
        let campaign = api::campaign(&site.target, &self.token, QUERY).await?;
        self.campaigns += 1;
        let crew = site.crew(
            &self.args.viewers,
            PlanOf {
                token: self.token.clone(),
                campaigns: vec![campaign],
                length: self.args.hosts.bytes,
                resume: true,
                disturbance: Some(Disturbance {
                    every: self.args.fault_every,
                    stall_max: self.args.stall,
                }),
                rounds: None,
            },
        )?;
        let bar = site.bar("connecting", viewers);
        if let Err(error) = all_ready(&crew, viewers, self.args.viewers.ready, &bar).await {
            return Err(with_complaints(crew, error));
        }
        let round = self.args.round;
        let left = deadline.saturating_duration_since(Instant::now());
        let bar = site.bar("soaking", self.args.hosts.hosts as u64 * viewers);
        let offset = seconds(self.began_ns, now_ns());
        let mut watcher = Watcher::new(0);
        // The last round is a whole one: half a campaign would prove little.
        let time = tokio::time::sleep(round.min(left.max(self.args.behaviour.interval * 2)));
        watcher.during(&crew, &bar, time).await;
        // No more faults; whoever stalls or is away just now gets the time to come back.
        crew.counters.calm.store(true, Ordering::Relaxed);
        let accepted = engine.accepted(campaign);
        let time = tokio::time::sleep(self.args.stall + COMING_BACK);
        watcher.during(&crew, &bar, time).await;
        let wanted = || engine.accepted(campaign).len() * viewers;
        let patience = self.args.viewers.drain;
        watcher.drain(&crew, &bar, wanted, patience).await;
        self.rates
            .extend(watcher.points.iter().map(|(at, rate)| (at + offset, *rate)));
        self.results += accepted.len();
        self.given_up += crew.counters.given_up();
        self.close(crew, engine, accepted)
    }

    fn close(
        &mut self,
        crew: Crew,
        engine: &Engine,
        accepted: crate::tally::Set,
    ) -> anyhow::Result<()> {
        let book = crew.stop()?.settle(&[accepted]);
        self.book.add(&book);
        self.checkins.add(&engine.take_checkins());
        self.remember()
    }

    fn remember(&mut self) -> anyhow::Result<()> {
        if let Some(bytes) = self.site.resident()? {
            let at = seconds(self.began_ns, now_ns());
            self.memory.push((at, bytes as f64));
        }
        Ok(())
    }
}

fn engine_report(
    course: Course<'_>,
    engine: Engine,
    (burnt, spent): (Burnt, Burnt),
) -> anyhow::Result<Report> {
    let totals = engine.totals.clone();
    let mut book = course.book;
    for complaint in engine.stop()? {
        book.complain(complaint);
    }
    let took = seconds(course.began_ns, now_ns()).max(1e-9);
    let mut metrics = Metrics::default();
    metrics.set("given_up", course.given_up as f64);
    metrics.set("results", course.results as f64);
    metrics.set("checkins", totals.checkins.get() as f64);
    metrics.set("checkins_per_s", totals.checkins.get() as f64 / took);
    metrics.latencies("checkin_", &course.checkins);
    metrics.set("agent_errors", totals.errors.get() as f64);
    let deliveries = book.total().deliveries;
    metrics.set("deliveries_per_s", deliveries as f64 / took);
    let names = ("cpu_per_delivery", "client_cpu_per_delivery");
    spent.since(burnt, deliveries, names, &mut metrics);
    if let (Some((_, first)), Some((_, last))) = (course.memory.first(), course.memory.last()) {
        metrics.set("rss_growth", last - first);
    }
    let expected = &course.site.common.expect;
    let mut report = Report::on_viewers("soak", Focus::Latency, &book, metrics, expected);
    report.parameters = vec![
        ("server", course.site.common.url.clone()),
        ("duration", Unit::Seconds.show(took)),
        ("campaigns", course.campaigns.to_string()),
        ("viewers", course.args.viewers.viewers.to_string()),
        ("transports", course.args.viewers.transports.to_string()),
        ("hosts", course.args.hosts.hosts.to_string()),
    ];
    report.parameters.extend(totals.told());
    report.series.push(Series {
        title: "deliveries a second",
        unit: Unit::PerSecond,
        points: course.rates,
    });
    if !course.memory.is_empty() {
        report.series.push(Series {
            title: "resident memory of the server",
            unit: Unit::Bytes,
            points: course.memory,
        });
    }
    Ok(report)
}
