//! A run of consecutive messages of a log, each form encoded once and kept contiguous.

use bytes::{Bytes, BytesMut};

use super::ids::Seq;
use crate::sockjs::{Form, Slice};

/// Turns a plain message into one of its wire forms, appending to the buffer. A log asks for every form but
/// [`Form::RawFrame`], which it writes itself.
pub type Encode = fn(Form, &[u8], &mut BytesMut);

/// The messages of one form, end to end.
#[derive(Clone, Debug)]
struct Encoded {
    bytes: Bytes,
    /// Where each message ends.
    ends: Box<[u32]>,
}

/// Consecutive messages. [`Form::RawFrame`] is always there: a raw frame is the plain message behind a short
/// header, so it serves as the plain record too. The other forms are made when first read.
#[derive(Clone, Debug)]
pub(super) struct Block {
    first: Seq,
    forms: [Option<Encoded>; Form::ALL.len()],
    /// The log's reading counter when this block was last read; the lowest is evicted first.
    pub(super) touched: u64,
    /// Whether it was evicted and put back.
    pub(super) restored: bool,
}

impl Block {
    /// Frames of consecutive messages, of which the first has the position `first`, and where each of them ends.
    pub(super) fn framed(first: Seq, frames: Bytes, ends: Box<[u32]>) -> Self {
        let mut forms = [const { None }; Form::ALL.len()];
        forms[Form::RawFrame.index()] = Some(Encoded {
            bytes: frames,
            ends,
        });
        Self {
            first,
            forms,
            touched: 0,
            restored: false,
        }
    }

    /// One block out of consecutive ones, in all the forms that any of them has.
    pub(super) fn join(blocks: &mut [Block], encode: Encode) -> Option<Block> {
        let first = blocks.first()?.first;
        let mut forms = [const { None }; Form::ALL.len()];
        for form in Form::ALL {
            let at = form.index();
            if blocks.iter().any(|block| block.forms[at].is_some()) {
                for block in &mut *blocks {
                    block.ensure(form, encode);
                }
                forms[at] = join_form(blocks, at);
            }
        }
        Some(Block {
            first,
            forms,
            touched: blocks.iter().map(|block| block.touched).max().unwrap_or(0),
            restored: false,
        })
    }

    /// The position of the first message.
    pub(super) const fn first(&self) -> Seq {
        self.first
    }

    /// The position of the last message.
    pub(super) fn last(&self) -> Seq {
        Seq(self.first.0 + self.count() as u64 - 1)
    }

    /// How many messages there are; never none.
    pub(super) fn count(&self) -> usize {
        self.raw().map_or(0, |raw| raw.ends.len())
    }

    /// Bytes of the plain form alone.
    pub(super) fn plain_bytes(&self) -> usize {
        self.raw().map_or(0, |raw| raw.bytes.len())
    }

    /// Bytes of all forms.
    pub(super) fn bytes(&self) -> usize {
        self.forms
            .iter()
            .flatten()
            .map(|form| form.bytes.len() + form.ends.len() * 4)
            .sum()
    }

    /// Forgets the forms that can be made again; returns how many bytes that were.
    pub(super) fn drop_derived(&mut self) -> usize {
        let before = self.bytes();
        for form in &mut self.forms[Form::RawFrame.index() + 1..] {
            *form = None;
        }
        before - self.bytes()
    }

    /// Adds messages from the position `from` on to the slice until it holds `budget` bytes or the block ends.
    /// Returns the last position that was added.
    pub(super) fn read(
        &mut self,
        from: Seq,
        form: Form,
        budget: usize,
        encode: Encode,
        slice: &mut Slice,
    ) -> Seq {
        self.ensure(form, encode);
        let skip = usize::try_from(from.0 - self.first.0).unwrap_or(usize::MAX);
        let Some(encoded) = &self.forms[form.index()] else {
            return Seq(from.0 - 1);
        };
        let start = skip
            .checked_sub(1)
            .map_or(0, |before| encoded.ends[before] as usize);
        let wanted = start + budget.saturating_sub(slice.len);
        let reach = encoded.ends[skip..].partition_point(|end| (*end as usize) < wanted);
        let count = (reach + 1).min(encoded.ends.len() - skip);
        let end = encoded.ends[skip + count - 1] as usize;
        slice.parts.push(encoded.bytes.slice(start..end));
        slice.len += end - start;
        slice.messages += count;
        Seq(from.0 + count as u64 - 1)
    }

    /// Makes a form if it is not there; returns how many bytes that added.
    pub(super) fn ensure(&mut self, form: Form, encode: Encode) -> usize {
        if self.forms[form.index()].is_some() {
            return 0;
        }
        let Some(raw) = self.raw() else {
            return 0;
        };
        let encoded = encode_all(form, raw, encode);
        let added = encoded.bytes.len() + encoded.ends.len() * 4;
        self.forms[form.index()] = Some(encoded);
        added
    }

    fn raw(&self) -> Option<&Encoded> {
        self.forms[Form::RawFrame.index()].as_ref()
    }
}

impl Encoded {
    /// The plain messages; meant for the raw form only.
    fn messages(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = 0;
        self.ends.iter().map(move |end| {
            let frame = &self.bytes[start..*end as usize];
            start = *end as usize;
            payload_of(frame)
        })
    }
}

/// The payload of an unmasked WebSocket frame (RFC 6455, 5.2).
fn payload_of(frame: &[u8]) -> &[u8] {
    let header = match frame.get(1).map(|length| length & 0x7f) {
        Some(126) => 4,
        Some(127) => 10,
        _ => 2,
    };
    frame.get(header..).unwrap_or_default()
}

fn encode_all(form: Form, raw: &Encoded, encode: Encode) -> Encoded {
    let mut bytes = BytesMut::with_capacity(raw.bytes.len());
    let ends = raw
        .messages()
        .map(|message| {
            encode(form, message, &mut bytes);
            // A block is sealed long before 4 GiB: `Log::append` splits what is larger.
            u32::try_from(bytes.len()).unwrap_or(u32::MAX)
        })
        .collect();
    Encoded {
        bytes: bytes.freeze(),
        ends,
    }
}

fn join_form(blocks: &[Block], form: usize) -> Option<Encoded> {
    let parts: Option<Vec<&Encoded>> = blocks
        .iter()
        .map(|block| block.forms[form].as_ref())
        .collect();
    let parts = parts?;
    let mut bytes = BytesMut::with_capacity(parts.iter().map(|part| part.bytes.len()).sum());
    let mut ends = Vec::with_capacity(parts.iter().map(|part| part.ends.len()).sum());
    for part in parts {
        let offset = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        bytes.extend_from_slice(&part.bytes);
        ends.extend(part.ends.iter().map(|end| end.saturating_add(offset)));
    }
    Some(Encoded {
        bytes: bytes.freeze(),
        ends: ends.into(),
    })
}
