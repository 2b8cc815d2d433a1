//! The state machine of one session: who receives, what is sent next, when it is over.
//!
//! The caller's contract: hold one lock around [`Session::poll`], carrying out its [`Step`], and
//! [`Session::sent`]; poll again after an attach, after every wake-up of the application's wake slot, after
//! every `sent` that says [`Sent::More`] and at [`Step::Ask`]'s `until`; and call
//! [`Session::handle_timeout`] at [`Session::deadline`].
//!
//! ```text
//!            attach, poll              close
//!  Opening ───────────────▶ Open ───────────────▶ Closing
//!     └──────────┬────────────┴─────────┬────────────┘
//!          disconnect timer        lost, stalled ──▶ Over
//! ```
//!
//! The receiver is detached inside `sent`, before the caller hands out the last bytes: the client's
//! next request may arrive microseconds after it has read them.

use std::time::Duration;

use super::close::Close;
use super::frame::Frame;
use super::settings::Timing;
use crate::clock::Timestamp;

/// The most bytes an application is asked for at once: enough to be worth a write, small enough
/// that a close or a heartbeat is not queued behind it for long.
pub const SLICE_BYTES_MAX: usize = 1 << 20;

/// The slowest line whose clients keep their sessions, in bytes a second: 16 kbit/s. The server hears of a byte only that
/// the kernel, or a proxy, has taken it, and not that it has arrived; what a response holds is given so much more time to
/// arrive before its client counts as gone.
const SLOW_LINE: u64 = 2 * 1024;
/// What is sent before the line matters, in bytes: such responses arrive within the time that clients have anyway.
const SHORT: u64 = 8 * 1024;
/// What a kernel may still hold of a response that it has taken whole, in bytes, at most about.
const UNSENT: u64 = 256 * 1024;

/// One session.
#[derive(Debug)]
pub struct Session {
    timing: Timers,
    phase: Phase,
    attached: Option<Attached>,
    /// When the session ends for want of a receiver; `None` while there is one.
    vacant_until: Option<Timestamp>,
    receivers: u32,
    /// What the last receiver has been handed, in bytes.
    handed: u32,
    /// Milliseconds of `vacant_until` that are for what is still under way.
    allowed: u32,
    /// Whether clients have no more time to come back than those who were sent nothing.
    hurried: bool,
}

/// A [`Timing`] in milliseconds: there are as many sessions as viewers.
#[derive(Clone, Copy, Debug)]
struct Timers {
    heartbeat: u32,
    disconnect: u32,
    stall: u32,
}

impl From<Timing> for Timers {
    fn from(timing: Timing) -> Self {
        let millis = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        Self {
            heartbeat: millis(timing.heartbeat),
            disconnect: millis(timing.disconnect),
            stall: millis(timing.stall),
        }
    }
}

#[derive(Debug)]
enum Phase {
    /// The open frame has not been handed out.
    Opening,
    Open,
    /// The close frame is repeated to every receiver that comes.
    Closing(Box<Close>),
    Over,
}

/// What kind of receiver wants the session's frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receiver {
    /// A response of exactly one frame.
    Poll {
        /// About how many bytes the frame may have.
        limit: usize,
    },
    /// A response that ends once its frames add up to the limit.
    Stream {
        /// In bytes, wrapping included, prelude excluded.
        limit: usize,
    },
    /// A WebSocket, which is the only receiver its session will ever have.
    Socket {
        /// Whether it speaks SockJS frames. A raw one gets no open frame, and its driver answers a
        /// heartbeat with a ping.
        framed: bool,
    },
}

/// A [`Receiver`] without its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Poll,
    Stream,
    Socket,
}

/// Tells one receiver of a session from an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiverId(u32);

#[derive(Debug)]
struct Attached {
    id: ReceiverId,
    kind: Kind,
    /// Bytes left before a response ends.
    left: usize,
    heartbeat_at: Timestamp,
    /// Since when the receiver has not come back for more.
    handed_at: Option<Timestamp>,
    /// What was handed out last is the last there is.
    ending: bool,
}

/// Why a receiver was not attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Another one is attached: answer [`Close::another_connection`]; nothing has changed.
    Busy,
    /// The session is over: the id is unknown again.
    Over,
}

