//! One look at other nodes' commits for all who show keys and tokens that are unknown here.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

use super::Catalog;
use crate::store::StoreError;

/// Strangers may cause one look so often.
const INTERVAL: Duration = Duration::from_secs(1);
/// Requests that may wait for a look at once. Each waits about a second at most; whoever is honest tries again.
const WAITING_MAX: usize = 4096;

/// When the last look began, and whether it succeeded.
#[derive(Debug, Default)]
pub(super) struct Looks {
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

/// Why nobody has looked.
#[derive(Debug, thiserror::Error)]
pub enum NoLook {
    /// Too many wait, or the look that they waited for failed.
    #[error("too many strangers at once")]
    Busy,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Catalog {
    /// Completes when a look at other nodes' commits that began after this call has ended. However many ask, there is
    /// one a second.
    ///
    /// # Errors
    /// [`NoLook`].
    pub async fn look_for_strangers(&self) -> Result<(), NoLook> {
        let arrived = Instant::now();
        let waiting = self.looks.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.looks.waiting);
        if waiting >= WAITING_MAX {
            return Err(NoLook::Busy);
        }
        let mut last = self.looks.last.lock().await;
        match *last {
            Some((began, true)) if began >= arrived => return Ok(()),
            Some((began, false)) if began >= arrived => return Err(NoLook::Busy),
            Some((began, _)) => sleep_until(began + INTERVAL).await,
            None => {}
        }
        let began = Instant::now();
        *last = Some((began, false));
        self.catch_up().await?;
        *last = Some((began, true));
        Ok(())
    }
}
