//! What an agent sends, whole and in pieces: whatever it is, each answer becomes a message that is JSON and one line.

use answerback::agents::wire::answer::{HostHeader, reports};
use answerback::agents::wire::sieve::{Items, Sieve};
use answerback::agents::wire::{Body, text};
use answerback::results::HostId;
use bytes::Bytes;
use serde_json::Value;

/// Bytes that the items of a sieved body may take.
const ROOM: usize = 64;

pub(crate) fn check(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    let body = text(&bytes);
    answers(&body);
    for items in [Items::Queries, Items::Data] {
        let whole = sieved(items, &[data]);
        let (one, other) = data.split_at(data.len() / 2);
        assert_eq!(whole, sieved(items, &[one, other]), "pieces say the same");
        // A body that breaks off is closed, so that what was whole in it can be read.
        let read = serde_json::from_slice::<Value>(&whole);
        assert!(whole.is_empty() || read.is_ok() || serde_json::from_slice::<Value>(data).is_err());
        answers(&String::from_utf8_lossy(&whole));
    }
}

fn sieved(items: Items, pieces: &[&[u8]]) -> Vec<u8> {
    let mut sieve = Sieve::new(items, ROOM);
    for piece in pieces {
        sieve.push(piece);
    }
    sieve.finish().body
}

fn answers(text: &str) {
    let body = Body::parse(text);
    let voice = HostHeader::new(HostId(7), "a\"name", "an\u{2028}other");
    for report in reports(&body).values() {
        let (answer, _) = voice.answer(report);
        let json = [b"{", &answer.body[..], b"}"].concat();
        let read: Value = match serde_json::from_slice(&json) {
            Ok(read) => read,
            Err(error) => panic!("{error}: {}", String::from_utf8_lossy(&json)),
        };
        assert!(!json.contains(&b'\n'), "an answer is one line");
        assert_eq!(read["host"]["id"], 7);
        assert!(
            read["rows"]
                .as_array()
                .is_some_and(|rows| rows.iter().all(Value::is_object))
        );
    }
}
