//! The command line.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::compare::Compare;
use crate::expect::Expectation;
use crate::growth::Growth;
use crate::measure::Measure;
use crate::size::Size;
use crate::target::sources;
use crate::transport::Mix;
use crate::units::{bytes, count, duration, share};

/// Load tester for live-query fan-out: simulated agents, viewers on every transport, and a verdict.
///
/// Exit status: 0 every expectation held, 1 one did not, 2 wrong usage, 3 the test could not be run.
#[derive(Debug, Parser)]
#[command(name = "loadtest", version)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Send the answers of many hosts to many viewers and check that each gets every one
    Fanout(Fanout),
    /// Play many osquery agents: enrol, check in, answer whatever is asked
    Fleet(Fleet),
    /// Connect all viewers at once, and again and again, while answers arrive
    Storm(Storm),
    /// Agents, viewers and faults of every kind for as long as you like
    Soak(Soak),
    /// Take what one delivery or request costs a server, with a lean client
    Measure(Measure),
    /// Start Answerback, its peers and the physical limit, and compare them in one run
    Compare(Compare),
    /// Plot how the costs of Answerback grow with viewers, answers, campaigns, hosts and results
    Growth(Growth),
    /// Take how soon Answerback starts and a campaign is there when the catalog is large
    Size(Size),
}

/// Options of every subcommand.
#[derive(Clone, Debug, Args)]
pub(crate) struct Common {
    /// Server under test (http, https, ws or wss)
    #[arg(
        long,
        global = true,
        env = "LOADTEST_URL",
        default_value = "http://127.0.0.1:8080"
    )]
    pub(crate) url: String,
    /// API token of the user who runs the queries
    #[arg(long, global = true, env = "LOADTEST_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// Log in with this address instead of a token
    #[arg(long, global = true, env = "LOADTEST_EMAIL")]
    pub(crate) email: Option<String>,
    /// Password to log in with
    #[arg(long, global = true, env = "LOADTEST_PASSWORD", hide_env_values = true)]
    pub(crate) password: Option<String>,
    /// Secret that hosts enrol with
    #[arg(
        long,
        global = true,
        env = "LOADTEST_ENROLL_SECRET",
        hide_env_values = true
    )]
    pub(crate) enroll_secret: Option<String>,
    /// Accept any certificate
    #[arg(long, global = true)]
    pub(crate) tls_skip_verify: bool,
    /// Judge certificates by the authorities in this PEM file
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Version of the API in paths
    #[arg(long, global = true, default_value = "latest")]
    pub(crate) api: String,
    /// Connect from these addresses in turn, e.g. 127.0.0.2-127.0.0.9
    #[arg(long, global = true, value_parser = source_range, value_name = "RANGE")]
    pub(crate) source: Option<Sources>,
    /// Process id of the server (same machine): measure its CPU time and memory
    #[arg(long, global = true)]
    pub(crate) pid: Option<u32>,
    /// Print the result as JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Write a page with plots that needs nothing else
    #[arg(long, global = true, value_name = "FILE.html")]
    pub(crate) report: Option<PathBuf>,
    /// What must hold, e.g. 'p99<50ms' or 'xhr.lost=0'; repeat for more
    #[arg(long, global = true, value_name = "METRIC<VALUE")]
    pub(crate) expect: Vec<Expectation>,
}

/// Addresses to connect from.
#[derive(Clone, Debug)]
pub(crate) struct Sources(pub(crate) Vec<IpAddr>);

fn source_range(text: &str) -> Result<Sources, String> {
    sources(text).map(Sources)
}

/// How closely viewers look at what they get.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Verify {
    /// Find host, position and time in each result; read everything else in full
    Scan,
    /// Read every message in full and compare it with what was sent
    Full,
}

