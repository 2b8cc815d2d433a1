//! One live HTTP session: the pure state machine and the application's half of it, under one lock.

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::application::{Conversation, Next};
use crate::clock::Timestamp;
use crate::limits::permits::Permit;
use crate::sockjs::session::{Expired, Receiver, ReceiverId, Refused, Sent, Step};
use crate::sockjs::{Close, Coding, Form, Framing, Parts, Session, Transport};
use crate::wake::WakeSlot;

/// A session that the registry knows. Its methods never wait for a client or an application.
pub(super) struct Handle {
    /// What the client chose: its only credential, never to be logged.
    id: Box<str>,
    transport: Transport,
    wake_slot: WakeSlot,
    /// What the directory says of it, if there is one.
    record: Option<Box<str>>,
    /// Given back when the last one who holds the session lets go of it.
    _place: Permit<IpAddr>,
    state: Mutex<State>,
    /// Notified whenever the receiver goes, by whatever way.
    vacated: Notify,
}

struct State {
    session: Session,
    /// Gone once it has been told that the session is over.
    conversation: Option<Box<dyn Conversation>>,
    /// How the session has come to its end, for the metric.
    ending: &'static str,
}

/// What a driver gets for its receiver.
#[derive(Debug)]
pub(super) enum Pulled {
    /// Hand these out, in order, and then pull again or end the response.
    Parts {
        /// Whole frames.
        parts: Parts,
        /// The application's messages in them.
        messages: usize,
        /// Whether the response ends; the receiver has then been detached already.
        sent: Sent,
        /// Whether nothing follows for now.
        drained: bool,
    },
    /// Pull again when the wake slot notifies, and at this moment at the latest.
    Wait(Timestamp),
    /// The receiver is not attached: there is nothing more to hand out.
    End,
}

impl Handle {
    pub(super) fn new(
        id: Box<str>,
        transport: Transport,
        (place, record): (Permit<IpAddr>, Option<Box<str>>),
        wake_slot: WakeSlot,
        session: Session,
        conversation: Box<dyn Conversation>,
    ) -> Self {
        let state = State {
            session,
            conversation: Some(conversation),
            ending: "closed",
        };
        Self {
            id,
            transport,
            wake_slot,
            record,
            _place: place,
            state: Mutex::new(state),
            vacated: Notify::new(),
        }
    }

    /// Rung by the application when there may be something to pull.
    #[must_use]
    pub(super) fn wake_slot(&self) -> &WakeSlot {
        &self.wake_slot
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// What the directory says of it, if there is one.
    pub(super) fn record(&self) -> Option<&str> {
        self.record.as_deref()
    }

    /// How the request came that opened the session.
    pub(super) fn transport(&self) -> Transport {
        self.transport
    }

    /// How the session has come to its end.
    pub(super) fn ending(&self) -> &'static str {
        self.lock().ending
    }

    /// Makes a request the session's receiver, see [`Session::attach`].
    pub(super) fn attach(&self, kind: Receiver, now: Timestamp) -> Result<ReceiverId, Refused> {
        self.lock().session.attach(kind, now)
    }

