//! What drives one WebSocket: inbound bytes, what the application has to say and the timers, in one poll.
//!
//! Most sessions are idle, and a result goes to all of them in turn, so what a delivery touches is kept small and
//! together: no read buffer (bytes are read onto the stack), no queue (slices of the shared log are written from the
//! stack, and kept only if the socket is full), and everything that seldom matters behind one pointer.

mod inbound;
mod time;

use std::hint::black_box;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use smallvec::smallvec;
use tokio::io::AsyncWrite;
use tokio::task::coop::has_budget_remaining;
use tokio::time::Instant;
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::pace::Pace;
use super::{Meters, Mode, Opening, Shared};
use crate::alarm::Alarm;
use crate::application::{Conversation, Next};
use crate::clock::Timestamp;
use crate::limits::permits::Permit;
use crate::names;
use crate::net::Socket;
use crate::outbound::{Outbound, frame_messages};
use crate::sockjs::codec::{Decoder, is_legal_close};
use crate::sockjs::frame::{Frame, Framing};
use crate::sockjs::session::{Receiver, ReceiverId, Step};
use crate::sockjs::{Close, Form, Session, Slice};

/// How much the application is asked for at a time, in bytes: enough that a system call's fixed cost
/// vanishes, little enough that a pong does not wait long behind it.
const BUDGET: usize = 256 * 1024;

/// Writes before the next session gets its turn: with them a replay delays its neighbours by a millisecond.
const TURNS: usize = 8;

/// How long a finished session reads on until the client ends the connection: closing a socket with
/// unread input makes the kernel send a reset, which may destroy the close frame.
const LINGER: Duration = Duration::from_secs(2);

/// One WebSocket session. It must always be polled with the same waker, the application's wake slot: it registers that once
/// with what seldom happens, and not at every turn.
pub(super) struct Driver {
    shared: Arc<Shared>,
    socket: Socket,
    conversation: Box<dyn Conversation>,
    session: Session,
    receiver: ReceiverId,
    mode: Mode,
    form: Form,
    phase: Phase,
    /// Whether the application knows that it is over.
    told: bool,
    /// Whether the client's close frame, or something after which no frame can be read, has come.
    peer_closed: bool,
    /// Whether the server stops.
    stopping: bool,
    /// A message was taken in while the socket was stuck. No further one is read until it takes more, so that a client
    /// who asks and never reads fills its own buffers and not the server's.
    fed_while_stuck: bool,
    /// Whether the waker will be woken when the server stops.
    hears_stop: bool,
    /// Since when the socket has taken nothing of what waits.
    stuck_since: Option<Instant>,
    /// What the socket has not taken yet.
    outbound: Option<Box<Outbound>>,
    /// Heartbeat, or the application's deadline, on its clock and on the timer's.
    idle_until: Option<(Timestamp, Instant)>,
    goodbye_at: Option<Instant>,
    alarm: Alarm,
    seldom: Box<ColdState>,
}

/// What a delivery does not touch.
struct ColdState {
    decoder: Decoder,
    pace: Pace,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
    /// See [`Opening::number`].
    number: u32,
    _place: Option<Arc<Permit<IpAddr>>>,
    /// For the metric.
    reason: &'static str,
}

/// When a turn begins.
#[derive(Clone, Copy)]
pub(super) struct Now {
    /// For timers.
    pub(super) timers: Instant,
    /// For the session and the application.
    pub(super) clock: Timestamp,
}

/// What asking the application has come to.
enum Asked {
    /// There is nothing to write.
    Nothing,
    /// This is to be written.
    Slice(Slice),
    /// A frame was queued, or the session closes: go on.
    More,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Live,
    /// A close frame is queued or written; the client's is awaited until then.
    Closing(Instant),
    /// The sending half is closed; input is thrown away until it ends.
    Lingering(Instant),
    Over,
}

impl Driver {
    /// A session whose 101 has been written. `None` cannot happen: a new session has no receiver yet.
    pub(super) fn new(
        shared: Arc<Shared>,
        opening: Opening,
        socket: Socket,
        conversation: Box<dyn Conversation>,
    ) -> Option<Self> {
        let Opening {
            mode,
            deflate,
            number,
            place,
        } = opening;
        let now = shared.clock.now();
        let timing = shared.settings.timing;
        let mut session = Session::new(timing, now);
        let framed = mode == Mode::Framed;
        let receiver = session.attach(Receiver::Socket { framed }, now).ok()?;
        let seldom = ColdState {
            decoder: Decoder::new(shared.settings.max_message, deflate),
            pace: Pace::new(shared.clock.now()),
            stopped: Box::pin(shared.stop.clone().cancelled_owned()),
            reason: "lost",
            number,
            _place: place,
        };
        let driver = Self {
            mode,
            form: mode.form(deflate),
            seldom: Box::new(seldom),
            shared,
            socket,
            conversation,
            session,
            receiver,
            phase: Phase::Live,
            told: false,
            peer_closed: false,
            stopping: false,
            fed_while_stuck: false,
            hears_stop: false,
            stuck_since: None,
            outbound: None,
            idle_until: None,
            goodbye_at: None,
            alarm: Alarm::new(Instant::now() + timing.heartbeat),
        };
        let meters = driver.meters();
        meters.opened.increment(1);
        meters.alive.increment(1);
        Some(driver)
    }

