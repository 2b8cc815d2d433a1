//! `answerback migrate`: copies a catalog from one store to another, so that a broker can go on there.
//!
//! A record in the target says from where it is being filled. While it stands no broker starts there, and the same
//! command goes on where it was interrupted; it goes when every record has been compared.

mod copy;
pub(super) mod place;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Args;

use crate::store::{Store, load_all};
use copy::{Report, Standing};
use place::CatalogLocation;

/// Done: every record was compared.
const DONE: u8 = 0;
/// A store failed or refused; nothing is lost, and running the command again goes on.
const FAILED: u8 = 1;
/// The command makes no sense as it was typed.
const USAGE: u8 = 2;

/// Flags of `migrate`.
#[derive(Args, Clone, Debug)]
pub struct Migrate {
    /// The store to copy: a data directory (`embedded:DIR` or DIR) or a Redis URL. No broker may be using it
    #[arg(long, value_name = "STORE")]
    pub from: String,
    /// The store to fill: empty, or an unfinished copy from the same store
    #[arg(long, value_name = "STORE")]
    pub to: String,
    /// No progress on standard error
    #[arg(long)]
    pub quiet: bool,
}

/// Runs the command.
pub async fn run(migrate: Migrate) -> ExitCode {
    let places = CatalogLocation::parse(&migrate.from).and_then(|from| {
        let to = CatalogLocation::parse(&migrate.to)?;
        if from == to {
            return Err("--from and --to are the same store".to_owned());
        }
        Ok((from, to))
    });
    let (from, to) = match places {
        Ok(places) => places,
        Err(fault) => return end(&fault, USAGE),
    };
    match transfer(&from, &to, migrate.quiet).await {
        Ok(report) => {
            print(&report);
            ExitCode::from(DONE)
        }
        Err(error) => end(&format!("{error:#}"), FAILED),
    }
}

async fn transfer(
    from: &CatalogLocation,
    to: &CatalogLocation,
    quiet: bool,
) -> anyhow::Result<Report> {
    let source = from
        .open_source()
        .await
        .with_context(|| format!("cannot open {from}"))?;
    let filled = async {
        let target = to
            .open_target()
            .await
            .with_context(|| format!("cannot open {to}"))?;
        let filled = fill(&source, &target, from, to, quiet).await;
        target.close().await;
        filled
    };
    let filled = filled.await;
    source.close().await;
    filled
}

async fn fill(
    source: &Arc<dyn Store>,
    target: &Arc<dyn Store>,
    from: &CatalogLocation,
    to: &CatalogLocation,
    quiet: bool,
) -> anyhow::Result<Report> {
    let running = source.nodes().await.context("cannot read the source")?;
    if !running.is_empty() {
        bail!(
            "brokers run on {from}: stop {} and run the command again (one that was killed counts for 12 s more)",
            running.join(", ")
        );
    }
    let name = from.to_string();
    let loaded = load_all(&**source).await;
    let (records, revision) = loaded.context("cannot read the source")?;
    if records.is_empty() {
        bail!("{from} holds no catalog");
    }
    match copy::standing(target, &name, &records).await? {
        Standing::Empty => {}
        Standing::Unfinished => say(quiet, &format!("going on with the copy from {from}")),
        Standing::Complete => {
            say(quiet, &format!("{to} holds the same records already"));
        }
        Standing::Other(why) => bail!("{to} cannot be filled: {why}"),
    }
    let open = source.active().len();
    if open > 0 {
        say(
            quiet,
            &format!("{open} open campaigns and all results stay behind"),
        );
    }
    let progress = |done, all| say(quiet, &format!("copied {done} of {all} records"));
    let copied = copy::records(target, &name, &records, progress).await?;
    copy::sequences(source, target).await?;
    let hosts = copy::check_ins(source, target).await?;
    say(quiet, "comparing every record");
    copy::compare(target, &records).await?;
    let since = source.changes(revision).await;
    let since = since.context("cannot read the source")?;
    if since.is_none_or(|changes| !changes.is_empty()) {
        bail!("{from} has changed meanwhile: stop its brokers and run the command again");
    }
    copy::finish(target).await?;
    Ok(Report::new(&records, copied, hosts))
}

#[expect(clippy::print_stdout, reason = "the command's result")]
fn print(report: &Report) {
    println!("{report}");
}

#[expect(clippy::print_stderr, reason = "progress")]
fn say(quiet: bool, text: &str) {
    if !quiet {
        eprintln!("{text}");
    }
}

#[expect(clippy::print_stderr, reason = "why the command failed")]
fn end(text: &str, code: u8) -> ExitCode {
    eprintln!("answerback: {text}");
    ExitCode::from(code)
}
