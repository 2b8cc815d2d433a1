//! Protocol cases in the numbering of the Autobahn test suite (families 1 to 7, 9 with reduced sizes, 10).

use proptest::prelude::*;

use super::*;

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const MAX: usize = 1 << 20;

/// A masked client frame; `first` is its first byte.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        short @ 0..=125 => out.push(0x80 | short as u8),
        medium @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(medium as u16).to_be_bytes());
        }
        long => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
    out.extend(
        payload
            .iter()
            .zip(MASK.iter().cycle())
            .map(|(byte, key)| byte ^ key),
    );
    out
}

const FIN: u8 = 0x80;
const MORE: u8 = 0x00;
const CONT: u8 = 0x0;
const TEXT: u8 = 0x1;
const BIN: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;

fn frames(parts: &[(u8, &[u8])]) -> Vec<u8> {
    parts
        .iter()
        .flat_map(|(first, payload)| frame(*first, payload))
        .collect()
}

fn read_in_steps(bytes: &[u8], step: usize) -> Vec<Event> {
    let mut decoder = Decoder::new(MAX, false);
    let mut events = Vec::new();
    for mut chunk in bytes.chunks(step) {
        while let Some(event) = decoder.read(&mut chunk) {
            events.push(event);
        }
        assert!(chunk.is_empty());
    }
    events
}

/// What arrives must not depend on where the bytes are cut.
fn expect(case: &str, bytes: &[u8], expected: &[Event]) {
    for step in [1, 2, 3, 7, 997, usize::MAX] {
        assert_eq!(
            read_in_steps(bytes, step),
            expected,
            "case {case}, cut every {step}"
        );
    }
}

fn text(value: &str) -> Event {
    Event::Text(value.to_owned())
}

fn bad(violation: Violation) -> Event {
    Event::Violation(violation)
}

fn close(code: u16, reason: &str) -> Event {
    let reason = reason.to_owned();
    Event::Close(Some(CloseFrame { code, reason }))
}

fn close_payload(code: u16, reason: &[u8]) -> Vec<u8> {
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend_from_slice(reason);
    payload
}

#[test]
fn family_1_messages_of_every_length_form() {
    for (number, len) in [0, 125, 126, 127, 128, 65_535, 65_536]
        .into_iter()
        .enumerate()
    {
        let payload = vec![b'*'; len];
        let whole = String::from_utf8(payload.clone()).unwrap();
        expect(
            &format!("1.1.{}", number + 1),
            &frame(FIN | TEXT, &payload),
            &[text(&whole)],
        );
        let payload = vec![0xfe; len];
        let binary = frame(FIN | BIN, &payload);
        expect(
            &format!("1.2.{}", number + 1),
            &binary,
            &[Event::Binary(payload)],
        );
    }
}

#[test]
fn family_2_pings_and_pongs() {
    let long = [0xfe; CONTROL_MAX];
    expect("2.1", &frame(FIN | PING, b""), &[Event::Ping(vec![])]);
    expect(
        "2.3",
        &frame(FIN | PING, &[0, 0xff, 0xfe]),
        &[Event::Ping(vec![0, 0xff, 0xfe])],
    );
    expect(
        "2.4",
        &frame(FIN | PING, &long),
        &[Event::Ping(long.to_vec())],
    );
    expect(
        "2.5",
        &frame(FIN | PING, &[0xfe; 126]),
        &[bad(Violation::LongControl)],
    );
    expect("2.7", &frame(FIN | PONG, b"unsolicited"), &[Event::Pong]);
    let mixed = frames(&[(FIN | PONG, b"x"), (FIN | PING, b"y")]);
    expect("2.9", &mixed, &[Event::Pong, Event::Ping(b"y".to_vec())]);
    let payloads: Vec<String> = (0..10).map(|number| format!("payload-{number}")).collect();
    let pings: Vec<u8> = payloads
        .iter()
        .flat_map(|p| frame(FIN | PING, p.as_bytes()))
        .collect();
    let answers: Vec<Event> = payloads
        .into_iter()
        .map(|p| Event::Ping(p.into_bytes()))
        .collect();
    expect("2.10", &pings, &answers);
}

