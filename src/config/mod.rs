//! The only module that knows files, environment and flags; everybody else gets small settings of their own.

pub mod check;
pub mod origin;
mod raw;
pub mod secrets;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::results::Rules;
use crate::telemetry::logging;
pub use check::{Faults, check, store_url};
pub use raw::Raw;

/// What `serve` is to do, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Where everything is kept.
    pub store: StoreUrl,
    /// Files of the embedded store, the self-signed certificate, osquery's logs.
    pub data_dir: PathBuf,
    /// How many hosts to simulate; 0 for none.
    pub demo: usize,
    /// HTTPS or not.
    pub tls: TlsFiles,
    /// Whose X-Forwarded-For is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// What a first start would otherwise make up.
    pub presets: Presets,
    /// This node among others.
    pub node: Node,
    /// The periods of campaigns.
    pub rules: Rules,
    /// How long the synchronous routes wait.
    pub live_query_rest_period: Duration,
    /// What users may ask.
    pub queries: Queries,
    /// Whether not even admins watch another's campaign.
    pub creator_only: bool,
    /// Whether a Redis that evicts keys is taken.
    pub accept_eviction: bool,
    /// Bytes of memory for all logs together; none for a share of what there is.
    pub logs_bytes_max: Option<usize>,
    /// Whether a data directory is taken that has lost writes.
    pub accept_loss: bool,
    /// Bytes of memory for each campaign's log.
    pub log_bytes_max: usize,
    /// How many hosts there may be, and how soon.
    pub hosts: Hosts,
    /// Whether each batch of answers is synced to the disk.
    pub fsync: bool,
    /// Bytes of a SockJS streaming response.
    pub sockjs_response_limit: usize,
    /// After how much silence a viewer gets a heartbeat.
    pub heartbeat: Duration,
    /// Where SockJS iframes load the client from.
    pub sockjs_url: Option<String>,
    /// Who may open result streams; none for everybody.
    pub origins: Option<Vec<String>>,
    /// Where osquery's logs go.
    pub osquery_logs: Logs,
    /// Bytes of the files of each kind of osquery's logs.
    pub osquery_log_bytes: u64,
    /// The authorities of agents' certificates, if they must show one.
    pub client_ca: Option<PathBuf>,
    /// Who may read metrics.
    pub metrics: MetricsFor,
    /// Connections alive at once.
    pub connections: usize,
    /// Over how long a stop spreads its goodbyes.
    pub drain: Duration,
    /// The process's own log.
    pub log: logging::Settings,
}

/// What a first start would otherwise make up.
#[derive(Clone, Debug, Default)]
pub struct Presets {
    /// The first admin's address.
    pub admin_email: Option<String>,
    /// The first admin's password.
    pub admin_password: Option<String>,
    /// The first admin's API token.
    pub api_token: Option<String>,
    /// The first enroll secret.
    pub enroll_secret: Option<String>,
}

/// Who may read metrics, and why the broker is not ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricsFor {
    /// Programs on this machine, where the broker listens.
    Machine,
    /// Everybody, where the broker listens.
    Everybody,
    /// Whoever reaches this address.
    At(SocketAddr),
}

/// What users may ask.
#[derive(Clone, Copy, Debug)]
pub struct Queries {
    /// Campaigns of one user at once.
    pub at_once: usize,
    /// Bytes of one query.
    pub bytes: usize,
}

/// How many hosts there may be, and how soon.
#[derive(Clone, Copy, Debug)]
pub struct Hosts {
    /// In all.
    pub max: u64,
    /// Enrolments a second with one secret from one address.
    pub enroll_rate: u32,
}

/// One node among many.
#[derive(Clone, Debug, Default)]
pub struct Node {
    /// Its name.
    pub name: Option<String>,
    /// How other nodes reach it.
    pub advertise: Option<String>,
    /// What nodes show each other.
    pub secret: Option<String>,
}

/// Which store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreUrl {
    /// Files in the data directory.
    Embedded,
    /// A Redis URL.
    Redis(String),
}

/// A store's URL without user and password, for people to read.
#[must_use]
pub fn without_secrets(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, place))) => format!("{scheme}://{place}"),
        _ => url.to_owned(),
    }
}

/// Which certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsFiles {
    /// Plain HTTP.
    None,
    /// One made up at the first start, for these names beside the machine's own.
    SelfSigned(Vec<String>),
    /// PEM files.
    Files {
        /// The chain.
        cert: PathBuf,
        /// The private key.
        key: PathBuf,
    },
}

/// Where osquery's status and result logs go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logs {
    /// Rotating files in the data directory.
    File,
    /// JSON lines on standard output.
    Stdout,
    /// Nowhere.
    None,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_shown() {
        assert_eq!(without_secrets("redis://u:p@ss@h:1/0"), "redis://h:1/0");
        assert_eq!(without_secrets("redis://h:1"), "redis://h:1");
    }
}
