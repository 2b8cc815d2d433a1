//! The task of one WebSocket: inbound bytes, the application's bell and the timers, in one poll.
//!
//! What it remembers between two polls is small, because most sessions are idle: no read buffer (bytes
//! are read onto the stack), no queue (slices of the shared log), one timer.

use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::outbound::{Outbound, frame_messages};
use super::{Mode, Terms};
use crate::bell::Bell;
use crate::clock::Timestamp;
use crate::net::Socket;
use crate::sockjs::codec::{Decoder, Event, is_legal_close};
use crate::sockjs::frame::{Frame, Framing};
use crate::sockjs::inbound::decode_socket;
use crate::sockjs::session::{Receiver, ReceiverId, Step};
use crate::sockjs::{Close, Session};
use crate::telemetry::metrics::names;
use crate::transport::application::{Conversation, Next};

/// A control frame carries 125 bytes, two of them the code (RFC 6455, 5.5).
const REASON_BYTES_MAX: usize = 123;

/// How much the application is asked for at a time, in bytes: enough that a system call's fixed cost
/// vanishes, little enough that a pong does not wait long behind it.
const BUDGET: usize = 256 * 1024;

/// How much is read at a time, on the stack, in bytes.
const READ: usize = 8 * 1024;

/// Turns of the loop before other tasks get theirs.
const TURNS: usize = 32;

/// How long a finished session reads on until the client ends the connection: closing a socket with
/// unread input makes the kernel send a reset, which may destroy the close frame.
const LINGER: Duration = Duration::from_secs(2);

/// One WebSocket session.
pub(super) struct Driver<'a> {
    terms: Terms<'a>,
    socket: Socket,
    conversation: Box<dyn Conversation>,
    session: Session,
    receiver: ReceiverId,
    decoder: Decoder,
    outbound: Outbound,
    phase: Phase,
    /// Whether the application knows that it is over.
    told: bool,
    /// Whether the client's close frame, or something after which no frame can be read, has come.
    peer_closed: bool,
    /// Whether the server stops.
    stopping: bool,
    /// Since when the socket has taken nothing of what waits.
    stuck_since: Option<Instant>,
    /// A message was taken in since then. No further one is read until the socket takes more, so that
    /// a client who asks and never reads fills its own buffers and not the server's.
    fed_while_stuck: bool,
    /// Heartbeat, or the application's deadline, on its clock and on the timer's.
    idle_until: Option<(Timestamp, Instant)>,
    goodbye_at: Option<Instant>,
    /// For the metric.
    reason: &'static str,
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

impl<'a> Driver<'a> {
    /// A session whose 101 has been written. `None` cannot happen: a new session has no receiver yet.
    pub(super) fn new(
        terms: Terms<'a>,
        socket: Socket,
        conversation: Box<dyn Conversation>,
    ) -> Option<Self> {
        let now = terms.clock.now();
        let mut session = Session::new(terms.settings.timing, now);
        let framed = terms.mode == Mode::Framed;
        let receiver = session.attach(Receiver::Socket { framed }, now).ok()?;
        terms.meters.opened.increment(1);
        terms.meters.alive.increment(1);
        Some(Self {
            decoder: Decoder::new(terms.settings.max_message, terms.deflate),
            terms,
            socket,
            conversation,
            session,
            receiver,
            outbound: Outbound::default(),
            phase: Phase::Live,
            told: false,
            peer_closed: false,
            stopping: false,
            stuck_since: None,
            fed_while_stuck: false,
            idle_until: None,
            goodbye_at: None,
            reason: "lost",
        })
    }

    /// Drives the session to its end. `read` is what the client sent right behind its handshake.
    pub(super) async fn run(&mut self, read: Bytes, bell: &Bell, stop: &CancellationToken) {
        self.receive(&read);
        // It is a piece of hyper's read buffer, which would live as long as the session.
        drop(read);
        let mut armed = Instant::now() + self.terms.settings.timing.heartbeat;
        let mut timer = pin!(sleep_until(armed));
        let mut stopped = pin!(stop.cancelled());
        poll_fn(|cx| {
            // Rung or not, the turns look for more; this is to be woken by the next ring.
            let _ = bell.poll_rung(cx);
            if self.goodbye_at.is_none() && stopped.as_mut().poll(cx).is_ready() {
                self.goodbye_at = Some(Instant::now() + self.terms.goodbye_delay());
            }
            let mut due = timer.as_mut().poll(cx).is_ready();
            loop {
                if due {
                    self.handle_time(Instant::now());
                }
                if self.turns(cx).is_ready() {
                    return Poll::Ready(());
                }
                let Some(next) = self.next_wake() else {
                    return Poll::Pending;
                };
                // A timer that fires too early costs one look; moving it costs every time.
                if !due && armed <= next {
                    return Poll::Pending;
                }
                armed = next;
                timer.as_mut().reset(next);
                due = timer.as_mut().poll(cx).is_ready();
                if !due {
                    return Poll::Pending;
                }
            }
        })
        .await;
    }

