//! One campaign whose results can be read, and the queue of those who append to it.
//!
//! Answers are written by whoever comes first; those who come meanwhile leave theirs in the queue and share
//! the next write. The locks of queue, state and log are never held together.

use std::collections::VecDeque;
use std::fs::File;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::faults::{closed, io_fault};
use super::file::{LogFile, Point, Reader};
use super::ringer::Ringer;
use super::rows::Standing;
use super::state::{Answers, Reply, State, Taken};
use crate::clock::Timestamp;
use crate::results::{
    Answer, Campaign, CampaignId, Claim, Encode, Ending, HandOut, HostId, Ledger, Lifecycle, Log,
    Progress, Question, Seq, Status,
};
use crate::store::CampaignLog;

/// Answers that share a write have about so many bytes.
const BATCH_BYTES_MAX: usize = 1024 * 1024;

/// How logs are made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Logs {
    pub(super) encode: Encode,
    pub(super) bytes_max: usize,
}

/// A campaign whose results can be read.
#[derive(Debug)]
pub(super) struct Live {
    id: CampaignId,
    question: Question,
    created_at: Timestamp,
    epoch: u64,
    logs: Logs,
    state: Mutex<State>,
    queue: Mutex<Queue>,
    /// The status that its row has, as its number.
    saved: AtomicU8,
}

/// Those who append at the same time.
#[derive(Debug, Default)]
struct Queue {
    /// Whether somebody is writing; whoever that is takes care of the others.
    writing: bool,
    /// Bounded by the requests that are served at once: each waits for its reply.
    waiting: VecDeque<(Answer, oneshot::Sender<Reply>)>,
}

/// Somebody's turn to write. Should they panic, those who wait hear of it, and the next one writes.
struct Turn<'a>(&'a Mutex<Queue>);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            *lock(self.0) = Queue::default();
        }
    }
}

impl Live {
    pub(super) fn new(
        campaign: Campaign,
        life: Lifecycle,
        ledger: Ledger,
        file: LogFile,
        logs: Logs,
    ) -> Self {
        let mut state = State::new(life, ledger, file);
        if state.life.ended().is_none() {
            state.held = Some(logs.log(campaign.id, &mut state));
        }
        Self {
            id: campaign.id,
            question: campaign.question,
            created_at: campaign.created_at,
            epoch: campaign.epoch,
            logs,
            state: Mutex::new(state),
            queue: Mutex::default(),
            saved: AtomicU8::new(campaign.status.number()),
        }
    }

    pub(super) const fn id(&self) -> CampaignId {
        self.id
    }

    /// The campaign as it stands.
    pub(super) fn campaign(&self) -> Campaign {
        let state = lock(&self.state);
        Campaign {
            id: self.id,
            question: self.question.clone(),
            created_at: self.created_at,
            status: state.life.status(),
            ended: state.life.ended(),
            epoch: self.epoch,
        }
    }

    pub(super) fn progress(&self) -> Progress {
        lock(&self.state).ledger.progress()
    }

    // ---- its life

    pub(super) fn claim(&self, node: &str, now: Timestamp) -> Claim {
        lock(&self.state).life.claim(node, now)
    }

    pub(super) fn release(&self, node: &str, now: Timestamp) {
        lock(&self.state).life.release(node, now);
    }

    /// Why it must end now, if it must.
    pub(super) fn due(&self, now: Timestamp) -> Option<Ending> {
        lock(&self.state).life.due(now)
    }

    /// When it has to be looked at next: to end it, or to forget it.
    pub(super) fn deadline(&self) -> Option<Timestamp> {
        let life = &lock(&self.state).life;
        life.deadline().or_else(|| life.forgotten_at())
    }

