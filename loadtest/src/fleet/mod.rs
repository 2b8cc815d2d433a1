//! `fleet`: many osquery agents in one process, as real ones behave, and statistics every ten seconds.

pub(crate) mod agent;
pub(crate) mod engine;

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use tokio::time::{Instant, interval_at};

use crate::cli::{self, Behaviour};
use crate::epoch::{now_ns, seconds};
use crate::expect::judge;
use crate::metrics::{Metrics, Unit};
use crate::process::ensure_files;
use crate::report::{Focus, Report, Series};
use crate::site::{Burnt, Site};
use crate::stats::Latencies;

use agent::Habits;
use engine::{Engine, Plan, Totals};

/// How often statistics are told.
const EVERY: Duration = Duration::from_secs(10);

/// What the engine needs, from the options.
pub(crate) fn plan(
    site: &Site,
    hosts: std::ops::Range<usize>,
    threads: usize,
    cli: (&cli::Hosts, &Behaviour),
) -> anyhow::Result<Plan> {
    let (named, how) = cli;
    let number = |host: usize| u32::try_from(host).map_err(|_| anyhow::anyhow!("too many hosts"));
    ensure!(!hosts.is_empty(), "no hosts");
    ensure!(!how.interval.is_zero(), "the interval is zero");
    ensure_files(how.connections)?;
    Ok(Plan {
        target: site.target.clone(),
        secret: site.enroll_secret()?,
        prefix: named.prefix.clone(),
        hosts: number(hosts.start)?..number(hosts.end)?,
        connections: how.connections,
        threads,
        spread: how.spread.unwrap_or(how.interval),
        habits: Habits {
            interval: how.interval,
            config_interval: how.config_interval,
            answering: how.answering,
            failing: how.failing,
            repeating: how.repeating,
            restarting: how.restarting * how.interval.as_secs_f64() / 60.0,
            work: how.work,
            run: site.run,
            length: named.bytes,
        },
    })
}

/// Runs the agents until the time is over or the user interrupts.
pub(crate) async fn run(site: &Site, args: &cli::Fleet) -> anyhow::Result<Report> {
    let range = args.shard.range(args.hosts.hosts);
    let hosts = range.len();
    let plan = plan(site, range, args.threads, (&args.hosts, &args.behaviour))?;
    let (burnt, began) = (Burnt::now(site), now_ns());
    let engine = Engine::start(plan)?;
    let mut diary = Diary::new(engine.totals.clone());
    let over = async {
        match args.duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = diary.keep(site, &engine) => {}
        () = over => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    diary.note(&engine);
    let took = seconds(began, now_ns());
    let spent = Burnt::now(site);
    let totals = engine.totals.clone();
    let complaints = engine.stop()?;

    let mut metrics = Metrics::default();
    let checkins = totals.checkins.get();
    metrics.set("checkins", checkins as f64);
    metrics.set("checkins_per_s", checkins as f64 / took.max(1e-9));
    metrics.latencies("checkin_", &diary.all);
    metrics.set("agent_errors", totals.errors.get() as f64);
    metrics.set("results", totals.answers.get() as f64);
    spent.since(burnt, checkins, ("cpu_per_checkin", ""), &mut metrics);
    let judged = judge(&site.common.expect, false, &metrics);
    let mut parameters = parameters(site, args, hosts);
    parameters.extend(totals.told());
    Ok(Report {
        command: "fleet",
        focus: Focus::Latency,
        parameters,
        metrics,
        curves: vec![("check-in".to_owned(), diary.all)],
        series: vec![Series {
            title: "check-ins a second",
            unit: Unit::PerSecond,
            points: diary.points,
        }],
        judged,
        complaints,
    })
}

/// What is told and kept while the agents live.
struct Diary {
    totals: Arc<Totals>,
    all: Latencies,
    points: Vec<(f64, f64)>,
    began_ns: u64,
    last: (u64, u64),
}

impl Diary {
    fn new(totals: Arc<Totals>) -> Self {
        let now = now_ns();
        Self {
            totals,
            all: Latencies::default(),
            points: Vec::new(),
            began_ns: now,
            last: (now, 0),
        }
    }

    /// Notes every ten seconds, for ever.
    async fn keep(&mut self, site: &Site, engine: &Engine) {
        let mut ticks = interval_at(Instant::now() + EVERY, EVERY);
        loop {
            ticks.tick().await;
            let line = self.note(engine);
            if !site.common.json {
                // When nobody can read the line, nobody misses it.
                let _ = writeln!(std::io::stderr(), "{line}");
            }
        }
    }

    /// Takes the figures since the last note; a line about them.
    fn note(&mut self, engine: &Engine) -> String {
        let latest = engine.take_checkins();
        self.all.add(&latest);
        let (now, checkins) = (now_ns(), self.totals.checkins.get());
        let rate = (checkins - self.last.1) as f64 / seconds(self.last.0, now).max(1e-9);
        let at = seconds(self.began_ns, now);
        self.last = (now, checkins);
        self.points.push((at, rate));
        let totals = &self.totals;
        format!(
            "{at:>7.0} s  enrolled {}  check-ins {}  p50 {}  p99 {}  max {}  answers {}  errors {}  late {}",
            totals.enrolled.get(),
            Unit::PerSecond.show(rate),
            Unit::Seconds.show(latest.quantile(0.5)),
            Unit::Seconds.show(latest.quantile(0.99)),
            Unit::Seconds.show(latest.max()),
            totals.answers.get(),
            totals.errors.get(),
            totals.late.get(),
        )
    }
}

fn parameters(site: &Site, args: &cli::Fleet, hosts: usize) -> Vec<(&'static str, String)> {
    let how = &args.behaviour;
    vec![
        ("server", site.common.url.clone()),
        ("hosts", hosts.to_string()),
        (
            "check-in interval",
            Unit::Seconds.show(how.interval.as_secs_f64()),
        ),
        ("connections", how.connections.to_string()),
        ("threads", args.threads.to_string()),
    ]
}
