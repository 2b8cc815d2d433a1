//! The five receiving transports: their headers, and a body that is one frame or a stream of them.

use std::future::poll_fn;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use warp::Reply;
use warp::reply::Response;

use super::bounds::NotOpened;
use super::call::Call;
use super::frames::{Chunks, Frames, receive};
use super::headers::{EVENT_STREAM, HTML, JAVASCRIPT, PLAIN, Recipes};
use super::location::SessionLocation;
use super::pages::{answer, not_opened, unknown_to_node};
use super::registry::Registry;
use super::relay::{Outcome, Owner, RequestOrigin};
use super::streaming::Streaming;
use crate::net::SocketTakeover;
use crate::sockjs::frame::{BadCallback, callback};
use crate::sockjs::{Close, Coding, Framing, Transport};

/// One request for frames.
pub(super) struct Receiving<'r> {
    pub(super) transport: Transport,
    pub(super) session: &'r str,
    pub(super) call: &'r Call<'r>,
}

impl Receiving<'_> {
    /// Answers with frames, wherever the session is. A request that is refused leaves no session behind.
    pub(super) async fn answer(self, registry: &Arc<Registry>) -> Response {
        let framing = match self.framing() {
            Ok(framing) => framing,
            Err(bad) => return self.bad_callback(bad),
        };
        loop {
            let found = match self.call.bearer {
                RequestOrigin::Node => match registry.held(self.session).await {
                    Some(handle) => Ok(SessionLocation::Here(handle)),
                    None => return unknown_to_node(),
                },
                _ => {
                    let address = self.call.address;
                    registry
                        .locate_or_open(self.session, self.transport, address)
                        .await
                }
            };
            let handle = match found {
                Err(why) => return not_opened(self.call.headers, why),
                Ok(SessionLocation::Here(handle)) => handle,
                Ok(SessionLocation::There(owner)) => {
                    match self.fetched(registry, &owner, &framing).await {
                        Some(answer) => return answer,
                        None => continue,
                    }
                }
                // Not said of a session that is received from.
                Ok(SessionLocation::Nowhere) => return unknown_to_node(),
            };
            if let Some(frames) = receive(
                registry,
                handle,
                self.transport,
                &framing,
                self.coding(&framing),
            )
            .await
            {
                return self.respond(registry, &framing, frames).await;
            }
        }
    }

    /// The answer of the node that holds the session. None: it is not there after all, look again.
    async fn fetched(
        &self,
        registry: &Registry,
        owner: &Owner,
        framing: &Framing,
    ) -> Option<Response> {
        let records = registry.records()?;
        if self.call.bearer == RequestOrigin::Unproved {
            return Some(not_opened(self.call.headers, NotOpened::Relayed));
        }
        let (relay, stop) = (records.relay(), records.stop());
        let errand = self.call.errand(Bytes::new());
        let heartbeat = registry.settings().timing.heartbeat;
        let fetched = tokio::select! {
            fetched = relay.fetch(owner, errand, framing, heartbeat, stop) => fetched,
            () = stop.cancelled() => {
                let frames = Frames::refusing(framing.clone(), self.coding(framing), Close::go_away());
                return Some(self.respond(registry, framing, frames).await);
            }
        };
        match fetched {
            Outcome::Answer(response) => Some(response),
            Outcome::Full => Some(not_opened(self.call.headers, NotOpened::TooManySessions)),
            Outcome::Lost => {
                let name = records.name(self.session);
                if !relay.is_lost(&name, owner).await {
                    return None;
                }
                let frames =
                    Frames::refusing(framing.clone(), self.coding(framing), Close::interrupted());
                Some(self.respond(registry, framing, frames).await)
            }
        }
    }

    async fn respond(&self, registry: &Registry, framing: &Framing, frames: Frames) -> Response {
        let headers = self.headers(registry, framing);
        if framing.is_polling() {
            return one_frame(headers, frames.into()).await;
        }
        let mut response = if self.coding(framing) == Coding::Chunked {
            let handover = SocketTakeover::new(move |socket, head| {
                Box::pin(Streaming::new(socket, head, frames))
            });
            let mut response = Response::default();
            response.extensions_mut().insert(handover);
            response
        } else {
            warp::reply::stream(Chunks::from(frames)).into_response()
        };
        *response.headers_mut() = headers;
        response
    }

    /// A stream is written past hyper where that can be. To another node it is not: that one would unpack and pack each
    /// message's chunk by itself.
    fn coding(&self, framing: &Framing) -> Coding {
        let alone = framing.is_polling() || self.call.bearer == RequestOrigin::Node;
        if self.call.hands_over && !alone {
            Coding::Chunked
        } else {
            Coding::Plain
        }
    }

    fn framing(&self) -> Result<Framing, BadCallback> {
        Ok(match self.transport {
            Transport::XhrStreaming => Framing::XhrStreaming,
            Transport::EventSource => Framing::EventSource,
            Transport::HtmlFile => Framing::HtmlFile {
                callback: callback(self.call.query)?,
            },
            Transport::Jsonp => Framing::Jsonp {
                callback: callback(self.call.query)?,
            },
            Transport::Xhr | Transport::WebSocket | Transport::RawWebSocket => Framing::Xhr,
        })
    }

    fn headers(&self, registry: &Registry, framing: &Framing) -> HeaderMap {
        let content_type = match self.transport {
            Transport::EventSource => EVENT_STREAM,
            Transport::HtmlFile => HTML,
            _ => JAVASCRIPT,
        };
        let by_script = matches!(self.transport, Transport::HtmlFile | Transport::Jsonp);
        let mut headers = Recipes::new(self.call.headers)
            .no_cache()
            .content_type(content_type)
            .when(!by_script, Recipes::cors)
            .when(registry.settings().jsessionid, Recipes::jsessionid)
            .done();
        if !framing.is_polling() {
            // nginx would collect frames before it passes them on.
            let name = HeaderName::from_static("x-accel-buffering");
            headers.insert(name, HeaderValue::from_static("no"));
        }
        headers
    }

    fn bad_callback(&self, bad: BadCallback) -> Response {
        let recipes = Recipes::new(self.call.headers)
            .no_cache()
            .content_type(PLAIN);
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        answer(status, recipes.done(), bad.text())
    }
}

/// Waits for the frame, so that the answer has a length. A client that leaves meanwhile drops this
/// future, and the frames with it.
async fn one_frame(headers: HeaderMap, mut chunks: Chunks) -> Response {
    let first = poll_fn(|context| chunks.poll_chunk(context)).await;
    let mut frame = first.unwrap_or_default();
    // A poll's frame is one part by its framing; were it more, none would be lost.
    while let Some(more) = poll_fn(|context| chunks.poll_chunk(context)).await {
        frame = [frame, more].concat().into();
    }
    answer(StatusCode::OK, headers, frame)
}
