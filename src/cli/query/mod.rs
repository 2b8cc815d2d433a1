//! `answerback query`: what `fleetctl query` does, and it resumes when the connection breaks.

mod output;
mod rest;
mod stream;
mod table;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use futures_util::FutureExt as _;
use futures_util::future::select_all;
use serde_json::Value;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use super::tls::Trust;
use crate::config::secrets::from_file;
use output::Output;
use rest::Rest;
use stream::{Place, Stream};

/// All hosts that were asked (with `--exit`: that are online) have answered.
const DONE: u8 = 0;
/// The broker refused, or could not be reached.
const FAILED: u8 = 1;
/// What was typed makes no sense.
const USAGE: u8 = 2;
/// `--timeout` passed first.
const TIMED_OUT: u8 = 3;
/// Every host that answered failed.
const ALL_FAILED: u8 = 4;
/// Ctrl-C, or a signal: 128 and SIGINT's number, as shells have it.
const INTERRUPTED: u8 = 130;
/// How long the broker is given to stop a campaign.
const STOP_WITHIN: Duration = Duration::from_secs(5);
/// How long whoever reads the answers is given to read the last ones.
const FINISH_WITHIN: Duration = Duration::from_secs(2);
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
    /// End when all online hosts have answered, and stop the campaign without waiting for the others
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
    /// An API token. As a flag it shows in `ps`: a file or the variable does not
    #[arg(
        long,
        env = "ANSWERBACK_API_TOKEN",
        hide_env_values = true,
        default_value = "",
        hide_default_value = true
    )]
    pub token: String,
    /// A file with the API token
    #[arg(long, env = "ANSWERBACK_API_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Take any certificate
    #[arg(long)]
    pub tls_skip_verify: bool,
    /// Trust the authorities in this PEM file
    #[arg(long, value_name = "FILE", conflicts_with = "tls_skip_verify")]
    pub rootca: Option<PathBuf>,
}

impl Query {
    /// The token, from wherever it is given.
    fn find_token(&mut self) -> Result<(), String> {
        // A variable may hold one as well; the file is meant.
        if let Some(file) = self.token_file.take() {
            let mut token = None;
            from_file("token", &mut token, Some(file))?;
            self.token = token.unwrap_or_default();
        }
        if self.token.is_empty() {
            return Err(
                "give an API token: --token-file FILE, or the variable ANSWERBACK_API_TOKEN"
                    .to_owned(),
            );
        }
        Ok(())
    }

    /// What clap cannot see: something must be asked, of somebody, of a broker that has a URL.
    fn check(&self) -> Result<(), String> {
        let asks = [&self.sql, &self.query, &self.query_name];
        let asks = asks
            .into_iter()
            .flatten()
            .any(|text| !text.trim().is_empty());
        if !asks {
            return Err("say what to ask: answerback query --labels \"All Hosts\" \"select 1\", or --query-name NAME".to_owned());
        }
        let named = |names: &[String]| names.iter().any(|name| !name.trim().is_empty());
        if !named(&self.hosts) && !named(&self.labels) {
            return Err("say whom to ask: --hosts NAME,... or --labels NAME,... (all: --labels \"All Hosts\")".to_owned());
        }
        let scheme = self.url.split_once("://").map(|(scheme, _)| scheme);
        match scheme {
            Some("http" | "https") => Ok(()),
            Some(other) => Err(format!(
                "--url must begin with http:// or https://, and begins with {other}://"
            )),
            None => Err(format!(
                "--url needs a scheme: write http://{0} or https://{0}",
                self.url
            )),
        }
    }

    fn trust(&self) -> Trust {
        match &self.rootca {
            _ if self.tls_skip_verify => Trust::Anybody,
            Some(file) => Trust::File(file.clone()),
            None => Trust::Web,
        }
    }
}

/// Why the command ends before it is done.
enum Stop {
    /// Nobody reads the answers any more, as with `| head -1`.
    Unread,
    /// The answers cannot be written.
    Unwritten(io::Error),
    /// The campaign ended by itself or by somebody.
    Ended(String),
    /// The broker said no, or could not be reached.
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for Stop {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Unread,
            _ => Self::Unwritten(error),
        }
    }
}

/// Runs the command.
pub async fn run(mut query: Query) -> ExitCode {
    let mut output = Output::new(query.pretty, query.quiet);
    if let Err(usage) = query.find_token().and_then(|()| query.check()) {
        output.complain(&usage);
        return ExitCode::from(USAGE);
    }
    let mut campaign = None;
    let deadline = query.timeout.map(|timeout| Instant::now() + timeout);
    let mut interrupts = Interrupts::new();
    let code = tokio::select! {
        ended = watch(&query, &mut output, &mut campaign) => ended.map_or_else(Err, |()| Ok(DONE)),
        () = passed(deadline) => Ok(TIMED_OUT),
        () = interrupts.next() => Ok(INTERRUPTED),
    };
    let is_running = !matches!(code, Err(Stop::Ended(_))) && !output.is_done(false);
    let left = campaign.filter(|_| is_running);
    let say = matches!(code, Ok(INTERRUPTED));
    // A second interrupt waits for nobody.
    let finished = tokio::select! {
        finished = leave(&query, &mut output, left, say) => finished,
        () = interrupts.next() => Ok(()),
    };
    let code = match (code, finished) {
        (Ok(_), Err(error)) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        (code, _) => code,
    };
    tell(&output, code)
}

