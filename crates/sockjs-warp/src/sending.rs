//! The requests by which HTTP clients send: xhr_send and jsonp_send.

use std::sync::Arc;

use bytes::{Buf, Bytes};
use http::header::{CONNECTION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use tokio_stream::Stream;
use warp::reply::Response;

use super::bounds::NotOpened;
use super::call::Call;
use super::handle::Handle;
use super::headers::{PLAIN, Recipes};
use super::location::SessionLocation;
use super::pages::{answer, not_opened, unknown_to_node};
use super::registry::Registry;
use super::relay::{Outcome, RequestOrigin};
use crate::limits::account::Party;
use crate::net::body::{self, Limits};
use crate::sockjs::inbound::{Refusal, decode_jsonp_send, decode_xhr_send};

/// A body, its messages, and how they are kept.
const BODY_BECOMES: usize = 3;

/// By which of the two ways a client sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Xhr,
    Jsonp,
}

/// Takes the messages of one request, wherever their session is, and answers before the application has dealt with
/// them. The body is judged before the session is looked up, as the protocol's suite has it.
pub(super) async fn send<S, B, E>(
    registry: &Registry,
    way: Way,
    session: &str,
    call: &Call<'_>,
    body: S,
) -> Response
where
    S: Stream<Item = Result<B, E>>,
    B: Buf,
{
    let settings = registry.settings();
    let request = call.headers;
    let recipes = Recipes::new(request)
        .no_cache()
        .content_type(PLAIN)
        .when(way == Way::Xhr, Recipes::cors)
        .when(settings.jsessionid, Recipes::jsessionid);
    let mut headers = recipes.done();
    let limits = Limits {
        bytes: settings.body_bytes_max,
        time: settings.body_timeout,
        account: registry.bounds().bodies.clone(),
        becomes: BODY_BECOMES,
    };
    let body = match body::read(request, body, &limits, || Party::Address(call.address)).await {
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
    match taker(registry, session, call, body).await {
        Taker::Here(handle) => handle.deliver(&messages, registry.clock().now()),
        Taker::Nobody => return answer(StatusCode::NOT_FOUND, headers, "Session is unknown.\n"),
        Taker::Answered(response) => return response,
    }
    match way {
        Way::Xhr => answer(StatusCode::NO_CONTENT, headers, ""),
        Way::Jsonp => answer(StatusCode::OK, headers, "ok"),
    }
}

/// Who takes a request's messages.
enum Taker {
    Here(Arc<Handle>),
    Nobody,
    /// The request has its answer: another node has taken them, or nobody can be found.
    Answered(Response),
}

async fn taker(registry: &Registry, session: &str, call: &Call<'_>, body: Bytes) -> Taker {
    let refused = |why| Taker::Answered(not_opened(call.headers, why));
    if call.bearer == RequestOrigin::Node {
        let held = registry.held(session).await;
        return held.map_or_else(|| Taker::Answered(unknown_to_node()), Taker::Here);
    }
    loop {
        let owner = match registry.locate(session, call.address).await {
            Err(why) => return refused(why),
            Ok(SessionLocation::Here(handle)) => return Taker::Here(handle),
            Ok(SessionLocation::Nowhere) => return Taker::Nobody,
            Ok(SessionLocation::There(owner)) => owner,
        };
        let Some(records) = registry.records() else {
            return Taker::Nobody;
        };
        if call.bearer == RequestOrigin::Unproved {
            return refused(NotOpened::Relayed);
        }
        let relay = records.relay();
        match relay.deliver(&owner, call.errand(body.clone())).await {
            Outcome::Answer(response) => return Taker::Answered(response),
            Outcome::Full => return refused(NotOpened::TooManySessions),
            Outcome::Lost => {
                if relay.is_lost(&records.name(session), &owner).await {
                    return Taker::Nobody;
                }
            }
        }
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
