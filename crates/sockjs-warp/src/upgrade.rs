//! The WebSocket handshake: judges the request, answers 101, and hands over the bare socket.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{
    ALLOW, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, Method, Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use sha1::{Digest, Sha1};

use crate::net::Socket;
use crate::sockjs::deflate::negotiate;

/// Why a request is no WebSocket handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Another method than GET.
    #[error("only GET opens a WebSocket")]
    Method,
    /// No `Upgrade: websocket`, or a connection that cannot be upgraded.
    #[error("Can \"Upgrade\" only to \"WebSocket\".")]
    Upgrade,
    /// `Connection` does not say so too.
    #[error("\"Connection\" must be \"Upgrade\".")]
    Connection,
    /// A version that is not spoken here.
    #[error("\"Sec-WebSocket-Version\" must be 13.")]
    Version,
    /// No key, or one that is not 16 bytes in base64.
    #[error("\"Sec-WebSocket-Key\" is not valid.")]
    Key,
}

impl Refusal {
    /// The whole answer.
    #[must_use]
    pub fn response(self) -> Response<Bytes> {
        let (status, header) = match self {
            Self::Method => (
                StatusCode::METHOD_NOT_ALLOWED,
                (ALLOW, HeaderValue::from_static("GET")),
            ),
            Self::Version => (
                StatusCode::UPGRADE_REQUIRED,
                (SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13")),
            ),
            Self::Upgrade | Self::Connection | Self::Key => (StatusCode::BAD_REQUEST, plain_text()),
        };
        // sockjs-protocol wants a 405 without type and body.
        let body = if self == Self::Method {
            Bytes::new()
        } else {
            Bytes::from(self.to_string())
        };
        let nosniff = HeaderValue::from_static("nosniff");
        answer(status, [header, (X_CONTENT_TYPE_OPTIONS, nosniff)], body)
    }
}

fn plain_text() -> (HeaderName, HeaderValue) {
    let value = HeaderValue::from_static("text/plain; charset=UTF-8");
    (CONTENT_TYPE, value)
}

fn answer(
    status: StatusCode,
    headers: impl IntoIterator<Item = (HeaderName, HeaderValue)>,
    body: Bytes,
) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().extend(headers);
    response
}

/// A handshake that can be accepted.
#[derive(Debug)]
pub struct Handshake {
    accept: HeaderValue,
    extensions: Option<&'static str>,
    upgrade: OnUpgrade,
}

/// Why an accepted handshake came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// The connection ended before the 101 was written.
    #[error("connection ended during the handshake")]
    Ended(#[source] hyper::Error),
    /// The connection is not one that `net::serve` accepted.
    #[error("connection is of a foreign kind")]
    Foreign,
}

impl Handshake {
    /// Judges a request; `upgrade` is the extension that hyper left in it. Versions 7 and 8 had the
    /// same handshake and frames as 13 and are taken as such (the suites still test them).
    ///
    /// # Errors
    /// [`Refusal`], to be answered with [`Refusal::response`].
    pub fn judge(
        method: &Method,
        headers: &HeaderMap,
        upgrade: Option<OnUpgrade>,
        deflate: bool,
    ) -> Result<Self, Refusal> {
        if method != Method::GET {
            return Err(Refusal::Method);
        }
        let upgrade = upgrade.filter(|_| lists(headers, &UPGRADE, "websocket"));
        let upgrade = upgrade.ok_or(Refusal::Upgrade)?;
        if !lists(headers, &CONNECTION, "upgrade") {
            return Err(Refusal::Connection);
        }
        let version = headers
            .get(SEC_WEBSOCKET_VERSION)
            .map(HeaderValue::as_bytes);
        if !matches!(version, Some(b"13" | b"8" | b"7")) {
            return Err(Refusal::Version);
        }
        let key = headers.get(SEC_WEBSOCKET_KEY).ok_or(Refusal::Key)?;
        let accept = accept_for(key.as_bytes().trim_ascii()).ok_or(Refusal::Key)?;
        let offers = headers.get_all(SEC_WEBSOCKET_EXTENSIONS).into_iter();
        let extensions = deflate
            .then(|| negotiate(offers.filter_map(|offer| offer.to_str().ok())))
            .flatten();
        Ok(Self {
            accept,
            extensions,
            upgrade,
        })
    }

    /// Whether messages may be compressed, in both directions.
    #[must_use]
    pub const fn deflate(&self) -> bool {
        self.extensions.is_some()
    }

