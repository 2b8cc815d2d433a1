//! What is known of one campaign, under its one lock: its life, who has answered, and its file.

use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Weak};

use roaring::RoaringBitmap;
use smallvec::SmallVec;

use super::entry::BODY_BYTES_MAX;
use super::file::{Batch, LogFile};
use crate::results::{Answer, HostId, Ledger, Lifecycle, Record, Verdict};
use crate::store::{Appended, CampaignLog, StoreError};

/// Hand-outs are written with the next answers, or by the reaper, or when they have so many bytes: losing some
/// only means that a host is asked once more.
const HAND_OUT_BYTES_MAX: usize = 16 * 1024;

/// How an append went, or that it is not known.
pub(super) type Reply = Result<Appended, StoreError>;
/// The answers of one write: most often one.
pub(super) type Answers = SmallVec<[Answer; 1]>;

/// What is known of a campaign.
#[derive(Debug)]
pub(super) struct State {
    pub(super) life: Lifecycle,
    pub(super) ledger: Ledger,
    pub(super) file: LogFile,
    /// The log, as long as somebody reads it.
    pub(super) log: Weak<CampaignLog>,
    /// Keeps the log until the campaign ends, so that viewers who come and go find it in memory.
    pub(super) held: Option<Arc<CampaignLog>>,
    /// What is to be written next: hand-outs, and during an append its answers.
    batch: Batch,
    /// Whether the store knows that hand-outs wait to be written.
    noted: bool,
    /// Why nothing can be written any more: after a failed synchronisation nobody knows what the disk holds.
    broken: Option<StoreError>,
    /// Whether the file's name is known to be on the disk.
    placed: bool,
}

/// What an append came to.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// For each answer, in their order.
    pub(super) replies: SmallVec<[Reply; 1]>,
    /// The accepted answers.
    pub(super) records: SmallVec<[Record; 1]>,
    /// Where they are to be shown.
    pub(super) log: Option<Arc<CampaignLog>>,
    /// What has to be synchronised before they may be acknowledged: the file, and the directory that names it
    /// if that was not done before.
    pub(super) unsynchronised: Option<(Arc<File>, Option<Box<Path>>)>,
}

impl State {
    pub(super) fn new(life: Lifecycle, ledger: Ledger, file: LogFile) -> Self {
        Self {
            life,
            ledger,
            file,
            log: Weak::new(),
            held: None,
            batch: Batch::default(),
            noted: false,
            broken: None,
            placed: false,
        }
    }

    // ---- answers

    /// Judges answers, writes those that are accepted, and records them: all, or if the write fails none.
    pub(super) fn take(&mut self, answers: Answers, synchronise: bool) -> Taken {
        let waiting = self.batch.len();
        let mut taken = self.judge(answers);
        if taken.records.is_empty() {
            return taken;
        }
        if let Err(error) = self.file.write(&mut self.batch) {
            self.batch.truncate(waiting);
            taken.fail(&error);
        }
        for record in &taken.records {
            self.ledger.answer(record.answer.host, record.answer.failed);
        }
        taken.log = self.log.upgrade();
        if synchronise && let Some(file) = self.file.handle() {
            let directory = self.file.directory().filter(|_| !self.placed);
            taken.unsynchronised = Some((file, directory.map(Box::from)));
        }
        taken
    }

    /// Puts the answers that would be accepted into the batch.
    fn judge(&mut self, answers: Answers) -> Taken {
        let mut taken = Taken::default();
        let mut place = self.file.last();
        let mut fresh = RoaringBitmap::new();
        let many = answers.len() > 1;
        for answer in answers {
            let verdict = self.refuse(&answer).unwrap_or_else(|| {
                if many && !fresh.insert(answer.host.0) {
                    return Ok(Appended::Duplicate);
                }
                place = place.next();
                self.batch.put_answer(place, &answer);
                let seq = place;
                taken.records.push(Record { seq, answer });
                Ok(Appended::At(seq))
            });
            taken.replies.push(verdict);
        }
        taken
    }

    /// Why an answer is not taken, if it is not.
    fn refuse(&self, answer: &Answer) -> Option<Reply> {
        if let Some(error) = &self.broken {
            return Some(Err(error.clone()));
        }
        if self.life.ended().is_some() {
            return Some(Ok(Appended::Closed));
        }
        match self.ledger.judge(answer.host) {
            Verdict::Duplicate => Some(Ok(Appended::Duplicate)),
            Verdict::NotTargeted => Some(Ok(Appended::NotTargeted)),
            Verdict::Accept if answer.body.len() > BODY_BYTES_MAX => {
                let told = format!("an answer of {} bytes is too long", answer.body.len());
                Some(Err(StoreError::Full(told)))
            }
            Verdict::Accept => None,
        }
    }

    /// A synchronisation has ended.
    pub(super) fn synchronised(&mut self, result: Result<(), StoreError>) {
        match result {
            Ok(()) => self.placed = true,
            Err(error) => self.broken = Some(error),
        }
    }

    // ---- hand-outs

    /// Has a host's hand-outs written some time; true if nobody knows yet that there is something to be written.
    pub(super) fn note_hand_out(&mut self, host: HostId) -> bool {
        if let Some(handed) = self.ledger.handed_out(host) {
            self.batch.put_hand_out(host, handed);
        }
        if self.batch.len() >= HAND_OUT_BYTES_MAX {
            self.write_hand_outs();
        }
        !std::mem::replace(&mut self.noted, true)
    }

    /// Writes the hand-outs that wait; if that fails they are given up.
    pub(super) fn write_hand_outs(&mut self) {
        if self.life.ended().is_some() {
            self.batch.truncate(0);
        }
        if self.batch.is_empty() {
            return;
        }
        if let Err(error) = self.file.write(&mut self.batch) {
            tracing::warn!(%error, "hand-outs are not written: after a restart some hosts are asked again");
            self.batch.truncate(0);
        }
    }

    /// The store knows of no hand-outs that wait.
    pub(super) fn forget_note(&mut self) {
        self.noted = false;
    }
}

impl Taken {
    /// Nothing was accepted after all.
    pub(super) fn fail(&mut self, error: &StoreError) {
        self.records.clear();
        for reply in &mut self.replies {
            if matches!(reply, Ok(Appended::At(_))) {
                *reply = Err(error.clone());
            }
        }
    }
}
