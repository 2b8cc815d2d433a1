//! Where Redis is: one server, Sentinels that know the master, or a cluster, read from one URL.

use std::time::Duration;

use redis::cluster::{ClusterClient, ClusterClientBuilder};
use redis::io::tcp::{TcpSettings, socket2};
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, IntoConnectionInfo, ProtocolVersion,
    RedisResult, TlsCertificates, TlsMode,
};

use crate::StoreError;

/// How long a call or a connection attempt may take: with what waits before it, under the second that the store's
/// trait promises.
pub(super) const TIMEOUT: Duration = Duration::from_millis(900);
/// Commands that may wait for the socket; the client's default of 50 is less than one burst of agents.
const PIPELINE_COMMANDS: usize = 1024;
/// A connection that is silent for so long is probed, so that a peer that vanished without a word is noticed.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// Unacknowledged bytes older than this end a connection.
const USER_TIMEOUT: Duration = Duration::from_secs(5);
/// The port of a Sentinel if the URL names none.
const SENTINEL_PORT: u16 = 26379;

/// How to reach Redis (or Valkey), and what connections are made of.
#[derive(Clone, Debug)]
pub(super) struct RedisEndpoint {
    kind: Kind,
    /// The servers that the URL names, in its order; for Sentinels, these.
    hosts: Vec<ConnectionInfo>,
    ca_pem: Option<Vec<u8>>,
}

#[derive(Clone, Debug)]
enum Kind {
    Alone,
    Cluster,
    Sentinel { master: String },
}

impl RedisEndpoint {
    /// Reads `redis://host`, `redis+cluster://h1,h2` or `redis+sentinel://h1,h2/master[/db]`, each with `rediss`
    /// for TLS or `valkey`/`valkeys`, and with `user:password@` before the first host (it holds for all of them;
    /// with Sentinels it is Redis's, not theirs). `ca_pem` replaces the machine's trusted roots.
    pub(super) fn parse(url: &str, ca_pem: Option<Vec<u8>>) -> Result<Self, StoreError> {
        let unusable = |why: &str| StoreError::Unavailable(format!("unusable Redis URL: {why}"));
        let (scheme, rest) = url
            .split_once("://")
            .ok_or_else(|| unusable("it has no scheme"))?;
        let (base, kind) = scheme.split_once('+').unwrap_or((scheme, ""));
        let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, hosts) = match authority.rsplit_once('@') {
            Some((login, hosts)) => (format!("{login}@"), hosts),
            None => (String::new(), authority),
        };
        let mut database = path;
        let kind = match kind {
            "" => Kind::Alone,
            "cluster" => Kind::Cluster,
            "sentinel" => {
                let (master, after) = path.split_once('/').unwrap_or((path, ""));
                if master.is_empty() {
                    return Err(unusable("the master's name is missing after the Sentinels"));
                }
                database = after;
                Kind::Sentinel {
                    master: master.to_owned(),
                }
            }
            _ => return Err(unusable("the scheme is unknown")),
        };
        let infos: Result<Vec<_>, StoreError> = hosts
            .split(',')
            .map(|host| {
                let host = with_port(host, &kind);
                let one = format!("{base}://{login}{host}/{database}#{fragment}");
                let one = one.trim_end_matches('#');
                let info = one
                    .into_connection_info()
                    .map_err(|error| unusable(&error.to_string()))?;
                Ok(tuned(info))
            })
            .collect();
        let hosts = infos?;
        if matches!(kind, Kind::Alone) && hosts.len() > 1 {
            return Err(unusable(
                "several hosts need redis+cluster or redis+sentinel",
            ));
        }
        Ok(Self {
            kind,
            hosts,
            ca_pem,
        })
    }

    /// Whether commands are routed by the hash slot of their keys.
    pub(super) const fn is_cluster(&self) -> bool {
        matches!(self.kind, Kind::Cluster)
    }

    /// A client for the cluster, made of the servers that the URL names.
    pub(super) fn cluster(&self) -> RedisResult<ClusterClient> {
        let mut builder = ClusterClientBuilder::new(self.hosts.iter().cloned())
            .connection_timeout(TIMEOUT)
            .response_timeout(TIMEOUT)
            .retries(4)
            .min_retry_wait(20)
            .max_retry_wait(200)
            .tcp_settings(tcp());
        if let Some(certificates) = self.certificates() {
            builder = builder.certs(certificates);
        }
        builder.build()
    }

    /// A client for the one server that is to be written to: the server itself, or the master that the Sentinels name.
    /// In a cluster any server will do for the wake slot. The `attempt` chooses which server or Sentinel is asked first: one
    /// that does not even refuse must not use up the time of every attempt.
    pub(super) async fn server(&self, attempt: usize) -> RedisResult<Client> {
        if let Kind::Sentinel { master } = &self.kind {
            return self.sentinel(master, attempt)?.async_get_client().await;
        }
        let info = self.hosts[attempt % self.hosts.len()].clone();
        match self.certificates() {
            Some(certificates) => Client::build_with_tls(info, certificates),
            None => Client::open(info),
        }
    }

    fn sentinel(&self, master: &str, attempt: usize) -> RedisResult<SentinelClient> {
        let mut addresses: Vec<_> = self.hosts.iter().map(|info| info.addr().clone()).collect();
        addresses.rotate_left(attempt % self.hosts.len());
        let mut builder =
            SentinelClientBuilder::new(addresses, master, SentinelServerType::Master)?
                .set_client_to_redis_protocol(ProtocolVersion::RESP3)
                .set_client_to_redis_tcp_settings(tcp())
                .set_client_to_sentinel_tcp_settings(tcp());
        let info = &self.hosts[0];
        let redis = info.redis_settings();
        builder = builder.set_client_to_redis_db(redis.db());
        if let Some(username) = redis.username() {
            builder = builder.set_client_to_redis_username(username);
        }
        if let Some(password) = redis.password() {
            builder = builder.set_client_to_redis_password(password);
        }
        if let redis::ConnectionAddr::TcpTls { insecure, .. } = info.addr() {
            let mode = if *insecure {
                TlsMode::Insecure
            } else {
                TlsMode::Secure
            };
            builder = builder
                .set_client_to_redis_tls_mode(mode)
                .set_client_to_sentinel_tls_mode(mode);
        }
        if let Some(certificates) = self.certificates() {
            builder = builder
                .set_client_to_redis_certificates(certificates.clone())
                .set_client_to_sentinel_certificates(certificates);
        }
        builder.build()
    }

    fn certificates(&self) -> Option<TlsCertificates> {
        self.ca_pem.clone().map(|pem| TlsCertificates {
            client_tls: None,
            root_cert: Some(pem),
        })
    }
}

