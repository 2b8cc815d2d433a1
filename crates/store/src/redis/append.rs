//! Answers on their way into Redis. While a script call of a campaign is under way others collect, and go together.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use redis::Value;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::reply::{list, natural, text, unexpected};
use super::{Core, lock, scripts};
use crate::results::{Answer, CampaignId, Record, Seq};
use crate::{Appended, StoreError};

/// A batch ends with the answer that reaches one of these. 32 answers share the cost of a script call; more gain
/// little and make the log's entries coarse.
const BATCH_ANSWERS: usize = 32;
const BATCH_BYTES: usize = 32 * 1024;
/// Script calls of one campaign under way at once, when full batches wait: enough for 300,000 small answers a second
/// at a round trip of 0.8 ms.
const CALLS: usize = 8;
/// Answers of all campaigns that may wait here; more are refused, and their hosts send them again.
const WAITING_MAX: usize = 65_536;
/// What an agent may wait for its answer to be taken: taking the hand-out back comes on top, and the agent is to be
/// told within a second.
const PATIENCE: Duration = Duration::from_millis(750);

/// An answer and whoever waits to hear how it went.
struct Waiting {
    answer: Answer,
    told: oneshot::Sender<Result<Appended, StoreError>>,
}

/// The answers that wait for a script call, by campaign.
#[derive(Default)]
pub(super) struct AppendQueues(Mutex<Queues>);

#[derive(Default)]
struct Queues {
    by_campaign: HashMap<CampaignId, Lane>,
    waiting: usize,
}

#[derive(Default)]
struct Lane {
    queue: VecDeque<Waiting>,
    bytes: usize,
    calls: usize,
}

impl Lane {
    fn is_full(&self) -> bool {
        self.queue.len() >= BATCH_ANSWERS || self.bytes >= BATCH_BYTES
    }
}

/// How a script call went for the campaign.
pub(super) struct Outcome {
    /// The position of the first accepted answer.
    first: Seq,
    /// The nonce of the entry before.
    pub(super) follows: String,
    /// One letter an answer.
    verdicts: Vec<u8>,
}

/// A batch that is in the log.
#[derive(Debug)]
pub(super) struct Added {
    pub(super) records: Vec<Record>,
    pub(super) follows: String,
    pub(super) nonce: String,
}

impl AppendQueues {
    /// Puts an answer into its lane; true if somebody must start to [`Core::drain`] it.
    fn push(&self, id: CampaignId, waiting: Waiting) -> Result<bool, StoreError> {
        let mut queues = lock(&self.0);
        if queues.waiting >= WAITING_MAX {
            let why = "too many answers wait for Redis";
            return Err(StoreError::Unavailable(why.to_owned()));
        }
        queues.waiting += 1;
        let lane = queues.by_campaign.entry(id).or_default();
        lane.bytes += waiting.answer.body.len();
        lane.queue.push_back(waiting);
        let start = lane.calls == 0 || (lane.is_full() && lane.calls < CALLS);
        lane.calls += usize::from(start);
        Ok(start)
    }

    /// The next batch; empty if the lane is, and then whoever asks is done.
    fn take(&self, id: CampaignId) -> Vec<Waiting> {
        let mut queues = lock(&self.0);
        let mut batch = Vec::new();
        let Some(lane) = queues.by_campaign.get_mut(&id) else {
            return batch;
        };
        let (mut taken, mut bytes) = (0, 0);
        while batch.len() < BATCH_ANSWERS
            && bytes < BATCH_BYTES
            && let Some(waiting) = lane.queue.pop_front()
        {
            taken += 1;
            lane.bytes -= waiting.answer.body.len();
            // Nobody waits for it any more: its host has been told to send it again.
            if !waiting.told.is_closed() {
                bytes += waiting.answer.body.len();
                batch.push(waiting);
            }
        }
        if batch.is_empty() {
            lane.calls -= 1;
            if lane.calls == 0 {
                queues.by_campaign.remove(&id);
            }
        }
        queues.waiting -= taken;
        batch
    }

    /// Whether no answer waits or is on its way.
    pub(super) fn is_idle(&self) -> bool {
        lock(&self.0).by_campaign.is_empty()
    }
}

