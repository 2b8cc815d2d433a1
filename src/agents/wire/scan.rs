//! JSON text cut into values in place: one pass, no recursion, nothing built.
//!
//! osquery writes JSON that strict parsers refuse (lone surrogate escapes, raw control characters), and an
//! answer must not be lost for it. So this reader checks what it relies on (strings end, brackets match, depth
//! is bounded) and leaves judgement of the rest to whoever looks at a value.

use std::borrow::Cow;

/// How deep values may nest. An agent's own bodies have four levels; a host's columns have none.
pub const DEPTH_MAX: u32 = 48;

/// Why a text cannot be cut into values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Not JSON, or cut short; at this byte.
    #[error("the body is not JSON or is cut short (byte {0})")]
    Syntax(usize),
    /// Nested deeper than [`DEPTH_MAX`].
    #[error("the body is nested deeper than {DEPTH_MAX} levels")]
    TooDeep,
}

/// One JSON value: the text from its first byte to its last. Strings in it end, and its brackets match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value<'a>(&'a str);

impl<'a> Value<'a> {
    /// The one value of a text.
    ///
    /// # Errors
    /// When it is no value, too deep, or followed by anything but white space.
    pub fn parse(text: &'a str) -> Result<Self, Fault> {
        let mut cursor = Cursor::new(text);
        let value = cursor.value()?;
        cursor.end()?;
        Ok(value)
    }

    /// Its text.
    #[must_use]
    pub const fn raw(self) -> &'a str {
        self.0
    }

    /// Whether it is `null`.
    #[must_use]
    pub fn is_null(self) -> bool {
        self.0 == "null"
    }

    /// What a string says; none for anything else. What is not Unicode becomes U+FFFD.
    #[must_use]
    pub fn text(self) -> Option<Cow<'a, str>> {
        let inner = self.0.strip_prefix('"')?.strip_suffix('"')?;
        Some(unescape(inner))
    }

    /// What a string, number or boolean says, as osquery means it: it sends numbers as either.
    #[must_use]
    pub fn scalar(self) -> Option<Cow<'a, str>> {
        match self.0.as_bytes().first()? {
            b'"' => self.text(),
            b'{' | b'[' | b'n' => None,
            _ => Some(Cow::Borrowed(self.0)),
        }
    }

    /// An integer, written as a number or as a string; a fraction is cut off.
    #[must_use]
    pub fn integer(self) -> Option<i64> {
        let text = self.scalar()?;
        let text = text.trim();
        text.parse().ok().or_else(|| {
            let float: f64 = text.parse().ok()?;
            // Saturates, and NaN is 0: better than losing the answer that it came with.
            #[expect(clippy::cast_possible_truncation, reason = "saturation is meant")]
            float.is_finite().then_some(float as i64)
        })
    }

    /// The members of an object; none for anything else.
    #[must_use]
    pub fn members(self) -> Option<Members<'a>> {
        self.0.starts_with('{').then(|| Members(Parts::new(self.0)))
    }

    /// The elements of an array; none for anything else.
    #[must_use]
    pub fn elements(self) -> Option<Elements<'a>> {
        self.0
            .starts_with('[')
            .then(|| Elements(Parts::new(self.0)))
    }
}

/// The members of an object, in order. Ends after the first fault.
#[derive(Debug)]
pub struct Members<'a>(Parts<'a>);

/// The elements of an array, in order. Ends after the first fault.
#[derive(Debug)]
pub struct Elements<'a>(Parts<'a>);

impl<'a> Iterator for Members<'a> {
    type Item = Result<(Cow<'a, str>, Value<'a>), Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        let parts = &mut self.0;
        parts.step(b'}', |cursor| {
            let key = cursor.key()?;
            Ok((key, cursor.value()?))
        })
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Result<Value<'a>, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.step(b']', Cursor::value)
    }
}

/// What lies between two brackets, with commas between.
#[derive(Debug)]
struct Parts<'a> {
    cursor: Cursor<'a>,
    done: bool,
}

impl<'a> Parts<'a> {
    fn new(text: &'a str) -> Self {
        let cursor = Cursor { text, at: 1 };
        Self {
            cursor,
            done: false,
        }
    }

