//! A campaign's file: entries are added at its end in one write a batch, and read back from any place.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use smallvec::SmallVec;

use super::entry::{self, Entry};
use super::faults::io_fault;
use super::salvage;
use super::scan::{MAGIC, PREAMBLE_BYTES, Preamble, Scan, walk};
use crate::StoreError;
use crate::results::ledger::HandedOut;
use crate::results::{Answer, CampaignId, HostId, Record, Seq};

/// The position of an answer is remembered every so many bytes, so that no read looks at many more than it gives.
const POINT_BYTES: u64 = 64 * 1024;
/// A batch's buffer that has grown beyond this is given back.
const BUFFER_BYTES_KEPT: usize = 256 * 1024;

/// Where an answer begins in the file.
pub(super) type Point = (Seq, u64);

/// Entries to be written together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    /// The answers and where they begin in `bytes`.
    answers: SmallVec<[Point; 4]>,
}

impl Batch {
    pub(super) fn put_answer(&mut self, seq: Seq, answer: &Answer) {
        self.answers.push((seq, self.bytes.len() as u64));
        entry::put_answer(seq, answer, &mut self.bytes);
    }

    pub(super) fn put_hand_out(&mut self, host: HostId, handed: HandedOut) {
        entry::put_hand_out(host, handed, &mut self.bytes);
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Takes the answers back out that were put after the batch had this length.
    pub(super) fn truncate(&mut self, len: usize) {
        self.bytes.truncate(len);
        self.answers.retain(|(_, at)| *at < len as u64);
    }

    /// Empties it, keeping its buffer for the next one unless that has grown large.
    pub(super) fn clear(&mut self) {
        self.answers.clear();
        self.bytes.clear();
        self.bytes.shrink_to(BUFFER_BYTES_KEPT);
    }

    /// Puts these hand-outs behind its own.
    pub(super) fn append(&mut self, hand_outs: &Self) {
        self.bytes.extend_from_slice(&hand_outs.bytes);
    }
}

/// What a file was found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reloaded {
    /// As it was written.
    Whole,
    /// Its end was torn.
    Cut,
    /// There is none, or nothing stood in it.
    Emptied,
    /// It was damaged, and has been made anew.
    Mended,
}

/// The file of one campaign.
#[derive(Debug)]
pub(super) struct LogFile {
    campaign: CampaignId,
    path: PathBuf,
    file: Option<Arc<File>>,
    len: u64,
    last: Seq,
    points: Vec<Point>,
}

impl LogFile {
    /// Makes the file of a new campaign. Blocks.
    pub(super) fn make(campaign: CampaignId, path: PathBuf) -> io::Result<Self> {
        let mut write = Self::new(campaign, path).begin(Batch::default());
        write.try_run()?;
        let mut made = Self::new(campaign, write.path.clone());
        made.took(&write);
        Ok(made)
    }

    /// A file in which nothing stands yet, and which is made with the first write.
    pub(super) fn new(campaign: CampaignId, path: PathBuf) -> Self {
        Self {
            campaign,
            path,
            file: None,
            len: 0,
            last: Seq(0),
            points: Vec::new(),
        }
    }

    /// The file of a campaign that has ended with this answer as its last. It is not looked into until it is read.
    pub(super) fn ended(campaign: CampaignId, path: PathBuf, last: Seq) -> Self {
        let mut file = Self::new(campaign, path);
        file.len = std::fs::metadata(&file.path).map_or(0, |data| data.len());
        file.last = last;
        file
    }

    /// The file of a campaign that goes on: everything in it is shown to `visit`, and a torn end is cut off. A file that is
    /// damaged elsewhere goes to `aside`, and a new one is made of what stands whole in it, its answers at new places.
    pub(super) fn reload(
        campaign: CampaignId,
        path: PathBuf,
        aside: &Path,
        mut visit: impl FnMut(Entry),
    ) -> Result<(Self, Reloaded), StoreError> {
        let mut reloaded = Self::new(campaign, path);
        if !reloaded.path.exists() {
            return Ok((reloaded, Reloaded::Emptied));
        }
        let fault = |error: io::Error| io_fault("a campaign's file", &error);
        let file = Arc::new(open(&reloaded.path).map_err(fault)?);
        let len = file.metadata().map_err(fault)?.len();
        reloaded.file = Some(Arc::clone(&file));
        let walked = walk(campaign, &file, len, |at, entry| {
            if let Entry::Answer(record) = &entry {
                reloaded.note(record.seq, at);
            }
            visit(entry);
        });
        let walked = walked.map_err(fault)?;
        if walked.preamble == Preamble::Newer {
            let path = reloaded.path.display();
            let told = format!("{path} was written by a newer answerback: start that version");
            return Err(StoreError::Damaged(told));
        }
        (reloaded.len, reloaded.last) = (walked.whole, walked.last);
        if reloaded.len == len && len > 0 {
            return Ok((reloaded, Reloaded::Whole));
        }
        let behind = salvage::behind(&file, reloaded.len, len).map_err(fault)?;
        if behind.is_empty() && walked.preamble != Preamble::Foreign {
            tracing::warn!(%campaign, bytes = len - reloaded.len, "cut a torn end off a campaign's file");
            reloaded.cut();
            let found = if len == 0 {
                Reloaded::Emptied
            } else {
                Reloaded::Cut
            };
            return Ok((reloaded, found));
        }
        let lost = len - reloaded.len;
        let kept = behind.len();
        let moved = reloaded.mend(&file, aside, behind, visit)?;
        tracing::error!(
            %campaign, damaged_bytes_max = lost, kept, file = %moved.display(),
            "a campaign's file is damaged: it is set aside, and the campaign goes on with the answers that stand whole in it"
        );
        Ok((reloaded, Reloaded::Mended))
    }

