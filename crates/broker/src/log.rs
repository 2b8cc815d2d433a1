//! A campaign's log: answers in their order, kept as the bytes that go on the wire, read through cursors.
//!
//! A reader at position *n* asks for what follows *n* and gets a slice of shared bytes; it costs the log
//! nothing to be read slowly. Blocks of about 64 KiB are sealed; the open tail is a short list of smaller blocks, and
//! what has come since the last reading becomes one of them when it is read. When the log outgrows
//! its bound, derived forms go first, then the blocks that were read longest ago; what they held is read
//! back from the store by whoever asks for it ([`Read::Evicted`], [`Log::restore`]).

use super::block::{Block, Encode};
use super::ids::{CampaignId, Seq};
use super::pending::PendingTail;
use super::record::Record;
use crate::sockjs::{Form, Slice};

/// A block of at least this many bytes is sealed.
const SEGMENT_BYTES: usize = 64 * 1024;
/// A block is joined to the next as long as it is at most so many times as large: a reader who follows then finds one
/// to three parts, and the bytes are copied about a dozen times until they are sealed, once for all readers.
const JOIN_RATIO: usize = 4;
/// Blocks that were put back may take this part of the memory before they go first.
const RESTORED_SHARE: usize = 4;
/// No slice has more parts than this: `writev` takes at most 1,024 on Linux.
const PARTS_MAX: usize = 64;

/// What a reader gets.
#[derive(Debug)]
pub enum Read {
    /// Messages, and the position of the last of them.
    Slice(Slice, Seq),
    /// Nothing yet.
    End,
    /// What follows the cursor was dropped from memory: positions `first` to `last`.
    Evicted {
        /// The first position of the missing block.
        first: Seq,
        /// The last position of the missing block.
        last: Seq,
    },
}

#[expect(clippy::large_enum_variant, reason = "most slots are kept")]
#[derive(Debug)]
enum Slot {
    Kept(Block),
    Evicted { first: Seq, last: Seq },
}

impl Slot {
    const fn block(&self) -> Option<&Block> {
        match self {
            Self::Kept(block) => Some(block),
            Self::Evicted { .. } => None,
        }
    }

    fn last(&self) -> Seq {
        match self {
            Self::Kept(block) => block.last(),
            Self::Evicted { last, .. } => *last,
        }
    }
}

/// The log of one campaign, in memory.
#[derive(Debug)]
pub struct Log {
    campaign: CampaignId,
    encode: Encode,
    sealed: Vec<Slot>,
    /// Small blocks in order, the largest first.
    tail: Vec<Block>,
    /// What has been appended since somebody read.
    fresh: PendingTail,
    last: Seq,
    bytes: usize,
    reads: u64,
}

impl Log {
    /// An empty log whose first answer will follow `last` (0 for a new campaign).
    #[must_use]
    pub fn new(campaign: CampaignId, last: Seq, encode: Encode) -> Self {
        let mut sealed = Vec::new();
        if last > Seq(0) {
            sealed.push(Slot::Evicted {
                first: Seq(1),
                last,
            });
        }
        Self {
            campaign,
            encode,
            sealed,
            tail: Vec::new(),
            fresh: PendingTail::default(),
            last,
            bytes: 0,
            reads: 0,
        }
    }

    /// The position of the last answer; 0 if there is none.
    #[must_use]
    pub const fn last(&self) -> Seq {
        self.last
    }

    /// Bytes kept in memory, all forms.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds answers. Those that the log already has are skipped; false if there is a gap before the first new
    /// one, in which case nothing is added.
    pub fn append(&mut self, records: &[Record]) -> bool {
        let skip = records.partition_point(|record| record.seq <= self.last);
        let records = &records[skip..];
        let Some(first) = records.first() else {
            return true;
        };
        if first.seq != self.last.next() {
            return false;
        }
        self.last = Seq(self.last.0 + records.len() as u64);
        let mut tail: usize = self.tail.iter().map(Block::plain_bytes).sum();
        for record in records {
            let before = self.fresh.bytes();
            self.fresh.push(record, self.campaign, SEGMENT_BYTES);
            self.bytes += self.fresh.bytes() - before;
            if tail + self.fresh.frame_bytes() >= SEGMENT_BYTES {
                self.seal();
                tail = 0;
            }
        }
        true
    }

    /// What follows `after` in this form: whole messages, ending with the one that reaches `budget` bytes.
    pub fn read(&mut self, after: Seq, form: Form, budget: usize) -> Read {
        if after >= self.last {
            return Read::End;
        }
        self.settle();
        self.reads += 1;
        let mut slice = Slice::default();
        let mut cursor = after;
        let mut at = self.sealed.partition_point(|slot| slot.last() <= cursor);
        while wants_more(&slice, budget)
            && let Some(slot) = self.sealed.get_mut(at)
        {
            match slot {
                Slot::Kept(block) => {
                    block.touched = self.reads;
                    self.bytes += block.ensure(form, self.encode);
                    cursor = block.read(cursor.next(), form, budget, self.encode, &mut slice);
                }
                Slot::Evicted { first, last } if slice.messages == 0 => {
                    return Read::Evicted {
                        first: *first,
                        last: *last,
                    };
                }
                Slot::Evicted { .. } => return Read::Slice(slice, cursor),
            }
            at += 1;
        }
        if at >= self.sealed.len() {
            cursor = self.read_tail(cursor, form, budget, &mut slice);
        }
        slice.drained = cursor == self.last;
        Read::Slice(slice, cursor)
    }

