//! The five receiving transports: their headers, and a body that is one frame or a stream of them.

use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::Arc;

use http::header::X_CONTENT_TYPE_OPTIONS;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use warp::Reply;
use warp::reply::Response;

use super::driver::{Frames, receive};
use super::headers::{EVENT_STREAM, HTML, JAVASCRIPT, PLAIN, Recipes};
use super::pages::{answer, not_opened};
use super::registry::Registry;
use crate::sockjs::frame::{BadCallback, callback};
use crate::sockjs::{Framing, Transport};

/// One request for frames.
pub(super) struct Receiving<'r> {
    pub(super) transport: Transport,
    pub(super) session: &'r str,
    pub(super) query: &'r str,
    pub(super) address: IpAddr,
    pub(super) request: &'r HeaderMap,
}

impl Receiving<'_> {
    /// Answers with frames. A request that is refused leaves no session behind.
    pub(super) async fn answer(self, registry: &Arc<Registry>) -> Response {
        let framing = match self.framing() {
            Ok(framing) => framing,
            Err(bad) => return self.bad_callback(bad),
        };
        let polling = framing.is_polling();
        let headers = self.headers(registry, &framing);
        let open = || registry.find_or_open(self.session, self.transport, self.address);
        match receive(registry, open, self.transport, framing).await {
            Err(why) => not_opened(self.request, why),
            Ok(frames) if polling => one_frame(headers, frames).await,
            Ok(frames) => {
                let mut response = warp::reply::stream(frames).into_response();
                *response.headers_mut() = headers;
                response
            }
        }
    }

    fn framing(&self) -> Result<Framing, BadCallback> {
        Ok(match self.transport {
            Transport::XhrStreaming => Framing::XhrStreaming,
            Transport::EventSource => Framing::EventSource,
            Transport::HtmlFile => Framing::HtmlFile {
                callback: callback(self.query)?,
            },
            Transport::Jsonp => Framing::Jsonp {
                callback: callback(self.query)?,
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
        let mut headers = Recipes::new(self.request)
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
        if self.transport == Transport::Jsonp {
            let value = HeaderValue::from_static("nosniff");
            headers.insert(X_CONTENT_TYPE_OPTIONS, value);
        }
        headers
    }

    fn bad_callback(&self, bad: BadCallback) -> Response {
        let recipes = Recipes::new(self.request).no_cache().content_type(PLAIN);
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        answer(status, recipes.done(), bad.text())
    }
}

/// Waits for the frame, so that the answer has a length. A client that leaves meanwhile drops this
/// future, and the frames with it.
async fn one_frame(headers: HeaderMap, mut frames: Frames) -> Response {
    let first = poll_fn(|context| frames.poll_chunk(context)).await;
    let mut frame = first.unwrap_or_default();
    // A poll's frame is one part by its framing; were it more, none would be lost.
    while let Some(more) = poll_fn(|context| frames.poll_chunk(context)).await {
        frame = [frame, more].concat().into();
    }
    answer(StatusCode::OK, headers, frame)
}
