//! This node among others: how they reach it, what they share, and the directory of sessions in the store.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use tokio::net::UdpSocket;

use super::start::Parts;
use crate::config::{Settings, StoreUrl, TlsFiles};
use crate::net::tls::Tls;
use crate::store::Store;
use crate::transport::directory::{Directory, DirectoryUnavailable};
use crate::transport::relay::{NodeAddress, Relay, Secret};

/// How long a session's record lasts after its node died without a word. Until then the id is taken, unless somebody
/// asks for it and finds the node dead.
const RECORD_LIFETIME: Duration = Duration::from_secs(90);
/// The port of a Redis whose URL names none.
const REDIS_PORT: u16 = 6379;

/// The directory in the store.
struct StoreDirectory(Arc<dyn Store>);

#[async_trait]
impl Directory for StoreDirectory {
    async fn claim(&self, session: &str, record: &str) -> Result<bool, DirectoryUnavailable> {
        let claimed = self.0.put_session(session, record, RECORD_LIFETIME).await;
        claimed.map_err(|error| DirectoryUnavailable(error.to_string()))
    }

    async fn look_up(&self, session: &str) -> Result<Option<String>, DirectoryUnavailable> {
        let owner = self.0.session_owner(session).await;
        owner.map_err(|error| DirectoryUnavailable(error.to_string()))
    }

    async fn forget(&self, session: &str, record: &str) {
        self.0.drop_session(session, record).await;
    }

    fn lifetime(&self) -> Duration {
        RECORD_LIFETIME
    }
}

/// The relay to other nodes; none where the store is this node's alone.
pub(super) async fn relay(
    parts: &Parts,
    settings: &Settings,
    address: SocketAddr,
    tls: Option<&Tls>,
) -> anyhow::Result<Option<Arc<Relay>>> {
    let StoreUrl::Redis(store_url) = &settings.store else {
        return Ok(None);
    };
    let Some(url) = own_url(settings, address, store_url).await else {
        tracing::warn!(
            "other nodes cannot reach this one: it listens on every address and cannot tell by which; give --advertise"
        );
        return Ok(None);
    };
    let place = match tls {
        Some(tls) if url.starts_with("https://") => NodeAddress::pinned(&url, tls.pin()),
        _ => NodeAddress::plain(&url, random()?),
    };
    let place = place.with_context(|| format!("--advertise: `{url}`"))?;
    let secret = match &settings.node.secret {
        Some(secret) => Some(secret.clone()),
        None => {
            let offered: String = format!("{:016x}{:016x}{:016x}", random()?, random()?, random()?);
            let shared = parts.store.node_secret(&offered).await;
            shared.context("cannot share a secret with other nodes")?
        }
    };
    let Some(secret) = secret else {
        return Ok(None);
    };
    tracing::info!(url, "other nodes reach this one here");
    let directory = Arc::new(StoreDirectory(Arc::clone(&parts.store)));
    let clock = parts.clock.clone();
    Ok(Some(Relay::new(
        directory,
        place,
        Secret::new(&secret),
        clock,
    )))
}

/// How other nodes reach this one: as it was told, or where it listens; if that is everywhere, the address by which
/// it reaches Redis itself.
async fn own_url(settings: &Settings, address: SocketAddr, store_url: &str) -> Option<String> {
    if let Some(url) = &settings.node.advertise {
        return Some(url.clone());
    }
    let towards_store = towards(store_url).await;
    let ip = if address.ip().is_unspecified() {
        towards_store?
    } else {
        address.ip()
    };
    if ip.is_loopback() && towards_store.is_some_and(|ip| !ip.is_loopback()) {
        tracing::warn!(
            "Redis is on another machine, and only this one reaches {address}: if there are nodes on others, give --advertise"
        );
    }
    let scheme = match settings.tls {
        TlsFiles::None => "http",
        _ => "https",
    };
    let address = SocketAddr::new(ip, address.port());
    Some(format!("{scheme}://{address}"))
}

/// The local address from which packets to the (first) server of a Redis URL leave. None is sent.
async fn towards(store_url: &str) -> Option<IpAddr> {
    let (host, port) = first_server(store_url)?;
    let servers = tokio::net::lookup_host((host, port)).await.ok()?;
    for server in servers {
        let any: SocketAddr = match server {
            SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
            SocketAddr::V6(_) => ([0; 16], 0).into(),
        };
        let Ok(socket) = UdpSocket::bind(any).await else {
            continue;
        };
        if socket.connect(server).await.is_ok() {
            return Some(socket.local_addr().ok()?.ip());
        }
    }
    None
}

fn first_server(url: &str) -> Option<(&str, u16)> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let hosts = authority.rsplit('@').next()?;
    let first = hosts.split(',').next()?;
    let (host, port) = match first.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().ok()?),
        _ => (first, REDIS_PORT),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    (!host.is_empty()).then_some((host, port))
}

fn random() -> anyhow::Result<u64> {
    getrandom::u64().context("no randomness")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_server_of_a_redis_url_is_found() {
        for (url, expected) in [
            ("redis://h:1/0", Some(("h", 1))),
            ("redis://h", Some(("h", 6379))),
            ("rediss://user:p@ss@h:7/", Some(("h", 7))),
            ("redis+cluster://a:1,b:2", Some(("a", 1))),
            ("redis+sentinel://a,b/master", Some(("a", 6379))),
            ("redis://[::1]:5", Some(("::1", 5))),
            ("redis://[::1]", Some(("::1", 6379))),
            ("redis://", None),
        ] {
            assert_eq!(first_server(url), expected, "{url}");
        }
    }

    #[tokio::test]
    async fn the_way_to_a_server_on_this_machine_is_loopback() {
        let ip = towards("redis://127.0.0.1:6379").await.unwrap();
        assert!(ip.is_loopback());
    }
}
