//! How many frames a client sends: pings and empty frames cost work and carry nothing.

use crate::clock::Timestamp;

/// Frames at once. A client that resumes, or a browser's library, sends a handful.
const BURST: u32 = 10_000;
/// Frames a second in the long run.
const PER_SECOND: u32 = 100;

/// The frames that count against a client now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    counted: u32,
    /// Seconds since the epoch, to the last of which the count is brought: there are as many of these as viewers.
    at: u32,
}

impl Pace {
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            counted: 0,
            at: seconds(now),
        }
    }

    /// Counts some more; false if there are too many.
    #[must_use]
    pub(super) fn keeps(&mut self, frames: u32, now: Timestamp) -> bool {
        let rested = seconds(now).saturating_sub(self.at);
        if rested > 0 {
            self.counted = self
                .counted
                .saturating_sub(rested.saturating_mul(PER_SECOND));
            self.at = seconds(now);
        }
        self.counted = self.counted.saturating_add(frames);
        self.counted <= BURST
    }
}

fn seconds(now: Timestamp) -> u32 {
    u32::try_from(now.secs()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_a_flood_does_not() {
        let mut now = Timestamp::from_secs(100);
        let mut pace = Pace::new(now);
        assert!(pace.keeps(BURST, now));
        assert!(!pace.keeps(1, now));
        now = now + std::time::Duration::from_secs(2);
        assert!(pace.keeps(2 * PER_SECOND - 1, now));
        assert!(!pace.keeps(1, now));
        now = now + std::time::Duration::from_secs(1_000_000);
        assert!(pace.keeps(BURST, now));
    }
}