/// What the attached receiver's driver is to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Write this frame, then call [`Session::sent`].
    Write(Frame),
    /// Ask the application for at most about `budget` bytes. If it has something, call
    /// [`Session::sent`]; if it wants to close, [`Session::close`] and poll again; otherwise wait
    /// for its wake slot.
    Ask {
        /// In bytes.
        budget: usize,
        /// Poll again at this moment at the latest: a heartbeat is due.
        until: Timestamp,
    },
    /// The receiver is not attached any more: end the response.
    End,
}

/// Whether the response goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// Poll again once the bytes are taken.
    More,
    /// The receiver has been detached: hand out the bytes and end the response.
    Ends,
}

/// Why a session ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expired {
    /// No receiver came in time.
    Abandoned,
    /// The receiver did not take what it was handed.
    Stalled,
}

impl Session {
    /// A session nobody has received from yet.
    #[must_use]
    pub fn new(timing: Timing, now: Timestamp) -> Self {
        Self {
            timing: timing.into(),
            phase: Phase::Opening,
            attached: None,
            vacant_until: Some(now + timing.disconnect),
            receivers: 0,
            handed: 0,
            allowed: 0,
            hurried: false,
        }
    }

    /// Makes a request the receiver, if there is none.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn attach(&mut self, kind: Receiver, now: Timestamp) -> Result<ReceiverId, Refused> {
        if self.is_over() {
            return Err(Refused::Over);
        }
        if self.attached.is_some() {
            return Err(Refused::Busy);
        }
        if matches!(kind, Receiver::Socket { framed: false }) {
            self.open();
        }
        self.receivers = self.receivers.wrapping_add(1);
        self.handed = 0;
        let id = ReceiverId(self.receivers);
        let (kind, left) = match kind {
            Receiver::Poll { limit } => (Kind::Poll, limit.max(1)),
            Receiver::Stream { limit } => (Kind::Stream, limit.max(1)),
            Receiver::Socket { .. } => (Kind::Socket, usize::MAX),
        };
        self.vacant_until = None;
        self.attached = Some(Attached {
            id,
            kind,
            left,
            heartbeat_at: after(now, self.timing.heartbeat),
            handed_at: None,
            ending: false,
        });
        Ok(id)
    }

    /// What receiver `id` is to do now.
    pub fn poll(&mut self, id: ReceiverId, now: Timestamp) -> Step {
        let Some(attached) = self.attached.as_mut().filter(|one| one.id == id) else {
            return Step::End;
        };
        attached.handed_at = None;
        match &self.phase {
            Phase::Opening => {
                self.open();
                Step::Write(Frame::Open)
            }
            Phase::Open if now >= attached.heartbeat_at => Step::Write(Frame::Heartbeat),
            Phase::Open => Step::Ask {
                budget: attached.left.min(SLICE_BYTES_MAX),
                until: attached.heartbeat_at,
            },
            Phase::Closing(close) => {
                attached.ending = true;
                Step::Write(Frame::Close(Close::clone(close)))
            }
            Phase::Over => Step::End,
        }
    }

    /// Receiver `id` has `bytes` to hand out, wrapping included. Any traffic counts as a heartbeat.
    pub fn sent(&mut self, id: ReceiverId, bytes: usize, now: Timestamp) -> Sent {
        let Some(attached) = self.attached.as_mut().filter(|one| one.id == id) else {
            return Sent::Ends;
        };
        self.handed = self
            .handed
            .saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        if attached.kind == Kind::Stream {
            attached.left = attached.left.saturating_sub(bytes);
        }
        if attached.kind == Kind::Poll || attached.ending || attached.left == 0 {
            self.detach(now);
            return Sent::Ends;
        }
        attached.handed_at = Some(now);
        attached.heartbeat_at = after(now, self.timing.heartbeat);
        Sent::More
    }

    /// Receiver `id` has taken all it was handed, or not since a moment: for a driver that asks for more before it
    /// knows, or does not ask because there is nothing. A moment that stands already stays.
    pub fn taken(&mut self, id: ReceiverId, stuck_since: Option<Timestamp>) {
        if let Some(attached) = self.attached.as_mut().filter(|one| one.id == id) {
            attached.handed_at = stuck_since.map(|now| attached.handed_at.unwrap_or(now));
        }
    }

    /// How far the last bytes of receiver `id`, which has been detached, have come: for a driver that sees its socket take
    /// them. While it has not taken them all, and has taken some, the client cannot come back; its time begins with the
    /// last of them.
    pub fn written(&mut self, id: ReceiverId, all: bool, now: Timestamp) {
        if id.0 != self.receivers || self.vacant_until.is_none() || self.hurried {
            return;
        }
        self.vacant_until = Some(if all {
            self.gone_at(UNSENT, now)
        } else {
            self.allowed = self.timing.stall.saturating_sub(self.timing.disconnect);
            after(now, self.timing.stall)
        });
    }

    /// The connection of receiver `id` is gone. If it was attached, so is the session.
    pub fn lost(&mut self, id: ReceiverId) {
        if self.is_attached(id) {
            self.end();
        }
    }

    /// Ends the session in words: `close` is what receivers hear from now on. The first close
    /// stands; the driver of an attached receiver has to be woken.
    pub fn close(&mut self, close: Close) {
        if self.takes_messages() {
            self.phase = Phase::Closing(Box::new(close));
        }
    }

    /// The server is about to end: a client that is away has the usual time to come back, whatever it was sent.
    pub fn hurry(&mut self) {
        self.hurried = true;
        let allowed = u64::from(std::mem::take(&mut self.allowed));
        if let Some(until) = &mut self.vacant_until {
            until.0 = until.0.saturating_sub(allowed);
        }
    }

    /// The next moment at which [`Session::handle_timeout`] has something to do, if nothing else
    /// happens before.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        let handed_at = self.attached.as_ref().and_then(|one| one.handed_at);
        let stalled_at = handed_at.map(|since| after(since, self.timing.stall));
        self.vacant_until.or(stalled_at)
    }

    /// Ends a session that has no receiver for too long, or one that takes nothing.
    pub fn handle_timeout(&mut self, now: Timestamp) -> Option<Expired> {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return None;
        }
        let expired = match self.vacant_until {
            Some(_) => Expired::Abandoned,
            None => Expired::Stalled,
        };
        self.end();
        Some(expired)
    }

    /// Whether messages from the client still matter. Those for a closing session are discarded.
    #[must_use]
    pub const fn takes_messages(&self) -> bool {
        matches!(self.phase, Phase::Opening | Phase::Open)
    }

    /// Whether the session has ended for good; the caller forgets it and tells the application.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over)
    }

    /// Whether `id` is the receiver.
    #[must_use]
    pub fn is_attached(&self, id: ReceiverId) -> bool {
        self.attached.as_ref().is_some_and(|one| one.id == id)
    }

    fn open(&mut self) {
        if let Phase::Opening = self.phase {
            self.phase = Phase::Open;
        }
    }

    fn detach(&mut self, now: Timestamp) {
        let was = self.attached.take().map(|one| one.kind);
        match was {
            Some(Kind::Socket) => self.end(),
            _ => self.vacant_until = Some(self.gone_at(u64::MAX, now)),
        }
    }

    /// When a client counts as gone that has been sent all that it was handed, of which at most so much is under way.
    fn gone_at(&mut self, under_way_max: u64, now: Timestamp) -> Timestamp {
        if self.hurried {
            return after(now, self.timing.disconnect);
        }
        let under_way = u64::from(self.handed).min(under_way_max);
        let arrival = under_way.saturating_sub(SHORT) * 1000 / SLOW_LINE;
        let arrival = u32::try_from(arrival).unwrap_or(u32::MAX);
        let arrival = arrival.min(self.timing.stall);
        self.allowed = arrival;
        after(after(now, self.timing.disconnect), arrival)
    }

    fn end(&mut self) {
        self.phase = Phase::Over;
        self.attached = None;
        self.vacant_until = None;
    }
}

const fn after(moment: Timestamp, millis: u32) -> Timestamp {
    Timestamp(moment.0.saturating_add(millis as u64))
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
