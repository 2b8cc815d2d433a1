//! The requests by which HTTP clients send: xhr_send and jsonp_send.

use bytes::Buf;
use http::header::{CONNECTION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use tokio_stream::Stream;
use warp::reply::Response;

use super::headers::{PLAIN, Recipes};
use super::pages::answer;
use super::registry::Registry;
use crate::net::body::{self, Limits};
use crate::sockjs::inbound::{Refusal, decode_jsonp_send, decode_xhr_send};

/// By which of the two ways a client sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Xhr,
    Jsonp,
}

/// Takes the messages of one request and answers before the application has dealt with them. The
/// body is judged before the session is looked up, as the protocol's suite has it.
pub(super) async fn send<S, B, E>(
    registry: &Registry,
    way: Way,
    session: &str,
    request: &HeaderMap,
    body: S,
) -> Response
where
    S: Stream<Item = Result<B, E>>,
    B: Buf,
{
    let settings = registry.settings();
    let recipes = Recipes::new(request)
        .no_cache()
        .content_type(PLAIN)
        .when(way == Way::Xhr, Recipes::cors)
        .when(settings.jsessionid, Recipes::jsessionid);
    let mut headers = recipes.done();
    let limits = Limits {
        bytes: settings.body_bytes_max,
        time: settings.body_timeout,
        budget: registry.bounds().bodies.clone(),
    };
    let body = match body::read(request, body, &limits).await {
        Ok(body) => body,
        Err(fault) => {
            // What is left of the body is not worth reading.
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
            return answer(fault.status(), headers, fault.to_string());
        }
    };
    let decoded = match way {
        Way::Xhr => decode_xhr_send(&body),
        Way::Jsonp => decode_jsonp_send(media_type(request), &body),
    };
    let messages = match decoded {
        Ok(messages) => messages,
        Err(refusal) => return refused(headers, refusal),
    };
    let Some(handle) = registry.find(session) else {
        return answer(StatusCode::NOT_FOUND, headers, "Session is unknown.\n");
    };
    handle.deliver(&messages, registry.clock().now());
    match way {
        Way::Xhr => answer(StatusCode::NO_CONTENT, headers, ""),
        Way::Jsonp => answer(StatusCode::OK, headers, "ok"),
    }
}

fn refused(headers: HeaderMap, refusal: Refusal) -> Response {
    let status = StatusCode::from_u16(refusal.status());
    let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer(status, headers, refusal.text())
}

fn media_type(request: &HeaderMap) -> Option<&str> {
    request.get(CONTENT_TYPE)?.to_str().ok()
}
