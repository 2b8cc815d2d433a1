//! Who is on the other end: the socket's peer, and the client that trusted proxies speak for.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::HeaderMap;
use ipnet::IpNet;

/// The connection a request came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnInfo {
    /// The other end of the socket.
    pub peer: SocketAddr,
    /// Whether the connection is encrypted up to this process.
    pub tls: bool,
    /// Whether the client has shown a certificate that an authority of `--tls-client-ca` vouches for.
    pub certified: bool,
    /// Whether the response may be a [`SocketTakeover`](super::SocketTakeover).
    pub hands_over: bool,
}

/// The networks whose `X-Forwarded-For` is believed.
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies(Arc<[IpNet]>);

impl TrustedProxies {
    /// Trusts these networks.
    #[must_use]
    pub fn new(networks: impl IntoIterator<Item = IpNet>) -> Self {
        Self(networks.into_iter().collect())
    }

    /// The client's address: the peer itself, unless it is a trusted proxy; then the right-most address
    /// of `X-Forwarded-For` that is not one. Whatever stands left of that, the client may have invented.
    #[must_use]
    pub fn client_address(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        if !self.is_trusted(client) {
            return client;
        }
        let hops = headers.get_all("x-forwarded-for").into_iter().rev();
        // A header that is not text hides the hops to its left as an unreadable entry does.
        for hop in hops.flat_map(|header| header.to_str().unwrap_or("?").rsplit(',')) {
            let Some(address) = parse_hop(hop.trim()) else {
                return client;
            };
            client = address;
            if !self.is_trusted(client) {
                return client;
            }
        }
        client
    }

    pub(super) fn is_trusted(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// An address, with or without a port, IPv6 with or without brackets.
fn parse_hop(hop: &str) -> Option<IpAddr> {
    let bare = hop
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let address = bare.unwrap_or(hop).parse::<IpAddr>().ok();
    let with_port = || Some(hop.parse::<SocketAddr>().ok()?.ip());
    address.or_else(with_port).map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(peer: &str, headers: &[&str]) -> String {
        let networks = ["10.0.0.0/8", "fd00::/8"];
        let trusted = TrustedProxies::new(networks.iter().map(|net| net.parse().unwrap()));
        let mut map = HeaderMap::new();
        for header in headers {
            map.append("x-forwarded-for", header.parse().unwrap());
        }
        trusted
            .client_address(peer.parse().unwrap(), &map)
            .to_string()
    }

    #[test]
    fn a_stranger_is_believed_nothing() {
        assert_eq!(address("203.0.113.9", &["198.51.100.1"]), "203.0.113.9");
        assert_eq!(address("::ffff:203.0.113.9", &[]), "203.0.113.9");
    }

    #[test]
    fn the_right_most_untrusted_hop_is_the_client() {
        assert_eq!(
            address("10.0.0.1", &["1.1.1.1, 198.51.100.7"]),
            "198.51.100.7"
        );
        assert_eq!(
            address("10.0.0.1", &["1.1.1.1, 198.51.100.7, 10.9.9.9"]),
            "198.51.100.7"
        );
        assert_eq!(
            address("fd00::1", &["1.1.1.1", "2001:db8::5, [fd00::2]:443"]),
            "2001:db8::5"
        );
        assert_eq!(
            address("::ffff:10.0.0.1", &["198.51.100.7:61234"]),
            "198.51.100.7"
        );
    }

    #[test]
    fn unreadable_hops_end_the_search() {
        assert_eq!(address("10.0.0.1", &["1.1.1.1, unknown"]), "10.0.0.1");
        assert_eq!(
            address("10.0.0.1", &["1.1.1.1, unknown, 10.2.2.2"]),
            "10.2.2.2"
        );
        assert_eq!(address("10.0.0.1", &["1.1.1.1", "\u{e4}"]), "10.0.0.1");
    }

    #[test]
    fn a_chain_of_proxies_alone_gives_the_furthest() {
        assert_eq!(address("10.0.0.1", &["10.3.3.3"]), "10.3.3.3");
        assert_eq!(address("10.0.0.1", &[]), "10.0.0.1");
    }
}