    /// The 101 that accepts it.
    #[must_use]
    pub fn response(&self) -> Response<Bytes> {
        let extensions = self
            .extensions
            .map(|value| (SEC_WEBSOCKET_EXTENSIONS, HeaderValue::from_static(value)));
        let headers = [
            (UPGRADE, HeaderValue::from_static("websocket")),
            (CONNECTION, HeaderValue::from_static("Upgrade")),
            (SEC_WEBSOCKET_ACCEPT, self.accept.clone()),
        ];
        let headers = headers.into_iter().chain(extensions);
        answer(StatusCode::SWITCHING_PROTOCOLS, headers, Bytes::new())
    }

    /// Waits until the answer is written and takes the socket, which speaks WebSocket from here on.
    ///
    /// # Errors
    /// [`UpgradeError`].
    pub async fn upgraded(self) -> Result<Socket, UpgradeError> {
        let upgraded = self.upgrade.await.map_err(UpgradeError::Ended)?;
        let parts = upgraded
            .downcast::<TokioIo<Socket>>()
            .map_err(|_| UpgradeError::Foreign)?;
        Ok(Socket::from_hyper(parts.io, parts.read_buf))
    }
}

/// Whether a comma list of tokens holds `token`, in any case.
fn lists(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).into_iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|one| one.trim().eq_ignore_ascii_case(token))
}

/// The proof that the server has understood the key (RFC 6455, 4.2.2), `None` if it is none.
fn accept_for(key: &[u8]) -> Option<HeaderValue> {
    const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    if STANDARD.decode(key).ok()?.len() != 16 {
        return None;
    }
    let digest = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    HeaderValue::from_str(&STANDARD.encode(digest)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(method: &Method, headers: &[(&'static str, &str)], real: bool) -> Option<Refusal> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        let upgrade = real.then(|| hyper::upgrade::on(http::Request::new(())));
        Handshake::judge(method, &map, upgrade, true).err()
    }

    const KEY: (&str, &str) = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    const WEBSOCKET: (&str, &str) = ("upgrade", "WebSocket");
    const KEPT: (&str, &str) = ("connection", "keep-alive, UPGRADE");
    const VERSION: (&str, &str) = ("sec-websocket-version", "13");

    #[test]
    fn handshakes_are_judged_in_the_order_that_the_suites_expect() {
        let all = [WEBSOCKET, KEPT, VERSION, KEY];
        assert_eq!(judge(&Method::GET, &all, true), None);
        assert_eq!(judge(&Method::POST, &all, true), Some(Refusal::Method));
        assert_eq!(judge(&Method::GET, &all, false), Some(Refusal::Upgrade));
        assert_eq!(judge(&Method::GET, &[], true), Some(Refusal::Upgrade));
        let closing = [WEBSOCKET, ("connection", "close"), VERSION, KEY];
        assert_eq!(
            judge(&Method::GET, &closing, true),
            Some(Refusal::Connection)
        );
        let old = [WEBSOCKET, KEPT, ("sec-websocket-version", "6"), KEY];
        assert_eq!(judge(&Method::GET, &old, true), Some(Refusal::Version));
        let seven = [WEBSOCKET, KEPT, ("sec-websocket-version", "7"), KEY];
        assert_eq!(judge(&Method::GET, &seven, true), None);
        let short = [WEBSOCKET, KEPT, VERSION, ("sec-websocket-key", "c2hvcnQ=")];
        assert_eq!(judge(&Method::GET, &short, true), Some(Refusal::Key));
    }

    #[test]
    fn refusals_have_the_statuses_and_texts_of_the_protocol() {
        let response = Refusal::Method.response();
        assert_eq!(response.status(), 405);
        assert_eq!(response.headers()[ALLOW], "GET");
        assert!(response.body().is_empty() && !response.headers().contains_key(CONTENT_TYPE));
        let response = Refusal::Upgrade.response();
        assert_eq!(response.status(), 400);
        assert_eq!(response.body(), "Can \"Upgrade\" only to \"WebSocket\".");
        let response = Refusal::Connection.response();
        assert_eq!(response.body(), "\"Connection\" must be \"Upgrade\".");
        let response = Refusal::Version.response();
        assert_eq!(response.status(), 426);
        assert_eq!(response.headers()[SEC_WEBSOCKET_VERSION], "13");
    }

    #[test]
    fn the_accept_key_is_the_one_of_the_standard() {
        let accept = accept_for(KEY.1.as_bytes()).unwrap();
        assert_eq!(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
