//! Log lines that may come in floods: one of a kind is written at once, then one a period with how many were like it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use std::time::Instant;

/// Between two lines of a kind.
const PERIOD: Duration = Duration::from_secs(10);

/// Decides for one kind of line, usually as a `static` beside it.
#[derive(Debug)]
pub struct Sampled {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    last: Option<Instant>,
    left_out: u64,
}

impl Sampled {
    /// For a kind of line that has not been written yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            state: Mutex::new(State {
                last: None,
                left_out: 0,
            }),
        }
    }

    /// How many lines were left out since the last one, if this one is to be written.
    #[must_use]
    pub fn take(&self) -> Option<u64> {
        self.take_at(Instant::now())
    }

    fn take_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = state
            .last
            .is_none_or(|last| now.saturating_duration_since(last) >= PERIOD);
        if !is_due {
            state.left_out += 1;
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.left_out))
    }
}

impl Default for Sampled {
    fn default() -> Self {
        Self::new()
    }
}

/// `sampled!(warn, fields..., "text")`: [`tracing`]'s macro of this level, written at most once a period for this place
/// in the code, with `left_out`, the number of lines that were not.
#[macro_export]
macro_rules! sampled {
    ($level:ident, $($line:tt)+) => {{
        static KIND: $crate::sampled::Sampled =
            $crate::sampled::Sampled::new();
        if let Some(left_out) = KIND.take() {
            tracing::$level!(left_out, $($line)+);
        }
    }};
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_written_and_then_one_a_period_with_the_count() {
        let kind = Sampled::new();
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        assert_eq!(kind.take_at(start), Some(0));
        for millis in 0..500 {
            assert_eq!(kind.take_at(after(millis)), None);
        }
        assert_eq!(kind.take_at(after(10_000)), Some(500));
        assert_eq!(kind.take_at(after(10_001)), None);
        assert_eq!(kind.take_at(after(60_000)), Some(1));
        assert_eq!(kind.take_at(after(120_000)), Some(0));
    }
}
