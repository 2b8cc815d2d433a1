//! A response whose maker writes the body to the socket itself, past hyper, and gives the connection back.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderValue, Request, Response, Version, header, response};
use hyper::body::{Body, Incoming};

use super::Socket;

/// What writes a response: the socket again if the connection can serve the next request, none if it is of no use
/// any more.
pub type Writing = Pin<Box<dyn Future<Output = Option<Socket>> + Send>>;

type Begin = Box<dyn FnOnce(Socket, Bytes) -> Writing + Send>;

/// An extension of a response: `serve` lets go of the socket and has this write the head it is given, and then the body
/// in chunks as HTTP/1.1 codes them. Only for requests whose [`ConnInfo::hands_over`](super::ConnInfo) says so.
///
/// It can be cloned only because extensions must be; the first one to begin is the only one.
#[derive(Clone)]
pub struct SocketTakeover(Arc<Mutex<Option<Begin>>>);

impl SocketTakeover {
    /// What is to be done with the socket and the response's head.
    pub fn new(begin: impl FnOnce(Socket, Bytes) -> Writing + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(Some(Box::new(begin)))))
    }

    pub(super) fn begin(&self, socket: Socket, head: Bytes) -> Option<Writing> {
        let begin = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        begin.map(|begin| begin(socket, head))
    }
}

/// Whether a response to this request may be handed over: its client takes chunks and keeps the connection, and nothing
/// of the request is still to be read.
pub(super) fn may_follow(request: &Request<Incoming>) -> bool {
    let closes = |value: &HeaderValue| {
        let mut options = value.as_bytes().split(|byte| *byte == b',');
        options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"))
    };
    let mut connection = request.headers().get_all(header::CONNECTION).iter();
    request.body().is_end_stream()
        && request.version() == Version::HTTP_11
        && !connection.any(closes)
}

/// A response and who writes it, if it is to be handed over.
pub(super) fn take<B>(response: &mut Response<B>) -> Option<SocketTakeover> {
    response.extensions_mut().remove()
}

/// The head of a response in chunks, as it goes on the wire.
#[expect(
    clippy::disallowed_methods,
    reason = "hyper dates the other answers so"
)]
pub(super) fn head(parts: &response::Parts) -> Bytes {
    /// What the answers here come to, with their date.
    const BYTES: usize = 512;
    let mut head = BytesMut::with_capacity(BYTES);
    head.put_slice(b"HTTP/1.1 ");
    head.put_slice(parts.status.as_str().as_bytes());
    head.put_u8(b' ');
    head.put_slice(parts.status.canonical_reason().unwrap_or("").as_bytes());
    for (name, value) in &parts.headers {
        put_header(&mut head, name.as_str(), value.as_bytes());
    }
    put_header(&mut head, "transfer-encoding", b"chunked");
    let date = httpdate::fmt_http_date(SystemTime::now());
    put_header(&mut head, "date", date.as_bytes());
    head.put_slice(b"\r\n\r\n");
    head.freeze()
}

fn put_header(head: &mut BytesMut, name: &str, value: &[u8]) {
    head.put_slice(b"\r\n");
    head.put_slice(name.as_bytes());
    head.put_slice(b": ");
    head.put_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_says_how_the_body_is_coded_and_when() {
        let response = Response::builder()
            .header("content-type", "text/event-stream")
            .body(())
            .unwrap();
        let head = head(&response.into_parts().0);
        let text = std::str::from_utf8(&head).unwrap();
        let (before, date) = text.split_once("date: ").unwrap();
        assert_eq!(
            before,
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n"
        );
        let date = date.strip_suffix("\r\n\r\n").unwrap();
        httpdate::parse_http_date(date).unwrap();
    }
}
