//! The command line: what can be typed, and the commands that talk to a broker from outside.

pub mod backup;
pub mod demo;
pub mod migrate;
pub mod query;
pub mod tls;
pub mod user;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Live-query results broker for osquery fleets.
#[derive(Debug, Parser)]
#[command(name = "answerback", version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the broker
    Serve(Box<Serve>),
    /// Run a live query and print the answers as they arrive, one JSON object a line
    Query(Box<query::Query>),
    /// Copy a catalog from one store to another: hosts, users, labels, queries and all else but campaigns
    Migrate(migrate::Migrate),
    /// Give a user who cannot get in a new password or token
    #[command(subcommand)]
    User(user::User),
    /// Copy a data directory, also while its broker runs, to a new one
    Backup(backup::Backup),
    /// Put a backup into a new data directory
    Restore(backup::Restore),
    /// Look through a data directory on which no broker runs, or a backup
    Check(backup::Check),
    /// Keep what can be read of a damaged data directory, while no broker runs on it
    Repair(backup::Check),
    /// Check the settings of `serve` and say what is wrong with them
    CheckConfig(Box<Serve>),
}

/// `serve`'s flags.
#[derive(clap::Args, Debug)]
pub struct Serve {
    /// A TOML file with any of these settings, `-` written `_`
    #[arg(long, env = "ANSWERBACK_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The settings.
    #[command(flatten)]
    pub settings: crate::config::Raw,
}
