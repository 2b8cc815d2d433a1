//! Wakes the readers of logs, so that a burst of answers wakes each of them once.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::CampaignLog;

/// Up to so many readers are woken by whoever appends: that costs less than passing it on.
const FEW: usize = 4;
/// Logs whose readers are about to be woken.
const WAITING_MAX: usize = 1_024;

/// The task that wakes many readers.
#[derive(Debug)]
pub(super) struct WakeTask {
    waiting: mpsc::Sender<Arc<CampaignLog>>,
}

impl WakeTask {
    /// Starts the task; it ends when `stop` is cancelled.
    pub(super) fn start(owner: &TaskTracker, stop: CancellationToken) -> Self {
        let (waiting, mut due) = mpsc::channel::<Arc<CampaignLog>>(WAITING_MAX);
        owner.spawn(stop.run_until_cancelled_owned(async move {
            while let Some(log) = due.recv().await {
                log.notify_in_turns().await;
            }
        }));
        Self { waiting }
    }

    /// Something was appended to this log: its readers are woken soon, once for all that is appended until then.
    pub(super) fn notify(&self, log: &Arc<CampaignLog>) {
        let many = log.listeners() > FEW;
        // Passed on, unless a wake-up is on its way already, or so many are that the queue is full.
        if many && (!log.begin_notifying() || self.waiting.try_send(Arc::clone(log)).is_ok()) {
            return;
        }
        log.notify();
    }
}
