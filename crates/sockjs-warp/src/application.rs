//! The face that a product shows to the transports: who is opened, what is sent next, who is closed.
//!
//! The transport pulls: nothing is ever pushed at a session. When something may have changed, the
//! application notifies the session's [`WakeSlot`]; the driver that holds the receiver then asks
//! [`Conversation::next`] until it says [`Next::Wait`].

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::clock::Timestamp;
use crate::sockjs::{Form, Slice, Transport};
use crate::wake::WakeSlot;

/// What a transport knows of a client when its session opens.
#[derive(Clone, Debug)]
pub struct Opened {
    /// How the client is connected.
    pub transport: Transport,
    /// The client's address, as trusted proxies report it.
    pub address: IpAddr,
    /// The mount's prefix, e.g. `/api/v1/fleet/results`.
    pub prefix: Arc<str>,
    /// Wakes the driver of this session; cheap to clone and to notify twice. Sessions share a driver, so it is only to be
    /// notified, never listened to, and to be dropped when the session is over: the driver ends with the last clone.
    pub wake_slot: WakeSlot,
}

/// What to send next.
#[derive(Debug)]
pub enum Next {
    /// A run of whole messages already encoded in the form that was asked for, to be written as they are.
    Slice(Slice),
    /// Messages of the application's own, still plain: the transport frames them, all in one SockJS frame
    /// where the transport has frames. Never empty.
    Messages(SmallVec<[Bytes; 2]>),
    /// Nothing now; the wake slot will be notified.
    Wait,
    /// Nothing ever again: close the session with this code and reason (at most 123 bytes).
    Close {
        /// 1000 to 4999.
        code: u16,
        /// For people.
        reason: String,
    },
}

/// Something that talks to clients: one product, or one test service.
pub trait Application: Send + Sync + 'static {
    /// A client has connected. Called before the open frame is written; must not block.
    fn open(&self, opened: Opened, now: Timestamp) -> Box<dyn Conversation>;
}

/// The application's half of one session. Called under the session's lock: must neither block nor await.
/// Work that has to wait is spawned by the application and notifies the wake slot when it is done.
pub trait Conversation: Send {
    /// The client has sent a message.
    fn message(&mut self, text: &str, now: Timestamp);

    /// The client has sent a binary message, which only a raw WebSocket can. False refuses it: the
    /// session is closed with 1003.
    fn binary(&mut self, _bytes: &[u8], _now: Timestamp) -> bool {
        false
    }

    /// What to send next, in this form, at most about `budget` bytes (the slice ends with the message that
    /// reaches it, and holds at least one message if there is any).
    fn next(&mut self, form: Form, budget: usize, now: Timestamp) -> Next;

    /// When [`Conversation::next`] must be asked again even if nobody notifies, e.g. for a login deadline.
    fn deadline(&self) -> Option<Timestamp> {
        None
    }

    /// Looks at what [`Conversation::next`] is going to look at, and nothing else. Called for many sessions before the
    /// first of them is asked: what they need is then fetched from memory side by side.
    fn look(&self) {}

    /// The session is over, whoever ended it. Called once, last.
    fn closed(&mut self, _now: Timestamp) {}
}
