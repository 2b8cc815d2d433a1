//! Measures a server's CPU time for each delivery or request; the same client for a broker and for `limit`.

#![allow(clippy::print_stdout, reason = "what it measures is what it prints")]

mod http;
mod requests;
mod server;
mod viewers;

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::{Parser, Subcommand};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;
use tokio::time::{sleep, timeout};

use server::{Broker, cpu_ns, rss_bytes};
use viewers::{Counts, Hello, Via, connect};

#[derive(Debug, Parser)]
struct Cli {
    /// The server
    #[arg(long)]
    server: SocketAddr,
    /// Its process
    #[arg(long)]
    pid: u32,
    /// Token and enroll secret of a broker; without them the server is a limit
    #[arg(long)]
    secrets: Option<String>,
    /// Where the broker's node keys are kept from run to run
    #[arg(long, default_value = "/tmp/answerback-measure-keys")]
    keys: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Answers to many viewers
    Fan(Fan),
    /// One viewer that selects a campaign whose answers are all there
    Replay {
        #[arg(long, default_value_t = 100_000)]
        results: usize,
        #[arg(long, default_value_t = 1024)]
        bytes: usize,
        #[arg(long, value_enum, default_value_t = Via::Raw)]
        via: Via,
    },
    /// Memory for each viewer that has nothing to read
    Idle {
        #[arg(long, default_value_t = 5000)]
        viewers: usize,
        #[arg(long, value_enum, default_value_t = Via::Raw)]
        via: Via,
    },
    /// Check-ins of hosts that have nothing to do
    Checkin(requests::Load),
    /// Answers of hosts that nobody watches
    Write(requests::Load),
}

#[derive(Debug, clap::Args)]
struct Fan {
    #[arg(long, value_enum, default_value_t = Via::Raw)]
    via: Via,
    #[arg(long, default_value_t = 1000)]
    viewers: usize,
    /// Results the average viewer may be behind
    #[arg(long, default_value_t = 32)]
    window: u64,
    /// Results a second instead of a window
    #[arg(long)]
    rate: Option<f64>,
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Results at most
    #[arg(long, default_value_t = 20_000)]
    results: usize,
    /// Length of the message
    #[arg(long, default_value_t = 400)]
    bytes: usize,
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, run(cli))
}

async fn run(cli: Cli) -> anyhow::Result<()> {
    let broker = match &cli.secrets {
        None => None,
        Some(secrets) => Some(Broker::new(cli.server, secrets, &cli.keys)?),
    };
    match &cli.command {
        Command::Fan(fan) => fan_out(&cli, broker, fan).await,
        Command::Replay {
            results,
            bytes,
            via,
        } => {
            let broker = broker.context("replay needs a broker")?;
            replay(&cli, broker, *results, *bytes, *via).await
        }
        Command::Idle { viewers, via } => idle(&cli, broker, *viewers, *via).await,
        Command::Checkin(load) => requests::checkin(&cli, broker, load).await,
        Command::Write(load) => requests::write(&cli, broker, load).await,
    }
}

/// Connects all viewers and waits until everybody has heard something.
async fn audience(
    cli: &Cli,
    broker: Option<&Broker>,
    via: Via,
    viewers: usize,
    campaign: u64,
) -> anyhow::Result<Rc<Counts>> {
    let counts = Rc::new(Counts::default());
    let hello = broker.map(|broker| Hello {
        token: broker.token.clone(),
        campaign,
        after: None,
    });
    for number in 0..viewers {
        connect(cli.server, via, number, hello.as_ref(), &counts).await?;
    }
    let mut before = None;
    while before != Some(counts.bytes.get()) {
        before = Some(counts.bytes.get());
        sleep(Duration::from_millis(500)).await;
    }
    Ok(counts)
}

/// Publishes by posting answers, or by single bytes to a limit.
enum Publisher {
    Limit(TcpStream),
    Agents {
        streams: Vec<tokio::net::tcp::OwnedWriteHalf>,
        requests: Vec<Vec<u8>>,
    },
}

impl Publisher {
    async fn new(
        cli: &Cli,
        broker: Option<&Broker>,
        campaign: u64,
        fan: &Fan,
    ) -> anyhow::Result<Self> {
        let mut stream = TcpStream::connect(cli.server).await?;
        stream.set_nodelay(true)?;
        let Some(broker) = broker else {
            stream.write_all(b"GET /publish HTTP/1.1\r\n\r\n").await?;
            stream.read_buf(&mut Vec::with_capacity(512)).await?;
            return Ok(Self::Limit(stream));
        };
        let requests = broker.answers(campaign, fan.results, fan.bytes);
        let mut streams = Vec::new();
        for stream in [stream, TcpStream::connect(cli.server).await?] {
            stream.set_nodelay(true)?;
            let (mut read, write) = stream.into_split();
            streams.push(write);
            tokio::task::spawn_local(async move {
                let mut space = vec![0; 65536];
                while let Ok(1..) = read.read(&mut space).await {}
            });
        }
        Ok(Self::Agents { streams, requests })
    }

    async fn publish(&mut self, from: usize, count: usize) -> anyhow::Result<()> {
        match self {
            Self::Limit(stream) => stream.write_all(&vec![1; count]).await?,
            Self::Agents { streams, requests } => {
                let which = from % streams.len();
                streams[which]
                    .write_all(&requests[from..from + count].concat())
                    .await?;
            }
        }
        Ok(())
    }
}

