//! The entries of a campaign's file: framed, checked, in the order in which things happened.
//!
//! An entry is a head (length of what follows and its CRC-32, both 32 bit, little-endian) and a payload:
//! kind (8 bit), failed or times (8 bit), host (32 bit), place or time (64 bit), the answer's body.

use bytes::Bytes;

use crate::clock::Timestamp;
use crate::results::ledger::HandedOut;
use crate::results::{Answer, HostId, Record, Seq};

/// The head: length and checksum.
pub(super) const HEAD_BYTES: usize = 8;
/// A payload without a body.
const FIXED_BYTES: usize = 14;
/// The longest body. Far above the largest POST that is accepted (16 MiB by default), far below what would make
/// a damaged length eat all memory.
pub(super) const BODY_BYTES_MAX: usize = 256 * 1024 * 1024;

const ANSWER: u8 = 1;
const HAND_OUT: u8 = 2;

/// Something that happened to a campaign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// A host's answer was accepted.
    Answer(Record),
    /// A host was handed the query, or a hand-out was taken back: this is how it stands now.
    HandOut(HostId, HandedOut),
}

/// What the front of a buffer holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// An entry, and how many bytes it takes.
    Whole(Entry, usize),
    /// The beginning of an entry that takes this many bytes, as far as can be told.
    Short(usize),
    /// Nothing that was written whole.
    Damaged,
}

/// Adds an answer at this place.
pub(super) fn put_answer(seq: Seq, answer: &Answer, out: &mut Vec<u8>) {
    let fixed = fixed(ANSWER, u8::from(answer.failed), answer.host, seq.0);
    put(&fixed, &answer.body, out);
}

/// Adds how often, and when last, a host was handed the query.
pub(super) fn put_hand_out(host: HostId, handed: HandedOut, out: &mut Vec<u8>) {
    put(&fixed(HAND_OUT, handed.times, host, handed.at.0), &[], out);
}

fn fixed(kind: u8, small: u8, host: HostId, number: u64) -> [u8; FIXED_BYTES] {
    let mut fixed = [0; FIXED_BYTES];
    fixed[0] = kind;
    fixed[1] = small;
    fixed[2..6].copy_from_slice(&host.0.to_le_bytes());
    fixed[6..].copy_from_slice(&number.to_le_bytes());
    fixed
}

fn put(fixed: &[u8; FIXED_BYTES], body: &[u8], out: &mut Vec<u8>) {
    let mut sum = crc32fast::Hasher::new();
    sum.update(fixed);
    sum.update(body);
    // Bodies over `BODY_BYTES_MAX` are refused before they come here.
    let length = u32::try_from(FIXED_BYTES + body.len()).unwrap_or(u32::MAX);
    out.reserve(HEAD_BYTES + FIXED_BYTES + body.len());
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&sum.finalize().to_le_bytes());
    out.extend_from_slice(fixed);
    out.extend_from_slice(body);
}

/// How long the entry is that may stand at the front; none if none can. Cheaper than to read it.
pub(super) fn begins(bytes: &[u8]) -> Option<usize> {
    let length = u32_at(bytes, 0)? as usize;
    let is_length = (FIXED_BYTES..=FIXED_BYTES + BODY_BYTES_MAX).contains(&length);
    let is_kind = matches!(*bytes.get(HEAD_BYTES)?, ANSWER | HAND_OUT);
    (is_length && is_kind && HEAD_BYTES + length <= bytes.len()).then_some(length)
}

/// Reads the entry at the front. The body shares the buffer's memory.
pub(super) fn parse(bytes: &Bytes) -> Parsed {
    let (Some(length), Some(sum)) = (u32_at(bytes, 0), u32_at(bytes, 4)) else {
        return Parsed::Short(HEAD_BYTES + FIXED_BYTES);
    };
    let length = length as usize;
    // A length of 0 with a checksum of 0 is what a hole in a file looks like.
    if !(FIXED_BYTES..=FIXED_BYTES + BODY_BYTES_MAX).contains(&length) {
        return Parsed::Damaged;
    }
    let whole = HEAD_BYTES + length;
    if bytes.len() < whole {
        return Parsed::Short(whole);
    }
    let payload = bytes.slice(HEAD_BYTES..whole);
    if crc32fast::hash(&payload) != sum {
        return Parsed::Damaged;
    }
    match entry(&payload) {
        Some(entry) => Parsed::Whole(entry, whole),
        None => Parsed::Damaged,
    }
}

fn entry(payload: &Bytes) -> Option<Entry> {
    let (kind, small) = (*payload.first()?, *payload.get(1)?);
    let host = HostId(u32_at(payload, 2)?);
    let number = u64::from_le_bytes(payload.get(6..FIXED_BYTES)?.try_into().ok()?);
    match kind {
        ANSWER => Some(Entry::Answer(Record {
            seq: Seq(number),
            answer: Answer {
                host,
                failed: small != 0,
                body: payload.slice(FIXED_BYTES..),
            },
        })),
        HAND_OUT => {
            let at = Timestamp(number);
            Some(Entry::HandOut(host, HandedOut { at, times: small }))
        }
        _ => None,
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(seq: u64, body: Vec<u8>) -> Record {
        Record {
            seq: Seq(seq),
            answer: Answer {
                host: HostId(9),
                failed: seq.is_multiple_of(2),
                body: Bytes::from(body),
            },
        }
    }

    #[test]
    fn a_hole_is_no_entry() {
        assert_eq!(parse(&Bytes::from_static(&[0; 64])), Parsed::Damaged);
        assert_eq!(
            parse(&Bytes::new()),
            Parsed::Short(HEAD_BYTES + FIXED_BYTES)
        );
    }

    proptest! {
        #[test]
        fn what_is_put_is_parsed(seq: u64, host: u32, times: u8, body: Vec<u8>) {
            let record = record(seq, body);
            let handed = HandedOut { at: Timestamp(seq), times };
            let mut out = Vec::new();
            put_answer(record.seq, &record.answer, &mut out);
            let first = out.len();
            put_hand_out(HostId(host), handed, &mut out);
            let out = Bytes::from(out);
            prop_assert_eq!(parse(&out), Parsed::Whole(Entry::Answer(record), first));
            let rest = out.slice(first..);
            let expected = Parsed::Whole(Entry::HandOut(HostId(host), handed), rest.len());
            prop_assert_eq!(parse(&rest), expected);
        }

        #[test]
        fn what_is_cut_or_changed_is_never_taken_for_whole(
            body in proptest::collection::vec(any::<u8>(), 0..200), cut: prop::sample::Index, bit: u8,
        ) {
            let record = record(3, body);
            let mut out = Vec::new();
            put_answer(record.seq, &record.answer, &mut out);
            let at = cut.index(out.len());
            let torn = Bytes::copy_from_slice(&out[..at]);
            prop_assert!(matches!(parse(&torn), Parsed::Short(_)));
            out[at] ^= 1 << (bit % 8);
            prop_assert!(!matches!(parse(&Bytes::from(out)), Parsed::Whole(..)));
        }
    }
}
