//! What is known of one campaign, under its one lock: its life, who has answered, and its file.

use std::sync::{Arc, Weak};

use roaring::RoaringBitmap;
use smallvec::SmallVec;

use super::entry::BODY_BYTES_MAX;
use super::file::{Batch, LogFile, Write};
use crate::results::{Answer, Campaign, HostId, Ledger, Lifecycle, Record, Verdict};
use crate::{Appended, CampaignLog, StoreError};

/// Hand-outs that wait to be written have at most so many bytes: losing some only means that hosts are asked once more.
const HAND_OUT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How an append went, or that it is not known.
pub(super) type Reply = Result<Appended, StoreError>;
/// The answers of one write: most often one.
pub(super) type Answers = SmallVec<[Answer; 1]>;

/// What is known of a campaign.
#[derive(Debug)]
pub(super) struct State {
    /// In which the places of answers are valid.
    pub(super) epoch: u64,
    pub(super) is_incomplete: bool,
    pub(super) life: Lifecycle,
    pub(super) ledger: Ledger,
    pub(super) file: LogFile,
    /// The log, as long as somebody reads it.
    pub(super) log: Weak<CampaignLog>,
    /// Keeps the log until the campaign ends, so that viewers who come and go find it in memory.
    pub(super) held: Option<Arc<CampaignLog>>,
    /// What is to be written next: hand-outs, and during an append its answers.
    batch: Batch,
    /// An empty batch with a buffer.
    spare: Batch,
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
    /// Where they have been shown.
    pub(super) log: Option<Arc<CampaignLog>>,
    /// The replies to hosts that answered twice in this group: they stand and fall with the first.
    repeats: SmallVec<[usize; 1]>,
}

/// Answers that have been judged and are being written.
#[derive(Debug)]
pub(super) struct Begun {
    taken: Taken,
    write: Write,
    /// The bytes of hand-outs, which stand before the answers.
    hand_outs: usize,
    /// Whether the file's name is not known to be on the disk.
    is_new: bool,
    is_synchronised: bool,
}

impl State {
    pub(super) fn new(campaign: &Campaign, life: Lifecycle, ledger: Ledger, file: LogFile) -> Self {
        Self {
            epoch: campaign.epoch,
            is_incomplete: campaign.is_incomplete,
            life,
            ledger,
            file,
            log: Weak::new(),
            held: None,
            batch: Batch::default(),
            spare: Batch::default(),
            noted: false,
            broken: None,
            placed: false,
        }
    }

    // ---- answers

    /// Judges answers, and gives what is to be written: those that are accepted, and the hand-outs that wait.
    pub(super) fn begin(&mut self, answers: Answers) -> Begun {
        if self.broken.is_some() || self.life.ended().is_some() {
            self.batch.clear();
        }
        let hand_outs = self.batch.len();
        let taken = self.judge(answers);
        let spare = std::mem::take(&mut self.spare);
        let batch = std::mem::replace(&mut self.batch, spare);
        Begun {
            taken,
            write: self.file.begin(batch),
            hand_outs,
            is_new: !self.placed,
            is_synchronised: false,
        }
    }

    /// Records what was written: all of it, or if that failed nothing. Answers whose campaign has ended meanwhile have to be
    /// undone: then gives the write back.
    pub(super) fn finish(
        &mut self,
        begun: Begun,
        written: Result<(), Failure>,
    ) -> (Taken, Option<Write>) {
        let mut taken = begun.taken;
        match written {
            Ok(()) if self.life.ended().is_some() => {
                let undo = !taken.records.is_empty();
                taken.refuse(&Ok(Appended::Closed));
                return (taken, undo.then_some(begun.write));
            }
            Ok(()) => {
                self.file.took(&begun.write);
                self.placed |= begun.is_synchronised;
                self.recycle(begun.write.into_batch());
            }
            Err(failure) => {
                let mut batch = begun.write.into_batch();
                batch.truncate(begun.hand_outs);
                self.put_back(batch);
                let error = failure.error;
                taken.refuse(&Err(error.clone()));
                if failure.is_final {
                    self.broken = Some(error);
                }
            }
        }
        for record in &taken.records {
            self.ledger.answer(record.answer.host, record.answer.failed);
        }
        taken.log = self.log.upgrade().filter(|_| !taken.records.is_empty());
        // Here, so that nobody hears of the campaign's end before it.
        if let Some(log) = &taken.log
            && !log.append(&taken.records)
        {
            tracing::error!(campaign = %log.id(), "a campaign's log has a gap");
        }
        (taken, None)
    }

    /// Hand-outs that could not be written are tried again with the next write.
    fn put_back(&mut self, mut hand_outs: Batch) {
        if hand_outs.len() + self.batch.len() > HAND_OUT_BYTES_MAX {
            tracing::warn!("hand-outs are not written: after a restart some hosts are asked again");
            return;
        }
        hand_outs.append(&self.batch);
        self.batch = hand_outs;
    }

    fn recycle(&mut self, mut batch: Batch) {
        batch.clear();
        self.spare = batch;
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
                    taken.repeats.push(taken.replies.len());
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

    // ---- hand-outs

    /// Has a host's hand-outs written some time; true if nobody knows yet that there is something to be written.
    pub(super) fn note_hand_out(&mut self, host: HostId) -> bool {
        if let Some(handed) = self.ledger.handed_out(host)
            && self.batch.len() < HAND_OUT_BYTES_MAX
        {
            self.batch.put_hand_out(host, handed);
        }
        !std::mem::replace(&mut self.noted, true)
    }

    /// Whether hand-outs wait to be written; from here on the store knows of none.
    pub(super) fn take_note(&mut self) -> bool {
        self.noted = false;
        !self.batch.is_empty()
    }
}

/// Why a write has failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: StoreError,
    /// Whether nobody knows what the disk holds now.
    pub(super) is_final: bool,
}

impl Begun {
    /// Writes it, and has the disk take it if that is asked for. Blocks.
    pub(super) fn write(&mut self, synchronise: bool) -> Result<(), Failure> {
        if self.write.is_empty() {
            return Ok(());
        }
        let failure = |is_final| move |error| Failure { error, is_final };
        self.write.run().map_err(failure(false))?;
        if synchronise && !self.taken.records.is_empty() {
            let synchronised = self.write.synchronise(self.is_new);
            synchronised.map_err(failure(true))?;
            self.is_synchronised = true;
        }
        Ok(())
    }
}

impl Taken {
    /// Nothing was accepted after all.
    fn refuse(&mut self, reply: &Reply) {
        self.records.clear();
        for (at, accepted) in self.replies.iter_mut().enumerate() {
            if matches!(accepted, Ok(Appended::At(_))) || self.repeats.contains(&at) {
                accepted.clone_from(reply);
            }
        }
    }
}
