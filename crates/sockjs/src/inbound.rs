//! Decoding what clients send: arrays of JSON strings, lenient where browsers need it.
//!
//! A JSON library will not do here: clients escape lone surrogates, which a strict decoder refuses
//! and which then costs them the connection. Here each becomes U+FFFD, and so does raw input that is
//! not UTF-8.

use serde::de::IgnoredAny;

/// The most messages one body may hold. A body of one million bytes could otherwise hold 300,000
/// empty ones, at 24 bytes of bookkeeping each.
pub const MESSAGES_MAX: usize = 65_536;

/// Why a body was refused. The session it was meant for goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no body, or no form field `d`.
    Empty,
    /// It is JSON, but neither an array nor, on a WebSocket, a string.
    NotAnArray,
    /// It is an array, but something in it is no string.
    NotStrings,
    /// It is no JSON.
    Broken,
    /// More than [`MESSAGES_MAX`] messages.
    TooMany,
}

impl Refusal {
    /// The HTTP status of the answer. 500 is what the protocol's suite asks for.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Refusal::TooMany => 413,
            _ => 500,
        }
    }

    /// The body of the answer.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Refusal::Empty | Refusal::NotAnArray => "Payload expected.",
            Refusal::NotStrings => "Payload expected. Every message must be a string.",
            Refusal::Broken => "Broken JSON encoding.",
            Refusal::TooMany => "Too many messages in one request.",
        }
    }
}

/// The messages in the body of an `xhr_send`.
///
/// # Errors
/// See [`Refusal`].
pub fn decode_xhr_send(body: &[u8]) -> Result<Vec<String>, Refusal> {
    if body.is_empty() {
        return Err(Refusal::Empty);
    }
    decode_array(body)
}

/// The messages in the body of a `jsonp_send`: field `d` of a form, or else the body itself.
///
/// # Errors
/// See [`Refusal`].
pub fn decode_jsonp_send(content_type: Option<&str>, body: &[u8]) -> Result<Vec<String>, Refusal> {
    const FORM: &str = "application/x-www-form-urlencoded";
    let media_type = content_type.and_then(|value| value.split(';').next());
    if media_type.is_some_and(|found| found.trim().eq_ignore_ascii_case(FORM)) {
        return decode_xhr_send(&form_field(body, b"d").unwrap_or_default());
    }
    decode_xhr_send(body)
}

/// The messages in one text message of a framed WebSocket: an array, or one bare string. An empty
/// text holds none.
///
/// # Errors
/// See [`Refusal`]; the connection ends.
pub fn decode_socket(text: &[u8]) -> Result<Vec<String>, Refusal> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let mut cursor = Cursor { text, at: 0 };
    if cursor.peek() != Some(b'"') {
        return decode_array(text);
    }
    let message = cursor.string().ok_or(Refusal::Broken)?;
    match cursor.peek() {
        None => Ok(vec![message]),
        Some(_) => Err(Refusal::Broken),
    }
}

fn decode_array(text: &[u8]) -> Result<Vec<String>, Refusal> {
    let mut cursor = Cursor { text, at: 0 };
    if !cursor.eat(b'[') {
        return Err(json_or_broken(text, Refusal::NotAnArray));
    }
    let mut messages = Vec::new();
    if !cursor.eat(b']') {
        loop {
            if cursor.peek() != Some(b'"') {
                return Err(json_or_broken(text, Refusal::NotStrings));
            }
            if messages.len() == MESSAGES_MAX {
                return Err(Refusal::TooMany);
            }
            messages.push(cursor.string().ok_or(Refusal::Broken)?);
            if cursor.eat(b']') {
                break;
            }
            if !cursor.eat(b',') {
                return Err(Refusal::Broken);
            }
        }
    }
    match cursor.peek() {
        None => Ok(messages),
        Some(_) => Err(Refusal::Broken),
    }
}

/// `refusal` if the text is JSON at all. The parser skips values without recursion or allocation
/// for each level, and depth is bounded by the size of the body.
fn json_or_broken(text: &[u8], refusal: Refusal) -> Refusal {
    match serde_json::from_slice::<IgnoredAny>(text) {
        Ok(_) => refusal,
        Err(_) => Refusal::Broken,
    }
}

struct Cursor<'t> {
    text: &'t [u8],
    at: usize,
}