/// What every connection has in common. Answers are awaited by our own clock, not by the client's.
pub(super) fn connection_config() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(TIMEOUT))
        .set_response_timeout(None)
        .set_pipeline_buffer_size(PIPELINE_COMMANDS)
}

fn with_port(host: &str, kind: &Kind) -> String {
    let named = host
        .rsplit_once(':')
        .is_some_and(|(_, port)| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()));
    match kind {
        Kind::Sentinel { .. } if !named => format!("{host}:{SENTINEL_PORT}"),
        _ => host.to_owned(),
    }
}

/// RESP3, so that the wake slot is pushed; no delay, which redis 1.x leaves on.
fn tuned(info: ConnectionInfo) -> ConnectionInfo {
    let redis = info
        .redis_settings()
        .clone()
        .set_protocol(ProtocolVersion::RESP3)
        .set_lib_name("answerback", env!("CARGO_PKG_VERSION"));
    info.set_redis_settings(redis).set_tcp_settings(tcp())
}

fn tcp() -> TcpSettings {
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(Duration::from_secs(2));
    let settings = TcpSettings::default()
        .set_nodelay(true)
        .set_keepalive(keepalive);
    #[cfg(target_os = "linux")]
    let settings = settings.set_user_timeout(USER_TIMEOUT);
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(url: &str) -> Vec<String> {
        let place = RedisEndpoint::parse(url, None).unwrap();
        place
            .hosts
            .iter()
            .map(|info| info.addr().to_string())
            .collect()
    }

    #[test]
    fn one_server_sentinels_and_clusters_are_told_apart() {
        assert_eq!(hosts("redis://localhost"), ["localhost:6379"]);
        assert_eq!(hosts("valkeys://u:p@h:1/3"), ["h:1"]);
        assert_eq!(
            hosts("redis+sentinel://a,b:7/mymaster/2"),
            ["a:26379", "b:7"]
        );
        assert_eq!(hosts("rediss+cluster://:p@a:1,b:2"), ["a:1", "b:2"]);
        let place = RedisEndpoint::parse("redis+sentinel://u:p@a,b/mymaster/2", None).unwrap();
        let redis = place.hosts[1].redis_settings();
        assert_eq!(
            (redis.db(), redis.username(), redis.password()),
            (2, Some("u"), Some("p"))
        );
        assert!(!place.is_cluster());
    }

    #[test]
    fn what_is_no_redis_url_is_refused() {
        for url in [
            "localhost",
            "http://a",
            "redis://a,b",
            "redis+sentinel://a",
            "redis+x://a",
        ] {
            assert!(RedisEndpoint::parse(url, None).is_err(), "{url}");
        }
    }
}
