//! The time of a run: nanoseconds since the Unix epoch that never run backwards, one reading of the clock.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

struct Anchor {
    instant: Instant,
    unix_ns: u64,
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one reading of the system's clock"
)]
fn anchor() -> &'static Anchor {
    static ANCHOR: OnceLock<Anchor> = OnceLock::new();
    ANCHOR.get_or_init(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Anchor {
            instant: Instant::now(),
            unix_ns: nanos(since.unwrap_or_default()),
        }
    })
}

/// Now, in nanoseconds since the Unix epoch. Comparable between processes of one machine.
pub(crate) fn now_ns() -> u64 {
    let anchor = anchor();
    anchor.unix_ns + nanos(anchor.instant.elapsed())
}

/// A duration in nanoseconds.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Seconds from one reading to a later one.
pub(crate) fn seconds(from_ns: u64, to_ns: u64) -> f64 {
    Duration::from_nanos(to_ns.saturating_sub(from_ns)).as_secs_f64()
}

/// The clock's reading as a moment of the runtime's timers.
pub(crate) fn instant(at_ns: u64) -> tokio::time::Instant {
    let anchor = anchor();
    let after = Duration::from_nanos(at_ns.saturating_sub(anchor.unix_ns));
    tokio::time::Instant::from_std(anchor.instant + after)
}
