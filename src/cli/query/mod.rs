//! `answerback query`: what `fleetctl query` does, and it resumes when the connection breaks.

mod output;
mod rest;
mod stream;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use tokio::time::Instant;

use super::tls::Trust;
use output::Output;
use rest::Rest;
use stream::{Place, Stream};

/// All hosts that were asked (with `--exit`: that are online) have answered.
const DONE: u8 = 0;
/// The broker refused, or could not be reached.
const FAILED: u8 = 1;
/// `--timeout` passed first.
const TIMED_OUT: u8 = 3;
/// How long a broken connection is tried anew before the command gives up.
const RECONNECT_FOR: Duration = Duration::from_secs(60);
/// Between two tries.
const RECONNECT_EVERY: Duration = Duration::from_millis(500);

/// Flags of `query`, named as fleetctl names them.
#[derive(Args, Clone, Debug)]
pub struct Query {
    /// The SQL to run; or use --query or --query-name
    #[arg(value_name = "SQL")]
    pub sql: Option<String>,
    /// The SQL to run
    #[arg(long, conflicts_with = "sql")]
    pub query: Option<String>,
    /// A saved query to run
    #[arg(long, value_name = "NAME", conflicts_with_all = ["sql", "query"])]
    pub query_name: Option<String>,
    /// Hosts by hostname, UUID, serial number or identifier, comma separated
    #[arg(long, value_delimiter = ',')]
    pub hosts: Vec<String>,
    /// Labels by name, comma separated
    #[arg(long, value_delimiter = ',')]
    pub labels: Vec<String>,
    /// End when all online hosts have answered, without waiting for the others
    #[arg(long)]
    pub exit: bool,
    /// Print tables instead of JSON lines
    #[arg(long)]
    pub pretty: bool,
    /// No progress on standard error
    #[arg(long)]
    pub quiet: bool,
    /// Give up after this long, e.g. 30s, 5m (exit code 3)
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    pub timeout: Option<Duration>,
    /// The broker
    #[arg(long, env = "ANSWERBACK_URL", default_value = "http://127.0.0.1:8080")]
    pub url: String,
    /// An API token
    #[arg(long, env = "ANSWERBACK_API_TOKEN", hide_env_values = true)]
    pub token: String,
    /// Take any certificate
    #[arg(long)]
    pub tls_skip_verify: bool,
    /// Trust the authorities in this PEM file
    #[arg(long, value_name = "FILE", conflicts_with = "tls_skip_verify")]
    pub rootca: Option<PathBuf>,
}

impl Query {
    fn trust(&self) -> Trust {
        match &self.rootca {
            _ if self.tls_skip_verify => Trust::Anybody,
            Some(file) => Trust::File(file.clone()),
            None => Trust::Web,
        }
    }
}

/// Runs the command.
pub async fn run(query: Query) -> ExitCode {
    let deadline = query.timeout.map(|timeout| Instant::now() + timeout);
    let mut output = Output::new(query.pretty, query.quiet);
    let ended = match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline, watch(&query, &mut output)).await,
        None => Ok(watch(&query, &mut output).await),
    };
    output.finish();
    match ended {
        Ok(Ok(())) => ExitCode::from(DONE),
        Ok(Err(error)) => {
            output.complain(&format!("{error:#}"));
            ExitCode::from(FAILED)
        }
        Err(_) => {
            output.complain("timed out before all hosts answered");
            ExitCode::from(TIMED_OUT)
        }
    }
}

async fn watch(query: &Query, output: &mut Output) -> anyhow::Result<()> {
    let rest = Rest::new(&query.url, &query.token, &query.trust())?;
    let campaign = rest.start(query).await?;
    let mut broken_since: Option<Instant> = None;
    let mut place = Place::default();
    loop {
        let before = place.seq;
        let ended = read(query, campaign, output, &mut place).await;
        match ended {
            Ok(()) => return Ok(()),
            Err(Interrupted::Refused(text)) => anyhow::bail!("campaign {campaign}: {text}"),
            Err(Interrupted::Broken(error)) => {
                if place.seq > before {
                    broken_since = None;
                }
                let since = *broken_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= RECONNECT_FOR {
                    return Err(error).context("the connection broke and did not come back");
                }
                tokio::time::sleep(RECONNECT_EVERY).await;
            }
        }
    }
}

/// Why reading stopped before the end.
enum Interrupted {
    /// The broker said why; trying again would hear the same.
    Refused(String),
    /// The connection broke.
    Broken(anyhow::Error),
}

impl From<anyhow::Error> for Interrupted {
    fn from(error: anyhow::Error) -> Self {
        Self::Broken(error)
    }
}

/// Reads until enough hosts have answered. A broken connection is resumed at `place`.
async fn read(
    query: &Query,
    campaign: u64,
    output: &mut Output,
    place: &mut Place,
) -> Result<(), Interrupted> {
    let mut stream = Stream::open(&query.url, &query.trust()).await?;
    stream.select(&query.token, campaign, *place).await?;
    loop {
        let message = stream.next().await?;
        if let Some(error) = message.error {
            if error.is_final {
                return Err(Interrupted::Refused(error.text));
            }
            output.complain(error.text.trim_end());
        }
        match message.r#type.as_str() {
            "totals" => {
                place.epoch = message.data["epoch"].as_u64();
                output.totals(&message.data)?;
            }
            "result" => {
                place.seq = output.result(&message.data)?.unwrap_or(place.seq + 1);
            }
            _ => {}
        }
        if output.is_done(query.exit) {
            stream.close().await;
            return Ok(());
        }
    }
}

/// `90`, `90s`, `5m`, `1h`, `500ms`.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let split = text
        .find(|at: char| !at.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 = number
        .parse()
        .map_err(|_| format!("`{text}` is not a duration such as 30s"))?;
    let millis = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(format!("`{unit}` is none of ms, s, m, h")),
    };
    Ok(Duration::from_millis(number.saturating_mul(millis)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_fleetctl_users_write_them() {
        assert_eq!(parse_duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(parse_duration("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("7"), Ok(Duration::from_secs(7)));
        assert!(parse_duration("soon").is_err() && parse_duration("1d").is_err());
    }
}