/// Options about viewers.
#[derive(Clone, Debug, Args)]
pub(crate) struct Viewers {
    /// Number of viewers
    #[arg(long, short = 'v', default_value = "100", value_parser = count)]
    pub(crate) viewers: usize,
    /// Transports and their weights (raw, ws, xhr_streaming, eventsource, xhr, jsonp; or `all`)
    #[arg(long, default_value = "raw", value_parser = Mix::read, value_name = "NAME=WEIGHT,…")]
    pub(crate) transports: Mix,
    /// How closely viewers look
    #[arg(long, value_enum, default_value = "scan")]
    pub(crate) verify: Verify,
    /// Threads that the viewers share
    #[arg(long, default_value_t = default_threads())]
    pub(crate) threads: usize,
    /// How long to wait until all viewers hear something
    #[arg(long, default_value = "60s", value_parser = duration)]
    pub(crate) ready: Duration,
    /// How long to wait for missing results while none come
    #[arg(long, default_value = "5s", value_parser = duration)]
    pub(crate) drain: Duration,
}

fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |count| count.get().min(4))
}

/// Options about simulated hosts.
#[derive(Clone, Debug, Args)]
pub(crate) struct Hosts {
    /// Number of hosts; each answers a campaign once
    #[arg(long, short = 'n', default_value = "1000", value_parser = count)]
    pub(crate) hosts: usize,
    /// Length of the value in each answer's row; the message around it is longer
    #[arg(long, default_value = "100", value_parser = bytes)]
    pub(crate) bytes: usize,
    /// What the names of the hosts begin with
    #[arg(long, default_value = "loadtest")]
    pub(crate) prefix: String,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Fanout {
    #[command(flatten)]
    pub(crate) viewers: Viewers,
    #[command(flatten)]
    pub(crate) hosts: Hosts,
    /// Answers a second; as fast as it goes if not given
    #[arg(long, value_parser = rate)]
    pub(crate) rate: Option<f64>,
    /// Without a rate: results the average viewer may be behind before sending waits (0: no limit)
    #[arg(long, default_value = "32")]
    pub(crate) window: u64,
    /// Connections that post answers
    #[arg(long, default_value = "4")]
    pub(crate) connections: usize,
    /// Without a rate: requests sent at once on a connection
    #[arg(long, default_value = "8")]
    pub(crate) pipeline: usize,
    /// Campaigns that run side by side; viewers are spread over them, hosts answer all at once
    #[arg(long, default_value = "1")]
    pub(crate) campaigns: usize,
    /// Every N-th host answers with a failure (0: none)
    #[arg(long, default_value = "0", value_name = "N")]
    pub(crate) failure_every: usize,
    /// Each host reads its queries before it answers
    #[arg(long)]
    pub(crate) read_first: bool,
    /// Keep the hosts' node keys in this file, and use them if it is there
    #[arg(long, value_name = "FILE")]
    pub(crate) keys: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Storm {
    #[command(flatten)]
    pub(crate) viewers: Viewers,
    #[command(flatten)]
    pub(crate) hosts: Hosts,
    /// How often all connections are cut and made again
    #[arg(long, default_value = "3")]
    pub(crate) reconnect: usize,
    /// Select from the beginning each time instead of naming the last position
    #[arg(long)]
    pub(crate) from_start: bool,
    /// Answers a second while the viewers come back
    #[arg(long, default_value = "1000", value_parser = rate)]
    pub(crate) rate: f64,
}

/// How simulated agents behave.
#[derive(Clone, Debug, Args)]
pub(crate) struct Behaviour {
    /// Time between two check-ins of a host
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub(crate) interval: Duration,
    /// Hosts begin spread over this time (default: the interval)
    #[arg(long, value_parser = duration)]
    pub(crate) spread: Option<Duration>,
    /// Time between two fetches of the configuration
    #[arg(long, default_value = "60s", value_parser = duration)]
    pub(crate) config_interval: Duration,
    /// Connections that all hosts share
    #[arg(long, default_value = "200")]
    pub(crate) connections: usize,
    /// Share of live queries that are answered at all
    #[arg(long, default_value = "1", value_parser = share)]
    pub(crate) answering: f64,
    /// Share of answers that are failures
    #[arg(long, default_value = "0.01", value_parser = share)]
    pub(crate) failing: f64,
    /// Share of answers that are sent twice
    #[arg(long, default_value = "0.01", value_parser = share)]
    pub(crate) repeating: f64,
    /// Share of hosts that restart a minute; half of these enrol again
    #[arg(long, default_value = "0.01", value_parser = share)]
    pub(crate) restarting: f64,
    /// Longest time a host works on a query
    #[arg(long, default_value = "1s", value_parser = duration)]
    pub(crate) work: Duration,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Fleet {
    #[command(flatten)]
    pub(crate) hosts: Hosts,
    #[command(flatten)]
    pub(crate) behaviour: Behaviour,
    /// Play only the i-th of n parts of the hosts, e.g. 2/4
    #[arg(long, value_parser = Shard::read, default_value = "1/1", value_name = "I/N")]
    pub(crate) shard: Shard,
    /// Stop after this time (default: on ctrl-c)
    #[arg(long, value_parser = duration)]
    pub(crate) duration: Option<Duration>,
    /// Threads that the hosts share
    #[arg(long, default_value_t = default_threads())]
    pub(crate) threads: usize,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Soak {
    #[command(flatten)]
    pub(crate) viewers: Viewers,
    #[command(flatten)]
    pub(crate) hosts: Hosts,
    #[command(flatten)]
    pub(crate) behaviour: Behaviour,
    /// How long
    #[arg(long, default_value = "10m", value_parser = duration)]
    pub(crate) duration: Duration,
    /// Length of one campaign
    #[arg(long, default_value = "30s", value_parser = duration)]
    pub(crate) round: Duration,
    /// Mean time between two faults of one viewer: it stalls, leaves, or is cut off
    #[arg(long, default_value = "15s", value_parser = duration)]
    pub(crate) fault_every: Duration,
    /// Longest time a viewer stops reading
    #[arg(long, default_value = "5s", value_parser = duration)]
    pub(crate) stall: Duration,
}

/// One part of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shard {
    /// From 1.
    part: usize,
    of: usize,
}

impl Shard {
    fn read(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/');
        let parts = parts.and_then(|(part, of)| Some((part.parse().ok()?, of.parse().ok()?)));
        match parts {
            Some((part, of)) if (1..=of).contains(&part) => Ok(Self { part, of }),
            _ => Err(format!("{text}: write it like 2/4")),
        }
    }

    /// This part of `hosts`.
    pub(crate) fn range(self, hosts: usize) -> std::ops::Range<usize> {
        let bound = |part: usize| hosts * part / self.of;
        bound(self.part - 1)..bound(self.part)
    }
}

fn rate(text: &str) -> Result<f64, String> {
    let text = text.strip_suffix("/s").unwrap_or(text);
    let (number, unit) = crate::units::number_and_unit(text)?;
    let rate = match unit {
        "" => number,
        "k" | "K" => number * 1e3,
        "M" => number * 1e6,
        _ => return Err(format!("{text}: not a rate")),
    };
    if rate > 0.0 {
        Ok(rate)
    } else {
        Err("a rate is above 0".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn shards_cover_all_hosts_once() {
        let shard = |text: &str| Shard::read(text).unwrap().range(10);
        assert_eq!(shard("1/1"), 0..10);
        assert_eq!(
            [shard("1/3"), shard("2/3"), shard("3/3")],
            [0..3, 3..6, 6..10]
        );
        for bad in ["0/3", "4/3", "x", "1"] {
            assert!(Shard::read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_wrong_expectation_is_wrong_usage() {
        let parse = |last: &str| Cli::try_parse_from(["loadtest", "fanout", "--expect", last]);
        assert!(parse("p99<50ms").is_ok());
        assert_eq!(parse("shoe<1").unwrap_err().exit_code(), 2);
    }
}
