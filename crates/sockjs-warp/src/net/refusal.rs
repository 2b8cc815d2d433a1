//! Refusals that no route has made: of requests that are not HTTP, too long, or too late.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Response, StatusCode};

const JSON: &str = "application/json; charset=utf-8";

/// The responses of hyper's own to what it cannot parse, as they begin.
const FIRST: &[u8] = b"HTTP/1.1 4";

/// The response to send in place of hyper's, if `head` is a refusal that hyper has made itself: those have no body, and
/// no header but these three.
pub(super) fn instead_of(head: &[u8]) -> Option<Bytes> {
    // All other responses are told by this.
    if !head.starts_with(FIRST) {
        return None;
    }
    let text = std::str::from_utf8(head).ok()?.strip_suffix("\r\n\r\n")?;
    let mut lines = text.split("\r\n");
    let status = lines.next()?.get(9..12)?.parse().ok()?;
    let is_plain = lines.all(|line| {
        let name = line.split(':').next().unwrap_or_default();
        line.eq_ignore_ascii_case("content-length: 0")
            || name.eq_ignore_ascii_case("connection")
            || name.eq_ignore_ascii_case("date")
    });
    is_plain.then(|| response(status))?
}

/// To a request whose header is not whole in time.
pub(super) fn too_late() -> Bytes {
    response(StatusCode::REQUEST_TIMEOUT.as_u16()).unwrap_or_default()
}

/// The whole response, in the shape of the API's refusals. Agents understand it too: it has no `error`, which would
/// make them send the same again.
fn response(status: u16) -> Option<Bytes> {
    let (title, reason) = match status {
        400 => (
            "Bad request",
            "the request is not valid HTTP/1.1; check its request line and headers",
        ),
        408 => (
            "Request Timeout",
            "the request's header did not arrive in time; send it again",
        ),
        414 => (
            "URI Too Long",
            "the request's address is too long; send what it says in a body, or in several requests",
        ),
        431 => (
            "Request Header Fields Too Large",
            "request line and headers are larger than the server takes; send fewer or shorter headers and cookies",
        ),
        _ => return None,
    };
    let name = StatusCode::from_u16(status).ok()?;
    let name = name.canonical_reason().unwrap_or(title);
    let body = document(title, reason);
    let response = format!(
        "HTTP/1.1 {status} {name}\r\nconnection: close\r\ncontent-type: {JSON}\r\n\
         cache-control: no-store\r\nx-content-type-options: nosniff\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    Some(response.into())
}

/// To a request for no host, or for several.
pub(super) fn no_host<B: From<Bytes>>() -> Response<B> {
    let text = document("Bad request", "a request must have exactly one Host header");
    let mut response = Response::new(Bytes::from(text).into());
    *response.status_mut() = StatusCode::BAD_REQUEST;
    let headers = response.headers_mut();
    for (name, value) in [
        (CONNECTION, "close"),
        (CONTENT_TYPE, JSON),
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// The API's shape of a refusal; neither text needs escapes.
fn document(title: &str, reason: &str) -> String {
    format!(
        "{{\n  \"message\": \"{title}\",\n  \"errors\": [\n    {{\n      \"name\": \"base\",\n      \"reason\": \"{reason}\"\n    }}\n  ]\n}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_refusals_without_a_word_are_replaced() {
        let own = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\ndate: x\r\n\r\n";
        let told = instead_of(own).unwrap();
        let text = std::str::from_utf8(&told).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())));
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["message"], "Request Header Fields Too Large");
        assert!(body.get("error").is_none());
        for other in [
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 1\r\n\r\nx",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n",
        ] {
            assert_eq!(instead_of(other.as_bytes()), None, "{other}");
        }
    }
}
