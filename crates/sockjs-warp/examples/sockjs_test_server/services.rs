//! The test services of the SockJS suites and browser tests, as applications of the transport.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use answerback_base::clock::Timestamp;
use answerback_base::wake::WakeSlot;
use answerback_sockjs::settings::Transports;
use answerback_sockjs::{Close, Form, Outbox, Settings};
use answerback_sockjs_warp::{Application, Conversation, Mount, MountContext, Next, Opened};
use bytes::Bytes;
use smallvec::smallvec;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

/// Every service at its prefix, and the filter that serves them.
pub(super) fn all(around: &MountContext) -> (Vec<Mount>, BoxedFilter<(Response,)>) {
    let mounts = [
        mount("/echo", small_responses(), Echo, around),
        mount("/disabled_websocket_echo", without_sockets(), Echo, around),
        mount("/cookie_needed_echo", with_cookie(), Echo, around),
        mount("/close", defaults(), Closing::at_once(), around),
        mount("/farewell", defaults(), Closing::after_two(), around),
        mount("/amplify", defaults(), Amplify, around),
        mount("/broadcast", defaults(), Broadcast::default(), around),
        mount("/ticker", defaults(), Ticker, around),
    ];
    let [first, others @ ..] = &mounts;
    let all = others.iter().fold(first.filter(), |all, one| {
        all.or(one.filter()).unify().boxed()
    });
    (mounts.to_vec(), all)
}

fn mount(
    prefix: &str,
    settings: Settings,
    application: impl Application,
    around: &MountContext,
) -> Mount {
    Mount::new(prefix, settings, Arc::new(application), around.clone())
}

fn defaults() -> Settings {
    Settings::default()
}

fn small_responses() -> Settings {
    Settings {
        response_limit: 4096,
        ..defaults()
    }
}

fn without_sockets() -> Settings {
    Settings {
        transports: Transports {
            websocket: false,
            raw_websocket: false,
            ..Transports::default()
        },
        ..small_responses()
    }
}

fn with_cookie() -> Settings {
    Settings {
        jsessionid: true,
        ..small_responses()
    }
}

/// What a service may have waiting for one client, in bytes.
const OUTBOX_BYTES_MAX: usize = 16 << 20;

/// The messages that wait for one client, and how the session ends after them.
struct Waiting {
    outbox: Outbox,
    end: Option<Close>,
}

impl Waiting {
    fn new() -> Self {
        Self {
            outbox: Outbox::new(OUTBOX_BYTES_MAX),
            end: None,
        }
    }

    fn push(&mut self, message: impl Into<Bytes>) {
        if self.outbox.push(message.into()).is_err() {
            self.end = Some(Close::new(3001, "Too slow"));
        }
    }

    fn next(&mut self, budget: usize) -> Next {
        if !self.outbox.is_empty() {
            return Next::Messages(self.outbox.take(budget));
        }
        match self.end.clone() {
            Some(Close { code, reason }) => Next::Close { code, reason },
            None => Next::Wait,
        }
    }
}

/// Sends every message back.
pub(super) struct Echo;

impl Application for Echo {
    fn open(&self, _opened: Opened, _now: Timestamp) -> Box<dyn Conversation> {
        Box::new(ResponseFuture {
            waiting: Waiting::new(),
            answer: |text| Bytes::copy_from_slice(text.as_bytes()),
        })
    }
}

/// Answers a number n with two to the power of n letters.
pub(super) struct Amplify;

impl Application for Amplify {
    fn open(&self, _opened: Opened, _now: Timestamp) -> Box<dyn Conversation> {
        Box::new(ResponseFuture {
            waiting: Waiting::new(),
            answer: |text| {
                let power = text.parse().ok().filter(|power| (1..19).contains(power));
                "x".repeat(1 << power.unwrap_or(1)).into()
            },
        })
    }
}

/// One answer for each message.
struct ResponseFuture {
    waiting: Waiting,
    answer: fn(&str) -> Bytes,
}

impl Conversation for ResponseFuture {
    fn message(&mut self, text: &str, _now: Timestamp) {
        let answer = (self.answer)(text);
        self.waiting.push(answer);
    }

