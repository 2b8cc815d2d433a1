//! Paths, bodies and refusals in the shapes that osquery knows.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body_util::BodyDataStream;
use tower_service::Service;
use warp::Reply as _;
use warp::reply::Response;

use super::Agents;
use super::request::{Received, Request};
use super::route::Route;
use super::wire::answer::json;
use super::wire::sieve::{Items, Sieve};
use super::wire::{self, Body, Fault};
use crate::catalog::NoLook;
use crate::catalog::entity::Host;
use crate::clock::Timestamp;
use crate::limits;
use crate::limits::account::Party;
use crate::limits::rate::Wait;
use crate::net::body::{self, BodyError};
use crate::net::{ConnInfo, IncomingRequest, ResponseFuture, aside};
use crate::sampled;
use crate::store::StoreError;
use crate::telemetry::metrics::names;

/// The node key that newer agents name before their body (spec of the agents' wire).
fn node_key(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, key) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("NodeKey").then(|| key.trim())
}

/// A service that answers everything below `/api/osquery/` and `/api/v1/osquery/`, and leaves the rest to another one.
///
/// The only face that is no warp filter: it answers nearly all requests, and a twentieth of what one cost went into
/// passing filters and into the headers that are cloned for them.
#[derive(Clone, Debug)]
pub struct AgentsService<S> {
    agents: Arc<Agents>,
    rest: S,
}

impl<S> AgentsService<S> {
    /// The agents' face in front of `rest`, usually what `warp::service` gives.
    #[must_use]
    pub const fn new(agents: Arc<Agents>, rest: S) -> Self {
        Self { agents, rest }
    }
}

impl<S, B> Service<IncomingRequest<B>> for AgentsService<S>
where
    S: Service<
            IncomingRequest<B>,
            Response = Response,
            Error = Infallible,
            Future = ResponseFuture<Response>,
        >,
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Send,
{
    type Response = Response;
    type Error = Infallible;
    type Future = ResponseFuture<Response>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.rest.poll_ready(cx)
    }

    fn call(&mut self, arrival: IncomingRequest<B>) -> Self::Future {
        let Some(route) = Route::of(arrival.request.uri().path()) else {
            return self.rest.call(arrival);
        };
        let agents = Arc::clone(&self.agents);
        // Parted here and not in the future, which keeps room for every place that a value passes through.
        let (head, body) = arrival.request.into_parts();
        let connection = arrival.connection;
        Box::pin(async move {
            let answer = agents.call(route, &head, body, connection).await;
            Ok(answer.unwrap_or_else(|refusal| refusal.response(route)))
        })
    }
}

impl Route {
    fn allow(self, method: &Method) -> Result<(), Refusal> {
        match self {
            Self::Unknown => Err(Refusal::NotFound),
            Self::Orbit(orbit) if orbit.takes(method) => Ok(()),
            Self::Orbit(_) => Err(Refusal::Method("GET, HEAD, POST")),
            _ if *method == Method::POST => Ok(()),
            _ => Err(Refusal::Method("POST")),
        }
    }
}

impl Agents {
    async fn call<B>(
        &self,
        route: Route,
        head: &Parts,
        body: B,
        connection: ConnInfo,
    ) -> Result<Response, Refusal>
    where
        B: http_body::Body,
    {
        route.allow(&head.method)?;
        let headers = &head.headers;
        let stream = BodyDataStream::new(body);
        if self.settings.client_certificates && !connection.certified {
            body::discard(headers, stream).await;
            return Err(Refusal::NoCertificate);
        }
        let known = match node_key(headers) {
            None => None,
            Some(key) => match self.host(key).await {
                Ok(host) => Some(host),
                Err(refusal) => {
                    body::discard(headers, stream).await;
                    return Err(refusal);
                }
            },
        };
        let now = self.clock.now();
        let address = || {
            let proxies = &self.settings.trusted_proxies;
            proxies.client_address(connection.peer.ip(), headers)
        };
        let who = || match &known {
            Some(host) => Party::Host(host.id.0),
            None => Party::Address(address()),
        };
        if let Some(items) = route.items() {
            let limits = &self.settings.body;
            let sieve = Sieve::new(items, limits.bytes);
            let reduce = Some((sieve, limits::AGENT_BODY_READ_BYTES));
            let taken = body::take(headers, stream, limits, who, reduce).await?;
            let received = Received::new(taken, items, limits.bytes);
            return self.deliver(route, items, known, received, now).await;
        }
        let body = body::read(headers, stream, &self.short, who).await?;
        let text = wire::text(&body);
        match route {
            Route::Read => self.read(&Request::new(known, &text), now).await,
            Route::Config => self.config(&Request::new(known, &text), now).await,
            Route::Enroll => {
                // In a box: it is seldom, and three times as large as all the others.
                Box::pin(self.enroll(&text, address(), now)).await
            }
            Route::Carve => Err(Refusal::NoCarving),
            Route::Orbit(orbit) => self.orbit(orbit, &text, address()),
            Route::Write | Route::Log | Route::Unknown => Err(Refusal::NotFound),
        }
    }