#[test]
fn family_3_reserved_bits() {
    let hello = text("Hello");
    for (case, first) in [
        ("3.1", FIN | 0x40 | TEXT),
        ("3.2", FIN | 0x20 | TEXT),
        ("3.3", FIN | 0x10 | TEXT),
        ("3.4", FIN | 0x50 | TEXT),
        ("3.5", FIN | 0x60 | BIN),
        ("3.6", FIN | 0x70 | PING),
        ("3.7", FIN | 0x40 | CLOSE),
    ] {
        let bytes = frames(&[(FIN | TEXT, b"Hello"), (first, b"x"), (FIN | PING, b"")]);
        expect(case, &bytes, &[hello.clone(), bad(Violation::ReservedBit)]);
    }
}

#[test]
fn family_4_reserved_opcodes() {
    for opcode in (3..=7).chain(11..=15) {
        let bytes = frames(&[
            (FIN | TEXT, b"Hello"),
            (FIN | opcode, b""),
            (FIN | PING, b""),
        ]);
        let case = format!("4, opcode {opcode}");
        expect(
            &case,
            &bytes,
            &[text("Hello"), bad(Violation::ReservedOpcode)],
        );
    }
}

#[test]
fn family_5_fragments() {
    let whole = text("fragment1fragment2");
    let (one, two) = (b"fragment1".as_slice(), b"fragment2".as_slice());
    let ping = (FIN | PING, b"ping".as_slice());
    let pinged = Event::Ping(b"ping".to_vec());
    let stray = bad(Violation::StrayContinuation);
    #[rustfmt::skip]
    let cases: [(&str, Vec<u8>, Vec<Event>); 11] = [
        ("5.1", frames(&[(MORE | PING, one)]), vec![bad(Violation::FragmentedControl)]),
        ("5.2", frames(&[(MORE | PONG, one)]), vec![bad(Violation::FragmentedControl)]),
        ("5.3", frames(&[(MORE | TEXT, one), (FIN | CONT, two)]), vec![whole.clone()]),
        ("5.6", frames(&[(MORE | TEXT, one), ping, (FIN | CONT, two)]), vec![pinged.clone(), whole.clone()]),
        ("5.9", frames(&[(FIN | CONT, one), (FIN | TEXT, b"x")]), vec![stray.clone()]),
        ("5.12", frames(&[(MORE | CONT, one), (FIN | TEXT, b"x")]), vec![stray.clone()]),
        ("5.15", frames(&[(MORE | TEXT, one), (FIN | CONT, two), (MORE | CONT, one), (FIN | TEXT, two)]), vec![whole.clone(), stray]),
        ("5.18", frames(&[(MORE | TEXT, one), (FIN | TEXT, two)]), vec![bad(Violation::InterruptedMessage)]),
        ("5.19", frames(&[(MORE | TEXT, b"a"), (MORE | CONT, b"b"), ping, (MORE | CONT, b"c"), ping, (FIN | CONT, b"d")]), vec![pinged.clone(), pinged.clone(), text("abcd")]),
        ("5 with empty fragments", frames(&[(MORE | TEXT, b""), (MORE | CONT, b""), (FIN | CONT, b"")]), vec![text("")]),
        ("5 binary", frames(&[(MORE | BIN, b"a"), (FIN | CONT, b"b")]), vec![Event::Binary(b"ab".to_vec())]),
    ];
    for (case, bytes, expected) in cases {
        expect(case, &bytes, &expected);
    }
}