    fn meters(&self) -> &Meters {
        match self.mode {
            Mode::Raw => &self.shared.raw,
            Mode::Framed => &self.shared.framed,
        }
    }

    fn outbound(&mut self) -> &mut Outbound {
        self.outbound.get_or_insert_default()
    }

    /// Whether nothing waits to be written.
    fn is_written(&self) -> bool {
        self.outbound
            .as_ref()
            .is_none_or(|waiting| waiting.is_empty())
    }

    /// Looks wherever a turn is going to look, and changes nothing. To be called for all sessions whose turn it is before
    /// the first has it: memory is then fetched for several at a time, whereas a turn waits for its own.
    pub(super) fn look(&self) {
        black_box((self.stuck_since, self.idle_until, self.goodbye_at));
        black_box((self.told, self.phase, self.outbound.is_some()));
        black_box((self.session.takes_messages(), self.alarm.at()));
        black_box(self.socket.has_input());
        if !self.told {
            self.conversation.look();
        }
    }

    /// Drives the session as far as it goes at `now`, which is not ahead of the clocks. Ready at its end.
    pub(super) fn turn(&mut self, now: Now, cx: &mut Context<'_>) -> Poll<()> {
        self.hear_stop(cx);
        let mut due = self.alarm.poll_notified(now.timers, cx);
        loop {
            if due {
                self.handle_time(Instant::now());
            }
            if self.turns(now.clock, cx).is_ready() {
                return Poll::Ready(());
            }
            let Some(next) = self.next_wake() else {
                return Poll::Pending;
            };
            // An alarm that notifies too early costs one look; moving it costs every time.
            if !due && self.alarm.at() <= next {
                return Poll::Pending;
            }
            self.alarm.set(next);
            due = self.alarm.poll_notified(now.timers, cx);
            if !due {
                return Poll::Pending;
            }
        }
    }

    /// Says goodbye in time once the server stops.
    fn hear_stop(&mut self, cx: &mut Context<'_>) {
        let first = !std::mem::replace(&mut self.hears_stop, true);
        if self.goodbye_at.is_some() || !(first || self.shared.stopping.load(Ordering::Acquire)) {
            return;
        }
        if self.seldom.stopped.as_mut().poll(cx).is_ready() {
            let delay = self.shared.goodbye_delay(self.seldom.number);
            self.goodbye_at = Some(Instant::now() + delay);
        }
    }

