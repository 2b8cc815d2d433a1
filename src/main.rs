//! The `answerback` command.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use answerback::cli::{Cli, Command, Serve, backup, migrate, query, user};
use answerback::config::{Raw, Settings, check, secrets};
use answerback::shutdown::Shutdown;
use answerback::{app, telemetry};
use clap::Parser;
use futures_util::FutureExt as _;

/// Frees what connections have used when they are gone; glibc's allocator keeps most of it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A stop takes at most so long, its goodbyes not counted in.
const STOP_WITHIN: Duration = Duration::from_secs(20);
/// What is still to be written then takes at most so long.
const LAST_WRITES: Duration = Duration::from_secs(1);
/// Bad settings, as for bad flags.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let command = Cli::parse().command;
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return complain(&error, 1),
    };
    match command {
        Command::Query(query) => {
            let code = runtime.block_on(query::run(*query).boxed_local());
            // Nobody may be reading what is still being printed.
            runtime.shutdown_background();
            code
        }
        Command::Migrate(migrate) => runtime.block_on(migrate::run(migrate).boxed_local()),
        Command::User(user) => runtime.block_on(user::run(user).boxed_local()),
        Command::Backup(backup) => backup::run_backup(&backup),
        Command::Restore(restore) => backup::run_restore(&restore),
        Command::Check(check) => backup::run_check(&check),
        Command::Repair(repair) => backup::run_repair(&repair),
        Command::CheckConfig(serve) => match settings(*serve) {
            Ok(settings) => {
                let faults = runtime.block_on(app::trial::faults(&settings));
                if !faults.is_empty() {
                    return complain(&faults.join("\n"), USAGE);
                }
                let _ = writeln!(std::io::stdout(), "the settings are right");
                ExitCode::SUCCESS
            }
            Err(error) => complain(&error, USAGE),
        },
        Command::Serve(serve) => match settings(*serve) {
            Ok(settings) => {
                let code = runtime.block_on(run(settings).boxed_local());
                // What still writes to somebody who does not read must not hold up the end.
                runtime.shutdown_timeout(LAST_WRITES);
                code
            }
            Err(error) => complain(&error, USAGE),
        },
    }
}

fn settings(serve: Serve) -> Result<Settings, String> {
    let file = serve
        .config
        .as_deref()
        .map_or_else(|| Ok(Raw::default()), Raw::from_file)?;
    // Each by itself, so that a secret typed wins over a file that the configuration names, and the other way round.
    let typed = serve.settings.with_secrets_of_files()?;
    let raw = typed.or(file.with_secrets_of_files()?);
    check(raw).map_err(|faults| faults.to_string())
}

async fn run(settings: Settings) -> ExitCode {
    let lines = match telemetry::logging::install(&settings.log) {
        Ok(lines) => lines,
        Err(error) => return complain(&error, USAGE),
    };
    for flag in secrets::shown_by(std::env::args_os()) {
        tracing::warn!(
            "--{flag} shows its secret to every user of this machine (ps): give --{flag}-file, or a variable"
        );
    }
    let outcome = app::run(settings, Shutdown::new(STOP_WITHIN)).await;
    lines.flush(LAST_WRITES);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&format!("{error:#}"), 1),
    }
}

#[expect(clippy::print_stderr, reason = "what went wrong before there is a log")]
fn complain(error: &impl std::fmt::Display, code: u8) -> ExitCode {
    eprintln!("answerback: {error}");
    ExitCode::from(code)
}
