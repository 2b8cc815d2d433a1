//! Answerback beside the physical limit and other servers: started, pinned and measured in one run.
//!
//! Wall-clock figures of a shared machine move by a factor of two from minute to minute, CPU time a delivery by a
//! quarter. So every round runs all contestants one after the other, and the table holds medians over the rounds.

mod contestant;
mod packaged;
mod table;

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use serde::Serialize;
use tokio::task::LocalSet;

use crate::measure::{Fan, Fanned, Load, Replay, Replayed, Requested, Via};
use crate::measure::{checkin, fan_out, replay, write};
pub(crate) use contestant::{Places, Running, Server};
pub(crate) use table::median;

/// Answers a second in the paced workload.
const PACE: f64 = 50.0;
/// Viewers who read nothing.
const STALLED: usize = 500;
/// Length of the messages of the two fan-outs.
const FAN_BYTES: usize = 400;
/// Length of the messages for one viewer.
const ONE_BYTES: usize = 1024;

/// Options of a comparison.
#[derive(Clone, Debug, Args)]
pub(crate) struct Compare {
    #[command(flatten)]
    pub(crate) places: Places,
    /// Rounds; the table has the medians
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    #[arg(long, default_value_t = 1000)]
    viewers: usize,
    /// Length of one measurement, in seconds
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Only contestants whose name contains this; repeat for more
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// Few viewers, short and once: whether everything runs, not how fast
    #[arg(long)]
    smoke: bool,
    /// Everything measured, as JSON
    #[arg(long, value_name = "FILE.json")]
    save: Option<PathBuf>,
    /// Replace what stands between the markers of this file by the table
    #[arg(long, value_name = "README.md")]
    readme: Option<PathBuf>,
}

/// One row: a server seen through one transport.
#[derive(Clone, Copy, Debug)]
struct Contestant {
    name: &'static str,
    server: Server,
    via: Via,
}

/// In the order of the table. The first is what the others are compared with.
const CONTESTANTS: [Contestant; 13] = [
    row("limit, batched", Server::LimitBatched, Via::Raw),
    row("limit, one write a message", Server::LimitSingle, Via::Raw),
    row("Answerback, raw WebSocket", Server::Answerback, Via::Raw),
    row("Answerback, SockJS WebSocket", Server::Answerback, Via::Ws),
    row(
        "Answerback, xhr_streaming",
        Server::Answerback,
        Via::XhrStreaming,
    ),
    row(
        "Answerback, eventsource",
        Server::Answerback,
        Via::Eventsource,
    ),
    row("Answerback, xhr polling", Server::Answerback, Via::Xhr),
    row("ws 8 (npm), raw WebSocket", Server::Ws, Via::Raw),
    row("sockjs-node 0.3.24, WebSocket", Server::SockjsNode, Via::Ws),
    row(
        "sockjs-node 0.3.24, xhr_streaming",
        Server::SockjsNode,
        Via::XhrStreaming,
    ),
    row("uWebSockets (socketify 0.0.31)", Server::Uws, Via::Raw),
    row("nginx nchan", Server::Nchan, Via::Raw),
    row("nats-server", Server::Nats, Via::Nats),
];

const fn row(name: &'static str, server: Server, via: Via) -> Contestant {
    Contestant { name, server, via }
}

/// What was measured of one row, a value a round.
#[derive(Debug, Default, Serialize)]
struct Measured {
    name: &'static str,
    /// As fast as it goes, 32 messages under way.
    fast: Vec<Fanned>,
    /// [`PACE`] answers a second.
    paced: Vec<Fanned>,
    /// The same beside [`STALLED`] viewers who read nothing.
    beside_stalled: Vec<Fanned>,
    /// One viewer, live.
    one: Vec<Fanned>,
    /// One viewer, from the log.
    replayed: Vec<Replayed>,
}

/// Requests of agents, beside a bare hyper handler that parses the same JSON.
#[derive(Debug, Default, Serialize)]
struct Requests {
    bare_checkin: Vec<Requested>,
    checkin: Vec<Requested>,
    bare_answer: Vec<Requested>,
    answer: Vec<Requested>,
}

#[derive(Debug, Default, Serialize)]
struct Comparison {
    viewers: usize,
    rows: Vec<Measured>,
    requests: Requests,
}

