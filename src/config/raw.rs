//! Settings as they were typed: flags and environment by clap, files by TOML, nothing checked yet.

use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::BoolishValueParser;
use serde::Deserialize;

/// Everything that `serve` can be told, each value still optional. A flag wins over its environment variable,
/// which wins over the file, which wins over the default.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Raw {
    /// Where to listen, ADDR:PORT [default: 127.0.0.1:8080]
    #[arg(long, env = "ANSWERBACK_LISTEN", value_name = "ADDR:PORT")]
    pub listen: Option<String>,
    /// Where to serve /metrics and /readyz over plain HTTP, ADDR:PORT; then nowhere else [default: where it listens, for
    /// programs on this machine]
    #[arg(long, env = "ANSWERBACK_METRICS_LISTEN", value_name = "ADDR:PORT")]
    pub metrics_listen: Option<String>,
    /// Serve /metrics where it listens to everybody, and /readyz with the reasons
    #[arg(long, env = "ANSWERBACK_METRICS_OPEN", num_args = 0..=1, default_missing_value = "true", value_parser = BoolishValueParser::new())]
    pub metrics_open: Option<bool>,
    /// Where the embedded store keeps its files [default: answerback-data]
    #[arg(long, env = "ANSWERBACK_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// `embedded`, or a Redis URL: redis://, rediss://, redis+sentinel://, redis+cluster://; valkey likewise
    /// [default: embedded]
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
    /// Simulate so many hosts that enroll and answer over real HTTP. A demo, never on unless asked
    #[arg(long, env = "ANSWERBACK_DEMO", value_name = "N")]
    pub demo: Option<usize>,
    /// Certificate chain, PEM; turns HTTPS on
    #[arg(long, env = "ANSWERBACK_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// Private key, PEM
    #[arg(long, env = "ANSWERBACK_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// PEM: authorities of agents' certificates. Agents must show one that they vouch for; browsers are asked, and need none
    #[arg(long, env = "ANSWERBACK_TLS_CLIENT_CA", value_name = "FILE")]
    pub tls_client_ca: Option<PathBuf>,
    /// Make a certificate for trying out HTTPS; kept in the data directory
    #[arg(long, env = "ANSWERBACK_TLS_SELF_SIGNED", num_args = 0..=1, default_missing_value = "true", value_parser = BoolishValueParser::new())]
    pub tls_self_signed: Option<bool>,
    /// Host names and addresses that --tls-self-signed makes the certificate for, beside localhost and the machine's own
    #[arg(
        long,
        env = "ANSWERBACK_TLS_NAMES",
        value_name = "NAME",
        value_delimiter = ','
    )]
    pub tls_names: Option<Vec<String>>,
    /// Serve plain HTTP on an address that is not loopback, behind a proxy that speaks TLS
    #[arg(long, env = "ANSWERBACK_INSECURE_HTTP", num_args = 0..=1, default_missing_value = "true", value_parser = BoolishValueParser::new())]
    pub insecure_http: Option<bool>,
    /// Networks of proxies whose X-Forwarded-For is believed, e.g. 10.0.0.0/8 (repeatable)
    #[arg(
        long,
        env = "ANSWERBACK_TRUSTED_PROXIES",
        value_name = "CIDR",
        value_delimiter = ','
    )]
    pub trusted_proxies: Option<Vec<String>>,
    /// The first admin's address [default: admin@localhost]
    #[arg(long, env = "ANSWERBACK_ADMIN_EMAIL", value_name = "EMAIL")]
    pub admin_email: Option<String>,
    /// The first admin's password, instead of one made up
    #[arg(
        long,
        env = "ANSWERBACK_ADMIN_PASSWORD",
        value_name = "PASSWORD",
        hide_env_values = true
    )]
    pub admin_password: Option<String>,
    /// A file with it
    #[arg(long, env = "ANSWERBACK_ADMIN_PASSWORD_FILE", value_name = "FILE")]
    pub admin_password_file: Option<PathBuf>,
    /// The first admin's API token, instead of one made up
    #[arg(
        long,
        env = "ANSWERBACK_API_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true
    )]
    pub api_token: Option<String>,
    /// A file with it
    #[arg(long, env = "ANSWERBACK_API_TOKEN_FILE", value_name = "FILE")]
    pub api_token_file: Option<PathBuf>,
    /// The first enroll secret, instead of one made up
    #[arg(
        long,
        env = "ANSWERBACK_ENROLL_SECRET",
        value_name = "SECRET",
        hide_env_values = true
    )]
    pub enroll_secret: Option<String>,
    /// A file with it
    #[arg(long, env = "ANSWERBACK_ENROLL_SECRET_FILE", value_name = "FILE")]
    pub enroll_secret_file: Option<PathBuf>,
    /// This node's name among many; must differ from node to node [default: made up at each start]
    #[arg(long, env = "ANSWERBACK_NODE", value_name = "NAME")]
    pub node: Option<String>,
    /// How other nodes reach this one, for SockJS sessions whose requests land on them: http://ADDR:PORT
    /// [default: where it listens]
    #[arg(long, env = "ANSWERBACK_ADVERTISE", value_name = "URL")]
    pub advertise: Option<String>,
    /// A secret by which nodes prove to each other that they are nodes [default: made once, shared through Redis]
    #[arg(
        long,
        env = "ANSWERBACK_NODE_SECRET",
        value_name = "SECRET",
        hide_env_values = true
    )]
    pub node_secret: Option<String>,
    /// A file with it
    #[arg(long, env = "ANSWERBACK_NODE_SECRET_FILE", value_name = "FILE")]
    pub node_secret_file: Option<PathBuf>,
    /// Seconds that a campaign may stay unwatched before the reaper cancels it [default: 60]
    #[arg(long, env = "ANSWERBACK_UNCLAIMED_S", value_name = "SECONDS")]
    pub unclaimed_s: Option<u64>,
    /// Seconds that a campaign outlives its last viewer; 0 as in Fleet [default: 10]
    #[arg(long, env = "ANSWERBACK_RESUME_GRACE_S", value_name = "SECONDS")]
    pub resume_grace_s: Option<u64>,
    /// Seconds that results stay readable after a campaign's end [default: 3600]
    #[arg(long, env = "ANSWERBACK_RETENTION_S", value_name = "SECONDS")]
    pub retention_s: Option<u64>,
    /// Seconds after which a host that has not answered is asked again [default: 60]
    #[arg(long, env = "ANSWERBACK_OVERDUE_S", value_name = "SECONDS")]
    pub overdue_s: Option<u64>,
    /// Seconds that the synchronous live-query routes wait [default: 25]
    #[arg(
        long,
        env = "ANSWERBACK_LIVE_QUERY_REST_PERIOD_S",
        value_name = "SECONDS"
    )]
    pub live_query_rest_period_s: Option<u64>,
    /// Campaigns of one user that may run at once [default: 100]
    #[arg(long, env = "ANSWERBACK_CAMPAIGNS", value_name = "CAMPAIGNS")]
    pub campaigns: Option<usize>,
    /// KiB that a query may have [default: 64]
    #[arg(long, env = "ANSWERBACK_SQL_KIB", value_name = "KIB")]
    pub sql_kib: Option<usize>,
    /// Let only its creator watch a campaign, not even global admins
    #[arg(long, env = "ANSWERBACK_CREATOR_ONLY", num_args = 0..=1, default_missing_value = "true", value_parser = BoolishValueParser::new())]
    pub creator_only: Option<bool>,
    /// Take a Redis that evicts keys when its memory is full, and accept that hosts, users and results are lost then
    #[arg(long, env = "ANSWERBACK_ACCEPT_EVICTION", num_args = 0..=1, default_missing_value = "true", value_parser = BoolishValueParser::new())]
    pub accept_eviction: Option<bool>,
    /// Start on a data directory whose catalog is gone or has lost writes, with what is there
    #[arg(long, env = "ANSWERBACK_ACCEPT_LOSS", num_args = 0..=1, default_missing_value = "true", value_parser = BoolishValueParser::new())]
    pub accept_loss: Option<bool>,
    /// MiB of memory for each campaign's results; older ones are read back from the store [default: 128]
    #[arg(long, env = "ANSWERBACK_LOG_MIB", value_name = "MIB")]
    pub log_mib: Option<usize>,
    /// MiB of memory for all campaigns' results together [default: a quarter of the machine's or the
    /// container's memory]
    #[arg(long, env = "ANSWERBACK_LOGS_MIB", value_name = "MIB")]
    pub logs_mib: Option<usize>,
    /// Hosts that may enroll in all; more are refused [default: 250000]
    #[arg(long, env = "ANSWERBACK_HOSTS", value_name = "HOSTS")]
    pub hosts: Option<usize>,
    /// Hosts a second that may enroll with one secret from one address, and a hundred times as many at once after a rest
    /// [default: 100]
    #[arg(long, env = "ANSWERBACK_ENROLL_RATE", value_name = "HOSTS")]
    pub enroll_rate: Option<u32>,
    /// `never` (results survive the process) or `always` (and the machine) [default: never]
    #[arg(long, env = "ANSWERBACK_FSYNC", value_name = "WHEN")]
    pub fsync: Option<String>,
    /// Bytes after which a SockJS streaming response ends and the client opens the next [default: 131072]
    #[arg(long, env = "ANSWERBACK_SOCKJS_RESPONSE_LIMIT", value_name = "BYTES")]
    pub sockjs_response_limit: Option<usize>,
    /// Seconds after which a viewer that has heard nothing gets a heartbeat, at most 30 (JSONP clients give up
    /// at 35); lower it behind proxies that cut idle connections sooner [default: 25]
    #[arg(long, env = "ANSWERBACK_HEARTBEAT_S", value_name = "SECONDS")]
    pub heartbeat_s: Option<u64>,
    /// Where SockJS iframes load sockjs-client from, which must be the embedding page's version; `#sha384-...` at the end is
    /// its integrity [default: the broker's own script, for every version]
    #[arg(long, env = "ANSWERBACK_SOCKJS_URL", value_name = "URL")]
    pub sockjs_url: Option<String>,
    /// Origins that may open result streams, e.g. `https://console.example` (repeatable) [default: any]
    #[arg(
        long,
        env = "ANSWERBACK_ORIGINS",
        value_name = "ORIGIN",
        value_delimiter = ','
    )]
    pub origins: Option<Vec<String>>,
    /// Where osquery's status and result logs go: `file` (in the data directory), `stdout` or `none` [default: file]
    #[arg(long, env = "ANSWERBACK_OSQUERY_LOGS", value_name = "SINK")]
    pub osquery_logs: Option<String>,
    /// MiB that files of osquery's results may take, and those of its status lines. When they are full, hosts keep
    /// their lines until files are moved away [default: 1280]
    #[arg(long, env = "ANSWERBACK_OSQUERY_LOG_MIB", value_name = "MIB")]
    pub osquery_log_mib: Option<usize>,
    /// Connections alive at once [default: 50000]
    #[arg(long, env = "ANSWERBACK_CONNECTIONS", value_name = "N")]
    pub connections: Option<usize>,
    /// Seconds over which a stop spreads its goodbyes, while `/readyz` says 503 to whoever balances [default: 1]
    #[arg(long, env = "ANSWERBACK_DRAIN_S", value_name = "SECONDS")]
    pub drain_s: Option<u64>,
    /// Log filter, e.g. `info` or `answerback=debug` [default: info]
    #[arg(long, env = "ANSWERBACK_LOG", value_name = "FILTER")]
    pub log: Option<String>,
    /// `text` or `json` [default: text]
    #[arg(long, env = "ANSWERBACK_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<String>,
}

