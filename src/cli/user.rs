//! `answerback user`: a new password or token for whoever has lost theirs, on the machine of the store. The broker may be
//! running or not.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::migrate::place;
use crate::auth::recovery::{Recovered, Recovery, recover};
use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::config::{Raw, Settings, StoreUrl, check};
use crate::control;
use crate::store::StoreError;

/// The command makes no sense as it was typed.
const USAGE: u8 = 2;

/// What can be done for a user.
#[derive(Debug, Subcommand)]
pub enum User {
    /// Give a user a new password and end their sessions
    ResetPassword(ResetPassword),
    /// Make a token for a user that never expires; earlier ones stay good
    NewToken(NewToken),
}

/// Flags of `user reset-password`.
#[derive(Args, Debug)]
pub struct ResetPassword {
    /// The user's address
    pub email: String,
    /// A file with the new password; without it one is made up, which must be changed at the first login
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Revoke the tokens of the user's programs, too
    #[arg(long)]
    pub revoke_tokens: bool,
    /// Where the users are.
    #[command(flatten)]
    pub place: Place,
}

/// Flags of `user new-token`.
#[derive(Args, Debug)]
pub struct NewToken {
    /// The user's address
    pub email: String,
    /// Where the users are.
    #[command(flatten)]
    pub place: Place,
}

/// The store, named as for `serve`.
#[derive(Args, Debug)]
pub struct Place {
    /// The TOML file of `serve`
    #[arg(long, env = "ANSWERBACK_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The broker's data directory
    #[arg(long, env = "ANSWERBACK_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// The broker's store, if it is Redis
    #[arg(
        long,
        env = "ANSWERBACK_STORE",
        value_name = "URL",
        hide_env_values = true
    )]
    pub store: Option<String>,
    /// A file with the store's URL, for one with a password
    #[arg(long, env = "ANSWERBACK_STORE_FILE", value_name = "FILE")]
    pub store_file: Option<PathBuf>,
}

/// Runs the command.
pub async fn run(user: User) -> ExitCode {
    let (wanted, settings) = match wanted(user) {
        Ok(wanted) => wanted,
        Err(fault) => return end(&fault, USAGE),
    };
    match perform(&wanted, &settings).await {
        Ok(done) => print(&wanted, &done),
        Err(fault) => end(&fault, 1),
    }
}

fn wanted(user: User) -> Result<(Recovery, Settings), String> {
    Ok(match user {
        User::ResetPassword(flags) => {
            let password = flags.password_file.as_deref().map(read_password);
            let wanted = Recovery::ResetPassword {
                email: flags.email,
                password: password.transpose()?,
                revoke_tokens: flags.revoke_tokens,
            };
            (wanted, settings(flags.place)?)
        }
        User::NewToken(flags) => {
            let wanted = Recovery::NewToken { email: flags.email };
            (wanted, settings(flags.place)?)
        }
    })
}

fn read_password(path: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn settings(place: Place) -> Result<Settings, String> {
    let file = place
        .config
        .as_deref()
        .map_or_else(|| Ok(Raw::default()), Raw::from_file)?;
    // The rest of the file is not needed, and may be wrong.
    let file = Raw {
        data_dir: file.data_dir,
        store: file.store,
        store_file: file.store_file,
        ..Raw::default()
    };
    let typed = Raw {
        data_dir: place.data_dir,
        store: place.store,
        store_file: place.store_file,
        ..Raw::default()
    };
    let raw = typed
        .with_secrets_of_files()?
        .or(file.with_secrets_of_files()?);
    check(raw).map_err(|faults| faults.to_string())
}

async fn perform(wanted: &Recovery, settings: &Settings) -> Result<Recovered, String> {
    let place = match &settings.store {
        StoreUrl::Redis(url) => place::CatalogLocation::Redis(url.clone()),
        StoreUrl::Embedded => {
            if let Some(done) = control::ask(&settings.data_dir, wanted).await? {
                return Ok(done);
            }
            place::CatalogLocation::Directory(settings.data_dir.clone())
        }
    };
    let unread = |error: StoreError| format!("cannot read the users in {place}: {error}");
    let store = place.open_source().await.map_err(unread)?;
    let done = async {
        let catalog = Catalog::load(store.clone()).await.map_err(unread)?;
        let done = recover(&catalog, wanted, Clock::System.now()).await;
        done.map_err(|error| error.to_string())
    };
    let done = done.await;
    store.close().await;
    done
}

/// What was made goes to standard output alone, so that a script can take it; what it is goes to standard error.
fn print(wanted: &Recovery, done: &Recovered) -> ExitCode {
    let email = &done.email;
    let (told, secret) = match (wanted, &done.password, &done.token) {
        (_, Some(password), _) => (
            format!("the new password of {email}, to be changed at the first login:"),
            Some(password),
        ),
        (_, None, Some(token)) => (
            format!("a token of {email} that never expires:"),
            Some(token),
        ),
        (_, None, None) => (format!("{email} has the password of the file now"), None),
    };
    say(&told);
    match secret.map(|secret| writeln!(std::io::stdout(), "{secret}")) {
        Some(Err(error)) => end(
            &format!("cannot print it: {error}; run the command again"),
            1,
        ),
        _ => ExitCode::SUCCESS,
    }
}

#[expect(clippy::print_stderr, reason = "what was done")]
fn say(text: &str) {
    eprintln!("{text}");
}

#[expect(clippy::print_stderr, reason = "why the command failed")]
fn end(text: &str, code: u8) -> ExitCode {
    eprintln!("answerback: {text}");
    ExitCode::from(code)
}
