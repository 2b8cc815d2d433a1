//! Tests of the campaign log against a plain list of messages.

use bytes::{BufMut, Bytes, BytesMut};
use proptest::prelude::*;

use super::*;
use crate::ids::HostId;
use crate::record::Answer;

const CAMPAIGN: CampaignId = CampaignId(5);

/// Raw frames as the wire has them; every other form is the message with the form's number before it.
fn encode(form: Form, message: &[u8], out: &mut BytesMut) {
    if form != Form::RawFrame {
        out.put_u8(b'0' + u8::try_from(form.index()).unwrap());
        out.put_slice(message);
        return;
    }
    out.put_u8(0x81);
    match message.len() {
        short @ 0..126 => out.put_u8(u8::try_from(short).unwrap()),
        middle @ 126..65536 => {
            out.put_u8(126);
            out.put_u16(u16::try_from(middle).unwrap());
        }
        long => {
            out.put_u8(127);
            out.put_u64(long as u64);
        }
    }
    out.put_slice(message);
}

fn record(seq: u64, size: usize) -> Record {
    let body = Bytes::from(format!(r#""seq_again":{seq},"pad":"{}""#, "x".repeat(size)));
    Record {
        seq: Seq(seq),
        answer: Answer {
            host: HostId(1),
            failed: false,
            body,
        },
    }
}

fn expected(form: Form, records: &[Record]) -> Vec<u8> {
    let mut out = BytesMut::new();
    for record in records {
        let mut message = Vec::new();
        record.write_message(CAMPAIGN, &mut message);
        encode(form, &message, &mut out);
    }
    out.to_vec()
}

fn read_all(log: &mut Log, mut after: Seq, form: Form, budget: usize, all: &[Record]) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        match log.read(after, form, budget) {
            Read::End => return out,
            Read::Slice(slice, last) => {
                assert_eq!(last.0 - after.0, slice.messages as u64);
                assert!(slice.messages > 0 && slice.parts.len() <= PARTS_MAX);
                assert_eq!(slice.len, slice.parts.iter().map(Bytes::len).sum::<usize>());
                slice
                    .parts
                    .iter()
                    .for_each(|part| out.extend_from_slice(part));
                after = last;
            }
            Read::Evicted { first, last } => {
                assert!(first.0 <= after.0 + 1 && last > after);
                let from = usize::try_from(first.0 - 1).unwrap();
                log.restore(&all[from..usize::try_from(last.0).unwrap()]);
            }
        }
    }
}

fn size_of_all_forms(log: &Log) -> usize {
    let sealed = log.sealed.iter().map(|slot| match slot {
        Slot::Kept(block) => block.bytes(),
        Slot::Evicted { .. } => 0,
    });
    let tail = log.tail.iter().map(Block::bytes);
    sealed.chain(tail).sum::<usize>() + log.fresh.bytes()
}

#[test]
fn a_reader_gets_at_least_one_message_and_stops_with_the_one_that_reaches_the_budget() {
    let mut log = Log::new(CAMPAIGN, Seq(0), encode);
    let all: Vec<_> = (1..=3).map(|seq| record(seq, 100)).collect();
    assert!(log.append(&all));
    let one = expected(Form::Line, &all[..1]).len();
    for (budget, messages) in [
        (0, 1),
        (1, 1),
        (one, 1),
        (one + 1, 2),
        (one * 3, 3),
        (one * 99, 3),
    ] {
        let Read::Slice(slice, last) = log.read(Seq(0), Form::Line, budget) else {
            panic!("no slice")
        };
        assert_eq!(
            (slice.messages, last),
            (messages, Seq(messages as u64)),
            "budget {budget}"
        );
    }
    assert!(matches!(log.read(Seq(3), Form::Line, 10), Read::End));
    assert!(matches!(log.read(Seq(9), Form::Line, 10), Read::End));
}

#[test]
fn what_the_log_has_is_skipped_and_a_gap_is_refused() {
    let mut log = Log::new(CAMPAIGN, Seq(0), encode);
    let all: Vec<_> = (1..=9).map(|seq| record(seq, 10)).collect();
    assert!(log.append(&all[..4]));
    assert!(!log.append(&all[5..]), "5 is missing");
    assert_eq!(log.last(), Seq(4));
    assert!(log.append(&all[2..]));
    assert!(log.append(&all[..3]));
    assert_eq!(
        read_all(&mut log, Seq(0), Form::Piece, 50, &all),
        expected(Form::Piece, &all)
    );
}

#[test]
fn a_log_that_starts_late_reads_its_past_from_the_store() {
    let all: Vec<_> = (1..=40).map(|seq| record(seq, 5_000)).collect();
    let mut log = Log::new(CAMPAIGN, Seq(30), encode);
    assert!(log.append(&all[30..]));
    assert!(matches!(
        log.read(Seq(12), Form::Line, 10),
        Read::Evicted {
            first: Seq(1),
            last: Seq(30)
        }
    ));
    assert_eq!(
        read_all(&mut log, Seq(12), Form::Line, 1 << 20, &all),
        expected(Form::Line, &all[12..])
    );
}