    /// Completes once the receiver has gone. Counts from when this is called, not from when it is
    /// awaited.
    pub(super) fn vacated(&self) -> Notified<'_> {
        self.vacated.notified()
    }

    /// What receiver `id` hands out next.
    pub(super) fn pull(
        &self,
        id: ReceiverId,
        (framing, coding): (&Framing, Coding),
        now: Timestamp,
    ) -> Pulled {
        let mut state = self.lock();
        let pulled = state.pull(id, (framing, coding), now);
        if let Pulled::Parts {
            sent: Sent::Ends, ..
        } = pulled
        {
            self.vacated.notify_waiters();
        }
        state.tell_if_over(now);
        pulled
    }

    /// Whether receiver `id` has taken all it was handed, see [`Session::taken`].
    pub(super) fn taken(&self, id: ReceiverId, stuck_since: Option<Timestamp>) {
        self.lock().session.taken(id, stuck_since);
    }

    /// How far the last bytes of a receiver that has been detached have come, see [`Session::written`].
    pub(super) fn written(&self, id: ReceiverId, all: bool, now: Timestamp) {
        self.lock().session.written(id, all, now);
    }

    /// Gives messages to the application; those for a session that closes are discarded.
    pub(super) fn deliver(&self, messages: &[String], now: Timestamp) {
        let mut state = self.lock();
        for message in messages {
            if !state.session.takes_messages() {
                break;
            }
            if let Some(conversation) = &mut state.conversation {
                conversation.message(message, now);
            }
        }
        drop(state);
        // So that an application which only answers need not keep a wake slot.
        self.wake_slot.notify();
    }

    /// Whether `id` is the receiver.
    pub(super) fn is_attached(&self, id: ReceiverId) -> bool {
        self.lock().session.is_attached(id)
    }

    /// The connection of receiver `id` is gone; whether that was the end of the session.
    pub(super) fn lost(&self, id: ReceiverId, now: Timestamp) -> bool {
        let mut state = self.lock();
        if state.session.is_attached(id) {
            state.ending = "lost";
        }
        state.session.lost(id);
        self.vacated.notify_waiters();
        state.tell_if_over(now)
    }

    /// Closes the session in words, see [`Session::close`], and wakes its driver to say them.
    pub(super) fn close(&self, close: Close) {
        self.lock().session.close(close);
        self.wake_slot.notify();
    }

    /// Closes the session because the server ends: nobody is waited for beyond the usual time.
    pub(super) fn say_goodbye(&self, close: Close) {
        let mut state = self.lock();
        state.session.hurry();
        state.session.close(close);
        drop(state);
        self.wake_slot.notify();
    }

    /// Lets the session's timers run; whether it is over.
    pub(super) fn handle_timeout(&self, now: Timestamp) -> bool {
        let mut state = self.lock();
        let closing = !state.session.takes_messages();
        if let Some(expired) = state.session.handle_timeout(now) {
            state.ending = match expired {
                Expired::Abandoned if closing => "closed",
                Expired::Abandoned => "abandoned",
                Expired::Stalled => "stalled",
            };
            self.vacated.notify_waiters();
            self.wake_slot.notify();
        }
        state.tell_if_over(now)
    }

    /// Whether a timer has run out; `false` if somebody is busy with the session right now.
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        let Ok(state) = self.state.try_lock() else {
            return false;
        };
        let deadline = state.session.deadline();
        state.session.is_over() || deadline.is_some_and(|deadline| deadline <= now)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // An application that panicked has harmed its own session at most, and the state machine
        // is whole between any two of its calls.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn pull(
        &mut self,
        id: ReceiverId,
        (framing, coding): (&Framing, Coding),
        now: Timestamp,
    ) -> Pulled {
        loop {
            let (frame, messages) = match self.session.poll(id, now) {
                Step::End => return Pulled::End,
                Step::Write(frame) => (framing.frame(&frame), 0),
                Step::Ask { budget, until } => {
                    let Some(conversation) = &mut self.conversation else {
                        return Pulled::End;
                    };
                    let form = coding.form(framing.form());
                    match conversation.next(form, budget, now) {
                        Next::Slice(slice) if form == Form::Piece => {
                            (framing.pieces(&slice), slice.messages)
                        }
                        Next::Slice(slice) => {
                            return Pulled::Parts {
                                parts: slice.parts,
                                messages: slice.messages,
                                sent: self.session.sent(id, slice.len, now),
                                drained: slice.drained,
                            };
                        }
                        Next::Messages(messages) => (framing.messages(&messages), messages.len()),
                        Next::Wait => {
                            let wake = conversation.deadline().map_or(until, |at| at.min(until));
                            return Pulled::Wait(wake);
                        }
                        Next::Close { code, reason } => {
                            self.session.close(Close::new(code, reason));
                            continue;
                        }
                    }
                }
            };
            return Pulled::Parts {
                // The limit of a response counts its data, not their coding.
                sent: self.session.sent(id, frame.len(), now),
                parts: Parts::from_elem(coding.code(frame), 1),
                messages,
                drained: false,
            };
        }
    }

    fn tell_if_over(&mut self, now: Timestamp) -> bool {
        let over = self.session.is_over();
        if over && let Some(mut conversation) = self.conversation.take() {
            conversation.closed(now);
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::limits::permits::Permits;
    use crate::sockjs::Outbox;
    use crate::sockjs::settings::Timing;

    const T0: Timestamp = Timestamp::from_secs(1_000);
    const STREAM: Receiver = Receiver::Stream { limit: 4096 };

    /// Echoes, closes when told to, and writes down what it hears.
    struct Noting {
        heard: Arc<Mutex<Vec<String>>>,
        outbox: Outbox,
        end: bool,
    }

    impl Conversation for Noting {
        fn message(&mut self, text: &str, _now: Timestamp) {
            self.heard.lock().unwrap().push(text.to_owned());
            self.end |= text == "bye";
            self.outbox.push(Bytes::from(text.to_owned())).unwrap();
        }

        fn next(&mut self, _form: Form, budget: usize, _now: Timestamp) -> Next {
            match self.outbox.is_empty() {
                false => Next::Messages(self.outbox.take(budget)),
                true if self.end => Next::Close {
                    code: 3000,
                    reason: "Go away!".to_owned(),
                },
                true => Next::Wait,
            }
        }

        fn deadline(&self) -> Option<Timestamp> {
            None
        }

        fn closed(&mut self, _now: Timestamp) {
            self.heard.lock().unwrap().push("closed".to_owned());
        }
    }

    fn handle() -> (Handle, Arc<Mutex<Vec<String>>>) {
        let heard = Arc::default();
        let conversation = Noting {
            heard: Arc::clone(&heard),
            outbox: Outbox::new(10_000),
            end: false,
        };
        let permits = Permits::new(1, 1);
        let place = permits.try_enter(Ipv4Addr::LOCALHOST.into()).unwrap();
        let session = Session::new(Timing::default(), T0);
        let (wake_slot, conversation) = (WakeSlot::default(), Box::new(conversation));
        let id = "a".into();
        let handle = Handle::new(
            id,
            Transport::Xhr,
            (place, None),
            wake_slot,
            session,
            conversation,
        );
        (handle, heard)
    }

    fn frame(handle: &Handle, id: ReceiverId) -> Option<(String, Sent)> {
        match handle.pull(id, (&Framing::XhrStreaming, Coding::Plain), T0) {
            Pulled::Parts { parts, sent, .. } => {
                let text = String::from_utf8(parts.concat()).unwrap();
                Some((text, sent))
            }
            Pulled::Wait(_) | Pulled::End => None,
        }
    }

    fn messages(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn messages_before_an_applications_close_are_handed_out_first() {
        let (handle, heard) = handle();
        let id = handle.attach(STREAM, T0).unwrap();
        handle.deliver(&messages(&["x", "bye"]), T0);
        assert_eq!(frame(&handle, id), Some(("o\n".into(), Sent::More)));
        let both = "a[\"x\",\"bye\"]\n".into();
        assert_eq!(frame(&handle, id), Some((both, Sent::More)));
        let close = "c[3000,\"Go away!\"]\n".into();
        assert_eq!(frame(&handle, id), Some((close, Sent::Ends)));
        assert_eq!(frame(&handle, id), None);
        handle.deliver(&messages(&["late"]), T0);
        assert_eq!(*heard.lock().unwrap(), ["x", "bye"]);
    }

    #[test]
    fn the_application_hears_of_the_end_once_whatever_it_was() {
        let late = T0 + std::time::Duration::from_secs(5);
        let (lost, heard) = handle();
        let id = lost.attach(STREAM, T0).unwrap();
        assert!(lost.lost(id, T0) && lost.lost(id, T0));
        assert!(lost.handle_timeout(late));
        lost.deliver(&messages(&["late"]), late);
        assert_eq!(*heard.lock().unwrap(), ["closed"]);
        assert_eq!(lost.ending(), "lost");

        let (abandoned, heard) = handle();
        assert!(!abandoned.handle_timeout(T0) && abandoned.handle_timeout(late));
        assert_eq!(*heard.lock().unwrap(), ["closed"]);
        assert_eq!(abandoned.ending(), "abandoned");

        let (closed, heard) = handle();
        closed.close(Close::go_away());
        closed.close(Close::normal());
        assert!(closed.handle_timeout(late));
        assert_eq!(*heard.lock().unwrap(), ["closed"]);
        assert_eq!(closed.ending(), "closed");
    }

    #[test]
    fn a_session_that_is_busy_is_not_due() {
        let (handle, _) = handle();
        let late = T0 + std::time::Duration::from_secs(5);
        assert!(!handle.is_due(T0) && handle.is_due(late));
        let _busy = handle.lock();
        assert!(!handle.is_due(late));
    }
}
