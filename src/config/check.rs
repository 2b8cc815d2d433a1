//! From what was typed to what is meant: every fault is collected, each with its flag's name.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::origin;
use super::raw::Raw;
use super::{Hosts, Logs, MetricsFor, Node, Presets, Queries, Settings, StoreUrl, TlsFiles};
use crate::auth::user;
use crate::limits;
use crate::results::Rules;
use crate::telemetry::logging;
use crate::transport::relay::record;

/// What is wrong with the settings, a line each.
#[derive(Debug, PartialEq, Eq)]
pub struct Faults(pub Vec<String>);

impl Display for Faults {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|fault| writeln!(out, "{fault}"))
    }
}

impl std::error::Error for Faults {}

/// Checks everything and says all that is wrong at once.
///
/// # Errors
/// The faults, at least one.
pub fn check(raw: Raw) -> Result<Settings, Faults> {
    let mut faults = Collected(Vec::new());
    // Compose files set variables to nothing where they mean none.
    let raw = raw.without_empty();
    let settings = settings(&mut faults, raw.clone());
    if settings.tls == TlsFiles::None
        && !settings.listen.ip().is_loopback()
        && !raw.insecure_http.unwrap_or(false)
    {
        faults.add(
            "listen",
            "plain HTTP is only for loopback: give --tls-cert and --tls-key, or --tls-self-signed, or --insecure-http",
        );
    }
    if settings.metrics == MetricsFor::At(settings.listen) && settings.listen.port() != 0 {
        faults.add("metrics-listen", "must be another address than --listen");
    }
    if settings.tls == TlsFiles::None && settings.client_ca.is_some() {
        faults.add(
            "tls-client-ca",
            "needs TLS: give --tls-cert and --tls-key, or --tls-self-signed",
        );
    }
    if faults.0.is_empty() {
        Ok(settings)
    } else {
        Err(Faults(faults.0))
    }
}

fn settings(faults: &mut Collected, raw: Raw) -> Settings {
    let text = |typed: Option<String>, default: &str| typed.unwrap_or_else(|| default.to_owned());
    let rules = rules(faults, &raw);
    Settings {
        listen: faults.parse("listen", &text(raw.listen, "127.0.0.1:8080")),
        store: faults.store(&text(raw.store, "embedded")),
        data_dir: raw.data_dir.unwrap_or_else(|| "answerback-data".into()),
        demo: raw.demo.unwrap_or(0),
        tls: faults.tls(
            raw.tls_cert,
            raw.tls_key,
            raw.tls_self_signed.unwrap_or(false),
            raw.tls_names.unwrap_or_default(),
        ),
        client_ca: raw.tls_client_ca,
        trusted_proxies: faults
            .networks("trusted-proxies", raw.trusted_proxies.unwrap_or_default()),
        presets: faults.presets(Presets {
            admin_email: raw.admin_email,
            admin_password: raw.admin_password,
            api_token: raw.api_token,
            enroll_secret: raw.enroll_secret,
        }),
        node: Node {
            name: raw.node.map(|name| faults.node_name(name)),
            advertise: raw.advertise.map(|url| faults.node_url(&url)),
            secret: raw
                .node_secret
                .map(|secret| faults.not_empty("node-secret", secret)),
        },
        rules,
        live_query_rest_period: faults
            .seconds("live-query-rest-period-s", raw.live_query_rest_period_s)
            .map_or(Duration::from_secs(25), Duration::from_secs),
        queries: faults.queries(raw.campaigns, raw.sql_kib),
        creator_only: raw.creator_only.unwrap_or(false),
        accept_eviction: raw.accept_eviction.unwrap_or(false),
        accept_loss: raw.accept_loss.unwrap_or(false),
        log_bytes_max: faults.mib("log-mib", raw.log_mib, 128),
        logs_bytes_max: raw.logs_mib.map(|mib| faults.mib("logs-mib", Some(mib), 1)),
        hosts: faults.hosts(raw.hosts, raw.enroll_rate),
        fsync: faults.one_of("fsync", raw.fsync, &[("never", false), ("always", true)]),
        sockjs_response_limit: faults.least(
            "sockjs-response-limit",
            raw.sockjs_response_limit.unwrap_or(131_072),
            4096,
        ),
        heartbeat: faults.heartbeat(raw.heartbeat_s.unwrap_or(25)),
        sockjs_url: raw.sockjs_url.map(|url| faults.page_url("sockjs-url", url)),
        origins: raw.origins.map(|origins| faults.origins(&origins)),
        osquery_logs: faults.one_of("osquery-logs", raw.osquery_logs, &SINKS),
        osquery_log_bytes: faults.mib("osquery-log-mib", raw.osquery_log_mib, 1280) as u64,
        metrics: faults.metrics(raw.metrics_listen, raw.metrics_open),
        connections: faults.connections(raw.connections),
        drain: Duration::from_secs(raw.drain_s.unwrap_or(1)),
        log: faults.log(
            text(raw.log, "info,rusqlite_migration=warn"),
            raw.log_format,
        ),
    }
}

