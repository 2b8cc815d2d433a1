//! Answers of the operators' API: indented JSON, or a stream.

use bytes::Bytes;
use futures_util::Stream;
use http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use warp::Reply as _;
use warp::reply::Response;

/// Says `true` on results of which some are lost.
const INCOMPLETE: HeaderName = HeaderName::from_static("answerback-incomplete");

/// What a handler answers.
pub(super) struct Reply(Response);

impl Reply {
    /// 200 with this document.
    pub(super) fn json(document: &impl Serialize) -> Self {
        Self(json_response(StatusCode::OK, document))
    }

    /// 200 with a document that is text already.
    pub(super) fn json_text(text: Bytes) -> Self {
        let mut response = Response::new(text.into());
        head(&mut response);
        Self(response)
    }

    /// 200 with `{}`.
    #[must_use]
    pub(super) fn empty() -> Self {
        Self::json(&serde_json::Map::new())
    }

    /// 200 with a body that is made while it is sent. `file` is what a browser saves it as.
    pub(super) fn stream<S>(content_type: &'static str, file: &str, stream: S) -> Self
    where
        S: Stream<Item = Result<Bytes, std::io::Error>> + Send + Sync + 'static,
    {
        let mut response = warp::reply::stream(stream).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        let disposition = format!("attachment; filename=\"{file}\"");
        if let Ok(disposition) = HeaderValue::from_str(&disposition) {
            headers.insert(CONTENT_DISPOSITION, disposition);
        }
        Self(response)
    }

    /// What is sent is not all that there was.
    pub(super) fn incomplete(mut self) -> Self {
        let headers = self.0.headers_mut();
        headers.insert(INCOMPLETE, HeaderValue::from_static("true"));
        self
    }

    /// 200 with a JSON document that comes when it is ready.
    pub(super) fn slow<S>(stream: S) -> Self
    where
        S: Stream<Item = Result<Bytes, std::io::Error>> + Send + Sync + 'static,
    {
        let mut response = warp::reply::stream(stream).into_response();
        head(&mut response);
        Self(response)
    }

    /// A text that never changes while this process lives.
    pub(super) fn fixed(content_type: &'static str, text: impl Into<Bytes>) -> Self {
        let mut response = Response::new(text.into().into());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        Self(response)
    }

    /// The same answer with one more header.
    #[must_use]
    pub(super) fn with(mut self, name: http::header::HeaderName, value: &'static str) -> Self {
        self.0
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
        self
    }

    /// The HTTP response.
    #[must_use]
    pub(super) fn into_response(self) -> Response {
        self.0
    }
}

/// A response of two-space indented JSON, as Fleet sends it.
pub(super) fn json_response(status: StatusCode, document: &impl Serialize) -> Response {
    let body = match serde_json::to_vec_pretty(document) {
        Ok(mut body) => {
            body.push(b'\n');
            body
        }
        Err(error) => {
            // Only a map with keys that are not strings could; no document has one.
            tracing::error!(%error, "an answer could not be written");
            b"{}".to_vec()
        }
    };
    let mut response = Response::new(Bytes::from(body).into());
    *response.status_mut() = status;
    head(&mut response);
    response
}

fn head(response: &mut Response) {
    let headers = response.headers_mut();
    let json = HeaderValue::from_static("application/json; charset=utf-8");
    headers.insert(CONTENT_TYPE, json);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}