    /// Whether its results have been kept for long enough.
    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        let forgotten_at = lock(&self.state).life.forgotten_at();
        forgotten_at.is_some_and(|at| now >= at)
    }

    /// Ends it in memory; false if it had ended before. Answers are refused from here on.
    pub(super) fn end(&self, ending: Ending, now: Timestamp) -> bool {
        let log = {
            let mut state = lock(&self.state);
            if !state.life.end(ending, now) {
                return false;
            }
            state.file.finish();
            state.held.take()
        };
        if let Some(log) = log {
            log.ring();
        }
        true
    }

    /// What its row is to say.
    pub(super) fn standing(&self) -> Standing {
        let state = lock(&self.state);
        let ended = state.life.ended();
        Standing {
            id: self.id,
            status: state.life.status(),
            ended,
            outcome: ended.map(|_| (state.file.last(), state.ledger.progress())),
        }
    }

    /// Its row says this now.
    pub(super) fn saved(&self, status: Status) {
        self.saved.store(status.number(), Ordering::SeqCst);
    }

    /// Whether its row says what is so.
    pub(super) fn is_saved(&self) -> bool {
        let status = lock(&self.state).life.status();
        self.saved.load(Ordering::SeqCst) == status.number()
    }

    // ---- hand-outs

    /// Decides whether the host gets the query. The second is true if hand-outs have begun to wait to be written.
    pub(super) fn hand_out(&self, host: HostId, now: Timestamp) -> (HandOut, bool) {
        let mut state = lock(&self.state);
        if state.life.ended().is_some() {
            return (HandOut::Never, false);
        }
        let out = state.ledger.hand_out(host, now);
        let begun = out == HandOut::Give && state.note_hand_out(host);
        (out, begun)
    }

    /// Gives a hand-out back; true if hand-outs have begun to wait to be written.
    pub(super) fn take_back(&self, host: HostId) -> bool {
        let mut state = lock(&self.state);
        state.ledger.take_back(host);
        state.life.ended().is_none() && state.note_hand_out(host)
    }

    /// Writes the hand-outs that wait.
    pub(super) fn write_hand_outs(&self) {
        let mut state = lock(&self.state);
        state.forget_note();
        state.write_hand_outs();
    }

    // ---- the log

    /// The log in memory; made anew if nobody has been reading it.
    pub(super) fn follow(&self) -> Arc<CampaignLog> {
        let mut state = lock(&self.state);
        let log = state.log.upgrade();
        log.unwrap_or_else(|| self.logs.log(self.id, &mut state))
    }

    /// The log in memory, if there is one.
    pub(super) fn log(&self) -> Option<Arc<CampaignLog>> {
        lock(&self.state).log.upgrade()
    }

    pub(super) fn reader(&self, after: Seq) -> Reader {
        lock(&self.state).file.reader(after)
    }

    /// Remembers where a reader has found answers.
    pub(super) fn learn(&self, points: &[Point]) {
        lock(&self.state).file.learn(points);
    }

    /// The file, if it is open.
    pub(super) fn file(&self) -> Option<Arc<File>> {
        lock(&self.state).file.handle()
    }

    // ---- answers

    /// Appends at once, unless somebody is writing: then it leaves the answer to them.
    pub(super) async fn append(&self, answer: Answer, ringer: &Ringer) -> Reply {
        if let Some(reply) = self.join(&answer) {
            return reply.await.map_err(|_| closed())?;
        }
        let _turn = Turn(&self.queue);
        let mut taken = lock(&self.state).take(Answers::from_buf([answer]), false);
        publish(&taken, ringer);
        self.write_waiting(ringer, false);
        taken.replies.pop().unwrap_or_else(|| Err(closed()))
    }

    /// Queues the answer if somebody is writing; otherwise the caller is now the one who writes.
    fn join(&self, answer: &Answer) -> Option<oneshot::Receiver<Reply>> {
        let mut queue = lock(&self.queue);
        if !std::mem::replace(&mut queue.writing, true) {
            return None;
        }
        let (sender, reply) = oneshot::channel();
        queue.waiting.push_back((answer.clone(), sender));
        Some(reply)
    }

    /// Queues the answer. The second is true if nobody is writing: the caller has to see to it that somebody
    /// calls [`Live::write_waiting`].
    pub(super) fn enqueue(&self, answer: Answer) -> (oneshot::Receiver<Reply>, bool) {
        let (sender, reply) = oneshot::channel();
        let mut queue = lock(&self.queue);
        queue.waiting.push_back((answer, sender));
        let first = !std::mem::replace(&mut queue.writing, true);
        (reply, first)
    }

    /// Writes what has come meanwhile, until nothing has. Blocks if it has to synchronise.
    pub(super) fn write_waiting(&self, ringer: &Ringer, synchronise: bool) {
        let _turn = Turn(&self.queue);
        while let Some((answers, waiting)) = self.next_batch() {
            let mut taken = lock(&self.state).take(answers, synchronise);
            self.synchronise(&mut taken);
            publish(&taken, ringer);
            for (reply, sender) in taken.replies.into_iter().zip(waiting) {
                // Who asked may be gone.
                let _ = sender.send(reply);
            }
        }
    }

    /// The next answers to be written together, and those who wait for them; none ends the writing.
    fn next_batch(&self) -> Option<(Answers, Vec<oneshot::Sender<Reply>>)> {
        let mut queue = lock(&self.queue);
        let (mut answers, mut waiting, mut bytes) = (Answers::new(), Vec::new(), 0);
        while bytes < BATCH_BYTES_MAX
            && let Some((answer, sender)) = queue.waiting.pop_front()
        {
            bytes += answer.body.len();
            answers.push(answer);
            waiting.push(sender);
        }
        queue.writing = !answers.is_empty();
        queue.writing.then_some((answers, waiting))
    }

    /// Has the disk take what was written, if it has to. If that fails, nothing is acknowledged, and nothing more is taken.
    fn synchronise(&self, taken: &mut Taken) {
        let Some((file, directory)) = taken.unsynchronised.take() else {
            return;
        };
        let result = file.sync_data().and_then(|()| match directory {
            Some(directory) => File::open(directory)?.sync_all(),
            None => Ok(()),
        });
        let result = result.map_err(|error| io_fault("a campaign's file", &error));
        if let Err(error) = &result {
            taken.fail(error);
        }
        lock(&self.state).synchronised(result);
    }
}

impl Logs {
    /// A log whose past is in the file.
    fn log(&self, id: CampaignId, state: &mut State) -> Arc<CampaignLog> {
        let log = Log::new(id, state.file.last(), self.encode);
        let log = Arc::new(CampaignLog::new(log, id, self.bytes_max));
        state.log = Arc::downgrade(&log);
        log
    }
}

/// Shows accepted answers to those who follow. Only one writes at a time, so the order is that of the file.
fn publish(taken: &Taken, ringer: &Ringer) {
    if let Some(log) = &taken.log
        && !taken.records.is_empty()
    {
        // A log that was made after the write has these records already, and skips them.
        if !log.append(&taken.records) {
            tracing::error!(campaign = %log.id(), "a campaign's log has a gap");
        }
        ringer.ring(log);
    }
}

/// What the locks protect is never left half changed, so a panic elsewhere does no harm.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
