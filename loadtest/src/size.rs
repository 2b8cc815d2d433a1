//! What a large catalog costs: how soon a broker listens, and how soon and in how much memory a campaign over all is
//! there.
//!
//! Hosts enrol as agents do, which takes minutes for a million; a folder that is kept spares the next run that.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use serde::Serialize;
use tokio::task::LocalSet;
use tokio::time::sleep;

use crate::compare::{Places, Running, median, tell};
use crate::measure::{Audience, Broker};
use crate::process::Process;
use crate::units::{count, show_bytes, show_number, show_seconds};

/// A broker that listens is ready soon.
const READY_MAX: Duration = Duration::from_secs(10);
/// Between two looks at memory that has to come to rest, or until viewers who have left are missed.
const REST: Duration = Duration::from_secs(1);
/// Looks at memory at most.
const LOOKS_MAX: usize = 15;
/// Memory that changes by less is at rest.
const AT_REST_BYTES: u64 = 64 << 10;

/// Options of a run over large catalogs.
#[derive(Clone, Debug, Args)]
pub(crate) struct Size {
    #[command(flatten)]
    places: Places,
    /// Hosts in the catalog, one row for each number; the row of an empty catalog is always there
    #[arg(long, value_delimiter = ',', default_value = "300k,1M", value_parser = count)]
    hosts: Vec<usize>,
    /// Starts of the broker on each catalog; the table has the median
    #[arg(long, default_value_t = 5)]
    starts: usize,
    /// Campaigns over all hosts, one after the other
    #[arg(long, default_value_t = 5)]
    campaigns: usize,
    /// Keep the enrolled hosts here, in a folder for each size, so that the next run need not enrol them
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// What was measured on one catalog.
#[derive(Debug, Serialize)]
pub(crate) struct Sized {
    hosts: usize,
    /// From the start of the process to its first word that it is ready, each time.
    starts_s: Vec<f64>,
    /// Resident memory then, each time.
    resident_bytes: Vec<u64>,
    campaigns: Option<Campaigns>,
}

/// Campaigns over all hosts, of which none has answered.
#[derive(Debug, Serialize)]
struct Campaigns {
    /// From the request to its answer, each time.
    posts_s: Vec<f64>,
    /// What resident memory grew by with the first campaign and its viewer.
    first_bytes: u64,
    /// The same of each further one on average; none if there is only one.
    further_bytes: Option<f64>,
}

/// Measures every size; the smallest is an empty catalog.
pub(crate) async fn run(size: &Size) -> anyhow::Result<Vec<Sized>> {
    ensure!(
        size.starts > 0 && size.campaigns > 0,
        "nothing to be measured"
    );
    LocalSet::new().run_until(measure_all(size)).await
}

async fn measure_all(size: &Size) -> anyhow::Result<Vec<Sized>> {
    let mut rows = Vec::new();
    for hosts in std::iter::once(0).chain(size.hosts.iter().copied()) {
        let folder = Folder::new(size.data_dir.as_deref(), hosts);
        let row = one_size(size, hosts, &folder.path).await;
        rows.push(row.with_context(|| format!("{hosts} hosts"))?);
    }
    Ok(rows)
}

async fn one_size(size: &Size, hosts: usize, folder: &Path) -> anyhow::Result<Sized> {
    fill(size, hosts, folder).await?;
    let mut row = Sized {
        hosts,
        starts_s: Vec::new(),
        resident_bytes: Vec::new(),
        campaigns: None,
    };
    for start in 1..=size.starts {
        tell(&format!("{hosts} hosts: start {start}"));
        let (mut running, took) = started(folder, &size.places).await?;
        row.starts_s.push(took.as_secs_f64());
        row.resident_bytes
            .push(running.subject.process.resident_bytes()?);
        if start == size.starts && hosts > 0 {
            tell(&format!("{hosts} hosts: campaigns"));
            row.campaigns = Some(campaigns(size, hosts, &running).await?);
        }
        running.stop()?;
    }
    Ok(row)
}

/// Sees to it that a folder has just so many hosts.
async fn fill(size: &Size, hosts: usize, folder: &Path) -> anyhow::Result<()> {
    let (mut running, _) = started(folder, &size.places).await?;
    let broker = broker(&mut running)?;
    let there = broker.host_count().await?;
    ensure!(
        there <= hosts,
        "{} has {there} hosts already",
        folder.display()
    );
    if there < hosts {
        tell(&format!("{hosts} hosts: enrolling them"));
        broker.hosts(hosts).await?;
        let there = broker.host_count().await?;
        ensure!(there == hosts, "{there} are there");
    }
    running.stop()
}

fn broker(running: &mut Running) -> anyhow::Result<&mut Broker> {
    running.subject.broker.as_mut().context("no broker")
}

/// Starts a broker; how long it took until it was ready.
async fn started(folder: &Path, places: &Places) -> anyhow::Result<(Running, Duration)> {
    let start = Instant::now();
    let mut running = Running::broker(folder, places).await?;
    let broker = broker(&mut running)?;
    let listening = Instant::now();
    while !broker.is_ready().await {
        ensure!(listening.elapsed() < READY_MAX, "the broker is not ready");
        sleep(Duration::from_millis(1)).await;
    }
    Ok((running, start.elapsed()))
}

/// Starts campaigns on a broker that has just been started.
async fn campaigns(size: &Size, hosts: usize, running: &Running) -> anyhow::Result<Campaigns> {
    let process = running.subject.process;
    let broker = running.subject.broker.as_ref().context("no broker")?;
    let mut viewers = Audience::default();
    let before = bytes_at_rest(process).await?;
    let mut posts = broker.timed_campaigns(&mut viewers, 1, hosts).await?;
    let first = bytes_at_rest(process).await?;
    let further = size.campaigns - 1;
    posts.extend(broker.timed_campaigns(&mut viewers, further, hosts).await?);
    let grown = bytes_at_rest(process).await?.saturating_sub(first);
    drop(viewers);
    sleep(REST).await;
    Ok(Campaigns {
        posts_s: posts.iter().map(Duration::as_secs_f64).collect(),
        first_bytes: first.saturating_sub(before),
        further_bytes: (further > 0).then(|| grown as f64 / further as f64),
    })
}

/// Resident memory once buffers that are not needed any more have been given back.
async fn bytes_at_rest(process: Process) -> anyhow::Result<u64> {
    let mut last = process.resident_bytes()?;
    for _ in 0..LOOKS_MAX {
        sleep(REST).await;
        let now = process.resident_bytes()?;
        if now.abs_diff(last) < AT_REST_BYTES {
            return Ok(now);
        }
        last = now;
    }
    Ok(last)
}

/// Where a broker keeps its data: goes with this unless it was asked for.
struct Folder {
    path: PathBuf,
    kept: bool,
}

impl Folder {
    fn new(kept: Option<&Path>, hosts: usize) -> Self {
        let own = || {
            let name = format!("answerback-loadtest-{}-size", std::process::id());
            std::env::temp_dir().join(name)
        };
        Self {
            path: kept
                .map_or_else(own, Path::to_owned)
                .join(format!("{hosts}-hosts")),
            kept: kept.is_some(),
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.kept {
            // What cannot be removed is left to the system's own cleaning.
            let _ = std::fs::remove_dir_all(&self.path);
            let _ = self.path.parent().map(std::fs::remove_dir);
        }
    }
}

/// All sizes in Markdown.
pub(crate) fn markdown(rows: &[Sized]) -> String {
    let mut out = "| hosts | ready after | resident then | POST queries/run, first | the others | memory of the first campaign | of each other |\n\
         |--:|--:|--:|--:|--:|--:|--:|\n"
        .to_owned();
    for row in rows {
        let campaigns = row.campaigns.as_ref();
        let posts = campaigns.map(|all| all.posts_s.as_slice()).unwrap_or(&[]);
        let cells = [
            Some(show_number(row.hosts as f64)),
            median(row.starts_s.iter().copied()).map(show_seconds),
            median(row.resident_bytes.iter().map(|bytes| *bytes as f64)).map(show_bytes),
            posts.first().copied().map(show_seconds),
            median(posts.iter().skip(1).copied()).map(show_seconds),
            campaigns.map(|all| show_bytes(all.first_bytes as f64)),
            campaigns.and_then(|all| all.further_bytes).map(show_bytes),
        ];
        let cells = cells.map(|cell| cell.unwrap_or_else(|| "-".to_owned()));
        let _ = writeln!(out, "| {} |", cells.join(" | "));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_row_for_each_size_and_medians_in_it() {
        let empty = Sized {
            hosts: 0,
            starts_s: vec![0.030, 0.010, 0.020],
            resident_bytes: vec![1 << 20],
            campaigns: None,
        };
        let large = Sized {
            hosts: 300_000,
            starts_s: vec![1.5],
            resident_bytes: vec![500 << 20],
            campaigns: Some(Campaigns {
                posts_s: vec![0.009, 0.004, 0.002, 0.003],
                first_bytes: 2 << 20,
                further_bytes: Some(1024.0),
            }),
        };
        let table = markdown(&[empty, large]);
        let rows: Vec<_> = table.lines().skip(2).collect();
        assert_eq!(
            rows,
            [
                "| 0 | 20 ms | 1 MiB | - | - | - | - |",
                "| 300,000 | 1.50 s | 500 MiB | 9 ms | 3 ms | 2 MiB | 1 KiB |",
            ]
        );
    }

    #[test]
    fn only_a_folder_that_nobody_asked_for_goes() {
        let own = Folder::new(None, 7);
        let path = own.path.clone();
        std::fs::create_dir_all(&path).unwrap();
        let kept = Folder::new(Some(&path), 7);
        std::fs::create_dir_all(&kept.path).unwrap();
        let inside = kept.path.clone();
        drop(kept);
        assert!(inside.ends_with("7-hosts") && inside.exists());
        drop(own);
        assert!(!path.exists());
    }
}
