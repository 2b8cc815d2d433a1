//! How a node proves that a relayed request comes from a node: a keyed digest of what it says, good for a moment.

use std::net::IpAddr;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderName, HeaderValue};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::clock::Timestamp;
use crate::text::hex;

/// The header of a relayed request, and of the answer of a node that does not know the session.
pub(in super::super) const HEADER: HeaderName = HeaderName::from_static("answerback-relay");
/// The form of the header that this version speaks.
const VERSION: &str = "1";
/// How far a proof's time may lie from the clock of the node that checks it: nodes' clocks differ by seconds. For so
/// long somebody who has read a proof on the way can repeat the same request, no other.
const WINDOW: Duration = Duration::from_secs(30);

/// What the nodes share. Never sent and never shown.
#[derive(Clone)]
pub struct Secret(Box<[u8]>);

impl Secret {
    /// The secret of this text.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.as_bytes().into())
    }

    /// HMAC-SHA-256 (RFC 2104).
    fn digest(&self, message: &[&[u8]]) -> Option<[u8; 32]> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).ok()?;
        message.iter().for_each(|part| mac.update(part));
        Some(mac.finalize().into_bytes().into())
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Secret")
    }
}

/// What a relayed request is about, apart from the header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject<'s> {
    pub(super) method: &'s str,
    /// With the query, as it is sent.
    pub(super) path: &'s str,
}

/// What a proved header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Proved {
    /// The address of the client that asked the other node.
    pub(super) client: IpAddr,
    /// The directory's record by which the request was sent here.
    pub(super) record: Box<str>,
}

/// The header's value for a request; a record is ASCII without blanks.
pub(super) fn make(
    secret: &Secret,
    subject: Subject<'_>,
    client: IpAddr,
    record: &str,
    now: Timestamp,
) -> Option<HeaderValue> {
    let said = format!("{VERSION} {} {client} {record}", now.0);
    let digest = hex(sign(secret, subject, &said)?);
    HeaderValue::try_from(format!("{said} {digest}")).ok()
}

/// What a header says if it is proved: made with the secret, for this request, just now.
pub(super) fn check(
    secret: &Secret,
    subject: Subject<'_>,
    value: &HeaderValue,
    now: Timestamp,
) -> Option<Proved> {
    let (said, digest) = value.to_str().ok()?.rsplit_once(' ')?;
    let expected = hex(sign(secret, subject, said)?);
    if !bool::from(expected.as_bytes().ct_eq(digest.as_bytes())) {
        return None;
    }
    let mut words = said.split(' ');
    if words.next() != Some(VERSION) {
        return None;
    }
    let made = Timestamp(words.next()?.parse().ok()?);
    let proved = Proved {
        client: words.next()?.parse().ok()?,
        record: words.next()?.into(),
    };
    let fresh = now.since(made) <= WINDOW && made.since(now) <= WINDOW;
    (fresh && words.next().is_none()).then_some(proved)
}

fn sign(secret: &Secret, subject: Subject<'_>, said: &str) -> Option<[u8; 32]> {
    // None of the parts can hold a line feed, so that no two messages read alike.
    secret.digest(&[
        HEADER.as_str().as_bytes(),
        b"\n",
        subject.method.as_bytes(),
        b"\n",
        subject.path.as_bytes(),
        b"\n",
        said.as_bytes(),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_000_000);
    const SUBJECT: Subject<'_> = Subject {
        method: "POST",
        path: "/echo/000/abc/xhr?t=1",
    };
    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

    fn made() -> HeaderValue {
        make(&Secret::new("s"), SUBJECT, CLIENT, "http://a:1#f.0", NOW).unwrap()
    }

    #[test]
    fn the_digest_is_that_of_the_rfc() {
        // RFC 4231, test cases 1, 2 and 6.
        let digest =
            |key: &[u8], message: &[u8]| hex(Secret(key.into()).digest(&[message]).unwrap());
        assert_eq!(
            digest(&[0x0b; 20], b"Hi There"),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
        );
        assert_eq!(
            digest(b"Jefe", b"what do ya want for nothing?"),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert_eq!(
            digest(
                &[0xaa; 131],
                b"Test Using Larger Than Block-Size Key - Hash Key First"
            ),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        );
    }

    #[test]
    fn what_was_made_is_proved_and_holds_the_secret_nowhere() {
        let secret = Secret::new("s");
        let proved = check(&secret, SUBJECT, &made(), NOW).unwrap();
        assert_eq!(proved.client, CLIENT);
        assert_eq!(&*proved.record, "http://a:1#f.0");
        assert_eq!(format!("{secret:?}"), "Secret");
    }

    #[test]
    fn nothing_proves_another_request_another_client_or_another_secret() {
        let secret = Secret::new("s");
        let made = made();
        let refused = |secret: &Secret, method, path, value: &str| {
            let value = HeaderValue::from_str(value).unwrap();
            check(secret, Subject { method, path }, &value, NOW).is_none()
        };
        let text = made.to_str().unwrap();
        let path = SUBJECT.path;
        assert!(!refused(&secret, "POST", path, text));
        assert!(refused(&secret, "GET", path, text));
        assert!(refused(&secret, "POST", "/echo/000/abd/xhr?t=1", text));
        assert!(refused(&Secret::new("t"), "POST", path, text));
        assert!(refused(&Secret::new(""), "POST", path, text));
        for forged in [
            text.replace("192.0.2.7", "192.0.2.8"),
            text.replace("#f.0", "#f.1"),
            text.to_uppercase(),
            text[..text.len() - 1].to_owned(),
            format!("{text} "),
            String::new(),
            "1".to_owned(),
            "1 1000000000 192.0.2.7 http://a:1#f.0 ".to_owned(),
        ] {
            assert!(refused(&secret, "POST", path, &forged), "{forged}");
        }
    }

    #[test]
    fn a_proof_is_good_for_a_moment() {
        let secret = Secret::new("s");
        let at = |milliseconds| check(&secret, SUBJECT, &made(), Timestamp(milliseconds)).is_some();
        assert!(at(NOW.0 + 30_000) && at(NOW.0 - 30_000));
        assert!(!at(NOW.0 + 30_001) && !at(NOW.0 - 30_001));
    }
}
