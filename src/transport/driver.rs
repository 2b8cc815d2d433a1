//! The one driver of every receiver that is an HTTP response: frames out, aborts noticed.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, Sleep};
use tokio_stream::Stream;

use super::handle::{Handle, Pulled};
use super::registry::Registry;
use crate::clock::Timestamp;
use crate::sockjs::frame::Frame;
use crate::sockjs::session::{Receiver, ReceiverId, Refused, Sent};
use crate::sockjs::{Close, Framing, Transport};

/// The place of a session's receiver, taken. Dropped before it is vacated, it means that the client
/// has gone: the session ends.
pub(super) struct Attached {
    registry: Arc<Registry>,
    handle: Arc<Handle>,
    id: ReceiverId,
    transport: Transport,
    vacated: bool,
}

impl Attached {
    /// Takes the place in a session that may be there already.
    pub(super) fn new(
        registry: &Arc<Registry>,
        handle: Arc<Handle>,
        kind: Receiver,
        transport: Transport,
    ) -> Result<Self, Refused> {
        let id = handle.attach(kind, registry.clock().now())?;
        Ok(Self {
            registry: Arc::clone(registry),
            handle,
            id,
            transport,
            vacated: false,
        })
    }

    /// What is handed out next. After [`Sent::Ends`] or [`Pulled::End`] there is nothing more, and
    /// dropping this means nothing any more.
    pub(super) fn pull(&mut self, framing: &Framing) -> Pulled {
        let pulled = self.handle.pull(self.id, framing, self.now());
        let ended = match &pulled {
            Pulled::Parts {
                parts,
                messages,
                sent,
            } => {
                let bytes = parts.iter().map(Bytes::len).sum();
                let meters = self.registry.meters(self.transport);
                meters.handed_out(bytes, *messages);
                *sent == Sent::Ends
            }
            Pulled::End => true,
            Pulled::Wait(_) => false,
        };
        if ended {
            self.vacate();
        }
        pulled
    }

    pub(super) fn now(&self) -> Timestamp {
        self.registry.clock().now()
    }

    fn vacate(&mut self) {
        self.vacated = true;
        // A socket's session ends with its last frame; another's may have been ended by a timer.
        if self.handle.lost(self.id, self.now()) {
            self.registry.forget(&self.handle);
        }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        if !self.vacated {
            self.vacate();
        }
    }
}

/// A response's frames, each to be its own chunk.
pub(super) struct Frames {
    framing: Framing,
    /// What has been taken from the session and not been handed out.
    pending: VecDeque<Bytes>,
    /// `None` when nothing follows what is pending.
    attached: Option<Attached>,
    alarm: Option<Alarm>,
}

struct Alarm {
    sleep: Pin<Box<Sleep>>,
    at: Timestamp,
}

impl Frames {
    /// Frames of a session as they come.
    fn live(framing: Framing, attached: Attached) -> Self {
        let pending = framing.prelude().into_iter().collect();
        Self {
            framing,
            pending,
            attached: Some(attached),
            alarm: None,
        }
    }

    /// A response of one close frame to a receiver that may not attach.
    pub(super) fn refusing(framing: Framing, close: Close) -> Self {
        let mut pending: VecDeque<Bytes> = framing.prelude().into_iter().collect();
        pending.push_back(framing.frame(&Frame::Close(close)));
        Self {
            framing,
            pending,
            attached: None,
            alarm: None,
        }
    }

    /// The next chunk, or nothing if the response ends.
    pub(super) fn poll_chunk(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            if let Some(chunk) = self.pending.pop_front() {
                return Poll::Ready(Some(chunk));
            }
            let Some(attached) = &mut self.attached else {
                return Poll::Ready(None);
            };
            // Before the pull, so that no ring is missed; what has rung so far, the pull will see.
            let _ = attached.handle.bell().poll_rung(context);
            match attached.pull(&self.framing) {
                Pulled::Parts { parts, sent, .. } => {
                    // A stream at rest keeps no buffer, and one part needs none.
                    let mut parts = parts.into_iter();
                    let first = parts.next();
                    self.pending = parts.collect();
                    if sent == Sent::Ends {
                        self.attached = None;
                    }
                    if first.is_some() {
                        return Poll::Ready(first);
                    }
                }
                Pulled::End => self.attached = None,
                Pulled::Wait(until) => {
                    let now = attached.now();
                    if self.poll_alarm(until, now, context).is_pending() {
                        return Poll::Pending;
                    }
                }
            }
        }
    }

    /// Ready at `until`, or somewhat before, but never at once. An alarm set too early is left alone until it rings:
    /// traffic puts heartbeats off, and resetting a timer for every message would cost more.
    fn poll_alarm(
        &mut self,
        until: Timestamp,
        now: Timestamp,
        context: &mut Context<'_>,
    ) -> Poll<()> {
        // An application whose deadline stays in the past must not make its driver spin.
        const PAUSE_MIN: Duration = Duration::from_millis(1);
        let alarm = match &mut self.alarm {
            Some(alarm) if alarm.at <= until => alarm,
            slot => slot.insert(Alarm {
                sleep: Box::pin(tokio::time::sleep(until.since(now).max(PAUSE_MIN))),
                at: until,
            }),
        };
        let rung = alarm.sleep.as_mut().poll(context);
        if rung.is_ready() {
            self.alarm = None;
        }
        rung
    }
}

impl Stream for Frames {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let chunk = self.get_mut().poll_chunk(context);
        chunk.map(|chunk| chunk.map(Ok))
    }
}

/// Attaches a request to its session. A receiver that seems attached is given
/// [`Settings::abort_grace`](crate::sockjs::Settings) to go away; after that the frames say 2010. None: the session
/// has ended between being found and being attached to.
pub(super) async fn receive(
    registry: &Arc<Registry>,
    handle: Arc<Handle>,
    transport: Transport,
    framing: &Framing,
) -> Option<Frames> {
    let limit = registry.settings().response_limit;
    let kind = if framing.is_polling() {
        Receiver::Poll { limit }
    } else {
        Receiver::Stream { limit }
    };
    let patience = Instant::now() + registry.settings().abort_grace;
    loop {
        let vacated = handle.vacated();
        match Attached::new(registry, Arc::clone(&handle), kind, transport) {
            Ok(attached) => return Some(Frames::live(framing.clone(), attached)),
            Err(Refused::Over) => {
                registry.forget(&handle);
                return None;
            }
            Err(Refused::Busy) => {
                let gone = tokio::time::timeout_at(patience, vacated).await;
                if gone.is_err() {
                    let close = Close::another_connection();
                    return Some(Frames::refusing(framing.clone(), close));
                }
            }
        }
    }
}
