//! permessage-deflate (RFC 7692) where no message depends on another, so that one compressed copy serves every client.

use bytes::BufMut;
use flate2::{Compress, Compression, FlushCompress};

use super::codec::{Kind, put_frame};
use super::inflate::TAIL;

/// Messages below this many bytes stay plain: what deflate saves there does not pay for inflating it.
/// (osquery-like JSON below 700 bytes shrinks by less than a third when each message stands alone.)
pub const DEFLATE_MIN: usize = 512;

const ANSWER: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
const ANSWER_WITH_WINDOW: &str = "permessage-deflate; server_no_context_takeover; \
     client_no_context_takeover; server_max_window_bits=15";

/// Chooses from the client's `Sec-WebSocket-Extensions` headers (`offers`, in order) and gives the
/// value to answer with, or `None` to go on without compression.
///
/// An offer is declined as a whole if it has a parameter that RFC 7692 does not know, twice, or with
/// a value it does not allow, or if it wants the server to keep to a window below 32 KiB: shared
/// messages are compressed before anybody knows who reads them.
pub fn negotiate<'a>(offers: impl IntoIterator<Item = &'a str>) -> Option<&'static str> {
    offers
        .into_iter()
        .flat_map(|header| split_unquoted(header, ','))
        .find_map(judge_offer)
}

fn judge_offer(offer: &str) -> Option<&'static str> {
    let mut tokens = split_unquoted(offer, ';').map(str::trim);
    if !tokens.next()?.eq_ignore_ascii_case("permessage-deflate") {
        return None;
    }
    let mut seen = [false; 4];
    for token in tokens {
        let (name, value) = match token.split_once('=') {
            Some((name, value)) => (name.trim_end(), Some(unquote(value.trim_start()))),
            None => (token, None),
        };
        let (index, legal) = match name.to_ascii_lowercase().as_str() {
            "server_no_context_takeover" => (0, value.is_none()),
            "client_no_context_takeover" => (1, value.is_none()),
            // A hint about the client's own window, which inflating at 32 KiB always covers.
            "client_max_window_bits" => (2, value.is_none_or(|bits| window_bits(bits).is_some())),
            "server_max_window_bits" => (3, value.and_then(window_bits) == Some(15)),
            _ => return None,
        };
        if !legal || std::mem::replace(&mut seen[index], true) {
            return None;
        }
    }
    // A window that was asked for has to be confirmed (RFC 7692, 7.1.2.1).
    Some(if seen[3] { ANSWER_WITH_WINDOW } else { ANSWER })
}

/// 8 to 15 without leading zeros.
fn window_bits(value: &str) -> Option<u8> {
    let bits = value.parse().ok()?;
    ((8..=15).contains(&bits) && !value.starts_with(['0', '+'])).then_some(bits)
}

fn unquote(value: &str) -> &str {
    value
        .strip_prefix('"')
        .and_then(|inner| inner.strip_suffix('"'))
        .unwrap_or(value)
}

/// Splits at `separator` outside of quoted strings.
fn split_unquoted(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    text.split(move |character| {
        quoted ^= character == '"';
        character == separator && !quoted
    })
}

/// Compresses messages, each for itself. Holds about 300 KiB: make few, use them again.
#[derive(Debug)]
pub struct Deflater {
    state: Compress,
    scratch: Vec<u8>,
}

impl Default for Deflater {
    fn default() -> Self {
        Self {
            state: Compress::new(Compression::new(5), false),
            scratch: Vec::new(),
        }
    }
}

impl Deflater {
    /// Writes one text frame: compressed if that makes it shorter, else plain. Says whether it did.
    pub fn put_text_frame(&mut self, out: &mut impl BufMut, payload: &[u8]) -> bool {
        if payload.len() >= DEFLATE_MIN && self.compress(payload) {
            put_frame(out, Kind::DeflatedText, &self.scratch);
            return true;
        }
        put_frame(out, Kind::Text, payload);
        false
    }

    /// Leaves the compressed message in `scratch`; false if it has not become shorter.
    fn compress(&mut self, payload: &[u8]) -> bool {
        self.state.reset();
        self.scratch.clear();
        // Room for no more than the message itself: what does not fit is not worth sending.
        self.scratch.reserve_exact(payload.len() + TAIL.len());
        let flushed = self
            .state
            .compress_vec(payload, &mut self.scratch, FlushCompress::Sync);
        // A full buffer may hide an unfinished flush, whatever its last bytes look like.
        let whole = flushed.is_ok()
            && self.state.total_in() == payload.len() as u64
            && self.scratch.len() < self.scratch.capacity()
            && self.scratch.ends_with(&TAIL);
        if whole {
            self.scratch.truncate(self.scratch.len() - TAIL.len());
        }
        whole && self.scratch.len() < payload.len()
    }
}

#[cfg(test)]
mod tests {
    use super::super::inflate::{InflateError, inflate};
    use super::*;
    use crate::codec::{Decoder, Event, Violation};
    use flate2::write::DeflateEncoder;
    use std::io::Write;

