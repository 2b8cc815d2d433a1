//! The public entrance: an application mounted at a prefix, as one warp filter.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Buf;
use http::header::{HOST, ORIGIN};
use http::{HeaderMap, Method};
use http_body_util::BodyDataStream;
use hyper::upgrade::OnUpgrade;
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service;
use warp::filters::BoxedFilter;
use warp::path::FullPath;
use warp::reply::Response;
use warp::{Filter, Rejection};

use super::application::Application;
use super::bounds::{Bounds, NotOpened};
use super::call::Call;
use super::pages;
use super::receiving::Receiving;
use super::records::Records;
use super::registry::{Registry, sweep_while_alive};
use super::relay::Relay;
use super::renewal::keep_while_alive;
use super::sending::{Way, send};
use super::upgrade::Handshake;
use super::websocket::{self, Mode, Origin, Sockets};
use crate::clock::Clock;
use crate::limits::permits::Permit;
use crate::net::{ConnInfo, IncomingRequest, ResponseFuture, TrustedProxies};
use crate::sockjs::iframe::IframePage;
use crate::sockjs::path::{Route, Verdict, route};
use crate::sockjs::{Close, Settings};

/// Where [`Settings::raw_alias`] leads.
const RAW_PATH: &str = "/websocket";

/// What a mount needs of the process around it.
#[derive(Clone)]
pub struct MountContext {
    /// Where sessions get the time from.
    pub clock: Clock,
    /// Owns the mount's tasks: one sweeper, and one for each WebSocket.
    pub tasks: TaskTracker,
    /// Whose `X-Forwarded-For` is believed.
    pub proxies: TrustedProxies,
    /// What this mount shares with others.
    pub bounds: Bounds,
    /// To the nodes that hold what this one does not. None: there is no other node.
    pub relay: Option<Arc<Relay>>,
}

impl MountContext {
    /// With tasks that nobody waits for, no trusted proxy, bounds of its own, and no other node.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self {
            bounds: Bounds::new(&clock),
            clock,
            tasks: TaskTracker::new(),
            proxies: TrustedProxies::default(),
            relay: None,
        }
    }
}

/// An application at a prefix. Cloning shares the sessions.
#[derive(Clone)]
pub struct Mount(Arc<Inner>);

struct Inner {
    prefix: Arc<str>,
    registry: Arc<Registry>,
    sockets: Arc<Sockets<dyn Application>>,
    /// Cancelled when the mount stops.
    stop: CancellationToken,
    iframe: IframePage,
    proxies: TrustedProxies,
}

impl Mount {
    /// Mounts `application` at `prefix`, e.g. `/echo`: it begins with a slash and ends without one.
    /// Must be called inside a runtime; the sweeper it starts ends with the mount.
    #[must_use]
    pub fn new(
        prefix: &str,
        settings: Settings,
        application: Arc<dyn Application>,
        around: MountContext,
    ) -> Self {
        let prefix: Arc<str> = prefix.trim_end_matches('/').into();
        let iframe = IframePage::new(settings.sockjs_url.as_deref(), &settings.origins);
        let MountContext {
            clock,
            tasks,
            proxies,
            bounds,
            relay,
        } = around;
        let stop = CancellationToken::new();
        let sockets = Sockets::new(
            Arc::clone(&application),
            socket_settings(&settings),
            clock.clone(),
            tasks.clone(),
            stop.clone(),
        );
        let records = relay.map(|relay| Records::new(relay, Arc::clone(&prefix), stop.clone()));
        let (records, ended) = records.unzip();
        let registry = Registry::new(
            Arc::clone(&prefix),
            settings.into(),
            application,
            clock,
            (bounds, records),
        );
        tasks.spawn(sweep_while_alive(Arc::downgrade(&registry)));
        if let (Some(records), Some(ended)) = (registry.records(), ended) {
            let (relay, stop) = (Arc::clone(records.relay()), stop.clone());
            let weak = Arc::downgrade(&registry);
            tasks.spawn(keep_while_alive(weak, relay, ended, stop));
        }
        Self(Arc::new(Inner {
            prefix,
            registry,
            sockets,
            stop,
            iframe,
            proxies,
        }))
    }

