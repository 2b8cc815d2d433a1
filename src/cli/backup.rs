//! `answerback backup`, `restore`, `check` and `repair`: a data directory of the embedded store, copied, put back, looked
//! through, mended.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::clock::Clock;
use crate::sockjs::payload;
use crate::store::StoreError;
use crate::store::embedded::backup::{self, Saved};
use crate::store::embedded::repair::{self, Repaired};

/// `backup`'s arguments.
#[derive(Args, Debug)]
pub struct Backup {
    /// Where to: a directory that is new or empty
    #[arg(value_name = "DIR")]
    pub to: PathBuf,
    /// Whose backup it is.
    #[command(flatten)]
    pub of: DataDir,
}

/// `restore`'s arguments.
#[derive(Args, Debug)]
pub struct Restore {
    /// The backup
    #[arg(value_name = "DIR")]
    pub from: PathBuf,
    /// What it becomes.
    #[command(flatten)]
    pub to: DataDir,
}

/// A data directory, named as for `serve`.
#[derive(Args, Debug)]
pub struct DataDir {
    /// The broker's data directory; for `restore` it must be new or empty
    #[arg(
        long,
        env = "ANSWERBACK_DATA_DIR",
        value_name = "DIR",
        default_value = "answerback-data"
    )]
    pub data_dir: PathBuf,
}

/// `check`'s arguments.
#[derive(Args, Debug)]
pub struct Check {
    /// The data directory, or a backup
    #[arg(value_name = "DIR", default_value = "answerback-data")]
    pub dir: PathBuf,
}

/// Makes a backup.
#[must_use]
pub fn run_backup(backup: &Backup) -> ExitCode {
    saved(
        "saved",
        backup::save(&backup.of.data_dir, &backup.to),
        &backup.to,
    )
}

/// Puts a backup back.
#[must_use]
pub fn run_restore(restore: &Restore) -> ExitCode {
    saved(
        "restored",
        backup::restore(&restore.from, &restore.to.data_dir, Clock::System.now()),
        &restore.to.data_dir,
    )
}

fn saved(done: &str, outcome: Result<Saved, StoreError>, to: &std::path::Path) -> ExitCode {
    match outcome {
        Ok(saved) => say(&format!(
            "{done}: revision {} of the catalog, {} campaigns, {} bytes of results, in {}",
            saved.revision,
            saved.campaigns,
            saved.bytes,
            to.display()
        )),
        Err(error) => fail(&error.to_string()),
    }
}

/// Looks through a directory.
#[must_use]
pub fn run_check(check: &Check) -> ExitCode {
    match backup::check(&check.dir) {
        Ok(found) if found.faults.is_empty() => say(&format!(
            "{} is whole: its catalog, and {} files of campaigns",
            check.dir.display(),
            found.whole
        )),
        Ok(found) => fail(&found.faults.join("\n")),
        Err(error) => fail(&error.to_string()),
    }
}

/// Repairs a directory.
#[must_use]
pub fn run_repair(of: &Check) -> ExitCode {
    let dir = of.dir.display();
    match repair::repair(&of.dir, payload::encode, Clock::System.now()) {
        Ok(repaired) if repaired == Repaired::default() => {
            say(&format!("{dir} is whole: nothing was changed"))
        }
        Ok(Repaired { rows, changed }) => {
            let rows = rows.map_or_else(String::new, |rows| {
                format!("; the catalog was made anew of the {rows} rows that can be read")
            });
            say(&format!(
                "{}\n{dir} is repaired{rows}; what was there before is in {dir}/set-aside",
                changed.join("\n")
            ))
        }
        Err(error) => fail(&error.to_string()),
    }
}

fn say(text: &str) -> ExitCode {
    match writeln!(std::io::stdout(), "{text}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn fail(text: &str) -> ExitCode {
    // There is nobody to tell that the text could not be told.
    let _ = writeln!(std::io::stderr(), "answerback: {text}");
    ExitCode::FAILURE
}
