//! One campaign whose results can be read, and the queue of those who append to it.
//!
//! Answers wait in the queue, and those that come while one is written share the next write. The locks of queue and state
//! are never held together, and neither while a file is written; a log's may be taken under that of the state.

use std::collections::VecDeque;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::{oneshot, watch};

use super::file::{LogFile, Point, Reader};
use super::rows::{Mended, Standing, next_epoch};
use super::state::{Answers, Begun, Failure, Reply, State, Taken};
use crate::clock::Timestamp;
use crate::results::{
    Answer, Campaign, CampaignId, Claim, Encode, Ending, HandOut, HostId, Ledger, Lifecycle, Log,
    Progress, Question, Seq, Status,
};
use crate::{CampaignLog, StoreError};

/// Answers that share a write have about so many bytes.
const GROUP_BYTES_MAX: usize = 1024 * 1024;

/// Its row does not say what is so, whatever the status.
const UNSAVED: u8 = u8::MAX;

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
    logs: Logs,
    state: Mutex<State>,
    queue: Mutex<Queue>,
    /// The status that its row has, as its number.
    saved: AtomicU8,
    /// Set once the file of a campaign that had ended before the start is known to be what its row says.
    looked_through: watch::Sender<bool>,
    is_looking: AtomicBool,
}

/// Those who append at the same time.
#[derive(Debug, Default)]
struct Queue {
    /// Whether somebody is writing; whoever that is takes care of the others.
    writing: bool,
    /// Why nobody has to wait: the write hangs.
    hung: Option<StoreError>,
    /// Whether hand-outs are to be written.
    hand_outs: bool,
    /// Bounded by the requests that are served at once: each waits for its reply.
    waiting: VecDeque<(Answer, oneshot::Sender<Reply>)>,
}

/// What is written together, and those who wait for it.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) answers: Answers,
    pub(super) waiting: Vec<oneshot::Sender<Reply>>,
}

