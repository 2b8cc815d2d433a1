//! One look at other nodes' commits for all agents whose node keys are unknown here.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

use super::http::Refusal;
use crate::catalog::Catalog;

/// Strangers may cause one look so often.
const INTERVAL: Duration = Duration::from_secs(1);
/// Requests that may wait for a look at once. Each waits about a second at most; agents try again.
const WAITING_MAX: usize = 4096;

/// When the last look began, and whether it succeeded.
#[derive(Debug, Default)]
pub(super) struct CatchUp {
    last: Mutex<Option<(Instant, bool)>>,
    waiting: AtomicUsize,
}

/// One of those that wait.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl CatchUp {
    /// Completes when a look that began after this call has ended.
    pub(super) async fn run(&self, catalog: &Catalog) -> Result<(), Refusal> {
        let arrived = Instant::now();
        let waiting = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        if waiting >= WAITING_MAX {
            return Err(Refusal::Busy);
        }
        let mut last = self.last.lock().await;
        match *last {
            Some((began, true)) if began >= arrived => return Ok(()),
            Some((began, false)) if began >= arrived => return Err(Refusal::Busy),
            Some((began, _)) => sleep_until(began + INTERVAL).await,
            None => {}
        }
        let began = Instant::now();
        *last = Some((began, false));
        catalog.catch_up().await?;
        *last = Some((began, true));
        Ok(())
    }
}
