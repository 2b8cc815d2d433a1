//! Time as a value: milliseconds since the Unix epoch, and the one place that reads the system's clock.
//!
//! Pure modules take a [`Timestamp`] argument and never ask for the time; shells own a [`Clock`]
//! and pass what it says. Tests own a manual clock and move it by hand.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

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
    /// The machine's time: the wall clock without its steps, see [`Steady`].
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
            Self::System => SYSTEM.now(monotonic_millis(), seen),
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

/// All system clocks of the process agree.
static SYSTEM: Steady = Steady::new();

/// Milliseconds between two looks at the wall clock.
const LOOK_EVERY: u64 = 100;

/// The wall clock without its steps. Deadlines, claims and log-ins are moments, and somebody who sets the clock must not end
/// what has an hour left. So it runs with the monotonic clock, which is never set, and when the wall clock says something
/// else it runs up to half as fast again, or half as fast, until they agree: a step of a minute is over after two.
///
/// Time in which the machine sleeps counts at once; the reaper looks after what a gap would end (`viewers::reaper`).
#[derive(Debug)]
struct Steady {
    /// What is added to the monotonic time, in milliseconds; 0 before the first look.
    offset: AtomicU64,
    /// The monotonic time at the last look.
    looked: AtomicU64,
    /// How far the time since boot, sleep included, was ahead of the monotonic time then.
    slept: AtomicU64,
}

/// What a look sees, in milliseconds.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// The time since boot, sleep included.
    boot: u64,
    wall: u64,
}

impl Steady {
    const fn new() -> Self {
        Self {
            offset: AtomicU64::new(0),
            looked: AtomicU64::new(0),
            slept: AtomicU64::new(0),
        }
    }

    #[inline]
    fn now(&self, monotonic: u64, look: impl FnOnce() -> Seen) -> Timestamp {
        let looked = self.looked.load(Ordering::Acquire);
        if monotonic.saturating_sub(looked) >= LOOK_EVERY || looked == 0 {
            self.look(monotonic, looked, look());
        }
        Timestamp(monotonic + self.offset.load(Ordering::Acquire))
    }

    #[cold]
    fn look(&self, monotonic: u64, looked: u64, seen: Seen) {
        let slept = seen.boot.saturating_sub(monotonic);
        if self.offset.load(Ordering::Acquire) == 0 {
            // The first look takes the wall clock as it is.
            self.slept.store(slept, Ordering::Release);
            let first = seen.wall.saturating_sub(monotonic).max(1);
            let (done, not) = (Ordering::AcqRel, Ordering::Acquire);
            let _ = self.offset.compare_exchange(0, first, done, not);
            self.looked.store(monotonic.max(1), Ordering::Release);
            return;
        }
        let (done, not) = (Ordering::AcqRel, Ordering::Relaxed);
        let claimed = self.looked.compare_exchange(looked, monotonic, done, not);
        if claimed.is_err() {
            return;
        }
        let before = self.slept.swap(slept, Ordering::AcqRel);
        // Two clocks are not read at the same moment.
        let woke = slept.saturating_sub(before);
        let woke = if woke > LOOK_EVERY { woke } else { 0 };
        let offset = self.offset.load(Ordering::Acquire) + woke;
        let shown = monotonic + offset;
        let most = (monotonic - looked) / 2;
        let next = match seen.wall >= shown {
            true => offset + (seen.wall - shown).min(most),
            false => offset - (shown - seen.wall).min(most).min(offset - 1),
        };
        self.offset.store(next, Ordering::Release);
    }
}

/// Milliseconds since the first call, and one, so that it is never 0.
fn monotonic_millis() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let since = START.get_or_init(Instant::now).elapsed();
    since.as_secs() * 1000 + u64::from(since.subsec_millis()) + 1
}

fn seen() -> Seen {
    let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(boot.tv_sec).unwrap_or(0);
    let millis = u64::try_from(boot.tv_nsec).unwrap_or(0) / 1_000_000;
    Seen {
        boot: seconds * 1000 + millis,
        wall: wall_millis(),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one reading of the system's clock"
)]
fn wall_millis() -> u64 {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since_epoch.map_or(0, |elapsed| {
        u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const WALL: u64 = 1_700_000_000_000;

    /// What the clock shows after each second, when the wall clock is that far ahead of it from the tenth on.
    fn stepped(step: i64) -> Vec<i64> {
        let steady = Steady::new();
        let wall = |boot: u64| match boot {
            0..10_000 => WALL + boot,
            _ => (WALL + boot).saturating_add_signed(step),
        };
        let mut shown = Vec::new();
        for boot in (1_000..200_000).step_by(100) {
            let now = steady.now(boot, || Seen {
                boot,
                wall: wall(boot),
            });
            if boot % 1_000 == 0 {
                shown.push(now.0.cast_signed() - (WALL + boot).cast_signed());
            }
        }
        shown
    }

    #[test]
    fn a_step_of_the_wall_clock_is_walked_and_not_leapt() {
        for step in [30_000, -30_000] {
            let shown = stepped(step);
            assert!(shown[..8].iter().all(|ahead| *ahead == 0), "{shown:?}");
            assert!((shown[10].abs() - 500).abs() <= 100, "{shown:?}");
            let walks = |pair: &[i64]| (pair[1] - pair[0]).abs() <= 500;
            assert!(shown.windows(2).all(walks), "{shown:?}");
            assert_eq!(shown.last(), Some(&step));
        }
        let far = stepped(3_600_000);
        assert!(far.last().is_some_and(|ahead| *ahead < 100_000));
    }

    #[test]
    fn sleep_is_over_at_once() {
        let steady = Steady::new();
        let at = |monotonic: u64, slept: u64| {
            let boot = monotonic + slept;
            let wall = WALL + boot;
            steady.now(monotonic, || Seen { boot, wall }).0 - WALL
        };
        assert_eq!((at(1_000, 0), at(1_200, 0)), (1_000, 1_200));
        assert_eq!(at(1_400, 3_600_000), 3_601_400);
        assert_eq!(at(1_600, 3_600_000), 3_601_600);
    }

    #[test]
    fn the_systems_clock_is_the_wall_clock_when_nobody_steps_it() {
        let ahead = Clock::System.now().0.abs_diff(wall_millis());
        assert!(ahead < 1_000, "{ahead}");
    }

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