impl Live {
    pub(super) fn new(
        campaign: Campaign,
        life: Lifecycle,
        ledger: Ledger,
        file: LogFile,
        logs: Logs,
    ) -> Self {
        let is_past = life.ended().is_some();
        let mut state = State::new(&campaign, life, ledger, file);
        if state.life.ended().is_none() {
            state.held = Some(logs.log(campaign.id, &mut state));
        }
        Self {
            id: campaign.id,
            question: campaign.question,
            created_at: campaign.created_at,
            logs,
            state: Mutex::new(state),
            queue: Mutex::default(),
            saved: AtomicU8::new(campaign.status.number()),
            looked_through: watch::Sender::new(!is_past),
            is_looking: AtomicBool::new(false),
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
            epoch: state.epoch,
            is_incomplete: state.is_incomplete,
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

    /// Ends it in memory; none if it had ended before. Answers are refused from here on. Closing the file may block.
    pub(super) fn end(&self, ending: Ending, now: Timestamp) -> Option<Option<Arc<File>>> {
        let (file, log) = {
            let mut state = lock(&self.state);
            if !state.life.end(ending, now) {
                return None;
            }
            (state.file.finish(), state.held.take())
        };
        if let Some(log) = log {
            log.notify();
        }
        Some(file)
    }

    /// What its row is to say.
    pub(super) fn standing(&self) -> Standing {
        let state = lock(&self.state);
        let ended = state.life.ended();
        Standing {
            id: self.id,
            status: state.life.status(),
            ended,
            epoch: state.epoch,
            is_incomplete: state.is_incomplete,
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

    /// Queues the hand-outs that wait; true if the caller has to see to it that they are written.
    pub(super) fn enqueue_hand_outs(&self) -> bool {
        if !lock(&self.state).take_note() {
            return false;
        }
        let mut queue = lock(&self.queue);
        queue.hand_outs = true;
        !std::mem::replace(&mut queue.writing, true)
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

    // ---- a file of before the start

    /// Whether its file is known to be what it should be.
    pub(super) fn is_looked_through(&self) -> bool {
        *self.looked_through.borrow()
    }

    /// Waits until it is.
    pub(super) async fn looked_through(&self) {
        let mut looked_through = self.looked_through.subscribe();
        // The sender is here.
        let _ = looked_through.wait_for(|is_done| *is_done).await;
    }

    /// Whether the caller has to look the file through: nobody has or does.
    pub(super) fn begin_look(&self) -> bool {
        !self.is_looked_through() && !self.is_looking.swap(true, Ordering::SeqCst)
    }

    /// The look is over; if it has failed, somebody else may try.
    pub(super) fn end_look(&self, is_done: bool) {
        self.looked_through.send_replace(is_done);
        self.is_looking.store(false, Ordering::SeqCst);
    }

    /// Reads the whole file of a campaign that has ended. If it is not what was written, what stands whole in it is kept in
    /// its place. Blocks.
    pub(super) fn look_through(
        &self,
        aside: &Path,
        now: Timestamp,
    ) -> Result<Option<Mended>, StoreError> {
        let (path, last) = {
            let state = lock(&self.state);
            (state.file.path().to_owned(), state.file.last())
        };
        let (mut file, _) = LogFile::reload(self.id, path, aside, |_| {})?;
        file.finish();
        let mut state = lock(&self.state);
        if file.last() >= last {
            // Nothing but hand-outs was damaged. Answers that were being written when the campaign ended are in no log.
            file.end_with(last);
            state.file = file;
            return Ok(None);
        }
        let mended = Mended {
            epoch: next_epoch(state.epoch, now),
            is_incomplete: true,
            last: file.last(),
        };
        state.file = file;
        (state.epoch, state.is_incomplete) = (mended.epoch, true);
        state.log = Weak::new();
        drop(state);
        self.saved.store(UNSAVED, Ordering::SeqCst);
        Ok(Some(mended))
    }

    /// Its file cannot be read, now at least: the campaign is shown without.
    pub(super) fn cannot_be_read(&self) {
        lock(&self.state).is_incomplete = true;
    }

    // ---- answers

    /// Queues the answer. The second is true if nobody is writing: the caller has to see to it that somebody does.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if writing hangs.
    pub(super) fn enqueue(
        &self,
        answer: Answer,
    ) -> Result<(oneshot::Receiver<Reply>, bool), StoreError> {
        let (sender, reply) = oneshot::channel();
        let mut queue = lock(&self.queue);
        if let Some(error) = &queue.hung {
            return Err(error.clone());
        }
        queue.waiting.push_back((answer, sender));
        let first = !std::mem::replace(&mut queue.writing, true);
        Ok((reply, first))
    }

    /// What is to be written next; if there is nothing, nobody is writing any more.
    pub(super) fn next_group(&self) -> Option<Group> {
        let mut queue = lock(&self.queue);
        let (mut group, mut bytes) = (Group::default(), 0);
        while bytes < GROUP_BYTES_MAX
            && let Some((answer, sender)) = queue.waiting.pop_front()
        {
            bytes += answer.body.len();
            group.answers.push(answer);
            group.waiting.push(sender);
        }
        queue.writing = std::mem::take(&mut queue.hand_outs) || !group.answers.is_empty();
        queue.writing.then_some(group)
    }

    /// Writing hangs, or does so no more: who waits hears of it, and so does who comes until then.
    pub(super) fn set_hung(&self, hung: Option<StoreError>) {
        let waiting = {
            let mut queue = lock(&self.queue);
            queue.hung.clone_from(&hung);
            hung.map(|error| (std::mem::take(&mut queue.waiting), error))
        };
        let Some((waiting, error)) = waiting else {
            return;
        };
        for (_, sender) in waiting {
            // Who asked may be gone.
            let _ = sender.send(Err(error.clone()));
        }
    }

    /// Writes answers, and the hand-outs that wait. Blocks. Only one may write at a time: whoever [`Live::enqueue`] or
    /// [`Live::enqueue_hand_outs`] has told so.
    pub(super) fn write(&self, answers: Answers, synchronise: bool) -> Taken {
        let mut begun = self.begin(answers);
        let written = begun.write(synchronise);
        self.finish(begun, written)
    }

    /// The first step of [`Live::write`].
    pub(super) fn begin(&self, answers: Answers) -> Begun {
        lock(&self.state).begin(answers)
    }

    /// The last step of [`Live::write`]. Blocks.
    pub(super) fn finish(&self, begun: Begun, written: Result<(), Failure>) -> Taken {
        let (taken, undo) = lock(&self.state).finish(begun, written);
        if let Some(mut write) = undo {
            write.undo();
        }
        taken
    }
}

impl Logs {
    /// A log whose past is in the file.
    fn log(&self, id: CampaignId, state: &mut State) -> Arc<CampaignLog> {
        let log = Log::new(id, state.file.last(), self.encode);
        let log = Arc::new(CampaignLog::new(log, id, self.bytes_max));
        log.set_epoch(state.epoch);
        state.log = Arc::downgrade(&log);
        log
    }
}

/// What the locks protect is never left half changed, so a panic elsewhere does no harm.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
