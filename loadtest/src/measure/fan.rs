//! Answers to many viewers, as fast as they go or paced.

use std::time::{Duration, Instant};

use clap::Args;
use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::time::timeout;

use super::counter::Via;
use super::publisher::Publisher;
use super::viewers::{Audience, Pace};
use super::{Subject, awake, server::MESSAGE_BYTES};

/// Without a result for so long the rest is lost.
const PATIENCE: Duration = Duration::from_secs(3);
/// What fills the buffers of a viewer who reads nothing, on both sides.
const FILL_BYTES: usize = 512 * 1024;
/// Results handed to the publisher at once.
const BURST_MAX: usize = 64;

/// Options of a fan-out.
#[derive(Clone, Debug, Args)]
pub(crate) struct Fan {
    #[arg(long, value_enum, default_value_t = Via::Raw)]
    pub(crate) via: Via,
    #[arg(long, default_value_t = 1000)]
    pub(crate) viewers: usize,
    /// Results that the average viewer may be behind
    #[arg(long, default_value_t = 32)]
    pub(crate) window: u64,
    /// Results a second instead of a window
    #[arg(long)]
    pub(crate) rate: Option<f64>,
    /// Publish for so long
    #[arg(long, default_value_t = 2.0)]
    pub(crate) seconds: f64,
    /// Results at most
    #[arg(long, default_value_t = 20_000)]
    pub(crate) results: usize,
    /// Length of the message
    #[arg(long, default_value_t = 400)]
    pub(crate) bytes: usize,
    /// More viewers, who read nothing
    #[arg(long, default_value_t = 0)]
    pub(crate) stalled: usize,
}

/// What a fan-out took.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Fanned {
    pub(crate) published: usize,
    pub(crate) delivered: u64,
    /// What should have been delivered and was not.
    pub(crate) lost: u64,
    pub(crate) cpu_ns_per_delivery: f64,
    pub(crate) deliveries_per_s: f64,
    pub(crate) bytes_per_delivery: f64,
    pub(crate) deliveries_per_read: f64,
    /// From when a result was due to its receipt, in seconds; only of paced runs.
    pub(crate) p50_s: Option<f64>,
    pub(crate) p99_s: Option<f64>,
}

/// Publishes to an audience of its own and waits for the last delivery.
pub(crate) async fn fan_out(subject: &mut Subject, fan: &Fan) -> anyhow::Result<Fanned> {
    anyhow::ensure!(
        fan.bytes >= MESSAGE_BYTES,
        "a message has at least {MESSAGE_BYTES} bytes"
    );
    let campaign = subject.campaign(fan.results).await?;
    let audience = subject.audience(fan.via, fan.viewers, campaign).await?;
    let _stalled = subject.stalled(fan.via, fan.stalled, campaign).await?;
    let mut publisher = Publisher::new(subject, campaign, fan).await?;
    let counts = &audience.counts;
    let filled = match fan.stalled {
        0 => 0,
        _ => fill(&mut publisher, &audience, fan).await?,
    };
    // At a pace both sides sleep, as they do in the field.
    let _awake = fan.rate.is_none().then(awake);
    let before = (
        counts.results.get(),
        counts.bytes.get(),
        counts.reads.get(),
        subject.process.cpu_ns()?,
    );
    let start = Instant::now();
    if let Some(rate) = fan.rate {
        counts
            .pace
            .replace(Some(Pace::new(start, rate, filled as u64)?));
    }
    let sent = publish(&mut publisher, &audience, fan, (start, before.0, filled)).await?;
    let wanted = sent as u64 * fan.viewers as u64;
    let end = settle(&audience, before.0 + wanted).await;
    let cpu = subject.process.cpu_ns_since(before.3)?;
    let delivered = counts.results.get() - before.0;
    let each = |sum: u64| sum as f64 / delivered.max(1) as f64;
    let quantile = |share: f64| {
        let pace = counts.pace.borrow();
        let latencies: &Histogram<u64> = &pace.as_ref()?.latencies;
        Some(latencies.value_at_quantile(share) as f64 / 1e6)
    };
    Ok(Fanned {
        published: sent,
        delivered,
        lost: wanted.saturating_sub(delivered),
        cpu_ns_per_delivery: each(cpu),
        deliveries_per_s: delivered as f64 / (end - start).as_secs_f64(),
        bytes_per_delivery: each(counts.bytes.get() - before.1),
        deliveries_per_read: delivered as f64 / (counts.reads.get() - before.2).max(1) as f64,
        p50_s: quantile(0.5),
        p99_s: quantile(0.99),
    })
}

/// Publishes until the buffers between the server and the stalled viewers are full: before that they are viewers like
/// others, to whom everything is written. How many results that takes.
async fn fill(publisher: &mut Publisher, audience: &Audience, fan: &Fan) -> anyhow::Result<usize> {
    let all = (FILL_BYTES / fan.bytes).min(fan.results / 2);
    for from in (0..all).step_by(BURST_MAX) {
        let count = BURST_MAX.min(all - from);
        publisher.publish(from, count).await?;
        settle(audience, ((from + count) * fan.viewers) as u64).await;
    }
    Ok(all)
}

/// Publishes the results behind the first `filled` as the window or the rate allows; how many that were.
async fn publish(
    publisher: &mut Publisher,
    audience: &Audience,
    fan: &Fan,
    (start, before, filled): (Instant, u64, usize),
) -> anyhow::Result<usize> {
    let counts = &audience.counts;
    let until = start + Duration::from_secs_f64(fan.seconds);
    let mut sent = 0;
    while filled + sent < fan.results && Instant::now() < until {
        let received = (counts.results.get() - before) / fan.viewers.max(1) as u64;
        let due = match fan.rate {
            Some(rate) => due(rate, start),
            None => received + fan.window,
        };
        let room = usize::try_from(due.saturating_sub(sent as u64))?;
        let room = room.min(fan.results - filled - sent).min(BURST_MAX);
        if room == 0 {
            let wait = Duration::from_millis(if fan.rate.is_some() { 1 } else { 20 });
            let _ = timeout(wait, counts.read_something.notified()).await;
            continue;
        }
        publisher.publish(filled + sent, room).await?;
        sent += room;
        tokio::task::yield_now().await;
    }
    Ok(sent)
}

/// Waits until all results are there or nothing comes any more; the moment of the last receipt.
async fn settle(audience: &Audience, wanted: u64) -> Instant {
    let counts = &audience.counts;
    let mut last = (counts.results.get(), Instant::now());
    while last.0 < wanted && last.1.elapsed() < PATIENCE {
        let _ = timeout(Duration::from_millis(20), counts.read_something.notified()).await;
        if counts.results.get() != last.0 {
            last = (counts.results.get(), Instant::now());
        }
    }
    last.1
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a count within the run"
)]
fn due(rate: f64, start: Instant) -> u64 {
    (start.elapsed().as_secs_f64() * rate) as u64
}
