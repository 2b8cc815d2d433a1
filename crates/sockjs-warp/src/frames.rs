//! The frames of one HTTP response, as its session has them.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tokio_stream::Stream;

use super::alarm::Alarm;
use super::attached::Attached;
use super::handle::{Handle, Pulled};
use super::registry::Registry;
use crate::clock::Timestamp;
use crate::sockjs::frame::Frame;
use crate::sockjs::session::{Receiver, Refused, Sent};
use crate::sockjs::{Close, Coding, Framing, Parts, Transport};

/// A response's frames. They must always be polled by the same task, whose waker is registered once.
pub(super) struct Frames {
    framing: Framing,
    coding: Coding,
    /// What comes before anything of the session.
    first: Option<Parts>,
    /// `None` for a response that has no session.
    attached: Option<Attached>,
    /// Whether nothing follows.
    ended: bool,
    /// Whether the task is woken by the session's wake slot.
    listens: bool,
    alarm: Option<(Timestamp, Alarm)>,
}

/// What there is to hand out.
pub(super) enum Polled {
    /// Whole frames, or a prelude.
    Parts {
        parts: Parts,
        /// Whether it is of no use to ask again before the task is woken.
        drained: bool,
    },
    /// Nothing yet; the task is woken when that may have changed.
    Nothing,
    /// The response is complete.
    End,
}

impl Frames {
    /// Frames of a session as they come.
    pub(super) fn live(framing: Framing, coding: Coding, attached: Attached) -> Self {
        let prelude = framing.prelude().map(|prelude| coding.code(prelude));
        Self {
            first: prelude.map(|prelude| Parts::from_elem(prelude, 1)),
            framing,
            coding,
            attached: Some(attached),
            ended: false,
            listens: false,
            alarm: None,
        }
    }

    /// A response of one close frame to a receiver that may not attach.
    pub(super) fn refusing(framing: Framing, coding: Coding, close: Close) -> Self {
        let close = framing.frame(&Frame::Close(close));
        let all = framing.prelude().into_iter().chain([close]);
        Self {
            first: Some(all.map(|part| coding.code(part)).collect()),
            framing,
            coding,
            attached: None,
            ended: true,
            listens: false,
            alarm: None,
        }
    }

    /// Whether the session has a use for what is still to be handed out. If so, the task is woken when that changes.
    pub(super) fn is_wanted(&self) -> bool {
        self.receiver().is_none_or(|attached| {
            // A wake slot that has notified notifies again only once that was heard.
            let _ = attached.wake_slot().take();
            attached.is_attached()
        })
    }

    /// Tells the session whether all that was handed out has been taken, as far as asking for more has not.
    pub(super) fn taken(&self, all: bool) {
        if let Some(attached) = self.receiver() {
            attached.taken(all);
        }
    }

    /// The receiver's place, as long as more may follow.
    fn receiver(&self) -> Option<&Attached> {
        self.attached.as_ref().filter(|_| !self.ended)
    }

    /// Tells the session how far the response's last bytes have come. The client comes back when it has them.
    pub(super) fn written(&self, all: bool) {
        if let Some(detached) = self.attached.as_ref().filter(|_| self.ended) {
            detached.written(all);
        }
    }

    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Polled {
        if let Some(parts) = self.first.take() {
            let drained = false;
            return Polled::Parts { parts, drained };
        }
        loop {
            let Some(attached) = self.attached.as_mut().filter(|_| !self.ended) else {
                return Polled::End;
            };
            if !std::mem::replace(&mut self.listens, true) {
                attached.wake_slot().listen(context);
            }
            // Before the pull, so that no notification is missed; what has notified so far, the pull will see.
            let _ = attached.wake_slot().take();
            match attached.pull(&self.framing, self.coding) {
                Pulled::Parts {
                    parts,
                    sent,
                    drained,
                    ..
                } => {
                    self.ended = sent == Sent::Ends;
                    // Without an alarm that is still to fire there would be no heartbeat.
                    let drained = drained && sent == Sent::More && self.rings();
                    return Polled::Parts { parts, drained };
                }
                Pulled::End => self.ended = true,
                Pulled::Wait(until) => {
                    let now = attached.now();
                    if !self.is_due(until, now, context) {
                        return Polled::Nothing;
                    }
                }
            }
        }
    }

    /// Whether an alarm is set that has not notified.
    fn rings(&self) -> bool {
        let alarm = self.alarm.as_ref();
        alarm.is_some_and(|(_, alarm)| Instant::now() < alarm.at())
    }

    /// Whether it is `until`, or somewhat before; if not, the task is woken then. An alarm set too early is left alone
    /// until it notifies: traffic puts heartbeats off, and resetting a timer for every message would cost more.
    fn is_due(&mut self, until: Timestamp, now: Timestamp, context: &mut Context<'_>) -> bool {
        // An application whose deadline stays in the past must not make its driver spin.
        const PAUSE_MIN: Duration = Duration::from_millis(1);
        let (_, alarm) = match &mut self.alarm {
            Some(set) if set.0 <= until => set,
            slot => {
                let at = Instant::now() + until.since(now).max(PAUSE_MIN);
                slot.insert((until, Alarm::new(at)))
            }
        };
        let rung = alarm.poll_notified(Instant::now(), context);
        if rung {
            self.alarm = None;
        }
        rung
    }
}

/// A response's frames for hyper, each to be its own chunk.
pub(super) struct Chunks {
    frames: Frames,
    /// What has been taken from the session and not been handed out.
    pending: smallvec::IntoIter<[Bytes; 2]>,
}

impl From<Frames> for Chunks {
    fn from(frames: Frames) -> Self {
        let pending = Parts::new().into_iter();
        Self { frames, pending }
    }
}

impl Chunks {
    /// The next chunk, or nothing if the response ends.
    pub(super) fn poll_chunk(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            if let Some(chunk) = self.pending.next() {
                return Poll::Ready(Some(chunk));
            }
            match self.frames.poll(context) {
                Polled::Parts { parts, .. } => self.pending = parts.into_iter(),
                Polled::Nothing => return Poll::Pending,
                Polled::End => return Poll::Ready(None),
            }
        }
    }
}

impl Stream for Chunks {
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
    coding: Coding,
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
            Ok(attached) => return Some(Frames::live(framing.clone(), coding, attached)),
            Err(Refused::Over) => {
                registry.forget(&handle);
                return None;
            }
            Err(Refused::Busy) => {
                let gone = tokio::time::timeout_at(patience, vacated).await;
                if gone.is_err() {
                    let close = Close::another_connection();
                    return Some(Frames::refusing(framing.clone(), coding, close));
                }
            }
        }
    }
}
