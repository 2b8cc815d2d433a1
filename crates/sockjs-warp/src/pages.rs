//! Answers without a session: the greeting, the information, the iframe page, preflights, refusals.

use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, ETAG, IF_NONE_MATCH, RETRY_AFTER,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use warp::reply::Response;

use super::bounds::NotOpened;
use super::headers::{HTML, JAVASCRIPT, JSON, PLAIN, Recipes};
use crate::sockjs::Settings;
use crate::sockjs::iframe::{IFRAME_SCRIPT, IframePage, is_known, script_etag};
use crate::sockjs::info::{GREETING, info};

/// An answer whose length is known.
pub(super) fn answer(
    status: StatusCode,
    headers: HeaderMap,
    body: impl Into<bytes::Bytes>,
) -> Response {
    let mut response = Response::new(body.into().into());
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

pub(super) fn greeting(request: &HeaderMap) -> Response {
    let headers = Recipes::new(request).content_type(PLAIN).done();
    answer(StatusCode::OK, headers, GREETING)
}

pub(super) fn information(request: &HeaderMap, settings: &Settings) -> Response {
    let mut entropy = [0; 4];
    let random = getrandom::fill(&mut entropy);
    let recipes = Recipes::new(request).no_cache().cors();
    if random.is_err() {
        let text = "no entropy";
        return answer(StatusCode::SERVICE_UNAVAILABLE, recipes.done(), text);
    }
    let document = info(settings, u32::from_ne_bytes(entropy));
    answer(StatusCode::OK, recipes.content_type(JSON).done(), document)
}

pub(super) fn iframe(request: &HeaderMap, page: &IframePage) -> Response {
    let known = request
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| is_known(&page.etag, value));
    let mut headers = Recipes::new(request)
        .cache()
        .when(!known, |recipes| recipes.content_type(HTML))
        .done();
    if let Ok(etag) = HeaderValue::from_str(&page.etag) {
        headers.insert(ETAG, etag);
    }
    if let Ok(policy) = HeaderValue::from_str(&page.policy) {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    if known {
        return answer(StatusCode::NOT_MODIFIED, headers, "");
    }
    answer(StatusCode::OK, headers, page.body.clone())
}

/// The iframe page's script. The page may be kept for a year, so this is asked for again each time.
pub(super) fn iframe_script(request: &HeaderMap) -> Response {
    let known = request.get_all(IF_NONE_MATCH).iter();
    let mut known = known.filter_map(|value| value.to_str().ok());
    let known = known.any(|value| is_known(script_etag(), value));
    let mut headers = Recipes::new(request)
        .when(!known, |recipes| recipes.content_type(JAVASCRIPT))
        .done();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Ok(etag) = HeaderValue::from_str(script_etag()) {
        headers.insert(ETAG, etag);
    }
    if known {
        return answer(StatusCode::NOT_MODIFIED, headers, "");
    }
    answer(StatusCode::OK, headers, IFRAME_SCRIPT)
}

pub(super) fn preflight(request: &HeaderMap, methods: &'static str, cookie: bool) -> Response {
    let headers = Recipes::new(request)
        .cors()
        .cache()
        .preflight(methods)
        .when(cookie, Recipes::jsessionid)
        .done();
    answer(StatusCode::NO_CONTENT, headers, "")
}

pub(super) fn not_found(request: &HeaderMap) -> Response {
    let headers = Recipes::new(request).content_type(PLAIN).done();
    answer(StatusCode::NOT_FOUND, headers, "Not found.\n")
}

/// 405 with neither type nor body, as the suite has it.
pub(super) fn method_not_allowed(allow: &'static str) -> Response {
    let mut headers = Recipes::new(&HeaderMap::new()).done();
    headers.insert(ALLOW, HeaderValue::from_static(allow));
    answer(StatusCode::METHOD_NOT_ALLOWED, headers, "")
}

/// The page is on no list. No cross-origin headers: it may not read this either.
pub(super) fn foreign_origin(request: &HeaderMap) -> Response {
    let headers = Recipes::new(request).no_cache().content_type(PLAIN).done();
    answer(StatusCode::FORBIDDEN, headers, "Origin is not allowed.\n")
}

/// A session that is not opened. For the client any status but 200 means that this will not do.
pub(super) fn not_opened(request: &HeaderMap, why: NotOpened) -> Response {
    let recipes = Recipes::new(request).no_cache().cors().content_type(PLAIN);
    let mut headers = recipes.done();
    let (status, wait_s) = match why {
        NotOpened::TooFast(wait) => (StatusCode::TOO_MANY_REQUESTS, wait.as_secs() + 1),
        NotOpened::Full
        | NotOpened::Stopping
        | NotOpened::DirectoryUnavailable
        | NotOpened::TooManySessions
        | NotOpened::Relayed => (StatusCode::SERVICE_UNAVAILABLE, 1),
    };
    headers.insert(RETRY_AFTER, HeaderValue::from(wait_s));
    answer(status, headers, why.to_string())
}

/// The answer to a node that believes a session to be here which is not.
pub(super) fn unknown_to_node() -> Response {
    let value = HeaderValue::from_static("unknown");
    let headers = [(super::relay::proof::HEADER, value)].into_iter().collect();
    answer(StatusCode::NOT_FOUND, headers, "")
}