/// Prints what is gathered, and stops a campaign that nobody waits for any more.
async fn leave(
    query: &Query,
    output: &mut Output,
    running: Option<u64>,
    say: bool,
) -> io::Result<()> {
    let finished = tokio::time::timeout(FINISH_WITHIN, output.finish()).await;
    if let Some(campaign) = running {
        stop(query, campaign, output, say).await;
    }
    finished.unwrap_or(Ok(()))
}

/// Says why it ended, in words and as an exit code.
fn tell(output: &Output, code: Result<u8, Stop>) -> ExitCode {
    let code = match code {
        Ok(TIMED_OUT) => {
            output.complain("timed out before all hosts answered");
            TIMED_OUT
        }
        Ok(DONE) if output.all_failed() => {
            output.complain("the query failed on every host that answered");
            ALL_FAILED
        }
        Ok(code) => code,
        Err(Stop::Unread) => DONE,
        Err(Stop::Unwritten(error)) => {
            output.complain(&format!("the answers cannot be written: {error}"));
            FAILED
        }
        Err(Stop::Ended(why)) => {
            output.complain(&why);
            FAILED
        }
        Err(Stop::Failed(error)) => {
            output.complain(&format!("{error:#}"));
            FAILED
        }
    };
    ExitCode::from(code)
}

async fn passed(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Ctrl-C, and the signal that ends programs. Made once, so that none is missed in between.
struct Interrupts(Vec<Signal>);

impl Interrupts {
    fn new() -> Self {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate()];
        Self(
            kinds
                .into_iter()
                .filter_map(|kind| signal(kind).ok())
                .collect(),
        )
    }

    async fn next(&mut self) {
        if self.0.is_empty() {
            return std::future::pending().await;
        }
        let signals = self.0.iter_mut().map(|signal| signal.recv().boxed());
        drop(select_all(signals).await);
    }
}

/// Stops the campaign: hosts that have not answered are not asked any more.
async fn stop(query: &Query, campaign: u64, output: &Output, say: bool) {
    let stopped = async {
        Rest::new(&query.url, &query.token, &query.trust())?
            .stop(campaign)
            .await
    };
    match tokio::time::timeout(STOP_WITHIN, stopped).await {
        Ok(Ok(())) if say => {
            output.complain(&format!(
                "campaign {campaign} is stopped: {}",
                output.answered()
            ));
        }
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            output.complain(&format!(
                "campaign {campaign} could not be stopped: {error:#}"
            ));
        }
        Err(_) => output.complain(&format!(
            "campaign {campaign} could not be stopped: the broker does not answer"
        )),
    }
}

async fn watch(query: &Query, output: &mut Output, started: &mut Option<u64>) -> Result<(), Stop> {
    let rest = Rest::new(&query.url, &query.token, &query.trust())?;
    for name in rest.unknown(&query.hosts).await? {
        output.complain(&format!("no host answers to {name:?}: it is not asked"));
    }
    let campaign = rest.start(query).await?;
    *started = Some(campaign);
    let mut broken_since: Option<Instant> = None;
    let mut place = Place::default();
    loop {
        let before = place.seq;
        let ended = read(query, campaign, output, &mut place).await;
        match ended {
            Ok(()) => return Ok(()),
            Err(Interrupted::Stop(stop)) => return Err(stop),
            Err(Interrupted::Broken(error)) => {
                if place.seq > before {
                    broken_since = None;
                }
                let since = *broken_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= RECONNECT_FOR {
                    let error = error.context("the connection broke and did not come back");
                    return Err(error.into());
                }
                tokio::time::sleep(RECONNECT_EVERY).await;
            }
        }
    }
}

/// Why reading stopped before the end.
enum Interrupted {
    /// Trying again would change nothing.
    Stop(Stop),
    /// The connection broke.
    Broken(anyhow::Error),
}

impl From<anyhow::Error> for Interrupted {
    fn from(error: anyhow::Error) -> Self {
        Self::Broken(error)
    }
}

impl From<io::Error> for Interrupted {
    fn from(error: io::Error) -> Self {
        Self::Stop(error.into())
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
        let message = tokio::select! {
            message = stream.next() => message?,
            () = output.gathered() => {
                output.print_table().await?;
                continue;
            }
        };
        if let Some(error) = message.error {
            if error.is_final {
                let text = format!("campaign {campaign}: {}", error.text.trim_end());
                return Err(Interrupted::Stop(Stop::Ended(text)));
            }
            output.complain(error.text.trim_end());
        }
        match message.r#type.as_str() {
            "totals" => {
                place.epoch = message.data["epoch"].as_u64();
                output.totals(&message.data);
            }
            "result" => {
                place.seq = output.result(&message.data).await?.unwrap_or(place.seq + 1);
            }
            _ => {}
        }
        if output.is_done(query.exit) {
            stream.close().await;
            return Ok(());
        }
        if let Some(why) = ended(&message.data, campaign, output) {
            stream.close().await;
            return Err(Interrupted::Stop(Stop::Ended(why)));
        }
    }
}

/// Why the campaign is over with hosts that have not answered, if a status says so. It comes behind all answers.
fn ended(data: &Value, campaign: u64, output: &Output) -> Option<String> {
    let ended = data.get("ended").filter(|ended| ended.is_object())?;
    if data["status"] != "finished" {
        return None;
    }
    let how = match (ended["reason"].as_str(), ended["by"].as_str()) {
        (Some("stopped"), Some(by)) => format!("was stopped by {by}"),
        (Some("stopped"), None) => "was stopped".to_owned(),
        (Some("expired"), _) => "has run for as long as campaigns may".to_owned(),
        (reason, _) => format!("has ended ({})", reason.unwrap_or("unknown")),
    };
    Some(format!("campaign {campaign} {how}: {}", output.answered()))
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