    /// Mounts in front of `rest`, which gets what lies below none of them.
    #[must_use]
    pub fn in_front_of<S>(mounts: impl IntoIterator<Item = Mount>, rest: S) -> SockJsService<S> {
        let mounts = mounts.into_iter().map(|mount| mount.0).collect();
        SockJsService { mounts, rest }
    }

    /// The filter that serves everything below the prefix, and rejects what is not below it without
    /// having touched the request. It routes by hand: warp's own routing collapses and rejects where
    /// the protocol wants a plain 404 or 405.
    #[must_use]
    pub fn filter(&self) -> BoxedFilter<(Response,)> {
        let (here, mount) = (self.clone(), self.clone());
        let below = warp::path::full().and_then(move |path: FullPath| {
            let below = here.0.rest(path.as_str()).is_some();
            let path = below.then_some(path).ok_or_else(warp::reject::not_found);
            std::future::ready(path)
        });
        let query = warp::query::raw()
            .or_else(|_| std::future::ready(Ok::<_, Rejection>((String::new(),))));
        below
            .and(warp::method())
            .and(query)
            .and(warp::header::headers_cloned())
            .and(warp::ext::optional::<ConnInfo>())
            .and(warp::ext::optional::<OnUpgrade>())
            .and(warp::body::stream())
            .then(
                move |path: FullPath, method, query: String, headers, connection, upgrade, body| {
                    let mount = Arc::clone(&mount.0);
                    async move {
                        let line = (&method, path.as_str(), &*query);
                        let request = Request {
                            line,
                            headers: &headers,
                            connection,
                        };
                        mount.serve(request, upgrade, body).await
                    }
                },
            )
            .boxed()
    }

    /// HTTP sessions alive.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.0.registry.sessions()
    }

    /// Refuses new sessions and tells every live one to close, evenly over
    /// [`Settings::goodbye_spread`]. Returns when all HTTP sessions have been told; streams end with
    /// the close frame, and sockets, with their closing handshake, when their tasks do.
    pub async fn close_all(&self, code: u16, reason: &str) {
        self.0.sockets.stop();
        self.0.registry.close_all(&Close::new(code, reason)).await;
    }

    /// Forgets the sessions of clients that have not come back to hear of the close. For when nothing listens any more.
    pub fn forget_all(&self) {
        self.0.registry.forget_all();
    }
}

fn socket_settings(settings: &Settings) -> websocket::Settings {
    websocket::Settings {
        timing: settings.timing,
        max_message: settings.message_bytes_max,
        deflate: settings.deflate,
        close_wait: settings.close_wait,
        goodbye_spread: settings.goodbye_spread,
    }
}

/// A service that answers everything below some mounts, and leaves the rest to another one. It is for them what
/// [`Mount::filter`] is for one, without what filters cost.
#[derive(Clone)]
pub struct SockJsService<S> {
    mounts: Arc<[Arc<Inner>]>,
    rest: S,
}

impl<S, B> Service<IncomingRequest<B>> for SockJsService<S>
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
        let path = arrival.request.uri().path();
        let mut mounts = self.mounts.iter();
        let Some(mount) = mounts.find(|mount| mount.rest(path).is_some()) else {
            return self.rest.call(arrival);
        };
        let mount = Arc::clone(mount);
        Box::pin(async move {
            let (mut head, body) = arrival.request.into_parts();
            let upgrade = head.extensions.remove();
            let query = head.uri.query().unwrap_or_default();
            let request = Request {
                line: (&head.method, head.uri.path(), query),
                headers: &head.headers,
                connection: Some(arrival.connection),
            };
            let body = BodyDataStream::new(body);
            Ok(mount.serve(request, upgrade, body).await)
        })
    }
}

/// A request but for its body.
#[derive(Clone, Copy)]
struct Request<'r> {
    /// Method, path and query.
    line: (&'r Method, &'r str, &'r str),
    headers: &'r HeaderMap,
    connection: Option<ConnInfo>,
}

