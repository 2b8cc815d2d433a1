//! One timer of a task, looked at only when its time has come.

use std::pin::Pin;
use std::task::Context;

use tokio::task::coop::has_budget_remaining;
use tokio::time::{Instant, Sleep, sleep_until};

/// A timer. It must always be polled by the same task, with whose waker it is registered once.
#[derive(Debug)]
pub(super) struct Alarm {
    at: Instant,
    registered: bool,
    sleep: Pin<Box<Sleep>>,
}

impl Alarm {
    pub(super) fn new(at: Instant) -> Self {
        Self {
            at,
            registered: false,
            sleep: Box::pin(sleep_until(at)),
        }
    }

    /// When it notifies.
    pub(super) const fn at(&self) -> Instant {
        self.at
    }

    /// Whether it has notified at `now`, which is not ahead of the clock; if not, the task is woken when it does.
    pub(super) fn poll_notified(&mut self, now: Instant, cx: &mut Context<'_>) -> bool {
        if self.registered && now < self.at {
            return false;
        }
        // A task that has used its turn up is told to come again, and is not registered.
        self.registered = has_budget_remaining();
        self.sleep.as_mut().poll(cx).is_ready()
    }

    /// Moves it; poll it afterwards.
    pub(super) fn set(&mut self, at: Instant) {
        self.at = at;
        self.registered = false;
        self.sleep.as_mut().reset(at);
    }
}