/// Characters of a node's name.
const NODE_CHARS_MAX: usize = 64;
/// Where osquery's logs may go; the first is the default.
const SINKS: [(&str, Logs); 3] = [
    ("file", Logs::File),
    ("stdout", Logs::Stdout),
    ("none", Logs::None),
];

fn rules(faults: &mut Collected, raw: &Raw) -> Rules {
    let unclaimed = faults.seconds("unclaimed-s", raw.unclaimed_s);
    let retention = faults.seconds("retention-s", raw.retention_s);
    let overdue = faults.seconds("overdue-s", raw.overdue_s);
    let or = |seconds: Option<u64>, default| seconds.map_or(default, Duration::from_secs);
    let rules = Rules::default();
    Rules {
        unclaimed: or(unclaimed, rules.unclaimed),
        resume_grace: or(raw.resume_grace_s, rules.resume_grace),
        retention: or(retention, rules.retention),
        overdue: or(overdue, rules.overdue),
        ..rules
    }
}

/// What `--store` means.
///
/// # Errors
/// A text that says what it is not.
pub fn store_url(text: &str) -> Result<StoreUrl, String> {
    const SCHEMES: [&str; 4] = ["redis", "rediss", "valkey", "valkeys"];
    if text == "embedded" {
        return Ok(StoreUrl::Embedded);
    }
    let scheme = text.split_once("://").map_or("", |(scheme, _)| scheme);
    let (base, kind) = scheme.split_once('+').unwrap_or((scheme, ""));
    if !SCHEMES.contains(&base) || !["", "sentinel", "cluster"].contains(&kind) {
        return Err(format!("`{text}` is neither `embedded` nor a Redis URL"));
    }
    Ok(StoreUrl::Redis(text.to_owned()))
}

/// Whether a certificate may be for it: a host name, perhaps with `*` in front, or an address, both without a port.
fn is_name(text: &str) -> bool {
    let host = text.strip_prefix("*.").unwrap_or(text);
    let label = |label: &str| {
        let plain = label
            .bytes()
            .all(|at| at.is_ascii_alphanumeric() || at == b'-' || at == b'_');
        !label.is_empty() && label.len() <= 63 && plain
    };
    text.parse::<IpAddr>().is_ok() || (host.len() <= 253 && host.split('.').all(label))
}

struct Collected(Vec<String>);

impl Collected {
    fn add(&mut self, flag: &str, fault: impl Display) {
        self.0.push(format!("--{flag}: {fault}"));
    }

    fn parse(&mut self, flag: &str, text: &str) -> SocketAddr {
        text.parse().unwrap_or_else(|_| {
            self.add(flag, format!("`{text}` is not ADDR:PORT"));
            SocketAddr::from(([127, 0, 0, 1], 0))
        })
    }

    fn not_empty(&mut self, flag: &str, text: String) -> String {
        if text.is_empty() {
            self.add(flag, "is empty");
        }
        text
    }

    fn node_url(&mut self, text: &str) -> String {
        if let Err(error) = record::checked(text) {
            self.add("advertise", format!("`{text}`: {error}"));
        }
        text.to_owned()
    }

    /// Networks, and single addresses as networks of one.
    fn networks(&mut self, flag: &str, texts: Vec<String>) -> Vec<IpNet> {
        let mut parsed = Vec::new();
        for text in texts {
            let network = text.trim().parse::<IpNet>().ok();
            let address = || text.trim().parse::<IpAddr>().ok().map(IpNet::from);
            match network.or_else(address) {
                Some(network) => parsed.push(network),
                None => self.add(
                    flag,
                    format!("`{text}` is neither an address nor a network such as 10.0.0.0/8"),
                ),
            }
        }
        parsed
    }

    fn origins(&mut self, typed: &[String]) -> Vec<String> {
        let mut known = Vec::new();
        for text in typed {
            match origin::normalised(text) {
                Ok(origin) => known.push(origin),
                Err(fault) => self.add("origins", fault),
            }
        }
        known
    }

    /// What a first start is given must be as the API would take it.
    fn presets(&mut self, presets: Presets) -> Presets {
        if let Some(email) = &presets.admin_email
            && !user::is_address(email)
        {
            self.add("admin-email", format!("`{email}` is no e-mail address"));
        }
        if let Some(reason) = presets.admin_password.as_deref().and_then(user::weakness) {
            self.add("admin-password", reason);
        }
        for (flag, secret) in [
            ("api-token", &presets.api_token),
            ("enroll-secret", &presets.enroll_secret),
        ] {
            if secret
                .as_ref()
                .is_some_and(|secret| secret.trim().is_empty())
            {
                self.add(flag, "is blank");
            }
        }
        presets
    }

    fn node_name(&mut self, name: String) -> String {
        let plain = |at: char| at.is_ascii_alphanumeric() || ".-_".contains(at);
        if name.len() > NODE_CHARS_MAX || !name.chars().all(plain) {
            self.add(
                "node",
                format!(
                    "`{name}` may have letters, digits, `.`, `-` and `_`, at most {NODE_CHARS_MAX}"
                ),
            );
        }
        name
    }