    fn step<T>(
        &mut self,
        close: u8,
        part: impl FnOnce(&mut Cursor<'a>) -> Result<T, Fault>,
    ) -> Option<Result<T, Fault>> {
        if self.done {
            return None;
        }
        let cursor = &mut self.cursor;
        cursor.space();
        let first = cursor.at_first();
        if first && cursor.peek() == Some(close) {
            self.done = true;
            return None;
        }
        let part = part(cursor);
        cursor.space();
        let after = cursor.peek();
        cursor.at += 1;
        match (part, after) {
            (Ok(part), Some(b',')) => Some(Ok(part)),
            (Ok(part), Some(byte)) if byte == close => {
                self.done = true;
                Some(Ok(part))
            }
            (part, _) => {
                self.done = true;
                Some(Err(part.err().unwrap_or(Fault::Syntax(cursor.at - 1))))
            }
        }
    }
}

/// A place in a text.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) const fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// Reads the object here. `member` is called behind each colon and must read the value: so the members of a
    /// large object within an object are found in the same pass.
    pub(super) fn object(
        &mut self,
        mut member: impl FnMut(&mut Self, Cow<'a, str>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        self.expect(b'{')?;
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        loop {
            let key = self.key()?;
            member(self, key)?;
            self.space();
            let byte = self.peek();
            self.at += 1;
            match byte {
                Some(b',') => {}
                Some(b'}') => return Ok(()),
                _ => return Err(Fault::Syntax(self.at - 1)),
            }
        }
    }

    /// A key and its colon.
    fn key(&mut self) -> Result<Cow<'a, str>, Fault> {
        let key = self.value()?.text().ok_or(Fault::Syntax(self.at))?;
        self.expect(b':')?;
        Ok(key)
    }

    /// Nothing but white space may follow.
    pub(super) fn end(&mut self) -> Result<(), Fault> {
        self.space();
        if self.at < self.text.len() {
            return Err(Fault::Syntax(self.at));
        }
        Ok(())
    }

    /// Whether an object begins after any white space.
    pub(super) fn is_at_object(&mut self) -> bool {
        self.space();
        self.peek() == Some(b'{')
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        self.at += space_len(&self.text.as_bytes()[self.at.min(self.text.len())..]);
    }

    /// Whether nothing but white space lies between the opening bracket and here.
    fn at_first(&self) -> bool {
        1 + space_len(&self.text.as_bytes()[1..]) == self.at
    }

    fn expect(&mut self, byte: u8) -> Result<(), Fault> {
        self.space();
        if self.peek() != Some(byte) {
            return Err(Fault::Syntax(self.at));
        }
        self.at += 1;
        Ok(())
    }

    /// The value that begins after any white space.
    pub(super) fn value(&mut self) -> Result<Value<'a>, Fault> {
        self.space();
        let start = self.at;
        let bytes = self.text.as_bytes();
        match bytes.get(start) {
            Some(b'"') => self.at = string_end(bytes, start)?,
            Some(b'{' | b'[') => self.container()?,
            Some(_) => {
                let rest = bytes[start..].iter();
                let len = rest.take_while(|byte| is_scalar(**byte)).count();
                if len == 0 {
                    return Err(Fault::Syntax(start));
                }
                self.at = start + len;
            }
            None => return Err(Fault::Syntax(start)),
        }
        Ok(Value(&self.text[start..self.at]))
    }

    /// Moves behind the bracket that closes the one here. The open brackets are bits, 1 for an object.
    fn container(&mut self) -> Result<(), Fault> {
        let bytes = self.text.as_bytes();
        let (mut open, mut depth, mut at) = (0u64, 0, self.at);
        while let Some(byte) = bytes.get(at) {
            match byte {
                b'"' => {
                    at = string_end(bytes, at)?;
                    continue;
                }
                b'{' | b'[' => {
                    depth += 1;
                    if depth > DEPTH_MAX {
                        return Err(Fault::TooDeep);
                    }
                    open = open << 1 | u64::from(*byte == b'{');
                }
                b'}' | b']' => {
                    if (open & 1 == 1) != (*byte == b'}') {
                        return Err(Fault::Syntax(at));
                    }
                    open >>= 1;
                    depth -= 1;
                    if depth == 0 {
                        self.at = at + 1;
                        return Ok(());
                    }
                }
                _ => {}
            }
            at += 1;
        }
        Err(Fault::Syntax(at))
    }
}

