//! A campaign's file read from front to end: how it begins, its entries, and how far it is whole.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::entry::{self, Entry, Parsed};
use super::faults::io_fault;
use super::salvage;
use crate::StoreError;
use crate::results::{CampaignId, Seq};

/// The first bytes of a file: what it is, in which version, and then whose.
pub(super) const MAGIC: [u8; 8] = *b"ABLOG\0\0\x01";
pub(super) const PREAMBLE_BYTES: u64 = 16;
/// How much is read from a file at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// What a look through a file has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Checked {
    Whole,
    /// The last write was not whole.
    Torn,
    Damaged,
}

/// Looks through a file and changes nothing. Gives the last answer before any damage as well.
pub(super) fn check(campaign: CampaignId, path: &Path) -> Result<(Checked, Seq), StoreError> {
    let fault = |error: io::Error| io_fault(&path.display().to_string(), &error);
    let file = Arc::new(File::open(path).map_err(fault)?);
    let len = file.metadata().map_err(fault)?.len();
    let walked = walk(campaign, &file, len, |_, _| ()).map_err(fault)?;
    match walked.preamble {
        Preamble::Ours if walked.whole == len => return Ok((Checked::Whole, walked.last)),
        Preamble::Ours | Preamble::Torn => {}
        Preamble::Newer | Preamble::Foreign => return Ok((Checked::Damaged, walked.last)),
    }
    let behind = salvage::behind(&file, walked.whole, len).map_err(fault)?;
    let checked = match behind.is_empty() {
        true => Checked::Torn,
        false => Checked::Damaged,
    };
    Ok((checked, walked.last))
}

/// Cuts a torn end off a file that nobody writes; leaves one that is damaged as it is.
pub(super) fn trim(campaign: CampaignId, path: &Path) -> Result<(), StoreError> {
    if check(campaign, path)?.0 != Checked::Torn {
        return Ok(());
    }
    let fault = |error: io::Error| io_fault(&path.display().to_string(), &error);
    let file = Arc::new(
        OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map_err(fault)?,
    );
    let len = file.metadata().map_err(fault)?.len();
    let walked = walk(campaign, &file, len, |_, _| ()).map_err(fault)?;
    file.set_len(walked.whole).map_err(fault)
}

/// How far a file is whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct Walked {
    pub(super) preamble: Preamble,
    /// Bytes from its beginning; 0 without a preamble of ours.
    pub(super) whole: u64,
    /// The last answer of these.
    pub(super) last: Seq,
}

/// Goes through a file from its beginning as long as whole entries and answers in order follow; `visit` is given each, and
/// where it stands.
pub(super) fn walk(
    campaign: CampaignId,
    file: &Arc<File>,
    len: u64,
    mut visit: impl FnMut(u64, Entry),
) -> io::Result<Walked> {
    let mut scan = Scan::new(Arc::clone(file), 0, len);
    let preamble = scan.preamble(campaign)?;
    let mut walked = Walked {
        preamble,
        whole: scan.at,
        last: Seq(0),
    };
    while preamble == Preamble::Ours
        && let Some((at, entry)) = scan.next()?
    {
        if let Entry::Answer(record) = &entry {
            if record.seq != walked.last.next() {
                break;
            }
            walked.last = record.seq;
        }
        walked.whole = scan.at;
        visit(at, entry);
    }
    Ok(walked)
}

/// How a file begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Preamble {
    Ours,
    /// It was never written whole, so nothing behind it was acknowledged.
    Torn,
    /// A later version of the format.
    Newer,
    Foreign,
}

/// Walks over a file's entries.
#[derive(Debug)]
pub(super) struct Scan {
    file: Arc<File>,
    /// Where the next entry begins.
    at: u64,
    end: u64,
    /// What was read ahead, from `at` on.
    chunk: Bytes,
}

impl Scan {
    pub(super) fn new(file: Arc<File>, at: u64, end: u64) -> Self {
        let chunk = Bytes::new();
        Self {
            file,
            at,
            end,
            chunk,
        }
    }

    /// Steps over the preamble.
    fn preamble(&mut self, campaign: CampaignId) -> io::Result<Preamble> {
        self.fill(PREAMBLE_BYTES as usize)?;
        let Some(preamble) = self.chunk.get(..PREAMBLE_BYTES as usize) else {
            return Ok(Preamble::Torn);
        };
        if preamble[..8] == MAGIC && preamble[8..] == campaign.0.to_le_bytes() {
            self.step(PREAMBLE_BYTES as usize);
            return Ok(Preamble::Ours);
        }
        let hole = preamble.iter().all(|byte| *byte == 0);
        let is_newer = preamble[..7] == MAGIC[..7] && preamble[7] > MAGIC[7];
        Ok(if is_newer {
            Preamble::Newer
        } else if hole {
            Preamble::Torn
        } else {
            Preamble::Foreign
        })
    }

    /// The next entry and where it begins; none at the end, or before what was not written whole.
    pub(super) fn next(&mut self) -> io::Result<Option<(u64, Entry)>> {
        loop {
            match entry::parse(&self.chunk) {
                Parsed::Whole(entry, bytes) => {
                    let at = self.at;
                    self.step(bytes);
                    return Ok(Some((at, entry)));
                }
                Parsed::Short(bytes) if self.at + bytes as u64 <= self.end => self.fill(bytes)?,
                Parsed::Short(_) | Parsed::Damaged => return Ok(None),
            }
        }
    }

    fn step(&mut self, bytes: usize) {
        self.at += bytes as u64;
        self.chunk = self.chunk.slice(bytes..);
    }

    /// Reads on from `at`: a chunk, or more if an entry needs it.
    fn fill(&mut self, needed: usize) -> io::Result<()> {
        let left = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let mut chunk = vec![0; needed.max(CHUNK_BYTES).min(left)];
        self.file.read_exact_at(&mut chunk, self.at)?;
        self.chunk = Bytes::from(chunk);
        Ok(())
    }
}
