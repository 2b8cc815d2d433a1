//! Answers that have been appended since a log was last read: framed end to end, so that a burst is one block.

use bytes::BytesMut;

use super::block::Block;
use super::ids::{CampaignId, Seq};
use super::record::Record;
use crate::sockjs::codec::{Kind, header_len, put_header};

/// A buffer that is full becomes so many times as large; a lone answer has just its room.
const GROWTH: usize = 2;

/// The frames of consecutive answers, still growing.
#[derive(Debug, Default)]
pub(super) struct PendingTail {
    first: Seq,
    frames: BytesMut,
    ends: Vec<u32>,
}

impl PendingTail {
    pub(super) const fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of the frames.
    pub(super) fn frame_bytes(&self) -> usize {
        self.frames.len()
    }

    /// Bytes kept in memory, as a block counts them.
    pub(super) fn bytes(&self) -> usize {
        self.frames.len() + self.ends.len() * size_of::<u32>()
    }

    /// Adds an answer that follows the last one. It has to be taken when it has `bytes_max`: a full buffer doubles until
    /// there is room for that and one answer like this, and then gets just what is needed.
    pub(super) fn push(&mut self, record: &Record, campaign: CampaignId, bytes_max: usize) {
        let room = frame_len(record, campaign);
        if self.frames.len() + room > self.frames.capacity() {
            let doubled = (self.frames.capacity() * GROWTH).min(bytes_max + room);
            self.grow(doubled.max(self.frames.len() + room));
        }
        self.put(record, campaign);
    }

    /// All of these, in a buffer of their size.
    pub(super) fn of(records: &[Record], campaign: CampaignId) -> Self {
        let mut all = Self::default();
        let frames = records.iter().map(|record| frame_len(record, campaign));
        all.grow(frames.sum());
        records.iter().for_each(|record| all.put(record, campaign));
        all
    }

    fn put(&mut self, record: &Record, campaign: CampaignId) {
        if self.is_empty() {
            self.first = record.seq;
        }
        put_header(&mut self.frames, Kind::Text, record.message_len(campaign));
        record.write_message(campaign, &mut self.frames);
        // It is taken long before 4 GiB: an answer has at most 32 MiB, and what is too large for a segment is sealed.
        self.ends
            .push(u32::try_from(self.frames.len()).unwrap_or(u32::MAX));
    }

    fn grow(&mut self, capacity: usize) {
        let mut frames = BytesMut::with_capacity(capacity);
        frames.extend_from_slice(&self.frames);
        self.frames = frames;
    }

    /// All of it as one block; the frames are not copied.
    pub(super) fn take(&mut self) -> Option<Block> {
        if self.is_empty() {
            return None;
        }
        let ends = std::mem::take(&mut self.ends);
        let frames = std::mem::take(&mut self.frames);
        Some(Block::framed(self.first, frames.freeze(), ends.into()))
    }
}

/// Bytes of an answer's raw frame.
fn frame_len(record: &Record, campaign: CampaignId) -> usize {
    let message = record.message_len(campaign);
    header_len(message) + message
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::ids::HostId;
    use crate::record::Answer;

    const CAMPAIGN: CampaignId = CampaignId(5);
    const BYTES_MAX: usize = 64 * 1024;

    fn record(seq: u64, size: usize) -> Record {
        Record {
            seq: Seq(seq),
            answer: Answer {
                host: HostId(1),
                failed: false,
                body: Bytes::from(vec![b'x'; size]),
            },
        }
    }

    #[test]
    fn a_burst_is_copied_seldom_and_a_lone_answer_never() {
        let (mut fresh, mut copied, mut seq) = (PendingTail::default(), 0, 0);
        while fresh.frame_bytes() < BYTES_MAX {
            seq += 1;
            let (room, held) = (fresh.frames.capacity(), fresh.frame_bytes());
            fresh.push(&record(seq, 300), CAMPAIGN, BYTES_MAX);
            if fresh.frames.capacity() != room {
                copied += held;
            }
        }
        assert!(copied <= BYTES_MAX + BYTES_MAX / 2, "{copied}");
        assert!(fresh.frames.capacity() <= BYTES_MAX + 500);
        let (bytes, block) = (fresh.bytes(), fresh.take().unwrap());
        assert_eq!((block.last(), block.bytes()), (Seq(seq), bytes));
        fresh.push(&record(1, 100_000), CAMPAIGN, BYTES_MAX);
        assert_eq!(fresh.frames.capacity(), fresh.frame_bytes());
        assert!(fresh.take().is_some() && fresh.take().is_none());
    }

    #[test]
    fn records_make_one_block_of_just_their_size() {
        for sizes in [&[95; 700][..], &[0], &[125, 126, 65_000, 70_000, 1 << 20]] {
            let records = sizes.iter().zip(3..);
            let records: Vec<_> = records.map(|(size, seq)| record(seq, *size)).collect();
            let room = records.iter().map(|one| frame_len(one, CAMPAIGN)).sum();
            let mut all = PendingTail::of(&records, CAMPAIGN);
            assert_eq!((all.frames.capacity(), all.frame_bytes()), (room, room));
            let block = all.take().unwrap();
            assert_eq!((block.first(), block.count()), (Seq(3), sizes.len()));
        }
        assert!(PendingTail::of(&[], CAMPAIGN).take().is_none());
    }
}
