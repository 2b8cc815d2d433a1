//! From an HTTP request to its handler and back.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use bytes::Buf;
use futures_util::Stream;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Method};
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::path::FullPath;
use warp::reply::Response;

use super::Api;
use super::call::{Call, DRY_RUN, Params, parse_query};
use super::error::ApiError;
use super::reply::Reply;
use super::route::{Access, Found, Route, find};
use crate::auth::{Actor, token};
use crate::limits::account::Party;
use crate::net::ConnInfo;
use crate::net::body;
use crate::telemetry::metrics::names;

/// The versions of the API; all mean the same.
pub(super) const VERSIONS: [&str; 3] = ["v1", "2022-04", "latest"];

/// Everything below `/api/`, but not the results and not what agents ask for: these paths are rejected as not
/// found, so that the next filter sees them.
pub fn routes(api: Arc<Api>) -> BoxedFilter<(Response,)> {
    let query = warp::query::raw().or(warp::any().map(String::new)).unify();
    let ours = warp::path::full().and_then(async |path: FullPath| {
        if is_ours(path.as_str()) {
            Ok(path)
        } else {
            Err(warp::reject::not_found())
        }
    });
    ours.and(warp::method())
        .and(query)
        .and(warp::header::headers_cloned())
        .and(warp::ext::optional::<ConnInfo>())
        .and(warp::body::stream())
        .then(
            move |path: FullPath, method, query: String, headers, connection, body| {
                let head = Head {
                    path,
                    method,
                    query,
                    headers,
                    connection,
                };
                let api = Arc::clone(&api);
                async move { answer(api, head, body).await }
            },
        )
        .boxed()
}

/// A request without its body.
struct Head {
    path: FullPath,
    method: Method,
    query: String,
    headers: HeaderMap,
    connection: Option<ConnInfo>,
}

/// Whether the API answers this path, if only with 404.
fn is_ours(path: &str) -> bool {
    let Some(rest) = path.strip_prefix("/api/") else {
        // With more slashes than one it is nobody's, and who meant us is to hear it in our words.
        return path.starts_with("//") && path.trim_start_matches('/').starts_with("api/");
    };
    let mut segments = rest.split('/');
    match (segments.next(), segments.next(), segments.next()) {
        (Some("osquery"), ..) | (Some("v1"), Some("osquery"), _) => false,
        (Some(version), Some("fleet" | "kolide"), Some("results")) => !VERSIONS.contains(&version),
        _ => true,
    }
}

/// The part of a path that the table knows; none for unknown versions.
fn below_version(path: &str) -> Option<&str> {
    let (version, rest) = path.strip_prefix("/api/")?.split_once('/')?;
    let rest = match rest.strip_prefix("fleet") {
        Some(rest) if VERSIONS.contains(&version) => rest,
        _ if version == "v1" => rest.strip_prefix("kolide")?,
        _ => return None,
    };
    rest.starts_with('/').then_some(rest)
}

async fn answer<S, B, E>(api: Arc<Api>, head: Head, stream: S) -> Response
where
    S: Stream<Item = Result<B, E>> + Send,
    B: Buf,
{
    let outcome = respond(api, head, stream).await;
    let response = outcome.map_or_else(ApiError::into_response, Reply::into_response);
    let class = match response.status().as_u16() / 100 {
        2 => "2xx",
        4 => "4xx",
        5 => "5xx",
        _ => "other",
    };
    metrics::counter!(names::REQUESTS, "face" => "api", "status" => class).increment(1);
    response
}

async fn respond<S, B, E>(api: Arc<Api>, head: Head, stream: S) -> Result<Reply, ApiError>
where
    S: Stream<Item = Result<B, E>> + Send,
    B: Buf,
{
    if let Some(document) = api.docs.at(head.path.as_str()) {
        return match head.method {
            Method::GET | Method::HEAD => Ok(document),
            _ => Err(ApiError::Method("GET, HEAD".to_owned())),
        };
    }
    let now = api.parts.clock.now();
    let admitted = route_of(&api, &head).and_then(|(route, params)| {
        let actor = admit(&api, route, &head.headers)?;
        Ok((route, params, actor))
    });
    let (route, params, actor) = match admitted {
        Ok(admitted) => admitted,
        Err(error) => {
            // Whether it can be read does not matter: the answer is known.
            body::discard(&head.headers, stream).await;
            return Err(error);
        }
    };
    let limits = api.settings.body.with_bytes(route.body_bytes());
    let who = || match &actor {
        Some(actor) => Party::User(actor.user.id.0),
        None => Party::Address(client(&api, &head)),
    };
    let body = body::read(&head.headers, stream, &limits, who).await?;
    let query = parse_query(&head.query)?;
    once_each(route, &query)?;
    let call = Call {
        actor,
        params,
        query,
        body,
        now,
        address: client(&api, &head),
    };
    if call.is_dry_run()? && route.changes() {
        // Held until the answer is there.
        let _turn = api.rehearsals.acquire().await;
        let real = Arc::clone(&api);
        let copy = tokio::task::spawn_blocking(move || real.rehearsal()).await;
        let copy = copy.map_err(|error| ApiError::Internal(error.to_string()))?;
        return (route.handler)(copy, call).await;
    }
    (route.handler)(api, call).await
}

