//! Signs of life of a thread that a disk may hold up.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// When the thread has last got on with its work.
#[derive(Debug)]
pub(super) struct Pulse {
    start: Instant,
    /// Milliseconds after `start`, and 1; 0 while there is nothing to do.
    last: AtomicU64,
}

impl Default for Pulse {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            last: AtomicU64::new(0),
        }
    }
}

/// The thread is at work.
pub(super) struct Working<'a>(&'a Pulse);

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.0.last.store(0, Ordering::Relaxed);
    }
}

impl Pulse {
    /// Work begins.
    pub(super) fn begin(&self) -> Working<'_> {
        self.beat();
        Working(self)
    }

    /// Work goes on. Always false, which tells SQLite to do so.
    pub(super) fn beat(&self) -> bool {
        let after = self.start.elapsed().as_millis();
        let after = u64::try_from(after).unwrap_or(u64::MAX - 1);
        self.last.store(after + 1, Ordering::Relaxed);
        false
    }

    /// For how long work has not gone on, if there is any.
    pub(super) fn missed(&self) -> Option<Duration> {
        let last = self.last.load(Ordering::Relaxed).checked_sub(1)?;
        Some(
            self.start
                .elapsed()
                .saturating_sub(Duration::from_millis(last)),
        )
    }
}
