//! Files of before the start: each of a campaign that had ended is looked through once, and nobody is shown the campaign before
//! that is done.

use std::path::PathBuf;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::campaigns::Campaigns;
use super::jobs::Jobs;
use super::live::Live;
use crate::StoreError;
use crate::clock::Timestamp;
use crate::names;

/// What looks files through.
#[derive(Debug)]
pub(super) struct Looks {
    /// A large file takes as long as it takes; only who waits for one has no more patience than elsewhere.
    pub(super) jobs: Jobs,
    /// Nobody waits for them at the end: what is cut short is done at the next start.
    pub(super) tasks: TaskTracker,
    pub(super) campaigns: Arc<Campaigns>,
    pub(super) aside: PathBuf,
    pub(super) opened_at: Timestamp,
}

impl Looks {
    /// Looks all of them through, one after the other, beside what else is done.
    pub(super) fn begin(self: &Arc<Self>, stop: CancellationToken) {
        let looks = Arc::clone(self);
        let looking = async move {
            for live in looks.campaigns.all() {
                if live.begin_look() {
                    looks.look(&live).await;
                }
            }
        };
        self.tasks.spawn(stop.run_until_cancelled_owned(looking));
    }

    /// Waits until a campaign's file has been looked through.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if that takes longer.
    pub(super) async fn wait(self: &Arc<Self>, live: &Arc<Live>) -> Result<(), StoreError> {
        if live.is_looked_through() {
            return Ok(());
        }
        if live.begin_look() {
            let (looks, live) = (Arc::clone(self), Arc::clone(live));
            self.tasks.spawn(async move { looks.look(&live).await });
        }
        let looked = std::pin::pin!(live.looked_through());
        self.jobs.within(looked).await
    }

    async fn look(&self, live: &Arc<Live>) {
        let (looking, aside, now) = (Arc::clone(live), self.aside.clone(), self.opened_at);
        let found = self.jobs.run(move || looking.look_through(&aside, now));
        let found = found.await.and_then(|found| found);
        match &found {
            Ok(None) => {}
            Ok(Some(mended)) => {
                metrics::counter!(names::CAMPAIGNS_DAMAGED).increment(1);
                tracing::error!(campaign = %live.id(), kept = mended.last.0, "results of a campaign that has ended are missing");
                // Its row is written by the reaper; until then the next start would find it so again.
                self.campaigns.note_unsaved(Arc::clone(live));
            }
            // No descriptor is left, perhaps: that passes.
            Err(error @ StoreError::Full(_)) => {
                tracing::warn!(campaign = %live.id(), %error, "a campaign's file is not looked through yet");
                live.end_look(false);
                return;
            }
            Err(error) => {
                metrics::counter!(names::CAMPAIGNS_DAMAGED).increment(1);
                tracing::error!(campaign = %live.id(), %error, "results of a campaign that has ended cannot be read");
                live.cannot_be_read();
            }
        }
        live.end_look(true);
    }
}