#[test]
fn eviction_drops_derived_forms_first_then_what_was_read_longest_ago() {
    let all: Vec<_> = (1..=100).map(|seq| record(seq, 10_000)).collect();
    let mut log = Log::new(CAMPAIGN, Seq(0), encode);
    for record in &all {
        log.append(std::slice::from_ref(record));
    }
    let plain = log.bytes();
    read_all(&mut log, Seq(0), Form::Event, 1 << 30, &all);
    assert!(log.bytes() > plain * 19 / 10, "two forms are kept");
    log.evict(plain + 100_000);
    assert!(
        matches!(log.read(Seq(0), Form::RawFrame, 1), Read::Slice(..)),
        "no message had to go"
    );
    log.evict(plain / 2);
    assert!(log.bytes() <= plain / 2);
    assert!(
        matches!(log.read(Seq(0), Form::RawFrame, 1), Read::Slice(..)),
        "the block read last is kept"
    );
    assert_eq!(
        read_all(&mut log, Seq(0), Form::RawFrame, 9_999, &all),
        expected(Form::RawFrame, &all)
    );
}

#[test]
fn a_reader_of_the_past_does_not_drive_out_what_others_read() {
    let all: Vec<_> = (1..=100).map(|seq| record(seq, 10_000)).collect();
    let mut log = Log::new(CAMPAIGN, Seq(0), encode);
    log.append(&all);
    let whole = log.bytes();
    log.evict(whole / 2);
    let kept = |log: &Log| -> Vec<u64> {
        let blocks = log.sealed.iter().filter_map(Slot::block);
        let kept = blocks.filter(|block| !block.restored);
        kept.map(|block| block.first().0).collect()
    };
    let (before, bound) = (kept(&log), whole / 2 + whole / 4);
    let mut after = Seq(0);
    loop {
        match log.read(after, Form::RawFrame, 1) {
            Read::End => break,
            Read::Slice(_, last) => after = last,
            Read::Evicted { first, .. } => {
                let from = usize::try_from(first.0).unwrap() - 1;
                log.restore(&all[from..(from + 20).min(100)]);
                log.evict(bound);
                assert!(log.bytes() <= bound);
            }
        }
    }
    assert_eq!(kept(&log), before);
}

#[test]
fn what_is_put_back_ahead_is_read_without_asking_again_and_goes_before_what_was_asked_for() {
    let all: Vec<_> = (1..=100).map(|seq| record(seq, 10_000)).collect();
    let mut log = Log::new(CAMPAIGN, Seq(100), encode);
    log.restore(&all);
    assert_eq!(
        read_all(&mut log, Seq(0), Form::RawFrame, 1 << 20, &[]),
        expected(Form::RawFrame, &all)
    );
    let mut log = Log::new(CAMPAIGN, Seq(100), encode);
    log.restore(&all);
    log.evict(1);
    let first = log.read(Seq(0), Form::RawFrame, 1);
    assert!(matches!(first, Read::Slice(..)));
    let other = log.read(Seq(50), Form::RawFrame, 1);
    assert!(matches!(other, Read::Evicted { .. }));
}

#[test]
fn whoever_follows_finds_few_parts_however_answers_come() {
    let mut log = Log::new(CAMPAIGN, Seq(0), encode);
    let all: Vec<_> = (1..=400).map(|seq| record(seq, 100)).collect();
    for burst in all.chunks(5) {
        for record in burst {
            assert!(log.append(std::slice::from_ref(record)));
        }
        for form in [Form::RawFrame, Form::Line] {
            let behind = Seq(log.last().0.saturating_sub(40));
            let Read::Slice(slice, last) = log.read(behind, form, 1 << 20) else {
                panic!("no slice")
            };
            assert!(slice.parts.len() <= 4, "{}", slice.parts.len());
            assert_eq!(last, log.last());
            let from = usize::try_from(behind.0).unwrap();
            let to = usize::try_from(last.0).unwrap();
            assert_eq!(slice.parts.concat(), expected(form, &all[from..to]));
        }
    }
    assert_eq!(log.bytes(), size_of_all_forms(&log));
}

#[test]
fn answers_larger_than_a_segment_and_bursts_that_nobody_reads_are_sealed() {
    let mut log = Log::new(CAMPAIGN, Seq(0), encode);
    let sizes = [300; 600].into_iter().chain([100_000, 10, 70_000, 10]);
    let all: Vec<_> = (1..)
        .zip(sizes)
        .map(|(seq, size)| record(seq, size))
        .collect();
    for record in &all {
        assert!(log.append(std::slice::from_ref(record)));
    }
    assert!(log.sealed.len() >= 4, "{}", log.sealed.len());
    assert_eq!(log.bytes(), size_of_all_forms(&log));
    for form in Form::ALL {
        assert_eq!(
            read_all(&mut log, Seq(0), form, 9_999, &all),
            expected(form, &all)
        );
    }
    assert_eq!(log.bytes(), size_of_all_forms(&log));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_reader_gets_every_message_once_in_order(
        batches in prop::collection::vec((1usize..40, 0usize..9_000), 1..40),
        reads in prop::collection::vec((0usize..40, 0usize..Form::ALL.len(), 0usize..200_000, any::<bool>()), 1..20),
    ) {
        let mut log = Log::new(CAMPAIGN, Seq(0), encode);
        let mut all = Vec::new();
        for (step, (count, size)) in batches.iter().enumerate() {
            let from = all.len();
            all.extend((0..*count).map(|at| record((from + at) as u64 + 1, *size)));
            prop_assert!(log.append(&all[from..]));
            for (when, form, budget, evict) in &reads {
                if *when == step {
                    let (form, after) = (Form::ALL[*form], budget % (all.len() + 1));
                    let got = read_all(&mut log, Seq(after as u64), form, *budget, &all);
                    prop_assert_eq!(got, expected(form, &all[after..]));
                    if *evict {
                        log.evict(*budget);
                    }
                }
            }
            prop_assert_eq!(log.bytes(), size_of_all_forms(&log));
        }
    }
}
