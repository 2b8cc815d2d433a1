//! The body of a relayed response: another node's frames as they come, and an end that clients survive.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep};
use tokio_stream::Stream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::sockjs::frame::Frame;
use crate::sockjs::{Close, Framing};

/// Frames from the node that holds the session. Dropping it closes the connection to that node, which takes it for
/// what it is: the receiver has gone.
pub(super) struct Relayed {
    /// `None` when nothing follows.
    body: Option<Incoming>,
    framing: Framing,
    /// Whether what was handed out so far ends with a whole frame; all streams' frames end with a line feed.
    whole: bool,
    /// The other node has nothing to say for so long only if it is dead: it sends heartbeats.
    silence: Duration,
    /// Since when it has been listened to in vain. A client that does not read is not its fault.
    silent_since: Option<Instant>,
    alarm: Pin<Box<Sleep>>,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
    _place: OwnedSemaphorePermit,
}

impl Relayed {
    pub(super) fn new(
        body: Incoming,
        framing: Framing,
        silence: Duration,
        stop: CancellationToken,
        place: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            body: Some(body),
            framing,
            whole: true,
            silence,
            silent_since: None,
            alarm: Box::pin(tokio::time::sleep(silence)),
            stop: Box::pin(stop.cancelled_owned()),
            _place: place,
        }
    }

    /// The next chunk, or the end. However the other node ended, this response ends in order: the client then asks
    /// again, and hears what has become of its session.
    fn poll_chunk(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        if self.stop.as_mut().poll(context).is_ready() {
            self.body = None;
            let goodbye = self.framing.frame(&Frame::Close(Close::go_away()));
            return Poll::Ready(self.whole.then_some(goodbye));
        }
        loop {
            match Pin::new(&mut *body).poll_frame(context) {
                Poll::Pending => break,
                Poll::Ready(Some(Ok(frame))) => {
                    let Ok(data) = frame.into_data() else {
                        continue;
                    };
                    self.whole = data.last() == Some(&b'\n');
                    self.silent_since = None;
                    return Poll::Ready(Some(data));
                }
                Poll::Ready(Some(Err(error))) => {
                    tracing::debug!(%error, "a relayed stream broke");
                    self.body = None;
                    return Poll::Ready(None);
                }
                Poll::Ready(None) => {
                    self.body = None;
                    return Poll::Ready(None);
                }
            }
        }
        let since = *self.silent_since.get_or_insert_with(Instant::now);
        while self.alarm.as_mut().poll(context).is_ready() {
            let until = since + self.silence;
            if until <= Instant::now() {
                tracing::debug!("a relayed stream has fallen silent");
                self.body = None;
                return Poll::Ready(None);
            }
            self.alarm.as_mut().reset(until);
        }
        Poll::Pending
    }
}

impl Stream for Relayed {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let chunk = self.get_mut().poll_chunk(context);
        chunk.map(|chunk| chunk.map(Ok))
    }
}