    fn raw_deflate(plain: &[u8]) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(plain).unwrap();
        encoder.flush().unwrap();
        let mut bytes = encoder.get_ref().clone();
        assert!(bytes.ends_with(&TAIL));
        bytes.truncate(bytes.len() - TAIL.len());
        bytes
    }

    #[test]
    fn offers_are_answered_as_the_table_says() {
        let window = Some(ANSWER_WITH_WINDOW);
        for (offer, expected) in [
            ("permessage-deflate", Some(ANSWER)),
            ("Permessage-Deflate ; client_max_window_bits", Some(ANSWER)),
            ("permessage-deflate; client_max_window_bits=8", Some(ANSWER)),
            (
                "permessage-deflate; client_max_window_bits=\"15\"",
                Some(ANSWER),
            ),
            ("permessage-deflate; client_max_window_bits=16", None),
            ("permessage-deflate; client_max_window_bits=08", None),
            ("permessage-deflate; server_max_window_bits=15", window),
            ("permessage-deflate; server_max_window_bits=10", None),
            ("permessage-deflate; server_max_window_bits", None),
            (
                "permessage-deflate; server_no_context_takeover",
                Some(ANSWER),
            ),
            ("permessage-deflate; server_no_context_takeover=1", None),
            (
                "permessage-deflate; client_no_context_takeover; client_no_context_takeover",
                None,
            ),
            ("permessage-deflate; mood=good", None),
            (
                "permessage-deflate; mood=\"a,b;c\", permessage-deflate",
                Some(ANSWER),
            ),
            (
                "permessage-deflate; server_max_window_bits=9, permessage-deflate; client_max_window_bits",
                Some(ANSWER),
            ),
            ("x-webkit-deflate-frame, permessage-bzip2", None),
            ("", None),
        ] {
            assert_eq!(negotiate([offer]), expected, "{offer}");
        }
        assert_eq!(negotiate(["x-other", "permessage-deflate"]), Some(ANSWER));
    }

    #[test]
    fn a_deflated_frame_comes_back_as_it_was() {
        let plain = "{\"name\":\"kernel_info\",\"version\":\"6.1\"},".repeat(100);
        let mut deflater = Deflater::default();
        for _ in 0..2 {
            let mut frame = Vec::new();
            assert!(deflater.put_text_frame(&mut frame, plain.as_bytes()));
            assert_eq!(frame[0], 0xc1);
            assert!(frame.len() < plain.len() / 10);
            let header = if frame[1] == 126 { 4 } else { 2 };
            let inflated = inflate(&frame[header..], plain.len()).unwrap();
            assert_eq!(inflated, plain.as_bytes());
        }
    }

    #[test]
    fn what_does_not_shrink_stays_plain() {
        let mut deflater = Deflater::default();
        let mut frame = Vec::new();
        assert!(!deflater.put_text_frame(&mut frame, &[b'x'; DEFLATE_MIN - 1]));
        assert_eq!(frame[0], 0x81);
        let mut seed = 7u32;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 24) as u8
        })
        .take(4096)
        .collect();
        frame.clear();
        assert!(!deflater.put_text_frame(&mut frame, &noise));
        assert_eq!(frame[0], 0x81);
    }

    #[test]
    fn a_bomb_is_refused_at_the_bound() {
        let bomb = raw_deflate(&vec![0; 50_000_000]);
        assert!(bomb.len() < 60_000);
        assert_eq!(inflate(&bomb, 65_536), Err(InflateError::TooLarge));
        assert_eq!(inflate(&raw_deflate(&[7; 100]), 100), Ok(vec![7; 100]));
        assert_eq!(
            inflate(&raw_deflate(&[7; 101]), 100),
            Err(InflateError::TooLarge)
        );
    }

    #[test]
    fn empty_final_and_broken_streams_are_told_apart() {
        assert_eq!(inflate(&[0x00], 10), Ok(Vec::new()));
        // "Hello" with the final bit set, then the empty block that follows it (RFC 7692, 7.2.3.4).
        let hello = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00];
        assert_eq!(inflate(&hello, 10), Ok(b"Hello".to_vec()));
        assert_eq!(inflate(&[0xff; 20], 10), Err(InflateError::Broken));
    }

    #[test]
    fn the_decoder_inflates_and_bounds_compressed_messages() {
        let masked = |payload: &[u8]| {
            let mut frame = vec![0xc1, 0xfe];
            frame.extend_from_slice(&u16::try_from(payload.len()).unwrap().to_be_bytes());
            frame.extend_from_slice(&[0; 4]);
            frame.extend_from_slice(payload);
            frame
        };
        let read = |bytes: &[u8], deflate| Decoder::new(1000, deflate).read(&mut &*bytes);
        let text = masked(&raw_deflate("ä".repeat(500).as_bytes()));
        assert_eq!(read(&text, true), Some(Event::Text("ä".repeat(500))));
        let plain = Violation::ReservedBit;
        assert_eq!(read(&text, false), Some(Event::Violation(plain)));
        let bomb = masked(&raw_deflate(&vec![b'a'; 1_000_000])[..]);
        assert_eq!(read(&bomb, true), Some(Event::Violation(Violation::TooBig)));
        let latin = masked(&raw_deflate(&[0xe4; 50]));
        assert_eq!(
            read(&latin, true),
            Some(Event::Violation(Violation::BadText))
        );
        let noise = masked(&[0xff; 50]);
        assert_eq!(
            read(&noise, true),
            Some(Event::Violation(Violation::BadDeflate))
        );
    }
}