    fn turns(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..TURNS {
            let flushed = self.write(cx);
            let mut busy = self.read(cx);
            if flushed {
                busy |= match self.phase {
                    Phase::Live => self.ask(),
                    // What was read may have queued the answer to it.
                    Phase::Closing(_) if self.peer_closed && self.outbound.is_empty() => {
                        self.shut(cx)
                    }
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
        let mut taken = 0;
        let outcome = self.outbound.poll_write(&mut self.socket, cx, &mut taken);
        if taken > 0 {
            self.terms.meters.bytes.increment(taken as u64);
            self.stuck_since = None;
            self.fed_while_stuck = false;
        }
        match outcome {
            Poll::Ready(Ok(())) => return true,
            Poll::Ready(Err(_)) => self.phase = Phase::Over,
            Poll::Pending if self.stuck_since.is_none() => {
                self.stuck_since = Some(Instant::now());
                self.idle_until = None;
            }
            Poll::Pending => {}
        }
        false
    }

    /// Whether something was read.
    fn read(&mut self, cx: &mut Context<'_>) -> bool {
        if self.fed_while_stuck || self.phase == Phase::Over {
            return false;
        }
        let mut space = [const { MaybeUninit::uninit() }; READ];
        let mut buffer = ReadBuf::uninit(&mut space);
        match Pin::new(&mut self.socket).poll_read(cx, &mut buffer) {
            Poll::Pending => false,
            Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                self.receive(buffer.filled());
                true
            }
            Poll::Ready(_) => {
                self.phase = Phase::Over;
                false
            }
        }
    }

    fn receive(&mut self, mut input: &[u8]) {
        while let Some(event) = self.decoder.read(&mut input) {
            match event {
                Event::Ping(payload) if self.phase == Phase::Live => self.outbound.pong(&payload),
                Event::Ping(_) | Event::Pong => {}
                Event::Text(text) => self.handle_text(&text),
                Event::Binary(bytes) => self.handle_binary(&bytes),
                Event::Close(close) => {
                    self.peer_closed = true;
                    // The answer carries the same code; an empty frame is answered by an empty one.
                    self.conclude(close.map(|close| (close.code, "")), "client");
                }
                Event::Violation(violation) => {
                    self.peer_closed = true;
                    self.answer_what_came_before();
                    let text = violation.to_string();
                    self.conclude(Some((violation.code(), &text)), "violation");
                }
            }
        }
    }

    /// A message may have come in the same bytes as the violation behind it; what the application has
    /// to say to it goes out before the close.
    fn answer_what_came_before(&mut self) {
        if self.phase == Phase::Live && self.outbound.is_empty() && self.ask() {
            self.outbound.keep();
        }
    }

    fn handle_text(&mut self, text: &str) {
        if self.phase != Phase::Live || !self.session.takes_messages() {
            return;
        }
        self.fed_while_stuck = self.stuck_since.is_some();
        let now = self.terms.clock.now();
        match self.terms.mode {
            Mode::Raw => self.conversation.message(text, now),
            Mode::Framed => match decode_socket(text.as_bytes()) {
                Ok(messages) => messages
                    .iter()
                    .for_each(|message| self.conversation.message(message, now)),
                Err(_) => self.conclude(Some((3000, "Broken framing.")), "violation"),
            },
        }
    }

    fn handle_binary(&mut self, bytes: &[u8]) {
        if self.phase != Phase::Live || !self.session.takes_messages() {
            return;
        }
        self.fed_while_stuck = self.stuck_since.is_some();
        let now = self.terms.clock.now();
        let raw = self.terms.mode == Mode::Raw;
        if !(raw && self.conversation.binary(bytes, now)) {
            self.conclude(Some((1003, "only text is understood")), "violation");
        }
    }

    /// Looks for something to write, now that everything is written. Whether there is more to do.
    fn ask(&mut self) -> bool {
        let now = self.terms.clock.now();
        let budget = match self.session.poll(self.receiver, now) {
            Step::Write(frame) => {
                self.queue_frame(&frame, now);
                return true;
            }
            Step::Ask { budget, until } => {
                self.idle_for(until, now);
                budget.min(BUDGET)
            }
            Step::End => {
                self.conclude(None, "application");
                return true;
            }
        };
        let (len, messages) = match self.conversation.next(self.terms.form, budget, now) {
            Next::Slice(slice) => {
                debug_assert!(slice.len > 0, "a slice holds at least one message");
                let size = (slice.len, slice.messages);
                self.outbound.load(slice);
                size
            }
            Next::Messages(messages) => {
                let frames = frame_messages(&messages, self.terms.form);
                let size = (frames.len(), messages.len());
                self.outbound.push(frames);
                size
            }
            Next::Wait => {
                if let Some(deadline) = self.conversation.deadline() {
                    self.idle_for(deadline, now);
                }
                return false;
            }
            Next::Close { code, reason } => {
                self.session.close(Close::new(code, reason));
                return true;
            }
        };
        self.terms.meters.messages.increment(messages as u64);
        self.session.sent(self.receiver, len, now);
        true
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
        let framed = self.terms.mode == Mode::Framed;
        let bytes = match frame {
            Frame::Heartbeat if !framed => Bytes::from_static(b"\x89\x00"),
            Frame::Close(_) | Frame::Open if !framed => Bytes::new(),
            Frame::Open | Frame::Heartbeat | Frame::Close(_) => Framing::WebSocket.frame(frame),
        };
        self.session.sent(self.receiver, bytes.len(), now);
        if !bytes.is_empty() {
            self.outbound.push(bytes);
        }
        if let Frame::Close(close) = frame {
            let code = match (framed, self.stopping) {
                (true, true) => 1001,
                (true, false) => 1000,
                // What SockJS allows and RFC 6455 does not cannot be sent.
                (false, _) if is_legal_close(close.code) => close.code,
                (false, _) => 1000,
            };
            let reason = if framed {
                ""
            } else {
                &close.reason[..close.reason.floor_char_boundary(REASON_BYTES_MAX)]
            };
            let label = if self.stopping { "stop" } else { "application" };
            self.finish(Some((code, reason)), label);
        }
    }

    /// Ends the session from outside the application: what has not begun to be written is dropped.
    fn conclude(&mut self, close: Option<(u16, &str)>, reason: &'static str) {
        if self.phase == Phase::Live {
            self.outbound.cut();
            self.finish(close, reason);
        }
    }

    fn finish(&mut self, close: Option<(u16, &str)>, reason: &'static str) {
        self.outbound.close(close);
        self.session.lost(self.receiver);
        self.phase = Phase::Closing(Instant::now() + self.terms.settings.close_wait);
        self.reason = reason;
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

    fn handle_time(&mut self, now: Instant) {
        let reached = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        self.idle_until = self.idle_until.filter(|(_, at)| *at > now);
        match self.phase {
            Phase::Live if reached(self.stalled_at()) => {
                self.reason = "stalled";
                self.abort();
            }
            Phase::Live if !self.stopping && reached(self.goodbye_at) => self.say_goodbye(),
            // Whoever could not even take what was being written is not waited for.
            Phase::Live if self.stopping && reached(self.goodbye_limit()) => self.abort(),
            Phase::Closing(until) if until <= now && !self.outbound.is_empty() => self.abort(),
            // The client does not answer; `turns` goes on as if it had.
            Phase::Closing(until) if until <= now && !self.peer_closed => {
                self.peer_closed = true;
                self.phase = Phase::Closing(now + LINGER);
            }
            Phase::Closing(until) | Phase::Lingering(until) if until <= now => {
                self.phase = Phase::Over;
            }
            Phase::Live | Phase::Closing(_) | Phase::Lingering(_) | Phase::Over => {}
        }
    }

    fn say_goodbye(&mut self) {
        self.stopping = true;
        self.outbound.cut();
        self.session.close(match self.terms.mode {
            Mode::Raw => Close::new(1001, "Server going away"),
            Mode::Framed => Close::go_away(),
        });
    }

    /// Gives the socket up together with what the kernel still holds for it.
    fn abort(&mut self) {
        self.socket.reset_on_drop();
        self.phase = Phase::Over;
    }

    fn stalled_at(&self) -> Option<Instant> {
        Some(self.stuck_since? + self.terms.settings.timing.stall)
    }

    fn goodbye_limit(&self) -> Option<Instant> {
        Some(self.goodbye_at? + self.terms.settings.close_wait)
    }

    fn next_wake(&self) -> Option<Instant> {
        match self.phase {
            Phase::Live => {
                let stop = if self.stopping {
                    self.goodbye_limit()
                } else {
                    self.goodbye_at
                };
                let idle = self.idle_until.map(|(_, at)| at);
                [idle, self.stalled_at(), stop].into_iter().flatten().min()
            }
            Phase::Closing(until) | Phase::Lingering(until) => Some(until),
            Phase::Over => None,
        }
    }

    fn tell(&mut self) {
        if !std::mem::replace(&mut self.told, true) {
            self.conversation.closed(self.terms.clock.now());
        }
    }
}

impl Drop for Driver<'_> {
    fn drop(&mut self) {
        self.tell();
        self.terms.meters.alive.decrement(1);
        let (transport, reason) = (self.terms.mode.label(), self.reason);
        metrics::counter!(names::SESSIONS_CLOSED, "transport" => transport, "reason" => reason)
            .increment(1);
    }
}