    fn turns(&mut self, now: Timestamp, cx: &mut Context<'_>) -> Poll<()> {
        let mut drained = false;
        for _ in 0..TURNS {
            let flushed = self.write(cx);
            let mut busy = self.read(cx);
            if flushed {
                busy |= match self.phase {
                    // A pong to what was just read goes out first.
                    Phase::Live if self.outbound.is_some() || (drained && !busy) => false,
                    Phase::Live => match self.ask(now) {
                        Asked::Nothing => false,
                        Asked::More => true,
                        Asked::Slice(slice) => {
                            drained = slice.drained;
                            let written = self.hand_out(Outbound::from(slice), cx);
                            // What is left is the next turn's, and after the last there is none.
                            !(written && drained)
                        }
                    },
                    // What was read may have queued the answer to it.
                    Phase::Closing(_) if self.peer_closed && self.is_written() => self.shut(cx),
                    Phase::Closing(_) | Phase::Lingering(_) | Phase::Over => false,
                };
            }
            if self.phase == Phase::Over {
                return Poll::Ready(());
            }
            if !busy {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Whether everything is written.
    fn write(&mut self, cx: &mut Context<'_>) -> bool {
        if matches!(self.phase, Phase::Lingering(_) | Phase::Over) {
            return false;
        }
        match self.outbound.take() {
            Some(waiting) => self.hand_out(waiting, cx),
            None => true,
        }
    }

    /// Writes what the socket takes and keeps the rest. Whether that was everything.
    fn hand_out<O>(&mut self, mut waiting: O, cx: &mut Context<'_>) -> bool
    where
        O: AsMut<Outbound> + Into<Box<Outbound>>,
    {
        let mut taken = 0;
        let outcome = waiting
            .as_mut()
            .poll_write(&mut self.socket, cx, &mut taken);
        if taken > 0 {
            self.meters().bytes.increment(taken as u64);
            self.stuck_since = None;
            self.fed_while_stuck = false;
        }
        match outcome {
            Poll::Ready(Ok(())) => return true,
            Poll::Ready(Err(_)) => self.phase = Phase::Over,
            Poll::Pending => {
                self.outbound = Some(waiting.into());
                // It is not the socket's fault if the task has used its turn up.
                if self.stuck_since.is_none() && has_budget_remaining() {
                    self.stuck_since = Some(Instant::now());
                    self.idle_until = None;
                }
            }
        }
        false
    }

    /// Looks for something to write, now that everything is written.
    fn ask(&mut self, now: Timestamp) -> Asked {
        let budget = match self.session.poll(self.receiver, now) {
            Step::Write(frame) => {
                self.queue_frame(&frame, now);
                return Asked::More;
            }
            Step::Ask { budget, until } => {
                self.idle_for(until, now);
                budget.min(BUDGET)
            }
            Step::End => {
                self.conclude(None, "application");
                return Asked::More;
            }
        };
        let slice = match self.conversation.next(self.form, budget, now) {
            Next::Slice(slice) => slice,
            Next::Messages(messages) => {
                let frames = frame_messages(&messages, self.form);
                Slice {
                    len: frames.len(),
                    messages: messages.len(),
                    parts: smallvec![frames],
                    drained: false,
                }
            }
            Next::Wait => {
                if let Some(deadline) = self.conversation.deadline() {
                    self.idle_for(deadline, now);
                }
                return Asked::Nothing;
            }
            Next::Close { code, reason } => {
                self.session.close(Close::new(code, reason));
                return Asked::More;
            }
        };
        debug_assert!(slice.len > 0, "a slice holds at least one message");
        self.meters().messages.increment(slice.messages as u64);
        self.session.sent(self.receiver, slice.len, now);
        Asked::Slice(slice)
    }

    /// Wakes at `until` at the latest. A wake-up that is known already and comes earlier stays: a look
    /// too many every 25 s is cheaper than moving the timer with every message.
    fn idle_for(&mut self, until: Timestamp, now: Timestamp) {
        if let Some((known, _)) = self.idle_until
            && known > now
            && known <= until
        {
            return;
        }
        // Never zero: a clock that is set back must not make the task spin.
        let wait = until.since(now).max(Duration::from_millis(1));
        self.idle_until = Some((until, Instant::now() + wait));
    }

    fn queue_frame(&mut self, frame: &Frame, now: Timestamp) {
        let framed = self.mode == Mode::Framed;
        let bytes = match frame {
            Frame::Heartbeat if !framed => Bytes::from_static(b"\x89\x00"),
            Frame::Close(_) | Frame::Open if !framed => Bytes::new(),
            Frame::Open | Frame::Heartbeat | Frame::Close(_) => Framing::WebSocket.frame(frame),
        };
        self.session.sent(self.receiver, bytes.len(), now);
        if !bytes.is_empty() {
            self.outbound().push(bytes);
        }
        if let Frame::Close(close) = frame {
            let code = match (framed, self.stopping) {
                (true, true) => 1001,
                (true, false) => 1000,
                // What SockJS allows and RFC 6455 does not cannot be sent.
                (false, _) if is_legal_close(close.code) => close.code,
                (false, _) => 1000,
            };
            let reason = if framed { "" } else { &close.reason };
            let label = if self.stopping { "stop" } else { "application" };
            self.finish(Some((code, reason)), label);
        }
    }

    /// Ends the session from outside the application: what has not begun to be written is dropped.
    fn conclude(&mut self, close: Option<(u16, &str)>, reason: &'static str) {
        if self.phase == Phase::Live {
            if let Some(waiting) = &mut self.outbound {
                waiting.cut();
            }
            self.finish(close, reason);
        }
    }

    fn finish(&mut self, close: Option<(u16, &str)>, reason: &'static str) {
        self.outbound().close(close);
        self.session.lost(self.receiver);
        self.phase = Phase::Closing(Instant::now() + self.shared.settings.close_wait);
        self.seldom.reason = reason;
        self.tell();
    }

    /// Closes the sending half, once the close frame is written and answered. Whether it is done.
    fn shut(&mut self, cx: &mut Context<'_>) -> bool {
        match Pin::new(&mut self.socket).poll_shutdown(cx) {
            Poll::Pending => return false,
            Poll::Ready(Ok(())) => self.phase = Phase::Lingering(Instant::now() + LINGER),
            Poll::Ready(Err(_)) => self.phase = Phase::Over,
        }
        true
    }

    fn tell(&mut self) {
        if !std::mem::replace(&mut self.told, true) {
            self.conversation.closed(self.shared.clock.now());
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.tell();
        self.meters().alive.decrement(1);
        let (transport, reason) = (self.mode.label(), self.seldom.reason);
        metrics::counter!(names::SESSIONS_CLOSED, "transport" => transport, "reason" => reason)
            .increment(1);
    }
}
