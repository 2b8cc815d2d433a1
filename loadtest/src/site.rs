//! What every subcommand needs before it starts: the server, the user, the tools to watch both.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::api::{self, Login};
use crate::cli::{Common, Verify, Viewers};
use crate::crew::{Crew, Plan};
use crate::epoch::{now_ns, seconds};
use crate::metrics::Metrics;
use crate::process::Process;
use crate::target::{Target, Trust};

/// How often progress is looked at.
const TICK: Duration = Duration::from_millis(100);

/// A server under test and the one who tests it.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) target: Arc<Target>,
    pub(crate) common: Common,
    /// Tells this run's answers from others'.
    pub(crate) run: u32,
    /// The server's process, if it is to be measured.
    pub(crate) server: Option<Process>,
}

impl Site {
    pub(crate) async fn new(common: Common) -> anyhow::Result<Self> {
        let trust = match (&common.ca, common.tls_skip_verify) {
            (_, true) => Trust::Anyone,
            (Some(file), false) => Trust::File(file),
            (None, false) => Trust::Public,
        };
        let sources = common.source.as_ref().map(|range| range.0.clone());
        let target = Target::resolve(&common.url, trust)
            .await?
            .speaking(&common.api)
            .connecting_from(sources.unwrap_or_default());
        let server = common.pid.map(Process::new);
        if let Some(server) = server {
            server.cpu_ns().context("--pid")?;
        }
        Ok(Self {
            target: Arc::new(target),
            common,
            run: rand::random_range(1..1_000_000),
            server,
        })
    }

    /// The token of the user, logging in if need be.
    pub(crate) async fn token(&self) -> anyhow::Result<String> {
        let common = &self.common;
        let login = match (&common.token, &common.email, &common.password) {
            (Some(token), ..) => Login::Token(token.clone()),
            (None, Some(email), Some(password)) => Login::Password {
                email: email.clone(),
                password: password.clone(),
            },
            _ => bail!("a user is needed: --token, or --email and --password"),
        };
        api::token(&self.target, &login).await
    }

    /// The secret that hosts enrol with.
    pub(crate) fn enroll_secret(&self) -> anyhow::Result<String> {
        let secret = self.common.enroll_secret.clone();
        secret.context("hosts need a secret to enrol: --enroll-secret")
    }

