//! The directory's records as text: where the node is, which of its starts, and which session.

use std::fmt;
use std::sync::Arc;

use http::Uri;

use crate::net::pinned::Pin;
use crate::text::hex;

/// One start of one node: `URL#ID`. The id is another at each start; for a node that speaks TLS itself it is the
/// fingerprint of the certificate that it shows to other nodes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NodeAddress(Arc<str>);

/// What is wrong with a node's URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is not http://HOST:PORT or https://HOST:PORT")]
pub struct BadUrl;

impl NodeAddress {
    /// A place at a URL, which is checked, with a random id.
    ///
    /// # Errors
    /// [`BadUrl`].
    pub fn plain(url: &str, random: u64) -> Result<Self, BadUrl> {
        Ok(Self(format!("{}#{random:016x}", checked(url)?).into()))
    }

    /// A place at an https URL where a certificate with this fingerprint is shown.
    ///
    /// # Errors
    /// [`BadUrl`].
    pub fn pinned(url: &str, pin: Pin) -> Result<Self, BadUrl> {
        Ok(Self(format!("{}#{}", checked(url)?, hex(pin.0)).into()))
    }

    /// The place in a session's record.
    pub(in super::super) fn of(record: &str) -> Option<Self> {
        let (place, _) = record.rsplit_once('.')?;
        let (url, id) = place.split_once('#')?;
        let id_is_sound = matches!(id.len(), 16 | 64) && id.bytes().all(|b| b.is_ascii_hexdigit());
        (id_is_sound && checked(url).is_ok()).then(|| Self(place.into()))
    }

    /// The record of this place's session of that number.
    pub(in super::super) fn record(&self, number: u64) -> String {
        format!("{}.{number}", self.0)
    }

    /// `http://HOST:PORT`.
    #[must_use]
    pub fn url(&self) -> &str {
        self.0.split_once('#').map_or(&self.0, |(url, _)| url)
    }

    /// The certificate's fingerprint, if there is one.
    pub(super) fn pin(&self) -> Option<Pin> {
        let (_, id) = self.0.split_once('#')?;
        let mut pin = [0; 32];
        if id.len() != 64 || !self.url().starts_with("https://") {
            return None;
        }
        for (at, byte) in pin.iter_mut().enumerate() {
            *byte = u8::from_str_radix(id.get(2 * at..2 * at + 2)?, 16).ok()?;
        }
        Some(Pin(pin))
    }
}

impl fmt::Display for NodeAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A node's URL without a trailing slash.
///
/// # Errors
/// [`BadUrl`] if it has anything but scheme, host and port.
pub fn checked(url: &str) -> Result<&str, BadUrl> {
    let url = url.strip_suffix('/').unwrap_or(url);
    let uri: Uri = url.parse().map_err(|_| BadUrl)?;
    let plain = url.bytes().all(|byte| byte.is_ascii_graphic()) && !url.contains(['#', '?', '@']);
    let scheme = matches!(uri.scheme_str(), Some("http" | "https"));
    let no_path = matches!(uri.path(), "" | "/") && !url.ends_with('/');
    let host = uri.host().is_some_and(|host| !host.is_empty());
    (plain && scheme && no_path && host)
        .then_some(url)
        .ok_or(BadUrl)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_leads_back_to_its_place() {
        let plain = NodeAddress::plain("http://10.0.0.1:8080/", 7).unwrap();
        let record = plain.record(12);
        assert_eq!(record, "http://10.0.0.1:8080#0000000000000007.12");
        assert_eq!(NodeAddress::of(&record).unwrap(), plain);
        assert_eq!((plain.url(), plain.pin()), ("http://10.0.0.1:8080", None));
        let pinned = NodeAddress::pinned("https://[::1]:8443", Pin([0xa5; 32])).unwrap();
        let back = NodeAddress::of(&pinned.record(0)).unwrap();
        assert_eq!(
            (back.url(), back.pin()),
            ("https://[::1]:8443", Some(Pin([0xa5; 32])))
        );
        assert_ne!(
            plain,
            NodeAddress::plain("http://10.0.0.1:8080", 8).unwrap()
        );
    }

    #[test]
    fn only_addresses_of_nodes_are_taken() {
        for url in [
            "",
            "x",
            "a:1",
            "ftp://a:1",
            "http://",
            "http://a:1/path",
            "http://a:1?q",
            "http://u@a:1",
            "http://a b:1",
            "http://a:1#x",
            "http://a:1//",
        ] {
            assert_eq!(NodeAddress::plain(url, 1), Err(BadUrl), "{url}");
        }
        for record in [
            "",
            "a:1",
            "http://a:1#7.1",
            "http://a:1",
            "ftp://a:1#0000000000000007.1",
        ] {
            assert_eq!(NodeAddress::of(record), None, "{record}");
        }
    }
}