impl Core {
    pub(super) async fn append(
        self: &Arc<Self>,
        id: CampaignId,
        answer: Answer,
    ) -> Result<Appended, StoreError> {
        let (told, heard) = oneshot::channel();
        if self.lanes.push(id, Waiting { answer, told })? {
            self.tasks.spawn(Arc::clone(self).drain(id));
        }
        match timeout(PATIENCE, heard).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(StoreError::Unavailable("the store is closing".to_owned())),
            Err(_) => {
                let why = "the answer was not taken in time";
                Err(StoreError::Unavailable(why.to_owned()))
            }
        }
    }

    /// Makes script calls of one lane until it is empty.
    async fn drain(self: Arc<Self>, id: CampaignId) {
        loop {
            let batch = self.lanes.take(id);
            if batch.is_empty() {
                self.feeds.settle(id);
                return;
            }
            let (answers, told): (Vec<_>, Vec<_>) = batch
                .into_iter()
                .map(|waiting| (waiting.answer, waiting.told))
                .unzip();
            match self.append_batch(id, answers).await {
                Ok(results) => {
                    for (told, result) in told.into_iter().zip(results) {
                        // Whoever does not listen has given up.
                        let _ = told.send(Ok(result));
                    }
                }
                Err(error) => {
                    for told in told {
                        let _ = told.send(Err(error.clone()));
                    }
                }
            }
        }
    }

    /// One script call; the log on this node and other nodes hear of what was accepted.
    pub(super) async fn append_batch(
        &self,
        id: CampaignId,
        answers: Vec<Answer>,
    ) -> Result<Vec<Appended>, StoreError> {
        let nonce = self.nonce();
        let outcome = match self.append_call(id, &nonce, &answers).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(refused)) => return Ok(vec![refused; answers.len()]),
            Err(error) => {
                self.lately.doubt();
                return Err(error);
            }
        };
        let mut results = Vec::with_capacity(answers.len());
        let mut records = Vec::with_capacity(answers.len());
        let mut seq = outcome.first;
        for (answer, verdict) in answers.into_iter().zip(outcome.verdicts) {
            results.push(match verdict {
                b'A' => {
                    records.push(Record { seq, answer });
                    seq = seq.next();
                    Appended::At(Seq(seq.0 - 1))
                }
                b'D' => Appended::Duplicate,
                _ => Appended::NotTargeted,
            });
        }
        if !records.is_empty() {
            let accepted = records.iter().map(|record| &record.answer);
            self.lately.accepted(id, accepted);
            let follows = outcome.follows;
            self.feeds.added(
                id,
                Added {
                    records,
                    follows,
                    nonce,
                },
            );
            self.notices.log(id);
        }
        Ok(results)
    }

    async fn append_call(
        &self,
        id: CampaignId,
        nonce: &str,
        answers: &[Answer],
    ) -> Result<Result<Outcome, Appended>, StoreError> {
        let keys = self.keys.campaign(id);
        let mut cmd = scripts::APPEND.call(&[
            &keys.meta,
            &keys.targets,
            &keys.waiting,
            &keys.failed,
            &keys.log,
            &keys.handed,
        ]);
        cmd.arg(nonce).arg(self.lifetime_ms());
        for answer in answers {
            cmd.arg(answer.host.0).arg(i32::from(answer.failed));
            cmd.arg(answer.body.as_ref());
        }
        let reply = list(self.run(&scripts::APPEND, &cmd).await?).unwrap_or_default();
        match reply.first().and_then(text) {
            Some("O") => outcome(&reply, answers.len())
                .map(Ok)
                .ok_or_else(|| unexpected("an append")),
            Some("C") => Ok(Err(Appended::Closed)),
            Some("U") => Ok(Err(Appended::Unknown)),
            _ => Err(unexpected("an append")),
        }
    }
}

fn outcome(reply: &[Value], answers: usize) -> Option<Outcome> {
    let [_, first, follows, _, verdicts] = reply else {
        return None;
    };
    let verdicts = text(verdicts)?.as_bytes().to_vec();
    (verdicts.len() == answers).then_some(Outcome {
        first: Seq(natural(first)?),
        follows: text(follows)?.to_owned(),
        verdicts,
    })
}