/// Takes each field from the first that has it.
macro_rules! or_each {
    ($first:expr, $second:expr, $($field:ident)*) => {
        Raw { $($field: $first.$field.or($second.$field)),* }
    };
}

impl Raw {
    /// These values, and for the missing ones those of the file.
    #[must_use]
    pub fn or(self, file: Raw) -> Raw {
        or_each!(
            self, file,
            listen metrics_listen metrics_open data_dir store store_file demo tls_cert tls_key tls_client_ca tls_self_signed tls_names insecure_http trusted_proxies
            admin_email admin_password admin_password_file api_token api_token_file enroll_secret enroll_secret_file node
            advertise node_secret node_secret_file unclaimed_s
            resume_grace_s retention_s overdue_s live_query_rest_period_s creator_only accept_eviction accept_loss log_mib logs_mib
            campaigns sql_kib hosts enroll_rate fsync
            sockjs_response_limit heartbeat_s sockjs_url origins osquery_logs osquery_log_mib connections drain_s log log_format
        )
    }

    /// The same without texts that say nothing: an empty one is none.
    #[must_use]
    pub(super) fn without_empty(mut self) -> Raw {
        for text in [
            &mut self.listen,
            &mut self.metrics_listen,
            &mut self.store,
            &mut self.admin_email,
            &mut self.admin_password,
            &mut self.api_token,
            &mut self.enroll_secret,
            &mut self.node,
            &mut self.advertise,
            &mut self.node_secret,
            &mut self.fsync,
            &mut self.sockjs_url,
            &mut self.osquery_logs,
            &mut self.log,
            &mut self.log_format,
        ] {
            text.take_if(|text| text.is_empty());
        }
        for path in [
            &mut self.data_dir,
            &mut self.tls_cert,
            &mut self.tls_key,
            &mut self.tls_client_ca,
        ] {
            path.take_if(|path| path.as_os_str().is_empty());
        }
        for list in [
            &mut self.trusted_proxies,
            &mut self.origins,
            &mut self.tls_names,
        ] {
            if let Some(texts) = list {
                texts.retain(|text| !text.trim().is_empty());
            }
            list.take_if(|texts| texts.is_empty());
        }
        self
    }

    /// Reads a TOML file with the flags' names, `-` written `_`.
    ///
    /// # Errors
    /// A text that names the file and what is wrong with it.
    pub fn from_file(path: &Path) -> Result<Raw, String> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        toml::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
    }
}