    /// A progress bar; out of sight when the output is for programs.
    pub(crate) fn bar(&self, what: &'static str, length: u64) -> ProgressBar {
        let target = if self.common.json {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr()
        };
        let bar = ProgressBar::with_draw_target(Some(length), target);
        let style = ProgressStyle::with_template(
            "{msg:>12} [{bar:40}] {human_pos}/{human_len} {per_sec} {eta}",
        );
        if let Ok(style) = style {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(what);
        bar
    }

    /// Starts the viewers.
    pub(crate) fn crew(&self, viewers: &Viewers, plan: PlanOf) -> anyhow::Result<Crew> {
        ensure!(viewers.viewers > 0, "no viewers");
        Crew::start(&Plan {
            target: self.target.clone(),
            token: plan.token,
            run: self.run,
            campaigns: plan.campaigns,
            viewers: viewers.viewers,
            mix: viewers.transports.clone(),
            threads: viewers.threads,
            verify: (viewers.verify == Verify::Full).then_some(plan.length),
            resume: plan.resume,
            disturbance: plan.disturbance,
            rounds: plan.rounds,
        })
    }

    /// The server's resident memory, if it is measured.
    pub(crate) fn resident(&self) -> anyhow::Result<Option<u64>> {
        self.server.map(Process::resident_bytes).transpose()
    }
}

/// What a subcommand decides about its viewers beside the options.
#[derive(Debug, Default)]
pub(crate) struct PlanOf {
    pub(crate) token: String,
    pub(crate) campaigns: Vec<u64>,
    /// Length of the marks.
    pub(crate) length: usize,
    pub(crate) resume: bool,
    pub(crate) disturbance: Option<crate::viewer::Disturbance>,
    pub(crate) rounds: Option<tokio::sync::watch::Receiver<u64>>,
}

/// Waits until `wanted` viewers have heard something, in all rounds together.
///
/// # Errors
/// When they do not in time, with the server's own words where there are any.
pub(crate) async fn all_ready(
    crew: &Crew,
    wanted: u64,
    within: Duration,
    bar: &ProgressBar,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + within;
    while crew.counters.ready() < wanted {
        bar.set_position(crew.counters.ready());
        let given_up = crew.counters.given_up();
        ensure!(given_up == 0, "{given_up} viewers gave up connecting");
        ensure!(
            Instant::now() < deadline,
            "only {} of {wanted} viewers heard anything within {within:?}",
            crew.counters.ready()
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    bar.finish_and_clear();
    Ok(())
}

/// Deliveries over time, looked at while something else goes on.
#[derive(Debug)]
pub(crate) struct Watcher {
    start_ns: u64,
    last: (f64, u64),
    /// Seconds since the start, deliveries a second.
    pub(crate) points: Vec<(f64, f64)>,
}

impl Watcher {
    pub(crate) fn new(delivered: u64) -> Self {
        Self {
            start_ns: now_ns(),
            last: (0.0, delivered),
            points: Vec::new(),
        }
    }

    fn look(&mut self, delivered: u64) {
        let at = seconds(self.start_ns, now_ns());
        let (before, count) = self.last;
        if at - before >= TICK.as_secs_f64() / 2.0 {
            self.points
                .push((at, (delivered - count) as f64 / (at - before)));
            self.last = (at, delivered);
        }
    }

    /// Looks on while `work` goes on.
    pub(crate) async fn during<T>(
        &mut self,
        crew: &Crew,
        bar: &ProgressBar,
        work: impl Future<Output = T>,
    ) -> T {
        let mut work = std::pin::pin!(work);
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                done = &mut work => return done,
                _ = ticks.tick() => {
                    self.look(crew.counters.delivered());
                    bar.set_position(crew.counters.delivered());
                }
            }
        }
    }

    /// Looks on until as many results are delivered as `wanted` says, or none come for `patience`.
    pub(crate) async fn drain(
        &mut self,
        crew: &Crew,
        bar: &ProgressBar,
        wanted: impl Fn() -> u64,
        patience: Duration,
    ) {
        let mut progress = (crew.counters.delivered(), Instant::now());
        let mut polls = 0_u32;
        loop {
            let delivered = crew.counters.delivered();
            if delivered >= wanted() {
                break;
            }
            if delivered > progress.0 {
                progress = (delivered, Instant::now());
            }
            if progress.1.elapsed() > patience {
                break;
            }
            polls += 1;
            if polls.is_multiple_of(50) {
                self.look(delivered);
                bar.set_position(delivered);
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        self.look(crew.counters.delivered());
        bar.finish_and_clear();
    }
}

/// CPU time of the server and of this program, read at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Burnt {
    server_ns: Option<u64>,
    own_ns: Option<u64>,
}

impl Burnt {
    pub(crate) fn now(site: &Site) -> Self {
        Self {
            server_ns: site.server.and_then(|server| server.cpu_ns().ok()),
            own_ns: Process::own().cpu_ns().ok(),
        }
    }

    /// Sets CPU time per unit since `before`: `server` and `own` name the metrics.
    pub(crate) fn since(
        self,
        before: Self,
        count: u64,
        names: (&str, &str),
        metrics: &mut Metrics,
    ) {
        let pairs = [
            (names.0, self.server_ns, before.server_ns),
            (names.1, self.own_ns, before.own_ns),
        ];
        for (name, now, before) in pairs {
            if let (Some(now), Some(before)) = (now, before)
                && count > 0
                && !name.is_empty()
            {
                metrics.set(name, seconds(before, now) / count as f64);
            }
        }
    }
}