    /// An address from which pages load something.
    fn page_url(&mut self, flag: &str, text: String) -> String {
        let uri = text.split('#').next().unwrap_or("").parse::<http::Uri>();
        let good = uri.is_ok_and(|uri| match uri.scheme_str() {
            Some(scheme) => ["http", "https"].contains(&scheme) && uri.host().is_some(),
            None => text.starts_with('/'),
        });
        if !good {
            self.add(
                flag,
                format!("`{text}` is neither an http or https URL nor a path"),
            );
        }
        text
    }

    fn seconds(&mut self, flag: &str, typed: Option<u64>) -> Option<u64> {
        if typed == Some(0) {
            self.add(flag, "must be at least 1");
        }
        typed
    }

    fn metrics(&mut self, listen: Option<String>, open: Option<bool>) -> MetricsFor {
        match (listen, open.unwrap_or(false)) {
            (None, false) => MetricsFor::Machine,
            (None, true) => MetricsFor::Everybody,
            (Some(address), false) => MetricsFor::At(self.parse("metrics-listen", &address)),
            (Some(_), true) => {
                self.add(
                    "metrics-open",
                    "has no meaning with --metrics-listen: leave one out",
                );
                MetricsFor::Machine
            }
        }
    }

    fn connections(&mut self, connections: Option<usize>) -> usize {
        self.least("connections", connections.unwrap_or(limits::CONNECTIONS), 1)
    }

    fn queries(&mut self, campaigns: Option<usize>, kib: Option<usize>) -> Queries {
        let kib = kib.unwrap_or(limits::SQL_BYTES / 1024);
        Queries {
            at_once: self.least(
                "campaigns",
                campaigns.unwrap_or(limits::CAMPAIGNS_AT_ONCE),
                1,
            ),
            bytes: self.least("sql-kib", kib, 1).saturating_mul(1024),
        }
    }

    fn hosts(&mut self, hosts: Option<usize>, rate: Option<u32>) -> Hosts {
        let rate = rate.unwrap_or(limits::ENROLMENTS_PER_SECOND);
        Hosts {
            max: self.least("hosts", hosts.unwrap_or(limits::HOSTS), 1) as u64,
            enroll_rate: self.least("enroll-rate", rate, 1),
        }
    }

    /// Bytes, from MiB; at least one.
    fn mib(&mut self, name: &str, mib: Option<usize>, default: usize) -> usize {
        self.least(name, mib.unwrap_or(default), 1)
            .saturating_mul(1 << 20)
    }

    fn least<T: PartialOrd + Display>(&mut self, flag: &str, value: T, least: T) -> T {
        if value < least {
            self.add(flag, format!("{value} is less than {least}"));
        }
        value
    }

    fn heartbeat(&mut self, seconds: u64) -> Duration {
        if !(1..=30).contains(&seconds) {
            self.add("heartbeat-s", format!("{seconds} is not between 1 and 30"));
        }
        Duration::from_secs(seconds)
    }

    /// One of the words, or the first of them if nothing was typed.
    fn one_of<T: Copy>(&mut self, flag: &str, typed: Option<String>, words: &[(&str, T)]) -> T {
        let text = typed.as_deref().unwrap_or(words[0].0);
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return *value;
        }
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        self.add(flag, format!("`{text}` is none of {}", known.join(", ")));
        words[0].1
    }

    fn log(&mut self, filter: String, format: Option<String>) -> logging::Settings {
        if let Err(error) = logging::check(&filter) {
            self.add("log", error);
        }
        let forms = [
            ("text", logging::Format::Text),
            ("json", logging::Format::Json),
        ];
        logging::Settings {
            filter,
            format: self.one_of("log-format", format, &forms),
        }
    }

    fn store(&mut self, text: &str) -> StoreUrl {
        store_url(text).unwrap_or_else(|fault| {
            self.add("store", fault);
            StoreUrl::Embedded
        })
    }

    fn tls(
        &mut self,
        cert: Option<PathBuf>,
        key: Option<PathBuf>,
        self_signed: bool,
        names: Vec<String>,
    ) -> TlsFiles {
        if !names.is_empty() && !self_signed {
            self.add(
                "tls-names",
                "only says what --tls-self-signed makes a certificate for",
            );
        }
        for name in &names {
            if !is_name(name) {
                self.add(
                    "tls-names",
                    format!("`{name}` is neither a host name nor an address"),
                );
            }
        }
        match (cert, key, self_signed) {
            (Some(cert), Some(key), false) => TlsFiles::Files { cert, key },
            (None, None, true) => TlsFiles::SelfSigned(names),
            (None, None, false) => TlsFiles::None,
            (Some(_), None, _) => {
                self.add("tls-cert", "needs --tls-key");
                TlsFiles::None
            }
            (None, Some(_), _) => {
                self.add("tls-key", "needs --tls-cert");
                TlsFiles::None
            }
            (Some(_), Some(_), true) => {
                self.add("tls-self-signed", "makes no sense beside --tls-cert");
                TlsFiles::None
            }
        }
    }
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