async fn fan_out(cli: &Cli, broker: Option<Broker>, fan: &Fan) -> anyhow::Result<()> {
    let mut broker = broker;
    let campaign = match &mut broker {
        Some(broker) => broker.campaign(fan.results).await?,
        None => 0,
    };
    let broker = broker.as_ref();
    let counts = audience(cli, broker, fan.via, fan.viewers, campaign).await?;
    let mut publisher = Publisher::new(cli, broker, campaign, fan).await?;
    let before = (
        counts.results.get(),
        counts.bytes.get(),
        counts.reads.get(),
        cpu_ns(cli.pid)?,
    );
    let start = Instant::now();
    let until = start + Duration::from_secs_f64(fan.seconds);
    let viewers = fan.viewers as u64;
    let mut sent = 0;
    while sent < fan.results && Instant::now() < until {
        let received = (counts.results.get() - before.0) / viewers;
        let due = match fan.rate {
            Some(rate) => due(rate, start),
            None => received + fan.window,
        };
        let room = usize::try_from(due.saturating_sub(sent as u64))?;
        let room = room.min(fan.results - sent).min(64);
        if room == 0 {
            let wait = Duration::from_millis(if fan.rate.is_some() { 1 } else { 20 });
            let _ = timeout(wait, counts.read_something.notified()).await;
            continue;
        }
        publisher.publish(sent, room).await?;
        sent += room;
        tokio::task::yield_now().await;
    }
    let wanted = sent as u64 * viewers;
    let mut last = (counts.results.get(), Instant::now());
    while counts.results.get() - before.0 < wanted && last.1.elapsed() < Duration::from_secs(3) {
        if counts.results.get() != last.0 {
            last = (counts.results.get(), Instant::now());
        }
        let _ = timeout(Duration::from_millis(20), counts.read_something.notified()).await;
    }
    let seconds = start.elapsed().as_secs_f64();
    let cpu = cpu_ns(cli.pid)? - before.3;
    let delivered = counts.results.get() - before.0;
    let each = |sum: u64| sum as f64 / delivered.max(1) as f64;
    println!(
        "fan {:?} viewers={viewers} published={sent} delivered={delivered} of {wanted} lost={} \
         cpu_ns_per_delivery={:.0} deliveries_per_s={:.0} bytes={:.0} per_read={:.1}",
        fan.via,
        counts.lost.get(),
        each(cpu),
        delivered as f64 / seconds,
        each(counts.bytes.get() - before.1),
        delivered as f64 / (counts.reads.get() - before.2).max(1) as f64,
    );
    Ok(())
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a count within the run"
)]
fn due(rate: f64, start: Instant) -> u64 {
    (start.elapsed().as_secs_f64() * rate) as u64
}

async fn replay(
    cli: &Cli,
    mut broker: Broker,
    results: usize,
    bytes: usize,
    via: Via,
) -> anyhow::Result<()> {
    let campaign = broker.campaign(results).await?;
    // Somebody has to watch, or the campaign takes no answers for long.
    let first = audience(cli, Some(&broker), via, 1, campaign).await?;
    broker.post_all(campaign, results, bytes).await?;
    while first.results.get() < results as u64 {
        sleep(Duration::from_millis(20)).await;
    }
    let counts = Rc::new(Counts::default());
    let hello = Hello {
        token: broker.token.clone(),
        campaign,
        after: Some(0),
    };
    let (before, start) = (cpu_ns(cli.pid)?, Instant::now());
    connect(cli.server, via, 1, Some(&hello), &counts).await?;
    while counts.results.get() < results as u64 {
        ensure!(start.elapsed() < Duration::from_secs(30), "results lack");
        let _ = timeout(Duration::from_millis(20), counts.read_something.notified()).await;
    }
    let seconds = start.elapsed().as_secs_f64();
    let cpu = (cpu_ns(cli.pid)? - before) as f64;
    println!(
        "replay {via:?} results={results} bytes={} cpu_ns_per_result={:.0} results_per_s={:.0} \
         results_per_cpu_s={:.0}",
        counts.bytes.get() / results as u64,
        cpu / results as f64,
        results as f64 / seconds,
        results as f64 / cpu * 1e9,
    );
    Ok(())
}

async fn idle(cli: &Cli, broker: Option<Broker>, viewers: usize, via: Via) -> anyhow::Result<()> {
    let mut broker = broker;
    let campaign = match &mut broker {
        Some(broker) => broker.campaign(100).await?,
        None => 0,
    };
    // What the first ones need is not theirs.
    let _first = audience(cli, broker.as_ref(), via, 50, campaign).await?;
    let (before, cpu) = (rss_bytes(cli.pid)?, cpu_ns(cli.pid)?);
    let hello = broker.as_ref().map(|broker| Hello {
        token: broker.token.clone(),
        campaign,
        after: None,
    });
    let counts = Rc::new(Counts::default());
    let start = Instant::now();
    for number in 50..50 + viewers {
        connect(cli.server, via, number, hello.as_ref(), &counts).await?;
    }
    let (seconds, cpu) = (
        start.elapsed().as_secs_f64(),
        (cpu_ns(cli.pid)? - cpu) as f64,
    );
    sleep(Duration::from_secs(3)).await;
    let grown = rss_bytes(cli.pid)?.saturating_sub(before) as f64;
    sleep(Duration::from_secs(12)).await;
    let later = rss_bytes(cli.pid)?.saturating_sub(before) as f64;
    println!(
        "idle {via:?} viewers={viewers} lost={} rss_bytes_each={:.0} after_12_s={:.0} \
         connects_per_s={:.0} connect_cpu_us={:.0}",
        counts.lost.get(),
        grown / viewers as f64,
        later / viewers as f64,
        viewers as f64 / seconds,
        cpu / viewers as f64 / 1e3,
    );
    Ok(())
}
