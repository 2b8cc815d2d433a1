//! What a server spends on each delivery or request: one lean client for a broker, for its peers and for `limit`.
//!
//! Unlike `fanout` it looks at nothing but the number of results, so that it keeps up with a server on one core.

mod counter;
mod fan;
mod http;
mod publisher;
mod requests;
mod server;
mod trigger;
mod viewers;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::{Args, Subcommand};
use serde::Serialize;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

pub(crate) use counter::Via;
pub(crate) use fan::{Fan, Fanned, fan_out};
pub(crate) use requests::{Load, Requested, checkin, write};
pub(crate) use server::Broker;
pub(crate) use trigger::Trigger;
pub(crate) use viewers::Audience;

use crate::process::Process;
use viewers::{Hello, stall};

/// The server under measurement.
pub(crate) struct Subject {
    pub(crate) address: SocketAddr,
    pub(crate) process: Process,
    /// Without it the server is a limit or a peer: viewers at most subscribe, and [`Trigger`] publishes a message.
    pub(crate) broker: Option<Broker>,
    pub(crate) trigger: Trigger,
}

impl Subject {
    /// A new campaign over so many hosts at least; 0 where there are no campaigns.
    async fn campaign(&mut self, hosts: usize) -> anyhow::Result<u64> {
        match &mut self.broker {
            Some(broker) => broker.campaign(hosts).await,
            None => Ok(0),
        }
    }

    fn hello(&self, campaign: u64, after: Option<u64>) -> Option<Hello> {
        let broker = self.broker.as_ref()?;
        Some(Hello {
            token: broker.token.clone(),
            campaign,
            after,
        })
    }

    /// Connects so many viewers and waits until nobody hears anything new.
    async fn audience(&self, via: Via, viewers: usize, campaign: u64) -> anyhow::Result<Audience> {
        let mut audience = Audience::default();
        let hello = self.hello(campaign, None);
        for number in 0..viewers {
            let hello = hello.as_ref();
            audience.connect(self.address, via, number, hello).await?;
        }
        let mut before = None;
        while before != Some(audience.counts.bytes.get()) {
            before = Some(audience.counts.bytes.get());
            sleep(Duration::from_millis(300)).await;
        }
        Ok(audience)
    }

    /// Connects viewers who never read.
    async fn stalled(
        &self,
        via: Via,
        count: usize,
        campaign: u64,
    ) -> anyhow::Result<Vec<TcpStream>> {
        let hello = self.hello(campaign, None);
        let mut stalled = Vec::new();
        for number in 0..count {
            stalled.push(stall(self.address, via, number, hello.as_ref()).await?);
        }
        Ok(stalled)
    }
}

/// Keeps this program from sleeping until it is dropped. Waking a client costs the server more than the rest of its
/// system call, so a quick server, whose client never gets to sleep, would look better than it is.
fn awake() -> JoinSet<()> {
    let mut awake = JoinSet::new();
    awake.spawn_local(async {
        loop {
            tokio::task::yield_now().await;
        }
    });
    awake
}

/// One measurement of a running server.
#[derive(Clone, Debug, Args)]
pub(crate) struct Measure {
    /// The server's address
    #[arg(long)]
    server: SocketAddr,
    /// Enroll secret of a broker (and its token by --token); without it the server is a limit or a peer
    #[arg(long, env = "LOADTEST_ENROLL_SECRET", hide_env_values = true)]
    secret: Option<String>,
    /// What makes a limit or a peer publish a message
    #[arg(long, value_enum, default_value_t = Trigger::Byte)]
    trigger: Trigger,
    #[command(subcommand)]
    workload: Workload,
}

#[derive(Clone, Debug, Subcommand)]
enum Workload {
    /// Answers to many viewers
    Fan(Fan),
    /// One viewer that selects a campaign whose answers are all there
    Replay(Replay),
    /// Memory for each viewer that has nothing to read
    Idle(Idle),
    /// Check-ins of hosts that have nothing to do
    Checkin(Load),
    /// Answers of hosts that nobody watches
    Write(Load),
}

/// Runs one workload and gives what it found as JSON.
pub(crate) async fn run(
    measure: &Measure,
    pid: Option<u32>,
    token: Option<&str>,
) -> anyhow::Result<serde_json::Value> {
    let broker = match (&measure.secret, token) {
        (Some(secret), Some(token)) => Some(Broker::new(measure.server, token, secret)),
        _ => None,
    };
    let mut subject = Subject {
        address: measure.server,
        process: Process::new(pid.context("--pid is needed: whose CPU time is it?")?),
        broker,
        trigger: measure.trigger,
    };
    Ok(match &measure.workload {
        Workload::Fan(fan) => serde_json::to_value(fan_out(&mut subject, fan).await?)?,
        Workload::Replay(args) => serde_json::to_value(replay(&mut subject, args).await?)?,
        Workload::Idle(args) => serde_json::to_value(idle(&mut subject, args).await?)?,
        Workload::Checkin(load) => serde_json::to_value(checkin(&mut subject, load).await?)?,
        Workload::Write(load) => serde_json::to_value(write(&mut subject, load).await?)?,
    })
}

