//! Answers that have been appended since a log was last read: framed end to end, so that a burst is one block.

use bytes::BytesMut;

use super::block::{Block, Encode};
use super::ids::{CampaignId, Seq};
use super::record::Record;
use crate::sockjs::Form;
use crate::sockjs::codec::HEADER_MAX;

/// A message's buffer that has grown beyond this is given back.
const MESSAGE_BYTES_KEPT: usize = 4 * 1024;
/// A buffer that is full becomes so many times as large; a lone answer has just its room.
const GROWTH: usize = 2;

/// The frames of consecutive answers, still growing.
#[derive(Debug, Default)]
pub(super) struct Fresh {
    first: Seq,
    frames: BytesMut,
    ends: Vec<u32>,
    /// The message that is being framed.
    message: Vec<u8>,
}

impl Fresh {
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

    /// Adds an answer that follows the last one. The room for it is made at once; beyond that there is room for more
    /// only as long as all of it has `bytes_max`.
    pub(super) fn push(
        &mut self,
        record: &Record,
        campaign: CampaignId,
        encode: Encode,
        bytes_max: usize,
    ) {
        if self.is_empty() {
            self.first = record.seq;
        }
        record.write_message(campaign, &mut self.message);
        self.make_room(self.message.len() + HEADER_MAX, bytes_max);
        encode(Form::RawFrame, &self.message, &mut self.frames);
        // It is taken long before 4 GiB: an answer has at most 32 MiB, and what is too large for a segment is sealed.
        self.ends
            .push(u32::try_from(self.frames.len()).unwrap_or(u32::MAX));
        self.message.clear();
        self.message.shrink_to(MESSAGE_BYTES_KEPT);
    }

    /// Bytes that the frames may have before they are copied into more room.
    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.frames.capacity()
    }

    fn make_room(&mut self, more: usize, bytes_max: usize) {
        let needed = self.frames.len() + more;
        if needed <= self.frames.capacity() {
            return;
        }
        let grown = (self.frames.capacity() * GROWTH).min(bytes_max);
        let mut frames = BytesMut::with_capacity(grown.max(needed));
        frames.extend_from_slice(&self.frames);
        self.frames = frames;
    }

    /// All of it as one block; nothing is copied.
    pub(super) fn take(&mut self) -> Option<Block> {
        if self.is_empty() {
            return None;
        }
        let ends = std::mem::take(&mut self.ends);
        let frames = std::mem::take(&mut self.frames);
        Some(Block::framed(self.first, frames.freeze(), ends.into()))
    }
}
