//! How a broker's costs grow: with viewers, the size of answers, campaigns, hosts and results.
//!
//! Every curve is a cost at growing sizes, on a fresh broker each. Cost is CPU time or memory, not time on the clock,
//! so that a busy machine changes little.

mod page;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use serde::Serialize;
use tokio::task::LocalSet;

use crate::compare::{Places, Running, Server, tell};
use crate::measure::{Fan, Load, Subject, Via, checkin, fan_out};
use crate::metrics::Unit;
use crate::units::count;

/// A cost that grows by a larger power of the size than this is worse than linear; what lies between is noise.
const LINEAR_MAX: f64 = 1.15;

/// Options of the growth run.
#[derive(Clone, Debug, Args)]
pub(crate) struct Growth {
    #[command(flatten)]
    places: Places,
    /// Viewers at most; each needs a file here and one in the broker
    #[arg(long, default_value = "18k", value_parser = count)]
    viewers_max: usize,
    /// Hosts at most
    #[arg(long, default_value = "1M", value_parser = count)]
    hosts_max: usize,
    /// Active campaigns at most
    #[arg(long, default_value = "1000", value_parser = count)]
    campaigns_max: usize,
    /// Length of one measurement, in seconds
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// The page with the plots; it needs nothing else
    #[arg(
        long,
        default_value = "loadtest/reports/growth.html",
        value_name = "FILE.html"
    )]
    page: PathBuf,
    /// Only curves whose title contains this
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
}

/// A cost against a size.
#[derive(Debug, Serialize)]
struct Curve {
    title: &'static str,
    /// What the size counts.
    size: &'static str,
    #[serde(skip)]
    size_unit: Unit,
    #[serde(skip)]
    unit: Unit,
    /// The power of the size at which the cost may grow: 1 for a total, 0 for a cost of each.
    power_max: f64,
    points: Vec<(f64, f64)>,
}

impl Curve {
    /// The power of the size by which the cost grows between the first and the last point.
    fn power(&self) -> f64 {
        let (Some(first), Some(last)) = (self.points.first(), self.points.last()) else {
            return 0.0;
        };
        let sizes = (last.0 / first.0).ln();
        if sizes > 0.0 {
            (last.1 / first.1).ln() / sizes
        } else {
            0.0
        }
    }

    fn holds(&self) -> bool {
        self.power() <= self.power_max + (LINEAR_MAX - 1.0)
    }
}

/// Measures all curves, writes the page and gives a summary; false if one is worse than linear.
pub(crate) async fn run(growth: &Growth, report: Option<&Path>) -> anyhow::Result<(String, bool)> {
    let curves = LocalSet::new().run_until(measure_all(growth)).await?;
    let page = report.unwrap_or(&growth.page);
    if let Some(folder) = page.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(page, page::page(&curves)).with_context(|| format!("{}", page.display()))?;
    let held = curves.iter().all(Curve::holds);
    Ok((page::text(&curves), held))
}

async fn measure_all(growth: &Growth) -> anyhow::Result<Vec<Curve>> {
    let mut curves = Vec::new();
    let only = growth.only.as_deref();
    for (title, size, size_unit, unit, power_max, what) in PLANS {
        if only.is_some_and(|text| !title.contains(text)) {
            continue;
        }
        let mut curve = Curve {
            title,
            size,
            size_unit,
            unit,
            power_max,
            points: Vec::new(),
        };
        for size in sizes(growth, what) {
            tell(&format!("{}: {size}", curve.title));
            let cost = cost(growth, what, size).await.context(curve.title)?;
            curve.points.push((size as f64, cost));
        }
        curves.push(curve);
    }
    if curves.is_empty() {
        let titles: Vec<&str> = PLANS.iter().map(|plan| plan.0).collect();
        bail!("no curve's title contains that: {}", titles.join("; "));
    }
    Ok(curves)
}

#[derive(Clone, Copy)]
enum What {
    Viewers(Via),
    Bytes,
    LargeCampaigns,
    SmallCampaigns,
    Hosts,
    Results,
}

/// Title, what the size counts, its unit, the cost's, the power at which it may grow, and how it is measured.
type Plan = (&'static str, &'static str, Unit, Unit, f64, What);

