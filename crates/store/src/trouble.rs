//! The last write that a store refused: a probe may go well while larger writes do not.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::StoreError;

/// A store that nobody has written to since it refused a write is probed again after this long.
const HOLDS: Duration = Duration::from_secs(10);

/// What is remembered. Writes that go well cost one look at a flag.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    is_set: AtomicBool,
    last: Mutex<Option<(Instant, StoreError)>>,
}

impl Trouble {
    /// Takes note of how a write went. That a store does not answer, a probe finds out by itself.
    pub(super) fn note<T>(&self, written: &Result<T, StoreError>) {
        match written {
            Ok(_) if !self.is_set.load(Ordering::Relaxed) => {}
            Ok(_) => self.set(None),
            Err(error @ StoreError::Full(_)) => self.set(Some((Instant::now(), error.clone()))),
            Err(_) => {}
        }
    }

    fn set(&self, last: Option<(Instant, StoreError)>) {
        self.is_set.store(last.is_some(), Ordering::Relaxed);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = last;
    }

    /// Whether nothing is known that speaks against writing.
    ///
    /// # Errors
    /// Why a write was refused a moment ago.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some((at, error)) if at.elapsed() < HOLDS => Err(error.clone()),
            _ => Ok(()),
        }
    }
}