    /// Answers a body that its agent would send again and again if it were refused: what can be read of it is taken.
    async fn deliver(
        &self,
        route: Route,
        items: Items,
        known: Option<Arc<Host>>,
        received: Received,
        now: Timestamp,
    ) -> Result<Response, Refusal> {
        let text = wire::text(&received.body);
        let known = match known {
            // Of a large body nothing is made before its sender is known.
            None if text.len() > self.settings.body.account.free() => {
                match aside(text.len(), || wire::node_key(&text)) {
                    Ok(Some(key)) => Some(Box::pin(self.host(&key)).await?),
                    Ok(None) => return Err(Refusal::UnknownNode),
                    // What can be read of it is looked at below.
                    Err(_) => None,
                }
            }
            known => known,
        };
        let request = Request {
            known,
            body: aside(text.len(), || Body::parse(&text)),
            omitted: &received.omitted,
        };
        let unnamed = request.known.is_none() && request.body.node_key.is_none();
        if let Some(fault) = received.fault.filter(|_| unnamed) {
            return Err(fault.into());
        }
        if let Some(fault) = request.body.fault {
            let mended = Received::sieved(text.as_bytes(), items, self.settings.body.bytes);
            let text = wire::text(&mended.body);
            let body = Body::parse(&text);
            if request.known.is_none() && body.node_key.is_none() {
                return Err(fault.into());
            }
            let request = Request {
                known: request.known,
                body,
                omitted: &mended.omitted,
            };
            // In a box: it is seldom, and would make every request larger.
            return Box::pin(self.deliver_request(route, &request, now)).await;
        }
        self.deliver_request(route, &request, now).await
    }

    async fn deliver_request(
        &self,
        route: Route,
        request: &Request<'_>,
        now: Timestamp,
    ) -> Result<Response, Refusal> {
        match route {
            Route::Log => self.log(request, now).await,
            _ => self.write(request, now).await,
        }
    }
}

