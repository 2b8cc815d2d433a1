//! Load tester for live-query fan-out: an outside client of the server, with a verdict.

mod api;
mod body;
mod cli;
mod compare;
mod crew;
mod enroll;
mod epoch;
mod exchange;
mod expect;
mod fanout;
mod flags;
mod fleet;
mod frame;
mod growth;
mod http1;
mod link;
mod measure;
mod message;
mod metrics;
mod probe;
mod process;
mod publish;
mod report;
mod site;
mod size;
mod soak;
mod sockjs;
mod stats;
mod storm;
mod stream;
mod tally;
mod target;
mod transport;
mod units;
mod viewer;

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "the runtime of the test owns the stub's tasks"
)]
mod stub;
#[cfg(test)]
mod tests;

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, bail};
use tokio::task::LocalSet;

use cli::{Cli, Command};
use report::Report;
use site::Site;

/// Exit status when an expectation was not held.
const NOT_HELD: u8 = 1;
/// Exit status when the test could not be run.
const NOT_RUN: u8 = 3;

fn main() -> ExitCode {
    let cli = flags::parse();
    match run(cli) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(NOT_HELD),
        Err(error) => {
            // When even the error cannot be told there is only the status left.
            let _ = writeln!(std::io::stderr(), "loadtest: {error:#}");
            ExitCode::from(NOT_RUN)
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let common = cli.common.clone();
    match &cli.command {
        Command::Measure(args) => {
            let work = measure::run(args, common.pid, common.token.as_deref());
            let found = LocalSet::new().block_on(&runtime, work)?;
            writeln!(std::io::stdout(), "{found}")?;
            Ok(true)
        }
        Command::Compare(args) => {
            let table = runtime.block_on(compare::run(args.clone()))?;
            write!(std::io::stdout(), "{table}")?;
            Ok(true)
        }
        Command::Growth(args) => {
            let (summary, held) = runtime.block_on(growth::run(args, common.report.as_deref()))?;
            write!(std::io::stdout(), "{summary}")?;
            Ok(held)
        }
        Command::Size(args) => {
            let rows = runtime.block_on(size::run(args))?;
            let mut out = std::io::stdout();
            if common.json {
                writeln!(out, "{}", serde_json::to_string_pretty(&rows)?)?;
            } else {
                write!(out, "{}", size::markdown(&rows))?;
            }
            Ok(true)
        }
        Command::Fanout(_) | Command::Fleet(_) | Command::Storm(_) | Command::Soak(_) => {
            let report = runtime.block_on(perform(cli))?;
            publish(&report, &common)?;
            Ok(report.held())
        }
    }
}

/// Runs a subcommand that tests one server.
async fn perform(cli: Cli) -> anyhow::Result<Report> {
    let site = Site::new(cli.common).await?;
    match &cli.command {
        Command::Fanout(args) => fanout::run(&site, args).await,
        Command::Fleet(args) => fleet::run(&site, args).await,
        Command::Storm(args) => storm::run(&site, args).await,
        Command::Soak(args) => soak::run(&site, args).await,
        Command::Measure(_) | Command::Compare(_) | Command::Growth(_) | Command::Size(_) => {
            bail!("not a test of one server")
        }
    }
}

/// Shows the result and writes the page.
fn publish(report: &Report, common: &cli::Common) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if common.json {
        serde_json::to_writer_pretty(&mut out, &report.json())?;
        writeln!(out)?;
    } else {
        write!(out, "{}", report.text())?;
    }
    if let Some(file) = &common.report {
        let page = report.html();
        std::fs::write(file, page).with_context(|| format!("{}", file.display()))?;
    }
    Ok(())
}
