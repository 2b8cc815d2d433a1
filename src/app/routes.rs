//! Which face serves which path, the busiest first.

use std::convert::Infallible;
use std::sync::Arc;

use http::{HeaderValue, StatusCode, header};
use warp::Filter;
use warp::Rejection;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::start::Parts;
use crate::config::Settings;
use crate::ops::{self, Audience, Ops};
use crate::sockjs::settings::{Origins, Timing};
use crate::sockjs::{self, Close};
use crate::transport::{Bounds, Mount, MountContext, Relay, SockJsService};
use crate::{api, console};

/// Where result streams are opened; the last one is what clients of 2020 ask for.
const PREFIXES: [&str; 4] = [
    "/api/v1/fleet/results",
    "/api/latest/fleet/results",
    "/api/2022-04/fleet/results",
    "/api/v1/kolide/results",
];

/// The viewers' application on every version's path.
pub(super) struct Mounts(Vec<Mount>);

impl Mounts {
    /// Everything below the prefixes; others get to `rest`.
    pub(super) fn in_front_of<S>(&self, rest: S) -> SockJsService<S> {
        Mount::in_front_of(self.0.iter().cloned(), rest)
    }

    /// Tells every session to close.
    pub(super) async fn close_all(&self) {
        let Close { code, reason } = Close::go_away();
        futures_util::future::join_all(self.0.iter().map(|mount| mount.close_all(code, &reason)))
            .await;
    }

    /// Forgets the sessions of clients that have not heard of it, once nothing listens any more.
    pub(super) fn forget_all(&self) {
        for mount in self.0.iter() {
            mount.forget_all();
        }
    }
}

pub(super) fn mounts(parts: &Parts, settings: &Settings, relay: Option<Arc<Relay>>) -> Mounts {
    let defaults = sockjs::Settings::default();
    let sockjs = sockjs::Settings {
        // The document's heading writes it so; its own script does not.
        raw_alias: Some("/websockets"),
        goodbye_spread: settings.drain,
        response_limit: settings.sockjs_response_limit,
        timing: Timing {
            heartbeat: settings.heartbeat,
            ..defaults.timing
        },
        sockjs_url: settings.sockjs_url.clone(),
        origins: settings.origins.clone().map_or(Origins::Any, Origins::Only),
        message_bytes_max: 64 * 1024,
        body_bytes_max: 128 * 1024,
        ..defaults
    };
    let around = MountContext {
        tasks: parts.sessions.clone(),
        proxies: parts.proxies.clone(),
        relay,
        bounds: Bounds {
            bodies: parts.bodies.clone(),
            ..Bounds::new(&parts.clock)
        },
        ..MountContext::new(parts.clock.clone())
    };
    let application = Arc::new(parts.viewers.clone());
    let mount =
        |prefix: &&str| Mount::new(prefix, sockjs.clone(), application.clone(), around.clone());
    Mounts(PREFIXES.iter().map(mount).collect())
}

/// What neither agents nor viewers ask for; what no face knows is 404.
pub(super) fn rest(parts: &Parts, ops: Arc<Ops>, audience: Audience) -> BoxedFilter<(Response,)> {
    api::routes(Arc::clone(&parts.api))
        .or(ops::routes(ops, audience))
        .unify()
        .or(console::routes())
        .unify()
        .recover(nowhere)
        .unify()
        .map(unsniffed)
        .boxed()
}

/// For machinery that is reached at an address of its own.
pub(super) fn machinery(ops: Arc<Ops>) -> BoxedFilter<(Response,)> {
    let routes = ops::routes(ops, Audience::Everybody);
    routes.recover(nowhere).unify().map(unsniffed).boxed()
}

/// Browsers must not take an answer for another type than it says.
fn unsniffed(mut response: Response) -> Response {
    let nosniff = HeaderValue::from_static("nosniff");
    response
        .headers_mut()
        .insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    response
}

async fn nowhere(_: Rejection) -> Result<Response, Infallible> {
    let mut response = Response::new("not found\n".into());
    *response.status_mut() = StatusCode::NOT_FOUND;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    Ok(response)
}