const PLANS: [Plan; 7] = {
    use Unit::{Bytes, Count, Seconds};
    let raw = What::Viewers(Via::Raw);
    let streaming = What::Viewers(Via::XhrStreaming);
    let (all, other) = (What::LargeCampaigns, What::SmallCampaigns);
    [
        (
            "CPU of a delivery, raw WebSocket",
            "viewers",
            Count,
            Seconds,
            0.0,
            raw,
        ),
        (
            "CPU of a delivery, xhr_streaming",
            "viewers",
            Count,
            Seconds,
            0.0,
            streaming,
        ),
        (
            "CPU of a delivery, by size",
            "bytes an answer",
            Bytes,
            Seconds,
            1.0,
            What::Bytes,
        ),
        (
            "CPU of a check-in, campaigns over all",
            "active campaigns",
            Count,
            Seconds,
            1.0,
            all,
        ),
        (
            "CPU of a check-in, campaigns over others",
            "active campaigns",
            Count,
            Seconds,
            0.0,
            other,
        ),
        ("memory of hosts", "hosts", Count, Bytes, 1.0, What::Hosts),
        (
            "memory of results of 1 KiB",
            "results",
            Count,
            Bytes,
            1.0,
            What::Results,
        ),
    ]
};

fn sizes(growth: &Growth, what: What) -> Vec<usize> {
    let up_to = |sizes: &[usize], max: usize| {
        let mut sizes: Vec<_> = sizes.iter().copied().filter(|size| *size < max).collect();
        sizes.push(max);
        sizes
    };
    match what {
        What::Viewers(_) => up_to(&[1, 10, 100, 1_000, 5_000, 10_000], growth.viewers_max),
        What::Bytes => vec![300, 1 << 10, 4 << 10, 16 << 10, 64 << 10],
        What::LargeCampaigns | What::SmallCampaigns => {
            up_to(&[1, 10, 100, 300], growth.campaigns_max)
        }
        What::Hosts => up_to(&[1_000, 10_000, 100_000, 300_000], growth.hosts_max),
        // Fewer fit into what enrolling their hosts has left behind in the allocator.
        What::Results => up_to(&[10_000, 30_000, 100_000], growth.hosts_max.min(300_000)),
    }
}

/// Seconds or bytes.
async fn cost(growth: &Growth, what: What, size: usize) -> anyhow::Result<f64> {
    let mut server = Running::start(Server::Answerback, 400, &growth.places).await?;
    let subject = &mut server.subject;
    let fan = Fan {
        via: Via::Raw,
        viewers: 100,
        window: 32,
        rate: None,
        seconds: growth.seconds,
        results: 5_000,
        bytes: 400,
        stalled: 0,
    };
    let nanoseconds = match what {
        What::Viewers(via) => {
            let viewers = size;
            let fan = Fan {
                via,
                viewers,
                ..fan
            };
            fan_out(subject, &fan).await?.cpu_ns_per_delivery
        }
        What::Bytes => {
            let fan = Fan { bytes: size, ..fan };
            fan_out(subject, &fan).await?.cpu_ns_per_delivery
        }
        What::LargeCampaigns => check_in(subject, growth.seconds, size, true).await?,
        What::SmallCampaigns => check_in(subject, growth.seconds, size, false).await?,
        What::Hosts | What::Results => return memory(subject, what, size).await,
    };
    Ok(nanoseconds / 1e9)
}

/// Nanoseconds of a check-in beside so many campaigns.
async fn check_in(
    subject: &mut Subject,
    seconds: f64,
    campaigns: usize,
    over_all: bool,
) -> anyhow::Result<f64> {
    /// More than a campaign may have to be indexed by host.
    const HOSTS: usize = 2_000;
    let load = Load {
        connections: 32,
        seconds,
        hosts: 100,
        bytes: 400,
    };
    let broker = subject.broker.as_mut().context("no broker")?;
    broker.hosts(HOSTS).await?;
    let _viewers = broker.watched_campaigns(campaigns, over_all).await?;
    Ok(checkin(subject, &load).await?.cpu_ns_per_request)
}

/// Bytes that hosts or results take.
async fn memory(subject: &mut Subject, what: What, size: usize) -> anyhow::Result<f64> {
    let process = subject.process;
    let broker = subject.broker.as_mut().context("no broker")?;
    let before = if matches!(what, What::Hosts) {
        let before = process.resident_bytes()?;
        broker.hosts(size).await?;
        before
    } else {
        let campaign = broker.campaign(size).await?;
        let before = process.resident_bytes()?;
        let _viewers = broker.watch(campaign).await?;
        broker.post_all(campaign, size, 1024).await?;
        before
    };
    Ok(process.resident_bytes()?.saturating_sub(before) as f64)
}
