//! The mark inside every answer of a simulated host: whose it is, and when it should have been sent.

use std::sync::LazyLock;

use memchr::memmem::Finder;

/// The column that holds the mark. Nothing else in a message may hold this word.
pub(crate) const COLUMN: &str = "probe";

/// What a viewer reads off an answer: `run.host.stamp.padding`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Probe {
    /// Tells this run's answers from those of others.
    pub(crate) run: u32,
    pub(crate) host: u32,
    /// When the answer should have left its host, nanoseconds since the epoch.
    pub(crate) stamp_ns: u64,
}

/// Letters for the padding: none of them spells a word the scanner looks for, or needs escaping.
const LETTERS: &[u8; 16] = b"abcdfghijkltuvwx";
const PADDING_LENGTH: usize = 1 << 16;

/// Padding that does not compress to nothing, the same in every process.
pub(crate) fn padding(host: u32, length: usize) -> impl Iterator<Item = &'static [u8]> {
    static POOL: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    let pool = POOL.get_or_init(|| {
        let mut bits = 0x2545_f491_4f6c_dd1d_u64;
        let letters = std::iter::repeat_with(|| {
            bits ^= bits << 13;
            bits ^= bits >> 7;
            bits ^= bits << 17;
            LETTERS[(bits >> 40) as usize % LETTERS.len()]
        });
        letters.take(PADDING_LENGTH).collect()
    });
    let mut at = host as usize * 61 % PADDING_LENGTH;
    let mut left = length;
    std::iter::from_fn(move || {
        let piece = &pool[at..];
        let piece = &piece[..piece.len().min(left)];
        left -= piece.len();
        at = 0;
        (!piece.is_empty()).then_some(piece)
    })
}

impl Probe {
    /// Appends the mark, padded to `length` bytes if it is shorter.
    pub(crate) fn write(&self, length: usize, out: &mut Vec<u8>) {
        use std::io::Write;
        let before = out.len();
        // Writing into a vector cannot fail.
        let _ = write!(out, "{}.{}.{}.", self.run, self.host, self.stamp_ns);
        let lacking = length.saturating_sub(out.len() - before);
        for piece in padding(self.host, lacking) {
            out.extend_from_slice(piece);
        }
    }

    /// Finds and reads the mark in a message, at whatever depth of quoting.
    pub(crate) fn find(message: &[u8]) -> Option<Self> {
        static FINDER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(COLUMN));
        let at = FINDER.find(message)? + COLUMN.len();
        let rest = message.get(at..)?;
        let start = rest.iter().take(16).position(u8::is_ascii_digit)?;
        let rest = &rest[start..];
        let (run, rest) = number(rest)?;
        let (host, rest) = number(rest.strip_prefix(b".")?)?;
        let (stamp_ns, rest) = number(rest.strip_prefix(b".")?)?;
        rest.starts_with(b".").then_some(Self {
            run: u32::try_from(run).ok()?,
            host: u32::try_from(host).ok()?,
            stamp_ns,
        })
    }
}

/// The decimal number at the start of `bytes`, and what follows it.
pub(crate) fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let end = bytes
        .iter()
        .position(|byte| !byte.is_ascii_digit())
        .unwrap_or(bytes.len());
    if end == 0 || end > 19 {
        return None;
    }
    let value = bytes[..end]
        .iter()
        .fold(0_u64, |value, digit| value * 10 + u64::from(digit - b'0'));
    Some((value, &bytes[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROBE: Probe = Probe {
        run: 77,
        host: 4_000_000,
        stamp_ns: 1_760_000_000_123_456_789,
    };

    #[test]
    fn a_mark_is_found_at_every_depth_of_quoting() {
        let mut text = Vec::new();
        PROBE.write(200, &mut text);
        assert_eq!(text.len(), 200);
        let text = String::from_utf8(text).unwrap();
        let mut message = serde_json::json!({ "rows": [{ COLUMN: text }] }).to_string();
        for _ in 0..3 {
            assert_eq!(Probe::find(message.as_bytes()), Some(PROBE));
            message = serde_json::Value::from(message).to_string();
        }
        let error = format!("{{\"error\":\"{COLUMN} {text}\"}}");
        assert_eq!(Probe::find(error.as_bytes()), Some(PROBE));
    }

    #[test]
    fn what_only_looks_like_a_mark_is_none() {
        for text in [
            "",
            "probe",
            "probe 1",
            "probe 1.2",
            "probe 1.2.3",
            "probe 1..3.",
            "probe 99999999999999999999.1.2.",
            "probe 1.4294967296.3.",
        ] {
            assert_eq!(Probe::find(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn padding_holds_no_word_that_is_looked_for() {
        let long: Vec<u8> = padding(5, 3 * PADDING_LENGTH).flatten().copied().collect();
        assert_eq!(long.len(), 3 * PADDING_LENGTH);
        for word in ["probe", "seq"] {
            assert!(Finder::new(word).find(&long).is_none());
        }
        let other: Vec<u8> = padding(6, 64).flatten().copied().collect();
        assert!(other != long[..64]);
    }
}