/// Why an agent is not answered what it wants.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// It must enroll first; osquery does so on hearing `node_invalid`.
    #[error("authentication error: invalid node key")]
    UnknownNode,
    /// It must show a certificate, and has shown none.
    #[error(
        "agents must show a client certificate here (osquery: --tls_client_cert and --tls_client_key)"
    )]
    NoCertificate,
    /// Its enrolment was refused.
    #[error("enroll failed: {0}")]
    Enroll(&'static str),
    /// There are as many hosts as there may be.
    #[error(
        "enroll failed: there are {0} hosts already, and no more are taken: delete those that are gone, or raise --hosts"
    )]
    Full(u64),
    /// Its address has failed to enroll, or it or its site has enrolled, too often.
    #[error("enroll failed: {0}")]
    Limited(#[from] Wait),
    /// The body is not what the route takes.
    #[error("bad request: {0}")]
    Malformed(String),
    /// The body could not be read.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Too much at once.
    #[error("try again later")]
    Busy,
    /// The system gave no entropy.
    #[error("no node key could be made")]
    Entropy,
    /// osquery's log could not be written.
    #[error("the log could not be written: {0}")]
    Log(String),
    /// The host has sent more of osquery's log than it may.
    #[error("too many lines of the log: {0}")]
    LogRate(Wait),
    /// osquery's log is larger than the queue before the sink.
    #[error("the log is too large")]
    LogTooLarge,
    /// Carving is not offered.
    #[error("file carving is not supported by this server")]
    NoCarving,
    /// No such route.
    #[error("not found")]
    NotFound,
    /// The route takes these.
    #[error("method not allowed")]
    Method(&'static str),
}

impl From<NoLook> for Refusal {
    fn from(why: NoLook) -> Self {
        match why {
            NoLook::Busy => Self::Busy,
            NoLook::Store(error) => error.into(),
        }
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self::Malformed(fault.to_string())
    }
}

impl Refusal {
    const fn status(&self) -> StatusCode {
        match self {
            Self::UnknownNode | Self::Enroll(_) => StatusCode::UNAUTHORIZED,
            Self::Full(_) | Self::NoCertificate => StatusCode::FORBIDDEN,
            Self::Limited(_) | Self::LogRate(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::Body(fault) => fault.status(),
            Self::Store(_) | Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::Entropy | Self::Log(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::LogTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NoCarving => StatusCode::NOT_IMPLEMENTED,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
        }
    }

    /// Whether the agent must enroll again.
    const fn node_invalid(&self) -> bool {
        matches!(self, Self::UnknownNode | Self::Enroll(_))
    }

    /// Whether the same body would be refused again.
    const fn is_final(&self) -> bool {
        match self {
            Self::Malformed(_) | Self::LogTooLarge => true,
            Self::Body(fault) => !matches!(fault, BodyError::Busy | BodyError::Timeout),
            _ => false,
        }
    }

    fn response(&self, route: Route) -> Response {
        match self {
            Self::Store(error) => {
                metrics::counter!(names::STORE_ERRORS, "operation" => "agents").increment(1);
                sampled!(warn, %error, "an agent was turned away");
            }
            Self::Limited(_) => metrics::counter!(names::LIMITED, "limit" => "enroll").increment(1),
            other => tracing::debug!(refusal = %other, "an agent was turned away"),
        }
        let error = json(&self.to_string());
        let body = if self.node_invalid() {
            format!(r#"{{"error":{error},"node_invalid":true}}"#)
        } else if route.items().is_some() && self.is_final() {
            // An agent that reads `error` keeps what it sent and sends it again with all that follows.
            format!(r#"{{"message":{error}}}"#)
        } else {
            format!(r#"{{"error":{error}}}"#)
        };
        let mut response = reply(body);
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        match self {
            Self::Method(allowed) => {
                headers.insert(ALLOW, HeaderValue::from_static(allowed));
            }
            Self::Limited(Wait(wait)) | Self::LogRate(Wait(wait)) => {
                headers.insert(RETRY_AFTER, HeaderValue::from(wait.as_secs() + 1));
            }
            _ => {}
        }
        response
    }
}

/// A JSON reply.
pub(super) fn reply(body: impl Into<Bytes>) -> Response {
    let mut response = http::Response::new(body.into()).into_response();
    let json = HeaderValue::from_static("application/json; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

/// Replies that are the same for everybody.
#[derive(Debug)]
pub(super) struct Ready {
    /// To a check-in of a host that a campaign has asked already.
    accelerated: Bytes,
}

impl Ready {
    pub(super) fn new(accelerate_s: u32) -> Self {
        let accelerated =
            format!(r#"{{"queries":{{}},"discovery":{{}},"accelerate":{accelerate_s}}}"#);
        Self {
            accelerated: accelerated.into(),
        }
    }

    /// Nothing to do.
    pub(super) fn idle() -> Response {
        reply(Bytes::from_static(br#"{"queries":{},"discovery":{}}"#))
    }

    /// Nothing to do now, but soon.
    pub(super) fn accelerated(&self) -> Response {
        reply(self.accelerated.clone())
    }

    /// Taken.
    pub(super) fn done() -> Response {
        reply(Bytes::from_static(b"{}"))
    }
}
