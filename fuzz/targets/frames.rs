//! WebSocket frames of a client: cut anywhere they mean the same, no message is over its bound, and nothing follows an end.

use answerback::sockjs::codec::{CONTROL_MAX, Decoder, Event};

const MAX: usize = 4096;

fn read(decoder: &mut Decoder, mut input: &[u8], events: &mut Vec<Event>) {
    while let Some(event) = decoder.read(&mut input) {
        assert!(
            !matches!(events.last(), Some(Event::Close(_) | Event::Violation(_))),
            "something follows the end"
        );
        match &event {
            Event::Text(text) => assert!(text.len() <= MAX),
            Event::Binary(bytes) => assert!(bytes.len() <= MAX),
            Event::Ping(payload) => assert!(payload.len() <= CONTROL_MAX),
            Event::Pong | Event::Close(_) | Event::Violation(_) => {}
        }
        events.push(event);
    }
    assert!(input.is_empty(), "bytes are left over");
}

/// The first byte says whether messages may be deflated and how the rest is cut.
pub(crate) fn check(data: &[u8]) {
    let Some((&first, frames)) = data.split_first() else {
        return;
    };
    let deflate = first & 1 == 1;
    let mut whole = Vec::new();
    read(&mut Decoder::new(MAX, deflate), frames, &mut whole);
    let mut cut = Vec::new();
    let mut decoder = Decoder::new(MAX, deflate);
    for piece in frames.chunks(usize::from(first >> 1).max(1)) {
        read(&mut decoder, piece, &mut cut);
    }
    assert_eq!(whole, cut);
}