    /// Makes a new file of the beginning of the old one, which is good, and these entries.
    fn mend(
        &mut self,
        old: &File,
        aside: &Path,
        entries: Vec<Entry>,
        mut visit: impl FnMut(Entry),
    ) -> Result<PathBuf, StoreError> {
        let fault = |error: io::Error| io_fault("a campaign's file", &error);
        let good = usize::try_from(self.len).unwrap_or(0);
        let mut beginning = vec![0; good];
        old.read_exact_at(&mut beginning, 0).map_err(fault)?;
        // Whole before it takes the place of the old one: whatever happens, one of the two is there.
        let beside = salvage::beside(&self.path);
        let place = std::mem::replace(&mut self.path, beside);
        let file = create(&self.path).map_err(fault)?;
        file.write_all_at(&beginning, 0).map_err(fault)?;
        self.file = Some(Arc::new(file));
        let mut batch = Batch::default();
        let mut last = self.last;
        for entry in entries {
            let entry = match entry {
                Entry::Answer(mut record) => {
                    last = last.next();
                    record.seq = last;
                    batch.put_answer(last, &record.answer);
                    Entry::Answer(record)
                }
                Entry::HandOut(host, handed) => {
                    batch.put_hand_out(host, handed);
                    Entry::HandOut(host, handed)
                }
            };
            visit(entry);
        }
        let mut write = self.begin(batch);
        write.run()?;
        write.synchronise(false)?;
        self.took(&write);
        let moved = salvage::keep_aside(&place, aside).map_err(fault)?;
        std::fs::rename(&self.path, &place).map_err(fault)?;
        self.path = place;
        Ok(moved)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What follows this answer is in no log.
    pub(super) fn end_with(&mut self, last: Seq) {
        self.last = last;
        self.points.retain(|(seq, _)| *seq <= last);
    }

    /// The place of the last answer in the file.
    pub(super) const fn last(&self) -> Seq {
        self.last
    }

    /// The write of a batch at the end of the file, to be made without holding on to this. One at a time.
    pub(super) fn begin(&self, batch: Batch) -> Write {
        Write {
            campaign: self.campaign,
            path: self.path.clone(),
            file: self.file.clone(),
            len: self.len,
            batch,
        }
    }

    /// The write that was begun is made.
    pub(super) fn took(&mut self, write: &Write) {
        for (seq, at) in &write.batch.answers {
            self.note(*seq, write.len + at);
            self.last = *seq;
        }
        self.file.clone_from(&write.file);
        self.len = write.len + write.batch.bytes.len() as u64;
    }

    /// Removes what stands behind the last whole entry. A file without even a preamble is begun anew.
    fn cut(&mut self) {
        let mut write = self.begin(Batch::default());
        write.undo();
        self.file = write.file;
    }

    fn note(&mut self, seq: Seq, at: u64) {
        let due = self
            .points
            .last()
            .is_none_or(|(last, before)| *last < seq && at >= before + POINT_BYTES);
        if due {
            self.points.push((seq, at));
        }
    }

    /// Remembers where answers begin, as a reader has found out.
    pub(super) fn learn(&mut self, points: &[Point]) {
        for (seq, at) in points {
            self.note(*seq, *at);
        }
    }

    /// The file itself, to be synchronised; none if nothing was written.
    pub(super) fn handle(&self) -> Option<Arc<File>> {
        self.file.clone()
    }

    /// Nothing will be written any more: gives the descriptor back. Closing it may block.
    pub(super) fn finish(&mut self) -> Option<Arc<File>> {
        self.file.take()
    }

    /// What is needed to read what follows `after`, without holding on to this.
    pub(super) fn reader(&self, after: Seq) -> Reader {
        let at = self.points.partition_point(|(seq, _)| *seq <= after.next());
        let from = at.checked_sub(1).and_then(|at| self.points.get(at));
        Reader {
            path: self.path.clone(),
            file: self.file.clone(),
            from: from.map_or(PREAMBLE_BYTES, |(_, offset)| *offset),
            end: self.len,
            after,
            last: self.last,
        }
    }
}

/// A write that is yet to be made, at the end of a file.
#[derive(Debug)]
pub(super) struct Write {
    campaign: CampaignId,
    path: PathBuf,
    file: Option<Arc<File>>,
    len: u64,
    batch: Batch,
}

impl Write {
    /// Makes it, all of it or nothing. Blocks.
    pub(super) fn run(&mut self) -> Result<(), StoreError> {
        let written = self.try_run();
        written.map_err(|error| {
            self.undo();
            io_fault("a campaign's file", &error)
        })
    }