impl Inner {
    /// What follows the prefix in a path, if it lies below it.
    fn rest<'p>(&self, path: &'p str) -> Option<&'p str> {
        let rest = path.strip_prefix(&*self.prefix)?;
        if self.registry.settings().raw_alias == Some(rest) {
            return Some(RAW_PATH);
        }
        (rest.is_empty() || rest.starts_with('/')).then_some(rest)
    }

    async fn serve<S, B, E>(
        &self,
        request: Request<'_>,
        upgrade: Option<OnUpgrade>,
        body: S,
    ) -> Response
    where
        S: Stream<Item = Result<B, E>>,
        B: Buf,
    {
        let headers = request.headers;
        let settings = self.registry.settings();
        let (method, path, _) = request.line;
        let Some(rest) = self.rest(path) else {
            return pages::not_found(headers);
        };
        let on = &settings.transports;
        let route = match route(rest, method.as_str(), on) {
            Verdict::Serve(route) => route,
            Verdict::MethodNotAllowed(allow) => return pages::method_not_allowed(allow),
            Verdict::NotFound => return pages::not_found(headers),
        };
        // An origin that is not text is on no list.
        let origin = headers
            .get(ORIGIN)
            .map(|value| value.to_str().unwrap_or(""));
        if !settings.origins.allow(origin) && !is_own(origin, headers) {
            return pages::foreign_origin(headers);
        }
        match route {
            Route::Greeting => pages::greeting(headers),
            Route::Info => pages::information(headers, settings),
            Route::Iframe => pages::iframe(headers, &self.iframe),
            Route::IframeScript => pages::iframe_script(headers),
            Route::Preflight {
                methods,
                of_session,
            } => pages::preflight(headers, methods, of_session && settings.jsessionid),
            Route::Receive { transport, session } => {
                let receiving = Receiving {
                    transport,
                    session,
                    call: &self.call(request),
                };
                receiving.answer(&self.registry).await
            }
            Route::XhrSend { session } => {
                let call = self.call(request);
                send(&self.registry, Way::Xhr, session, &call, body).await
            }
            Route::JsonpSend { session } => {
                let call = self.call(request);
                send(&self.registry, Way::Jsonp, session, &call, body).await
            }
            Route::WebSocket => self.socket(Mode::Framed, request, upgrade),
            Route::RawWebSocket => self.socket(Mode::Raw, request, upgrade),
        }
    }

    fn call<'r>(&self, request: Request<'r>) -> Call<'r> {
        let relay = self.registry.records().map(Records::relay);
        let hands_over = request.connection.is_some_and(|info| info.hands_over);
        let from = (self.address(request), hands_over);
        Call::new(request.line, request.headers, from, relay.map(Arc::as_ref))
    }

    fn socket(&self, mode: Mode, request: Request<'_>, upgrade: Option<OnUpgrade>) -> Response {
        let address = self.address(request);
        let deflate = self.sockets.settings().deflate;
        let (headers, (method, ..)) = (request.headers, request.line);
        let response = match Handshake::judge(method, headers, upgrade, deflate) {
            Ok(handshake) => match self.place(address) {
                Ok(place) => {
                    let origin = Origin {
                        address,
                        prefix: Arc::clone(&self.prefix),
                        place: Some(place.into()),
                    };
                    self.sockets.accept(handshake, mode, origin)
                }
                Err(why) => return pages::not_opened(headers, why),
            },
            Err(refusal) => refusal.response(),
        };
        response.map(Into::into)
    }

    fn place(&self, address: IpAddr) -> Result<Permit<IpAddr>, NotOpened> {
        if self.stop.is_cancelled() {
            return Err(NotOpened::Stopping);
        }
        self.registry.bounds().admit(address)
    }

    fn address(&self, request: Request<'_>) -> IpAddr {
        let Some(connection) = request.connection else {
            // Only filters tested without a connection come here.
            return IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        };
        let peer = connection.peer.ip();
        self.proxies.client_address(peer, request.headers)
    }
}

/// Whether a page of this very server asks: its own console must not be shut out by a list of others.
fn is_own(origin: Option<&str>, headers: &HeaderMap) -> bool {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let page = origin.and_then(|origin| origin.split_once("://"));
    match (page, host) {
        (Some((scheme, page)), Some(host)) => {
            let port = if scheme == "https" { ":443" } else { ":80" };
            let bare = |host: &str| host.strip_suffix(port).unwrap_or(host).to_ascii_lowercase();
            bare(page) == bare(host)
        }
        _ => false,
    }
}
