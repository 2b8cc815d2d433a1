//! When the process stops: the signals that ask for it, and the one deadline for everything after.

use std::future::Future;
use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

/// The stop of one process. Clones share it.
///
/// The order is the wiring's business; this is its clock: the deadline runs from the first request, and
/// a second request ends the patience.
#[derive(Clone, Debug)]
pub struct Shutdown {
    requested: CancellationToken,
    hurried: CancellationToken,
    patience: Duration,
}

/// SIGXFSZ on Linux: a write beyond the limit of a file's size. Handled, the write fails instead of the process.
const FILE_TOO_LARGE: i32 = 25;

/// The signals of a process, heard from when this is made: one that comes while the process starts does not end it.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    user: [Signal; 2],
    too_large: Signal,
}

impl Signals {
    /// Hears them from now on.
    ///
    /// # Errors
    /// If signals cannot be had.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            user: [
                signal(SignalKind::user_defined1())?,
                signal(SignalKind::user_defined2())?,
            ],
            too_large: signal(SignalKind::from_raw(FILE_TOO_LARGE))?,
        })
    }
}

/// A step that did not end in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{step} was not finished in time")]
pub struct Overdue {
    /// What was waited for.
    pub step: &'static str,
}

impl Shutdown {
    /// A stop that leaves everything together `patience`.
    #[must_use]
    pub fn new(patience: Duration) -> Self {
        Self {
            requested: CancellationToken::new(),
            hurried: CancellationToken::new(),
            patience,
        }
    }

    /// Asks to stop; asked twice, it stops waiting.
    pub fn request(&self) {
        if self.requested.is_cancelled() {
            self.hurried.cancel();
        }
        self.requested.cancel();
    }

    /// Cancelled when the process has been asked to stop.
    #[must_use]
    pub const fn token(&self) -> &CancellationToken {
        &self.requested
    }

    /// Turns SIGTERM, SIGINT and SIGQUIT into requests, for ever: the wiring spawns it. Signals that would end a process
    /// and ask nothing of a server are told in the log; one that tells of a file that has become too large is left to
    /// the write that fails.
    ///
    /// # Errors
    /// If signals cannot be had.
    pub async fn listen(&self) -> io::Result<()> {
        self.obey(Signals::new()?).await
    }

    /// The same with signals that are heard already.
    ///
    /// # Errors
    /// None as long as the process lives.
    pub async fn obey(&self, signals: Signals) -> io::Result<()> {
        let Signals {
            mut terminate,
            mut interrupt,
            mut quit,
            mut user,
            mut too_large,
        } = signals;
        let [one, two] = &mut user;
        loop {
            let stop = tokio::select! {
                _ = terminate.recv() => Some("SIGTERM"),
                _ = interrupt.recv() => Some("SIGINT"),
                _ = quit.recv() => Some("SIGQUIT"),
                _ = one.recv() => None,
                _ = two.recv() => None,
                _ = too_large.recv() => {
                    tracing::error!("a file has reached the limit of the process's file size (`ulimit -f`)");
                    continue;
                }
            };
            match stop {
                Some(signal) => {
                    tracing::info!(signal, "asked to stop");
                    self.request();
                }
                None => tracing::warn!(
                    "SIGUSR1 and SIGUSR2 mean nothing here; SIGHUP reloads, SIGTERM stops"
                ),
            }
        }
    }

    /// The deadline for everything, from the moment of the call. Called once, when the stop begins.
    #[must_use]
    pub fn begin(&self) -> Deadline {
        Deadline {
            at: Instant::now() + self.patience,
            hurried: self.hurried.clone(),
        }
    }
}

/// What the steps of a stop share.
#[derive(Clone, Debug)]
pub struct Deadline {
    at: Instant,
    hurried: CancellationToken,
}

impl Deadline {
    /// Waits for `work`, at most until the deadline or a second request to stop.
    ///
    /// # Errors
    /// [`Overdue`]; the work is dropped.
    pub async fn wait<F: Future>(&self, step: &'static str, work: F) -> Result<F::Output, Overdue> {
        let outcome = tokio::select! {
            outcome = timeout_at(self.at, work) => outcome.ok(),
            () = self.hurried.cancelled() => None,
        };
        let done = outcome.ok_or(Overdue { step });
        if done.is_err() {
            tracing::warn!(step, "stop goes on without it");
        }
        done
    }

    /// What is left.
    #[must_use]
    pub fn left(&self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn all_steps_share_one_deadline() {
        let shutdown = Shutdown::new(Duration::from_secs(10));
        assert!(!shutdown.token().is_cancelled());
        shutdown.request();
        assert!(shutdown.token().is_cancelled());
        let deadline = shutdown.begin();
        let nap = || tokio::time::sleep(Duration::from_secs(7));
        assert_eq!(deadline.wait("first", nap()).await, Ok(()));
        assert_eq!(deadline.left(), Duration::from_secs(3));
        let second = deadline.wait("second", nap()).await;
        assert_eq!(second, Err(Overdue { step: "second" }));
        assert_eq!(deadline.left(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_request_ends_the_patience() {
        let shutdown = Shutdown::new(Duration::from_secs(3600));
        shutdown.request();
        let deadline = shutdown.begin();
        shutdown.clone().request();
        let waited = deadline.wait("step", std::future::pending::<()>()).await;
        assert_eq!(waited, Err(Overdue { step: "step" }));
        assert!(deadline.left() > Duration::from_secs(3500));
    }

    #[tokio::test]
    async fn a_signal_is_a_request() {
        let shutdown = Shutdown::new(Duration::from_secs(1));
        let listening = shutdown.listen();
        let send = async {
            let pid = std::process::id().to_string();
            let mut kill = tokio::process::Command::new("kill");
            // Until the handler stands, the signal would end the test.
            tokio::task::yield_now().await;
            kill.args(["-TERM", &pid]).status().await.unwrap();
            shutdown.token().cancelled().await;
        };
        tokio::select! {
            biased;
            ended = listening => panic!("{ended:?}"),
            () = send => {}
        }
    }
}