/// Runs the comparison and gives its table.
pub(crate) async fn run(mut compare: Compare) -> anyhow::Result<String> {
    if compare.smoke {
        compare.rounds = 1;
        compare.viewers = compare.viewers.min(10);
        compare.seconds = compare.seconds.min(0.2);
    }
    let comparison = LocalSet::new().run_until(measure_all(&compare)).await?;
    if let Some(file) = &compare.save {
        let json = serde_json::to_string_pretty(&comparison)?;
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(file, json).with_context(|| format!("{}", file.display()))?;
    }
    let table = table::markdown(&comparison);
    if let Some(file) = &compare.readme {
        table::put_into(file, &table)?;
    }
    Ok(table)
}

async fn measure_all(compare: &Compare) -> anyhow::Result<Comparison> {
    let wanted = |name: &str| {
        compare.only.is_empty() || compare.only.iter().any(|only| name.contains(only.as_str()))
    };
    let contestants = CONTESTANTS.iter().filter(|row| wanted(row.name));
    let contestants: Vec<_> = contestants
        .filter(|row| is_there(row, &compare.places))
        .collect();
    if contestants.is_empty() {
        bail!("no contestant's name contains that");
    }
    let mut comparison = Comparison {
        viewers: compare.viewers,
        ..Comparison::default()
    };
    for row in &contestants {
        comparison.rows.push(Measured {
            name: row.name,
            ..Measured::default()
        });
    }
    for round in 1..=compare.rounds {
        for (row, measured) in contestants.iter().zip(&mut comparison.rows) {
            tell(&format!("round {round}: {}", row.name));
            one_row(compare, row, measured)
                .await
                .with_context(|| row.name)?;
        }
        if wanted("requests") {
            tell(&format!("round {round}: requests"));
            requests(compare, &mut comparison.requests).await?;
        }
    }
    Ok(comparison)
}

/// Whether a row can be measured here; says so if not.
fn is_there(row: &Contestant, places: &Places) -> bool {
    let lacking = packaged::lacking(row.server, places);
    if let Some(lacking) = &lacking {
        tell(&format!("without {}: {lacking}", row.name));
    }
    lacking.is_none()
}

async fn one_row(compare: &Compare, row: &Contestant, to: &mut Measured) -> anyhow::Result<()> {
    let fan = Fan {
        via: row.via,
        viewers: compare.viewers,
        window: 32,
        rate: None,
        seconds: compare.seconds,
        results: if compare.smoke { 200 } else { 20_000 },
        bytes: FAN_BYTES,
        stalled: 0,
    };
    let paced = Fan {
        rate: Some(PACE),
        ..fan.clone()
    };
    let one = Fan {
        viewers: 1,
        window: 1000,
        bytes: ONE_BYTES,
        results: if compare.smoke { 200 } else { 100_000 },
        ..fan.clone()
    };
    let mut server = Running::start(row.server, FAN_BYTES, &compare.places).await?;
    to.fast.push(fan_out(&mut server.subject, &fan).await?);
    to.paced.push(fan_out(&mut server.subject, &paced).await?);
    if row.server == Server::Answerback {
        let stalled = Fan {
            stalled: if compare.smoke { 5 } else { STALLED },
            ..paced
        };
        let beside = fan_out(&mut server.subject, &stalled).await?;
        to.beside_stalled.push(beside);
        let all = Replay {
            results: one.results,
            bytes: ONE_BYTES,
            via: row.via,
        };
        to.replayed.push(replay(&mut server.subject, &all).await?);
    } else if row.server != Server::Nchan {
        // nchan stops after 32,768 messages of one second, which one viewer alone would get.
        server = Running::start(row.server, ONE_BYTES, &compare.places).await?;
        to.one.push(fan_out(&mut server.subject, &one).await?);
    }
    Ok(())
}

async fn requests(compare: &Compare, to: &mut Requests) -> anyhow::Result<()> {
    let load = Load {
        connections: 32,
        seconds: compare.seconds,
        hosts: if compare.smoke { 200 } else { 20_000 },
        bytes: FAN_BYTES,
    };
    let mut bare = Running::start(Server::BareHttp, FAN_BYTES, &compare.places).await?;
    let mut broker = Running::start(Server::Answerback, FAN_BYTES, &compare.places).await?;
    to.bare_checkin
        .push(checkin(&mut bare.subject, &load).await?);
    to.checkin.push(checkin(&mut broker.subject, &load).await?);
    to.bare_answer.push(write(&mut bare.subject, &load).await?);
    to.answer.push(write(&mut broker.subject, &load).await?);
    Ok(())
}

/// Progress; whoever does not want it redirects it.
pub(crate) fn tell(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
