//! The place of a session's one receiver: taken, asked for frames through, and given back.

use std::sync::Arc;

use bytes::Bytes;

use super::handle::{Handle, Pulled};
use super::registry::Registry;
use crate::clock::Timestamp;
use crate::sockjs::session::{Receiver, ReceiverId, Refused, Sent};
use crate::sockjs::{Coding, Framing, Transport};
use crate::wake::WakeSlot;

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
    pub(super) fn pull(&mut self, framing: &Framing, coding: Coding) -> Pulled {
        let pulled = self.handle.pull(self.id, (framing, coding), self.now());
        let ended = match &pulled {
            Pulled::Parts {
                parts,
                messages,
                sent,
                ..
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

    /// Whether all that was handed out has been taken.
    pub(super) fn taken(&self, all: bool) {
        let stuck_since = (!all).then(|| self.now());
        self.handle.taken(self.id, stuck_since);
    }

    /// How far what was handed out last has come, after the place has been given back with it.
    pub(super) fn written(&self, all: bool) {
        self.handle.written(self.id, all, self.now());
    }

    /// Rung when there may be more.
    pub(super) fn wake_slot(&self) -> &WakeSlot {
        self.handle.wake_slot()
    }

    /// Whether the session has not ended meanwhile, or taken the place away.
    pub(super) fn is_attached(&self) -> bool {
        self.handle.is_attached(self.id)
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