impl Cursor<'_> {
    /// The next byte that is not white space, without taking it.
    fn peek(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.text.get(self.at) {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    fn eat(&mut self, wanted: u8) -> bool {
        let found = self.peek() == Some(wanted);
        self.at += usize::from(found);
        found
    }

    /// Takes a string literal; the cursor stands on its quotation mark.
    fn string(&mut self) -> Option<String> {
        self.at += 1;
        let mut out: Vec<u8> = Vec::new();
        loop {
            let rest = self.text.get(self.at..)?;
            let run = rest
                .iter()
                .position(|&b| b == b'"' || b == b'\\' || b < 0x20)?;
            out.extend_from_slice(&rest[..run]);
            self.at += run + 1;
            match rest[run] {
                b'"' => break,
                b'\\' => self.escape(&mut out)?,
                _ => return None,
            }
        }
        Some(
            String::from_utf8(out)
                .unwrap_or_else(|bad| String::from_utf8_lossy(bad.as_bytes()).into_owned()),
        )
    }

    /// Takes the rest of an escape; the cursor stands behind its backslash.
    fn escape(&mut self, out: &mut Vec<u8>) -> Option<()> {
        let letter = *self.text.get(self.at)?;
        self.at += 1;
        out.push(match letter {
            b'"' | b'\\' | b'/' => letter,
            b'b' => 0x08,
            b't' => b'\t',
            b'n' => b'\n',
            b'f' => 0x0C,
            b'r' => b'\r',
            b'u' => {
                let character = self.code_point()?;
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                return Some(());
            }
            _ => return None,
        });
        Some(())
    }

    /// One code point from one `\uXXXX` or a pair of them; half a pair is U+FFFD.
    fn code_point(&mut self) -> Option<char> {
        let unit = self.unit()?;
        if let high @ 0xD800..=0xDBFF = unit
            && self.text.get(self.at..self.at + 2) == Some(b"\\u")
        {
            let before = self.at;
            self.at += 2;
            let low = self.unit()?;
            if let 0xDC00..=0xDFFF = low {
                return char::from_u32(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00));
            }
            // The second escape is a character of its own and is read again.
            self.at = before;
        }
        Some(char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    fn unit(&mut self) -> Option<u32> {
        let digits = self.text.get(self.at..self.at + 4)?;
        self.at += 4;
        digits.iter().try_fold(0, |unit, &digit| {
            Some(unit << 4 | char::from(digit).to_digit(16)?)
        })
    }
}

/// The value of a field in a form, percent-decoded; `+` is a space.
fn form_field(body: &[u8], name: &[u8]) -> Option<Vec<u8>> {
    let mut pairs = body.split(|&byte| byte == b'&');
    let raw = pairs.find_map(|pair| pair.strip_prefix(name)?.strip_prefix(b"="))?;
    let spaced: Vec<u8> = raw
        .iter()
        .map(|&byte| if byte == b'+' { b' ' } else { byte })
        .collect();
    Some(percent_encoding::percent_decode(&spaced).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decoded(body: &str) -> Result<Vec<String>, Refusal> {
        decode_xhr_send(body.as_bytes())
    }

    #[test]
    fn arrays_of_strings_are_taken_with_any_white_space() {
        assert_eq!(decoded("[]"), Ok(vec![]));
        assert_eq!(decoded(" [ ] \n"), Ok(vec![]));
        assert_eq!(
            decoded("\r\n[ \"a\" ,\t\"b\" ]\n"),
            Ok(vec!["a".into(), "b".into()])
        );
        assert_eq!(
            decoded(r#"["\u0061\/\"\\\b\f\n\r\t"]"#),
            Ok(vec!["a/\"\\\u{8}\u{c}\n\r\t".into()])
        );
    }

    #[test]
    fn refusals_tell_broken_from_unexpected() {
        for (body, refusal) in [
            ("", Refusal::Empty),
            ("\"a\"", Refusal::NotAnArray),
            ("{}", Refusal::NotAnArray),
            ("1", Refusal::NotAnArray),
            ("null", Refusal::NotAnArray),
            ("[1]", Refusal::NotStrings),
            ("[\"a\", null]", Refusal::NotStrings),
            ("[[\"a\"]]", Refusal::NotStrings),
            ("[\"x", Refusal::Broken),
            ("[\"x\"", Refusal::Broken),
            ("[\"x\",]", Refusal::Broken),
            ("[\"x\"] y", Refusal::Broken),
            ("[\"\\x\"]", Refusal::Broken),
            ("[\"\\u12\"]", Refusal::Broken),
            ("[\"\\ud800\\u12\"]", Refusal::Broken),
            ("[\"a\nb\"]", Refusal::Broken),
            ("\"a", Refusal::Broken),
            ("[1", Refusal::Broken),
            ("    ", Refusal::Broken),
            ("\u{feff}[]", Refusal::Broken),
        ] {
            assert_eq!(decoded(body), Err(refusal), "{body}");
        }
        assert_eq!(Refusal::Broken.text(), "Broken JSON encoding.");
        assert_eq!(Refusal::NotAnArray.status(), 500);
    }

    #[test]
    fn half_a_surrogate_pair_becomes_the_replacement_character() {
        assert_eq!(
            decoded(r#"["\ud83d\ude00","\ud800","\udfffx","\ud800\u0041","\ud800\ud83d\ude00"]"#),
            Ok(vec![
                "\u{1F600}".into(),
                "\u{FFFD}".into(),
                "\u{FFFD}x".into(),
                "\u{FFFD}A".into(),
                "\u{FFFD}\u{1F600}".into(),
            ])
        );
    }

    #[test]
    fn every_unit_can_be_escaped() {
        for unit in 0..=0xFFFF_u32 {
            let expected = char::from_u32(unit).unwrap_or('\u{FFFD}').to_string();
            assert_eq!(decoded(&format!("[\"\\u{unit:04x}\"]")), Ok(vec![expected]));
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced() {
        assert_eq!(
            decode_xhr_send(b"[\"a\xff\xc3\"]"),
            Ok(vec!["a\u{FFFD}\u{FFFD}".into()])
        );
    }

    #[test]
    fn deep_nesting_and_endless_arrays_are_refused() {
        let deep = "[".repeat(100_000);
        assert_eq!(decoded(&deep), Err(Refusal::Broken));
        let closed = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(decoded(&closed), Err(Refusal::NotStrings));
        let many = format!("[{}\"\"]", "\"\",".repeat(MESSAGES_MAX));
        assert_eq!(decoded(&many), Err(Refusal::TooMany));
    }

    #[test]
    fn a_form_carries_the_messages_in_its_field_d() {
        const FORM: Option<&str> = Some("application/x-www-form-urlencoded; charset=UTF-8");
        let taken = |body: &str| decode_jsonp_send(FORM, body.as_bytes());
        assert_eq!(taken("d=%5B%22a+b%2B%22%5D"), Ok(vec!["a b+".into()]));
        assert_eq!(taken("x=1&d=[\"é\"]&y"), Ok(vec!["é".into()]));
        for empty in ["", "d", "d=", "dd=[]", "e=[\"a\"]"] {
            assert_eq!(taken(empty), Err(Refusal::Empty), "{empty}");
        }
        assert_eq!(taken("d=%5B"), Err(Refusal::Broken));
        let plain = |kind| decode_jsonp_send(kind, br#"["%61bc"]"#);
        assert_eq!(plain(None), Ok(vec!["%61bc".into()]));
        assert_eq!(plain(Some("text/plain")), Ok(vec!["%61bc".into()]));
    }

    #[test]
    fn a_socket_may_send_one_bare_string_or_nothing() {
        assert_eq!(decode_socket(b""), Ok(vec![]));
        assert_eq!(decode_socket(b"[]"), Ok(vec![]));
        assert_eq!(decode_socket(b"\"a\""), Ok(vec!["a".into()]));
        assert_eq!(decode_socket(b"[\"a\",\"b\"]").map(|all| all.len()), Ok(2));
        assert_eq!(decode_socket(b"\"a\" \"b\""), Err(Refusal::Broken));
        assert_eq!(decode_socket(b"[\"a"), Err(Refusal::Broken));
        assert_eq!(decode_socket(b"{}"), Err(Refusal::NotAnArray));
    }

    proptest! {
        #[test]
        fn whatever_a_json_writer_writes_is_read_back(messages in proptest::collection::vec("(?s).{0,40}", 0..8)) {
            let body = serde_json::to_string(&messages).unwrap();
            prop_assert_eq!(decoded(&body), Ok(messages));
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(body in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode_socket(&body);
            let _ = decode_xhr_send(&body);
            let _ = decode_jsonp_send(Some("application/x-www-form-urlencoded"), &body);
        }

        #[test]
        fn agrees_with_a_strict_parser_about_what_is_json(body in r#"[\[\]",a\\u0d8 ]{0,12}"#) {
            if let Ok(strict) = serde_json::from_str::<Vec<String>>(&body) {
                prop_assert_eq!(decoded(&body), Ok(strict));
            }
        }
    }
}
