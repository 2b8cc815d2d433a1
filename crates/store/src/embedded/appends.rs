//! What writes a campaign's file: answers that come meanwhile share the next write, and nobody waits for a disk that hangs.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::jobs::Jobs;
use super::live::{Group, Live};
use super::state::{Reply, Taken};
use super::wake_task::WakeTask;
use crate::StoreError;

/// How answers come to their files.
#[derive(Clone, Debug)]
pub(super) struct Appends {
    pub(super) jobs: Jobs,
    pub(super) wake_task: Arc<WakeTask>,
    /// Whether the disk has to have an answer before it is acknowledged.
    pub(super) synchronise: bool,
}

impl Appends {
    /// Writes what waits, until nothing does.
    pub(super) async fn write_waiting(self, live: Arc<Live>) {
        let followed = live.log();
        if let Some(log) = &followed {
            log.begin_writing();
        }
        // Requests that have come in already are read before, and share the write.
        tokio::task::yield_now().await;
        while let Some(group) = live.next_group() {
            let waiting = group.waiting.len();
            let (senders, taken) = self.write(&live, group).await;
            if let Some(taken) = taken {
                if let Some(log) = &taken.log {
                    log.has_written();
                    self.wake_task.notify(log);
                }
                for (reply, sender) in taken.replies.into_iter().zip(senders) {
                    // Who asked may be gone.
                    let _ = sender.send(reply);
                }
            }
            if waiting > 1 {
                // Those who have just been answered ask again.
                tokio::task::yield_now().await;
            }
        }
        if let Some(log) = &followed {
            log.end_writing();
        }
    }

    /// Writes one group. Gives those who still wait, and how it went.
    async fn write(
        &self,
        live: &Arc<Live>,
        group: Group,
    ) -> (Vec<oneshot::Sender<Reply>>, Option<Taken>) {
        let Group { answers, waiting } = group;
        if let Err(error) = self.jobs.check() {
            refuse(waiting, &error);
            return (Vec::new(), None);
        }
        let (writing, synchronise) = (Arc::clone(live), self.synchronise);
        let job = self.jobs.run(move || writing.write(answers, synchronise));
        let mut job = std::pin::pin!(job);
        match self.jobs.within(job.as_mut()).await {
            Ok(Ok(taken)) => (waiting, Some(taken)),
            Ok(Err(error)) => {
                refuse(waiting, &error);
                (Vec::new(), None)
            }
            Err(error) => {
                tracing::error!(campaign = %live.id(), %error, "answers are refused until it does");
                refuse(waiting, &error);
                live.set_hung(Some(error));
                let taken = job.await.ok();
                live.set_hung(None);
                (Vec::new(), taken)
            }
        }
    }
}

fn refuse(waiting: Vec<oneshot::Sender<Reply>>, error: &StoreError) {
    for sender in waiting {
        // Who asked may be gone.
        let _ = sender.send(Err(error.clone()));
    }
}