/// The position behind the closing quote of the string whose opening quote is at `open`.
pub(super) fn string_end(bytes: &[u8], open: usize) -> Result<usize, Fault> {
    let mut at = open + 1;
    loop {
        at += plain_len(&bytes[at.min(bytes.len())..]);
        match bytes.get(at) {
            Some(b'"') => return Ok(at + 1),
            Some(b'\\') => at += 2,
            Some(_) => at += 1,
            None => return Err(Fault::Syntax(bytes.len())),
        }
    }
}

/// How many bytes from the start are string content that needs no look: no quote, backslash or control character.
#[inline]
pub(super) fn plain_len(bytes: &[u8]) -> usize {
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let found = special(u64::from_le_bytes(*word));
        if found != 0 {
            return index * 8 + (found.trailing_zeros() / 8) as usize;
        }
    }
    let plain = |byte: &u8| *byte >= 0x20 && *byte != b'"' && *byte != b'\\';
    words.len() * 8 + rest.iter().take_while(|byte| plain(byte)).count()
}

/// Marks the high bit of the first special byte of eight. Borrows may mark bytes above it, never below.
#[inline]
const fn special(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let quote = word ^ (ONES * b'"' as u64);
    let slash = word ^ (ONES * b'\\' as u64);
    let quote = quote.wrapping_sub(ONES) & !quote;
    let slash = slash.wrapping_sub(ONES) & !slash;
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    (quote | slash | control) & (ONES << 7)
}

/// How much white space the bytes begin with.
#[inline]
pub(super) fn space_len(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r'))
        .count()
}

/// Whether a byte may belong to a number or literal.
pub(super) const fn is_scalar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.')
}

/// One escape sequence at the start of `bytes`, which begin with a backslash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Escape {
    /// This character, from so many bytes.
    Char(char, usize),
    /// Half of a surrogate pair, from six bytes.
    Lone,
    /// Not JSON.
    Invalid,
}

pub(super) fn escape(bytes: &[u8]) -> Escape {
    let plain = |char| Escape::Char(char, 2);
    match bytes.get(1) {
        Some(b'"') => plain('"'),
        Some(b'\\') => plain('\\'),
        Some(b'/') => plain('/'),
        Some(b'b') => plain('\u{8}'),
        Some(b'f') => plain('\u{c}'),
        Some(b'n') => plain('\n'),
        Some(b'r') => plain('\r'),
        Some(b't') => plain('\t'),
        Some(b'u') => {
            let Some(high) = unit(bytes) else {
                return Escape::Invalid;
            };
            if let Some(char) = char::from_u32(high) {
                return Escape::Char(char, 6);
            }
            let low = bytes.get(6..).and_then(unit);
            let pair = low.filter(|low| high < 0xDC00 && (0xDC00..0xE000).contains(low));
            let char = pair
                .and_then(|low| char::from_u32(0x1_0000 + ((high - 0xD800) << 10) + low - 0xDC00));
            char.map_or(Escape::Lone, |char| Escape::Char(char, 12))
        }
        _ => Escape::Invalid,
    }
}

/// The UTF-16 unit of a `\uXXXX` at the start.
fn unit(bytes: &[u8]) -> Option<u32> {
    let hex = bytes.strip_prefix(b"\\u")?.get(..4)?;
    hex.iter().try_fold(0, |unit, digit| {
        Some(unit << 4 | char::from(*digit).to_digit(16)?)
    })
}

fn unescape(inner: &str) -> Cow<'_, str> {
    let Some(first) = memchr::memchr(b'\\', inner.as_bytes()) else {
        return Cow::Borrowed(inner);
    };
    let mut out = String::with_capacity(inner.len());
    out.push_str(&inner[..first]);
    let mut rest = &inner[first..];
    while !rest.is_empty() {
        // `rest` begins with a backslash: each round ends at the next one.
        let (char, used) = match escape(rest.as_bytes()) {
            Escape::Char(char, used) => (char, used),
            Escape::Lone => (char::REPLACEMENT_CHARACTER, 6),
            Escape::Invalid => (char::REPLACEMENT_CHARACTER, 1),
        };
        out.push(char);
        rest = &rest[used..];
        let next = memchr::memchr(b'\\', rest.as_bytes()).unwrap_or(rest.len());
        out.push_str(&rest[..next]);
        rest = &rest[next..];
    }
    Cow::Owned(out)
}

#[cfg(test)]
#[path = "scan_tests.rs"]
mod tests;
