//! Texts of bytes, and characters that have no place in a name.

use std::fmt::Write as _;

/// Bytes as two hexadecimal digits each.
#[must_use]
pub fn hex(bytes: impl AsRef<[u8]>) -> String {
    let bytes = bytes.as_ref();
    let mut hex = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

/// Whether a character shows nothing, or changes how its neighbours are shown: control characters, line separators,
/// most zero-width characters (not the joiners, which scripts and emoji need) and those that turn the direction of writing (Unicode's `Bidi_Control`).
#[must_use]
pub fn is_hidden(char: char) -> bool {
    char.is_control()
        || matches!(
            char,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_two_digits_each() {
        assert_eq!(hex([0, 0x0a, 0xff]), "000aff");
    }

    #[test]
    fn what_deceives_is_hidden_and_what_people_write_is_not() {
        for hidden in "\0\n\u{7f}\u{85}\u{200b}\u{200e}\u{202e}\u{2066}\u{2069}\u{feff}".chars() {
            assert!(is_hidden(hidden), "{hidden:?}");
        }
        assert!(!"web-1.Büro 東京 שלום مرحبا \u{a0}🖥".chars().any(is_hidden));
    }
}
