//! From what was typed to what is meant: every fault is collected, each with its flag's name.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::origin;
use super::raw::Raw;
use super::{Logs, Node, Presets, Settings, StoreUrl, TlsFiles};
use crate::auth::user;
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
    if faults.0.is_empty() {
        Ok(settings)
    } else {
        Err(Faults(faults.0))
    }
}

fn settings(faults: &mut Collected, raw: Raw) -> Settings {
    let text = |typed: Option<String>, default: &str| typed.unwrap_or_else(|| default.to_owned());
    Settings {
        listen: faults.parse("listen", &text(raw.listen, "127.0.0.1:8080")),
        store: faults.store(&text(raw.store, "embedded")),
        data_dir: raw
            .data_dir
            .unwrap_or_else(|| PathBuf::from("answerback-data")),
        demo: raw.demo.unwrap_or(0),
        tls: faults.tls(
            raw.tls_cert,
            raw.tls_key,
            raw.tls_self_signed.unwrap_or(false),
        ),
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
        rules: rules(
            faults.seconds("unclaimed-s", raw.unclaimed_s),
            raw.resume_grace_s,
            faults.seconds("retention-s", raw.retention_s),
            faults.seconds("overdue-s", raw.overdue_s),
        ),
        live_query_rest_period: faults
            .seconds("live-query-rest-period-s", raw.live_query_rest_period_s)
            .map_or(Duration::from_secs(25), Duration::from_secs),
        creator_only: raw.creator_only.unwrap_or(false),
        log_bytes_max: faults.least("log-mib", raw.log_mib.unwrap_or(128), 1) << 20,
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
        connections: faults.least("connections", raw.connections.unwrap_or(50_000), 1),
        drain: Duration::from_secs(raw.drain_s.unwrap_or(0)),
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

fn rules(
    unclaimed: Option<u64>,
    grace: Option<u64>,
    retention: Option<u64>,
    overdue: Option<u64>,
) -> Rules {
    let or = |seconds: Option<u64>, default| seconds.map_or(default, Duration::from_secs);
    let rules = Rules::default();
    Rules {
        unclaimed: or(unclaimed, rules.unclaimed),
        resume_grace: or(grace, rules.resume_grace),
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

    fn least(&mut self, flag: &str, value: usize, least: usize) -> usize {
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

    fn tls(&mut self, cert: Option<PathBuf>, key: Option<PathBuf>, self_signed: bool) -> TlsFiles {
        match (cert, key, self_signed) {
            (Some(cert), Some(key), false) => TlsFiles::Files { cert, key },
            (None, None, true) => TlsFiles::SelfSigned,
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
mod tests {
    use super::*;

    fn faults(raw: Raw) -> Vec<String> {
        check(raw).err().map(|faults| faults.0).unwrap_or_default()
    }

    #[test]
    fn nothing_typed_is_a_loopback_broker_with_the_embedded_store() {
        let settings = check(Raw::default()).unwrap();
        assert_eq!(settings.listen, "127.0.0.1:8080".parse().unwrap());
        assert_eq!(settings.store, StoreUrl::Embedded);
        assert_eq!(settings.rules.unclaimed, Duration::from_secs(60));
    }

    #[test]
    fn every_fault_is_told_with_its_flag() {
        let raw = Raw {
            listen: Some("nonsense".into()),
            store: Some("mysql://x".into()),
            tls_cert: Some("c.pem".into()),
            trusted_proxies: Some(vec!["10.0.0.0/8".into(), "ten".into()]),
            fsync: Some("sometimes".into()),
            heartbeat_s: Some(35),
            advertise: Some("10.0.0.1:8080".into()),
            ..Raw::default()
        };
        let told = faults(raw);
        for flag in [
            "--listen",
            "--store",
            "--tls-cert",
            "--trusted-proxies",
            "--fsync",
            "--heartbeat-s",
            "--advertise",
        ] {
            assert_eq!(
                told.iter().filter(|fault| fault.starts_with(flag)).count(),
                1,
                "{flag} in {told:?}"
            );
        }
    }

    #[test]
    fn what_is_set_to_nothing_is_not_set() {
        let raw: Raw = toml::from_str(
            "listen = ''\nstore = ''\nadmin_password = ''\nenroll_secret = ''\norigins = ['', ' ']\ntls_cert = ''\nlog = ''\nnode = ''",
        )
        .unwrap();
        let settings = check(raw).unwrap();
        assert_eq!(settings.presets.enroll_secret, None);
        assert_eq!(settings.presets.admin_password, None);
        assert_eq!((settings.origins, settings.node.name), (None, None));
        assert_eq!(settings.listen, "127.0.0.1:8080".parse().unwrap());
    }

    #[test]
    fn what_would_be_refused_later_is_refused_at_once() {
        let raw: Raw = toml::from_str(
            "admin_email = 'nobody'\nadmin_password = 'short'\nenroll_secret = '  '\napi_token = ' '\nnode = 'a b'\n\
             origins = ['console.example']\nsockjs_url = 'javascript:alert(1)'\nunclaimed_s = 0\nretention_s = 0\n\
             overdue_s = 0\nlive_query_rest_period_s = 0\ntrusted_proxies = ['10.0.0.5', '10.0.0.0/8', 'ten']",
        )
        .unwrap();
        let told = faults(raw);
        for flag in [
            "--admin-email",
            "--admin-password",
            "--enroll-secret",
            "--api-token",
            "--node",
            "--origins",
            "--sockjs-url",
            "--unclaimed-s",
            "--retention-s",
            "--overdue-s",
            "--live-query-rest-period-s",
            "--trusted-proxies",
        ] {
            let count = told
                .iter()
                .filter(|fault| fault.starts_with(&format!("{flag}:")))
                .count();
            assert_eq!(count, 1, "{flag} in {told:?}");
        }
    }

    #[test]
    fn a_store_is_embedded_or_redis_or_valkey() {
        for url in [
            "redis://a",
            "rediss+cluster://a,b",
            "valkeys+sentinel://a/m",
        ] {
            assert_eq!(store_url(url), Ok(StoreUrl::Redis(url.to_owned())));
        }
        for url in ["redis", "redis+x://a", "mysql://a", "redisx://a", ""] {
            assert!(store_url(url).is_err(), "{url}");
        }
    }

    #[test]
    fn plain_http_beyond_loopback_must_be_asked_for() {
        let open = Raw {
            listen: Some("0.0.0.0:80".into()),
            ..Raw::default()
        };
        assert_eq!(faults(open.clone()).len(), 1);
        assert!(
            faults(Raw {
                insecure_http: Some(true),
                ..open.clone()
            })
            .is_empty()
        );
        assert!(
            faults(Raw {
                tls_self_signed: Some(true),
                ..open
            })
            .is_empty()
        );
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_knows_no_other_words() {
        let file: Raw = toml::from_str("listen = \"127.0.0.1:1\"\nlog_mib = 7\n").unwrap();
        let typed = Raw {
            listen: Some("127.0.0.1:2".into()),
            ..Raw::default()
        };
        let settings = check(typed.or(file)).unwrap();
        assert_eq!(
            (settings.listen.port(), settings.log_bytes_max),
            (2, 7 << 20)
        );
        assert!(toml::from_str::<Raw>("lisen = 1").is_err());
    }
}