/// Options of a replay.
#[derive(Clone, Debug, Args)]
pub(crate) struct Replay {
    #[arg(long, default_value_t = 100_000)]
    pub(crate) results: usize,
    /// Length of the message
    #[arg(long, default_value_t = 1024)]
    pub(crate) bytes: usize,
    #[arg(long, value_enum, default_value_t = Via::Raw)]
    pub(crate) via: Via,
}

/// What a replay took.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Replayed {
    pub(crate) cpu_ns_per_result: f64,
    pub(crate) results_per_s: f64,
    pub(crate) bytes_per_result: f64,
}

/// A replay that takes longer has lost something.
const REPLAY_MAX: Duration = Duration::from_secs(60);

/// Fills a campaign's log and times one viewer that reads all of it.
pub(crate) async fn replay(subject: &mut Subject, args: &Replay) -> anyhow::Result<Replayed> {
    let results = args.results;
    let campaign = subject.campaign(results).await?;
    // Somebody has to watch, or the campaign takes no answers for long.
    let first = subject.audience(Via::Raw, 1, campaign).await?;
    let broker = subject.broker.as_ref().context("replay needs a broker")?;
    broker.post_all(campaign, results, args.bytes).await?;
    let start = Instant::now();
    while first.counts.results.get() < results as u64 {
        ensure!(start.elapsed() < REPLAY_MAX, "results lack");
        sleep(Duration::from_millis(20)).await;
    }
    let hello = subject.hello(campaign, Some(0));
    let mut second = Audience::default();
    let (before, start) = (subject.process.cpu_ns()?, Instant::now());
    second
        .connect(subject.address, args.via, 1, hello.as_ref())
        .await?;
    let counts = &second.counts;
    while counts.results.get() < results as u64 {
        ensure!(start.elapsed() < REPLAY_MAX, "results lack");
        let _ = timeout(Duration::from_millis(20), counts.read_something.notified()).await;
    }
    let seconds = start.elapsed().as_secs_f64();
    let cpu = subject.process.cpu_ns_since(before)? as f64;
    Ok(Replayed {
        cpu_ns_per_result: cpu / results as f64,
        results_per_s: results as f64 / seconds,
        bytes_per_result: counts.bytes.get() as f64 / results as f64,
    })
}

/// Options of an idle audience.
#[derive(Clone, Debug, Args)]
pub(crate) struct Idle {
    #[arg(long, default_value_t = 5000)]
    pub(crate) viewers: usize,
    #[arg(long, value_enum, default_value_t = Via::Raw)]
    pub(crate) via: Via,
}

/// What idle viewers cost.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Idled {
    pub(crate) resident_bytes_each: f64,
    pub(crate) connects_per_s: f64,
    pub(crate) connect_cpu_us: f64,
}

/// Connects viewers who have nothing to read. Only meaningful on a server that has just been started.
pub(crate) async fn idle(subject: &mut Subject, args: &Idle) -> anyhow::Result<Idled> {
    /// What the first ones need is not theirs.
    const FIRST: usize = 50;
    /// Until what a start or a burst has used is given back.
    const AT_REST: Duration = Duration::from_secs(3);
    let campaign = subject.campaign(100).await?;
    let _first = subject.audience(args.via, FIRST, campaign).await?;
    sleep(AT_REST).await;
    let (before, cpu) = (subject.process.resident_bytes()?, subject.process.cpu_ns()?);
    let hello = subject.hello(campaign, None);
    let mut audience = Audience::default();
    let start = Instant::now();
    for number in FIRST..FIRST + args.viewers {
        audience
            .connect(subject.address, args.via, number, hello.as_ref())
            .await?;
    }
    let seconds = start.elapsed().as_secs_f64();
    let cpu = subject.process.cpu_ns_since(cpu)? as f64;
    sleep(AT_REST).await;
    let grown = subject.process.resident_bytes()?.saturating_sub(before);
    let viewers = args.viewers as f64;
    Ok(Idled {
        resident_bytes_each: grown as f64 / viewers,
        connects_per_s: viewers / seconds,
        connect_cpu_us: cpu / viewers / 1e3,
    })
}