    /// Frees memory until at most `bytes_max` are kept, or only the tail and the block that was read or put back
    /// last are left: were that one dropped, a reader who has just had it put back would never get it.
    ///
    /// Blocks that were put back go first, as long as they take more than a quarter: one reader who goes through an
    /// old log must not drive out what all others read. Returns the bytes freed.
    pub fn evict(&mut self, bytes_max: usize) -> usize {
        let before = self.bytes;
        let kept = self.sealed.iter().enumerate();
        let kept = kept.filter_map(|(at, slot)| Some((at, slot.block()?)));
        let mut order: Vec<(u64, usize, bool)> = kept
            .map(|(at, block)| (block.touched, at, block.restored))
            .collect();
        order.sort_unstable();
        for (_, at, _) in &order {
            if self.bytes <= bytes_max {
                break;
            }
            if let Some(Slot::Kept(block)) = self.sealed.get_mut(*at) {
                self.bytes -= block.drop_derived();
            }
        }
        order.pop();
        let restored = order.iter().filter(|(_, _, restored)| *restored);
        let mut restored_bytes: usize = restored
            .clone()
            .map(|(_, at, _)| self.slot_bytes(*at))
            .sum();
        for (_, at, _) in restored {
            if self.bytes <= bytes_max || restored_bytes <= bytes_max / RESTORED_SHARE {
                break;
            }
            restored_bytes -= self.slot_bytes(*at);
            self.evict_slot(*at);
        }
        for (_, at, _) in &order {
            if self.bytes <= bytes_max {
                break;
            }
            self.evict_slot(*at);
        }
        before - self.bytes
    }

    /// Puts evicted blocks back. The records must begin where an evicted block begins; what follows the last evicted
    /// one in a row is left out. If they are fewer than the blocks held, the rest stays evicted.
    pub fn restore(&mut self, records: &[Record]) {
        let mut rest = records;
        // The first of them is what somebody waits for, and the last to be evicted.
        self.reads += records.len() as u64;
        let mut touched = self.reads;
        while let Some(start) = rest.first().map(|record| record.seq) {
            let at = self.sealed.partition_point(|slot| slot.last() < start);
            let Some(Slot::Evicted { first, last }) = self.sealed.get(at) else {
                return;
            };
            let (first, last) = (*first, *last);
            if first != start {
                return;
            }
            let within = &rest[..rest.partition_point(|record| record.seq <= last)];
            let (now, _) = within.split_at(segment_of(within));
            rest = &rest[now.len()..];
            self.put_back(at, now, last, touched);
            touched -= 1;
        }
    }

    /// Fills the beginning of an evicted slot that ends with `last`.
    fn put_back(&mut self, at: usize, records: &[Record], last: Seq, touched: u64) {
        let Some(mut block) = PendingTail::of(records, self.campaign).take() else {
            return;
        };
        block.touched = touched;
        block.restored = true;
        self.bytes += block.bytes();
        let restored = block.last();
        self.sealed[at] = Slot::Kept(block);
        if restored < last {
            let first = restored.next();
            self.sealed.insert(at + 1, Slot::Evicted { first, last });
        }
    }

    fn read_tail(&mut self, mut cursor: Seq, form: Form, budget: usize, slice: &mut Slice) -> Seq {
        let from = self.tail.partition_point(|block| block.last() <= cursor);
        for block in &mut self.tail[from..] {
            if !wants_more(slice, budget) {
                break;
            }
            block.touched = self.reads;
            self.bytes += block.ensure(form, self.encode);
            cursor = block.read(cursor.next(), form, budget, self.encode, slice);
        }
        cursor
    }

    /// Joins what was appended since the last time, and what is not much larger before it, so that whoever follows finds
    /// few parts to write, and every form is made once and not once an answer.
    fn settle(&mut self) {
        let Some(block) = self.fresh.take() else {
            return;
        };
        let mut from = self.tail.len();
        let mut bytes = block.plain_bytes();
        self.tail.push(block);
        while let Some(before) = from.checked_sub(1)
            && self.tail[before].plain_bytes() <= bytes * JOIN_RATIO
        {
            from = before;
            bytes += self.tail[before].plain_bytes();
        }
        self.join_tail(from);
    }

    /// The tail has grown large enough: it is one block from here on, and the next tail begins.
    fn seal(&mut self) {
        self.tail.extend(self.fresh.take());
        self.join_tail(0);
        self.sealed.extend(self.tail.drain(..).map(Slot::Kept));
    }

    fn join_tail(&mut self, from: usize) {
        if self.tail.len() - from < 2 {
            return;
        }
        let mut blocks: Vec<Block> = self.tail.drain(from..).collect();
        let before: usize = blocks.iter().map(Block::bytes).sum();
        if let Some(joined) = Block::join(&mut blocks, self.encode) {
            self.bytes = self.bytes - before + joined.bytes();
            self.tail.push(joined);
        }
    }

    fn slot_bytes(&self, at: usize) -> usize {
        let block = self.sealed.get(at).and_then(Slot::block);
        block.map_or(0, Block::bytes)
    }

    fn evict_slot(&mut self, at: usize) {
        if let Some(slot) = self.sealed.get_mut(at)
            && let Slot::Kept(block) = slot
        {
            self.bytes -= block.bytes();
            *slot = Slot::Evicted {
                first: block.first(),
                last: block.last(),
            };
        }
    }
}

fn wants_more(slice: &Slice, budget: usize) -> bool {
    slice.messages == 0 || (slice.len < budget && slice.parts.len() < PARTS_MAX)
}

/// How many of the records make one block: up to the one that reaches the segment's size.
fn segment_of(records: &[Record]) -> usize {
    let mut bytes = 0;
    for (at, record) in records.iter().enumerate() {
        bytes += record.answer.body.len();
        if bytes >= SEGMENT_BYTES {
            return at + 1;
        }
    }
    records.len()
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