    fn try_run(&mut self) -> io::Result<()> {
        let file = match &self.file {
            Some(file) => file,
            None => self.file.insert(Arc::new(open(&self.path)?)),
        };
        if self.len == 0 {
            let mut preamble = [0; PREAMBLE_BYTES as usize];
            preamble[..8].copy_from_slice(&MAGIC);
            preamble[8..].copy_from_slice(&self.campaign.0.to_le_bytes());
            file.write_all_at(&preamble, 0)?;
            self.len = PREAMBLE_BYTES;
        }
        file.write_all_at(&self.batch.bytes, self.len)
    }

    /// Removes what it may have left behind the last whole entry. Writes go to a given place, so that leftovers are
    /// overwritten even if this fails. Blocks.
    pub(super) fn undo(&mut self) {
        if let Some(file) = &self.file
            && let Err(error) = file.set_len(self.len)
        {
            tracing::warn!(campaign = %self.campaign, %error, "cannot cut a campaign's file");
        }
        if self.len == 0 {
            self.file = None;
        }
    }

    /// Has the disk take it, and the directory that names the file if that is asked for. Blocks.
    pub(super) fn synchronise(&self, directory: bool) -> Result<(), StoreError> {
        let synchronised = || {
            self.file.as_ref().map_or(Ok(()), |file| file.sync_data())?;
            match self.path.parent().filter(|_| directory) {
                Some(directory) => File::open(directory)?.sync_all(),
                None => Ok(()),
            }
        };
        synchronised().map_err(|error| io_fault("a campaign's file", &error))
    }

    /// Whether there is nothing to be written.
    pub(super) fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    /// What was to be written.
    pub(super) fn into_batch(self) -> Batch {
        self.batch
    }
}

fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true);
    options.mode(0o600).open(path)
}

fn open(path: &PathBuf) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    options.mode(0o600).open(path)
}

/// A reading of a campaign's file that is yet to be made.
#[derive(Debug)]
pub(super) struct Reader {
    path: PathBuf,
    file: Option<Arc<File>>,
    from: u64,
    end: u64,
    after: Seq,
    last: Seq,
}

impl Reader {
    /// Whether there is nothing to be read.
    pub(super) fn is_done(&self) -> bool {
        self.after >= self.last
    }

    /// Reads until the bodies reach `max_bytes`. Blocks. Also tells where answers were found to begin.
    pub(super) fn read(self, max_bytes: usize) -> Result<(Vec<Record>, Vec<Point>), StoreError> {
        let fault = |error: io::Error| io_fault("a campaign's file", &error);
        let file = match self.file {
            Some(file) => file,
            None => Arc::new(File::open(&self.path).map_err(fault)?),
        };
        let mut scan = Scan::new(file, self.from, self.end);
        let (mut records, mut points, mut bytes) = (Vec::new(), Vec::<Point>::new(), 0);
        while let Some((at, entry)) = scan.next().map_err(fault)? {
            let Entry::Answer(record) = entry else {
                continue;
            };
            if points
                .last()
                .is_none_or(|(_, before)| at >= before + POINT_BYTES)
            {
                points.push((record.seq, at));
            }
            if record.seq > self.last {
                break;
            }
            if record.seq > self.after {
                bytes += record.answer.body.len();
                records.push(record);
            }
            if bytes >= max_bytes && !records.is_empty() {
                break;
            }
        }
        if records.is_empty() {
            return Err(StoreError::Damaged(format!(
                "answers {} to {} are not in {}",
                self.after.next(),
                self.last,
                self.path.display()
            )));
        }
        Ok((records, points))
    }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
