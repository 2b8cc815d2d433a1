//! What happens to a session because time passes.

use tokio::time::Instant;

use super::{Driver, LINGER, Phase};
use crate::sockjs::Close;
use crate::websocket::Mode;

impl Driver {
    pub(super) fn handle_time(&mut self, now: Instant) {
        let reached = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        self.idle_until = self.idle_until.filter(|(_, at)| *at > now);
        match self.phase {
            Phase::Live if reached(self.stalled_at()) => {
                self.seldom.reason = "stalled";
                self.abort();
            }
            Phase::Live if !self.stopping && reached(self.goodbye_at) => self.say_goodbye(),
            // Whoever could not even take what was being written is not waited for.
            Phase::Live if self.stopping && reached(self.goodbye_limit()) => self.abort(),
            Phase::Closing(until) if until <= now && !self.is_written() => self.abort(),
            // The client does not answer; `turns` goes on as if it had.
            Phase::Closing(until) if until <= now && !self.peer_closed => {
                self.peer_closed = true;
                self.phase = Phase::Closing(now + LINGER);
            }
            Phase::Closing(until) | Phase::Lingering(until) if until <= now => {
                self.phase = Phase::Over;
            }
            Phase::Live | Phase::Closing(_) | Phase::Lingering(_) | Phase::Over => {}
        }
    }

    fn say_goodbye(&mut self) {
        self.stopping = true;
        if let Some(waiting) = &mut self.outbound {
            waiting.cut();
        }
        self.session.close(match self.mode {
            Mode::Raw => Close::new(1001, "Server going away"),
            Mode::Framed => Close::go_away(),
        });
    }

    /// Gives the socket up together with what the kernel still holds for it.
    fn abort(&mut self) {
        self.socket.reset_on_drop();
        self.phase = Phase::Over;
    }

    fn stalled_at(&self) -> Option<Instant> {
        Some(self.stuck_since? + self.shared.settings.timing.stall)
    }

    fn goodbye_limit(&self) -> Option<Instant> {
        Some(self.goodbye_at? + self.shared.settings.close_wait)
    }

    pub(super) fn next_wake(&self) -> Option<Instant> {
        match self.phase {
            Phase::Live => {
                let stop = if self.stopping {
                    self.goodbye_limit()
                } else {
                    self.goodbye_at
                };
                let idle = self.idle_until.map(|(_, at)| at);
                [idle, self.stalled_at(), stop].into_iter().flatten().min()
            }
            Phase::Closing(until) | Phase::Lingering(until) => Some(until),
            Phase::Over => None,
        }
    }
}