/// A parameter that a route knows must not stand twice: whoever reads the request would choose another of them.
fn once_each(route: &Route, query: &[(String, String)]) -> Result<(), ApiError> {
    for asked in route.asks.iter().chain(&[DRY_RUN]) {
        let name = asked.split(':').next().unwrap_or(asked);
        if query.iter().filter(|(key, _)| key == name).count() > 1 {
            let reason = format!("{name} must not be given twice");
            return Err(ApiError::BadRequest(reason));
        }
    }
    Ok(())
}

fn route_of(api: &Api, head: &Head) -> Result<(&'static Route, Params), ApiError> {
    let nothing = || ApiError::NotFound(nothing_at(head.path.as_str()));
    let path = below_version(head.path.as_str()).ok_or_else(nothing)?;
    match find(&api.table, &head.method, path) {
        Found::Route(route, params) => Ok((route, params)),
        Found::OtherMethods(allow) => Err(ApiError::Method(allow)),
        Found::Nothing => Err(nothing()),
    }
}

/// Why nothing is at a path, for who may have meant another.
fn nothing_at(path: &str) -> String {
    let segments: Vec<&str> = path
        .split('/')
        .filter(|segment| !segment.is_empty())
        .collect();
    match segments.as_slice() {
        // What `fleetctl setup` asks; 404 tells it so.
        ["api", version, "setup"] if VERSIONS.contains(version) => {
            "this server is set up: its first start has made an admin. Log in with the password that it printed".to_owned()
        }
        _ if path.contains("//") => format!(
            "there is nothing at this path: it has empty segments; /{} has none",
            segments.join("/")
        ),
        _ => "there is nothing at this path".to_owned(),
    }
}

/// Who sends it, if they may.
fn admit(api: &Api, route: &Route, headers: &HeaderMap) -> Result<Option<Actor>, ApiError> {
    if route.access == Access::Open {
        return Ok(None);
    }
    let header = headers.get(AUTHORIZATION);
    let header = header.and_then(|header| header.to_str().ok()).unwrap_or("");
    let missing = ApiError::Unauthenticated("Authorization header required");
    let token = token::of_header(header).ok_or(missing)?;
    let now = api.parts.clock.now();
    let actor = match route.access {
        Access::Pending => api.parts.auth.resolve(token, now)?,
        _ => api.parts.auth.identify(token, now)?,
    };
    match route.access {
        Access::To(action) if actor.reach(action).is_nowhere() => Err(ApiError::Forbidden),
        _ => Ok(Some(actor)),
    }
}

/// The client's address; on a connection that has none, such as a Unix socket, the loopback's.
fn client(api: &Api, head: &Head) -> IpAddr {
    head.connection
        .map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |connection| {
            let peer = connection.peer.ip();
            api.parts.proxies.client_address(peer, &head.headers)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_and_agents_are_left_to_others() {
        for theirs in [
            "/api/v1/fleet/results",
            "/api/v1/fleet/results/",
            "/api/latest/fleet/results/websocket",
            "/api/2022-04/fleet/results/000/abc/xhr",
            "/api/v1/kolide/results/info",
            "/api/osquery/enroll",
            "/api/v1/osquery/enroll",
            "/api",
            "/apiary",
            "/",
        ] {
            assert!(!is_ours(theirs), "{theirs}");
        }
        for ours in [
            "/api/",
            "/api/v1/fleet/queries/run",
            "/api/v1/fleet/resultsets",
            "/api/v9/fleet/results",
            "/api/latest/osquery/enroll",
            "/api/openapi.json",
        ] {
            assert!(is_ours(ours), "{ours}");
        }
    }

    #[test]
    fn only_known_versions_lead_anywhere() {
        assert_eq!(below_version("/api/v1/fleet/me"), Some("/me"));
        assert_eq!(below_version("/api/2022-04/fleet/me"), Some("/me"));
        assert_eq!(below_version("/api/latest/fleet/me"), Some("/me"));
        assert_eq!(below_version("/api/v1/kolide/me"), Some("/me"));
        for nowhere in [
            "/api/v2/fleet/me",
            "/api/latest/kolide/me",
            "/api/v1/fleetme",
            "/api/v1/fleet",
            "/api/v1",
            "/api/",
        ] {
            assert_eq!(below_version(nowhere), None, "{nowhere}");
        }
    }
}
