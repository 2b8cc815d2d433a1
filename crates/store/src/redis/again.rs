//! Answers that were acknowledged a moment ago and that a failing server may have lost: they are appended again when it
//! is back. The hosts that are in the stream make that harmless.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::{Core, lock};
use crate::results::{Answer, CampaignId};

/// How long answers are kept: replication lags by milliseconds, the append-only file by at most two seconds (Redis
/// acknowledges before it writes when the last `fsync` takes longer).
pub(super) const RECENT: Duration = Duration::from_secs(15);
/// Bytes of them that are kept.
pub(super) const RECENT_BYTES: usize = 8 << 20;
/// What an answer costs beside its body.
const OVERHEAD: usize = 64;
/// Answers of one script call.
const BATCH: usize = 32;

/// The answers that this node has appended lately.
#[derive(Default)]
pub(super) struct RecentAppends {
    answers: Mutex<Answers>,
    /// Something has failed since they were last known to be in the stream.
    suspect: AtomicBool,
    /// The number of the connection that was last looked at.
    connection: AtomicU64,
}

#[derive(Default)]
struct Answers {
    queue: VecDeque<(Instant, CampaignId, Answer)>,
    bytes: usize,
}

impl RecentAppends {
    /// These were accepted.
    pub(super) fn accepted<'a>(&self, id: CampaignId, answers: impl Iterator<Item = &'a Answer>) {
        let now = Instant::now();
        // While something is wrong, age does not make an answer safe.
        let suspect = self.suspect.load(Ordering::Acquire);
        let mut kept = lock(&self.answers);
        for answer in answers {
            kept.bytes += weight(answer);
            kept.queue.push_back((now, id, answer.clone()));
        }
        while let Some((at, _, answer)) = kept.queue.front()
            && (kept.bytes > RECENT_BYTES || (!suspect && now.duration_since(*at) > RECENT))
        {
            let bytes = weight(answer);
            kept.bytes -= bytes;
            kept.queue.pop_front();
        }
    }

    /// A call has failed: its server may come back without what it acknowledged last.
    pub(super) fn doubt(&self) {
        self.suspect.store(true, Ordering::Release);
    }

    fn by_campaign(&self) -> BTreeMap<CampaignId, Vec<Answer>> {
        let mut found: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (_, id, answer) in &lock(&self.answers).queue {
            found.entry(*id).or_default().push(answer.clone());
        }
        found
    }
}

/// Bytes that keeping an answer costs.
pub(super) fn weight(answer: &Answer) -> usize {
    answer.body.len() + OVERHEAD
}

impl Core {
    /// Appends again what may have been lost; called when the server answers.
    pub(super) async fn append_again(&self) {
        let connection = self.data.number();
        if self.lately.connection.swap(connection, Ordering::AcqRel) != connection {
            self.lately.doubt();
        }
        if !self.lately.suspect.load(Ordering::Acquire) {
            return;
        }
        for (id, answers) in self.lately.by_campaign() {
            for answers in answers.chunks(BATCH) {
                if let Err(error) = self.append_batch(id, answers.to_vec()).await {
                    tracing::debug!(%error, "answers are not appended again yet");
                    return;
                }
            }
        }
        self.lately.suspect.store(false, Ordering::Release);
    }
}