#[test]
fn family_6_valid_text_in_every_cut() {
    let greeting = "Hello-µ@ßöäüàá-UTF-8!!";
    expect(
        "6.2.1",
        &frame(FIN | TEXT, greeting.as_bytes()),
        &[text(greeting)],
    );
    let letters: Vec<u8> = greeting
        .bytes()
        .flat_map(|byte| frame(CONT, &[byte]))
        .collect();
    let bytes = [frame(MORE | TEXT, b""), letters, frame(FIN | CONT, b"")].concat();
    expect("6.2.3", &bytes, &[text(greeting)]);
    for (case, value) in [
        ("6.5.1", "\u{1}"),
        ("6.5.2", "\u{7f}"),
        ("6.5.5", "κόσμε"),
        ("6.7.1", "\0"),
        ("6.9.3", "\u{ffff}"),
        ("6.9.4", "\u{10ffff}"),
        ("6.21.1", "\u{d7ff}"),
        ("6.21.2", "\u{e000}"),
        ("6.22.1", "\u{fffe}"),
        ("6.23.1", "\u{fffd}"),
    ] {
        expect(case, &frame(FIN | TEXT, value.as_bytes()), &[text(value)]);
    }
}

#[test]
fn family_6_invalid_text_is_refused() {
    let broken = bad(Violation::BadText);
    for (case, bytes) in [
        (
            "6.3.1",
            b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited".as_slice(),
        ),
        ("6.6.1", b"\xce"),
        ("6.6.7", b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce"),
        ("6.8.1", b"\xf8\x88\x80\x80\x80"),
        ("6.10.1", b"\xf7\xbf\xbf\xbf"),
        ("6.11.5", b"\xf4\x90\x80\x80"),
        ("6.12.1", b"\x80"),
        ("6.13.2", b"\xe0\x20"),
        ("6.14.3", b"\xf0\x80\x80"),
        ("6.16.1", b"\xfe"),
        ("6.17.1", b"\xc0\xaf"),
        ("6.19.1", b"\xc0\x80"),
        ("6.20.1", b"\xed\xa0\x80"),
        ("6.20.14", b"\xed\xaf\xbf\xed\xbf\xbf"),
    ] {
        expect(
            case,
            &frame(FIN | TEXT, bytes),
            std::slice::from_ref(&broken),
        );
    }
}

#[test]
fn family_6_4_fails_before_the_message_is_whole() {
    let first = frame(MORE | TEXT, b"\xce\xba\xe1\xbd\xb9");
    let second = frame(MORE | CONT, b"\xf4\x90\x80\x80");
    expect(
        "6.4.1",
        &[first.clone(), second.clone()].concat(),
        &[bad(Violation::BadText)],
    );
    // The third payload byte decides already: f4 90 has no valid end.
    let cut = [&first[..], &second[..second.len() - 2]].concat();
    expect("6.4.3", &cut, &[bad(Violation::BadText)]);
}

#[test]
fn family_7_closing() {
    let broken = || bad(Violation::BadClose);
    let long = "*".repeat(REASON_MAX);
    let after = frames(&[
        (FIN | CLOSE, &close_payload(1000, b"")),
        (FIN | TEXT, b"late"),
    ]);
    expect("7.1.3", &after, &[close(1000, "")]);
    let midway = frames(&[
        (MORE | TEXT, b"frag"),
        (FIN | CLOSE, &close_payload(1000, b"")),
    ]);
    expect("7.1.5", &midway, &[close(1000, "")]);
    expect("7.3.1", &frame(FIN | CLOSE, b""), &[Event::Close(None)]);
    expect("7.3.2", &frame(FIN | CLOSE, b"a"), &[broken()]);
    for (case, reason) in [("7.3.3", ""), ("7.3.4", "Hello World!"), ("7.3.5", &long)] {
        let bytes = frame(FIN | CLOSE, &close_payload(1000, reason.as_bytes()));
        expect(case, &bytes, &[close(1000, reason)]);
    }
    let too_long = frame(FIN | CLOSE, &close_payload(1000, &[b'*'; REASON_MAX + 1]));
    expect("7.3.6", &too_long, &[bad(Violation::LongControl)]);
    let latin = frame(FIN | CLOSE, &close_payload(1000, b"caf\xe9"));
    expect("7.5.1", &latin, &[bad(Violation::BadText)]);
    for code in [
        1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999,
    ] {
        let bytes = frame(FIN | CLOSE, &close_payload(code, b""));
        expect(&format!("7.7, {code}"), &bytes, &[close(code, "")]);
    }
    for code in [
        0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65_535,
    ] {
        let bytes = frame(FIN | CLOSE, &close_payload(code, b""));
        expect(&format!("7.9, {code}"), &bytes, &[broken()]);
    }
}

#[test]
fn family_9_and_10_large_messages_in_many_pieces() {
    let whole = "ab\u{20ac}".repeat(50_000);
    let pieces = |size: usize| {
        let count = whole.len().div_ceil(size);
        let cut = |(index, piece): (usize, &[u8])| {
            let opcode = if index == 0 { TEXT } else { CONT };
            let fin = if index + 1 == count { FIN } else { MORE };
            frame(fin | opcode, piece)
        };
        whole
            .as_bytes()
            .chunks(size)
            .enumerate()
            .flat_map(cut)
            .collect::<Vec<u8>>()
    };
    for (case, size) in [
        ("9.3.1", 64),
        ("9.3.4", 4096),
        ("9.1.3", usize::MAX),
        ("10.1.1", 1300),
    ] {
        let bytes = pieces(size.min(whole.len()));
        for step in [1000, usize::MAX] {
            assert_eq!(read_in_steps(&bytes, step), [text(&whole)], "case {case}");
        }
    }
}

#[test]
fn an_unmasked_frame_is_refused_before_its_payload() {
    expect("unmasked", b"\x81\x05", &[bad(Violation::Unmasked)]);
}

#[test]
fn a_length_over_the_limit_is_refused_at_the_header_and_never_allocated() {
    let mut header = frame(FIN | TEXT, &[b'x'; 70_000]);
    header[2..10].copy_from_slice(&(MAX as u64 + 1).to_be_bytes());
    expect("too big", &header[..14], &[bad(Violation::TooBig)]);
    header[2..10].copy_from_slice(&(1u64 << 63).to_be_bytes());
    expect("out of range", &header[..14], &[bad(Violation::BadLength)]);
    let mut sum = frame(MORE | TEXT, &[b'x'; 600_000]);
    sum.extend_from_slice(&frame(FIN | CONT, &[b'x'; 600_000])[..14]);
    expect("fragments too big", &sum, &[bad(Violation::TooBig)]);
}

proptest! {
    #[test]
    fn any_bytes_are_read_to_their_end_and_cuts_change_nothing(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        step in 1usize..50,
    ) {
        prop_assert_eq!(read_in_steps(&bytes, step), read_in_steps(&bytes, usize::MAX));
    }

    #[test]
    fn any_messages_come_out_as_they_went_in(messages in proptest::collection::vec("(?s).{0,200}", 0..5)) {
        let bytes: Vec<u8> = messages.iter().flat_map(|one| frame(FIN | TEXT, one.as_bytes())).collect();
        let expected: Vec<Event> = messages.iter().map(|one| text(one)).collect();
        prop_assert_eq!(read_in_steps(&bytes, 13), expected);
    }
}

#[test]
fn server_frames_have_the_shortest_header() {
    for (len, head) in [
        (0, vec![0x81, 0]),
        (125, vec![0x81, 125]),
        (126, vec![0x81, 126, 0, 126]),
        (65_535, vec![0x81, 126, 0xff, 0xff]),
        (65_536, vec![0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
    ] {
        let mut out = Vec::new();
        put_header(&mut out, Kind::Text, len);
        assert_eq!(out, head);
        assert_eq!(header_len(len), head.len());
    }
}

#[test]
fn a_long_reason_is_cut_between_characters() {
    let mut out = Vec::new();
    put_close(&mut out, Some((3000, &"ä".repeat(100))));
    assert_eq!(out[..4], [0x88, 124, 0x0b, 0xb8]);
    assert_eq!(std::str::from_utf8(&out[4..]), Ok("ä".repeat(61).as_str()));
    out.clear();
    put_close(&mut out, None);
    assert_eq!(out, [0x88, 0]);
}