    fn next(&mut self, _form: Form, budget: usize, _now: Timestamp) -> Next {
        self.waiting.next(budget)
    }

    fn deadline(&self) -> Option<Timestamp> {
        None
    }

    fn closed(&mut self, _now: Timestamp) {}
}

/// Says a few words and closes.
struct Closing {
    words: &'static [&'static str],
    close: Close,
}

impl Closing {
    fn at_once() -> Self {
        Self {
            words: &[],
            close: Close::go_away(),
        }
    }

    fn after_two() -> Self {
        Self {
            words: &["one", "two"],
            close: Close::new(3001, "bye"),
        }
    }
}

impl Application for Closing {
    fn open(&self, _opened: Opened, _now: Timestamp) -> Box<dyn Conversation> {
        let mut waiting = Waiting::new();
        for word in self.words {
            waiting.push(*word);
        }
        waiting.end = Some(self.close.clone());
        Box::new(Deaf(waiting))
    }
}

/// Hears nothing.
struct Deaf(Waiting);

impl Conversation for Deaf {
    fn message(&mut self, _text: &str, _now: Timestamp) {}

    fn next(&mut self, _form: Form, budget: usize, _now: Timestamp) -> Next {
        self.0.next(budget)
    }

    fn deadline(&self) -> Option<Timestamp> {
        None
    }

    fn closed(&mut self, _now: Timestamp) {}
}

/// Sends every message to every client.
#[derive(Default)]
struct Broadcast {
    room: Arc<Mutex<HashMap<u64, (Waiting, WakeSlot)>>>,
    opened: AtomicU64,
}

impl Application for Broadcast {
    fn open(&self, opened: Opened, _now: Timestamp) -> Box<dyn Conversation> {
        let number = self.opened.fetch_add(1, Ordering::Relaxed);
        let mut room = self.room.lock().unwrap_or_else(PoisonError::into_inner);
        room.insert(number, (Waiting::new(), opened.wake_slot));
        Box::new(Member {
            room: Arc::clone(&self.room),
            number,
        })
    }
}

struct Member {
    room: Arc<Mutex<HashMap<u64, (Waiting, WakeSlot)>>>,
    number: u64,
}

impl Conversation for Member {
    fn message(&mut self, text: &str, _now: Timestamp) {
        let message = Bytes::copy_from_slice(text.as_bytes());
        let mut room = self.room.lock().unwrap_or_else(PoisonError::into_inner);
        for (waiting, wake_slot) in room.values_mut() {
            waiting.push(message.clone());
            wake_slot.notify();
        }
    }

    fn next(&mut self, _form: Form, budget: usize, _now: Timestamp) -> Next {
        let mut room = self.room.lock().unwrap_or_else(PoisonError::into_inner);
        match room.get_mut(&self.number) {
            Some((waiting, _)) => waiting.next(budget),
            None => Next::Wait,
        }
    }

    fn deadline(&self) -> Option<Timestamp> {
        None
    }

    fn closed(&mut self, _now: Timestamp) {
        let mut room = self.room.lock().unwrap_or_else(PoisonError::into_inner);
        room.remove(&self.number);
    }
}

/// Ticks every second.
struct Ticker;

const TICK: Duration = Duration::from_secs(1);

impl Application for Ticker {
    fn open(&self, _opened: Opened, now: Timestamp) -> Box<dyn Conversation> {
        Box::new(Ticking { next: now + TICK })
    }
}

struct Ticking {
    next: Timestamp,
}

impl Conversation for Ticking {
    fn message(&mut self, _text: &str, _now: Timestamp) {}

    fn next(&mut self, _form: Form, _budget: usize, now: Timestamp) -> Next {
        if now < self.next {
            return Next::Wait;
        }
        self.next = now + TICK;
        Next::Messages(smallvec![Bytes::from_static(b"tick!")])
    }

    fn deadline(&self) -> Option<Timestamp> {
        Some(self.next)
    }

    fn closed(&mut self, _now: Timestamp) {}
}
