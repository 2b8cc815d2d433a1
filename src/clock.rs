//! Time as a value: milliseconds since the Unix epoch, and the one place that reads the system's clock.
//!
//! Pure modules take a [`Timestamp`] argument and never ask for the time; shells own a [`Clock`]
//! and pass what it says. Tests own a manual clock and move it by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A moment, in milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The moment `seconds` after the epoch.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds * 1000)
    }

    /// Whole seconds since the epoch, rounded down.
    #[must_use]
    pub const fn secs(self) -> u64 {
        self.0 / 1000
    }

    /// How long ago `earlier` was; zero if it lies ahead.
    #[must_use]
    pub const fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Duration> for Timestamp {
    type Output = Timestamp;

    fn add(self, duration: Duration) -> Timestamp {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Timestamp(self.0.saturating_add(millis))
    }
}

/// Where a shell gets the time from. Cloning shares the same hands.
#[derive(Clone, Debug)]
pub enum Clock {
    /// The machine's wall clock.
    System,
    /// A clock that stands still until a test moves it.
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// A clock that shows `start` until [`Clock::advance`] is called.
    #[must_use]
    pub fn manual(start: Timestamp) -> Self {
        Self::Manual(Arc::new(AtomicU64::new(start.0)))
    }

    /// What the clock shows.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        match self {
            Self::System => Timestamp(system_millis()),
            Self::Manual(hands) => Timestamp(hands.load(Ordering::SeqCst)),
        }
    }

    /// Moves a manual clock on; a system clock moves by itself and ignores this.
    pub fn advance(&self, duration: Duration) {
        if let Self::Manual(hands) = self {
            let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
            hands.fetch_add(millis, Ordering::SeqCst);
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one reading of the system's clock"
)]
fn system_millis() -> u64 {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since_epoch.map_or(0, |elapsed| {
        u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_stands_still_until_moved() {
        let clock = Clock::manual(Timestamp::from_secs(100));
        assert_eq!(clock.now(), Timestamp(100_000));
        clock.advance(Duration::from_millis(1500));
        assert_eq!(clock.now(), Timestamp(101_500));
        assert_eq!(
            clock.now().since(Timestamp(101_000)),
            Duration::from_millis(500)
        );
        assert_eq!(Timestamp(5).since(Timestamp(9)), Duration::ZERO);
    }
}
