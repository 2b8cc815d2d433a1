//! A host's rows on their way into the log: checked, made strings, and copied once.

use super::scan::{Escape, Value, escape, is_scalar, plain_len, space_len, string_end};

/// The columns that the product adds to each row; a host's own columns of these names are dropped.
pub const RESERVED: [&str; 2] = ["host_hostname", "host_display_name"];

/// Columns of a row: as many as a query can have (SQLite's `SQLITE_MAX_COLUMN`).
const COLUMNS_MAX: usize = 2_000;

/// Why rows cannot be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowsFault {
    /// Not an array of objects and nulls.
    #[error("the rows are not a list of objects")]
    NotRows,
    /// A column that is an object or a list.
    #[error("a column holds more than one value")]
    Nested,
    /// More columns than a query can have.
    #[error("a row has more than {COLUMNS_MAX} columns")]
    TooWide,
    /// Not JSON.
    #[error("the rows are not JSON")]
    Syntax,
    /// More bytes than an answer may have.
    #[error("the rows are too large")]
    TooLarge,
}

/// Appends `value`, a list of rows, to `out` as the log keeps it: null rows and [`RESERVED`] columns dropped, scalars
/// made strings (null an empty one), no white space between tokens, `columns` (`"name":"value",...`) appended to
/// each row. Strings keep their escapes; what is not Unicode becomes U+FFFD. `out` may be left with a part on error.
///
/// # Errors
/// When the value is no list of flat rows, or `out` would grow beyond `bytes_max`.
pub fn write_rows(
    value: Value<'_>,
    columns: &[u8],
    bytes_max: usize,
    out: &mut Vec<u8>,
) -> Result<(), RowsFault> {
    let src = value.raw().as_bytes();
    if src.first() != Some(&b'[') {
        return Err(RowsFault::NotRows);
    }
    out.push(b'[');
    let mut copy = Copy {
        src,
        at: 1,
        from: 1,
        out,
    };
    let mut first = true;
    copy.space();
    if copy.peek() != Some(b']') {
        loop {
            copy.row(columns, &mut first)?;
            if copy.out.len() > bytes_max {
                return Err(RowsFault::TooLarge);
            }
            copy.space();
            match copy.peek() {
                Some(b',') => copy.skip_to(copy.at + 1),
                Some(b']') => break,
                _ => return Err(RowsFault::Syntax),
            }
            copy.space();
        }
    }
    // Behind the bracket that a value ends with there is nothing.
    out.push(b']');
    Ok(())
}

/// Appends `value` to `out` without white space between tokens, so that it is one line, and with its strings mended.
///
/// # Errors
/// When it is not JSON.
pub fn write_compact(value: Value<'_>, out: &mut Vec<u8>) -> Result<(), RowsFault> {
    let start = out.len();
    let src = value.raw().as_bytes();
    let mut copy = Copy {
        src,
        at: 0,
        from: 0,
        out,
    };
    while let Some(byte) = copy.peek() {
        match byte {
            b'"' => copy.string()?,
            b' ' | b'\t' | b'\n' | b'\r' => {
                let before = copy.at.checked_sub(1).map(|at| src[at]);
                copy.space();
                // Without the space between them these would become one token.
                if before.is_some_and(is_scalar) && copy.peek().is_some_and(is_scalar) {
                    return Err(RowsFault::Syntax);
                }
            }
            _ => copy.at += 1,
        }
    }
    copy.flush();
    // Its depth is bounded, so that the parser's recursion is too.
    serde_json::from_slice::<serde::de::IgnoredAny>(&out[start..])
        .map(|_| ())
        .map_err(|_| RowsFault::Syntax)
}

/// Copies runs of unchanged bytes as long as it can: compact rows of strings are one run each.
struct Copy<'a> {
    src: &'a [u8],
    at: usize,
    /// What lies between here and `at` is still to be copied.
    from: usize,
    out: &'a mut Vec<u8>,
}

impl Copy<'_> {
    #[inline]
    fn peek(&self) -> Option<u8> {
        self.src.get(self.at).copied()
    }

    #[inline]
    fn flush(&mut self) {
        self.out.extend_from_slice(&self.src[self.from..self.at]);
        self.from = self.at;
    }

    /// Moves to `at` without copying what lies between.
    fn skip_to(&mut self, at: usize) {
        self.at = at;
        self.from = at;
    }

    /// Leaves white space out.
    #[inline]
    fn space(&mut self) {
        let space = space_len(&self.src[self.at..]);
        if space > 0 {
            self.flush();
            self.skip_to(self.at + space);
        }
    }

    /// One row or null, with the comma before it.
    fn row(&mut self, columns: &[u8], first: &mut bool) -> Result<(), RowsFault> {
        match self.peek() {
            Some(b'{') => {}
            Some(b'n') => return self.literal(b"null"),
            Some(b'"' | b'[' | b't' | b'f' | b'-' | b'0'..=b'9') => return Err(RowsFault::NotRows),
            _ => return Err(RowsFault::Syntax),
        }
        if !std::mem::take(first) {
            self.out.push(b',');
        }
        self.from = self.at;
        self.at += 1;
        self.space();
        if self.peek() != Some(b'}') {
            self.columns()?;
        }
        self.flush();
        // Columns that were kept end with a quote; after a dropped one there is a comma or the brace.
        if self.out.last() == Some(&b'"') {
            self.out.push(b',');
        }
        self.out.extend_from_slice(columns);
        self.out.push(b'}');
        self.skip_to(self.at + 1);
        Ok(())
    }

    /// All columns up to the closing brace.
    fn columns(&mut self) -> Result<(), RowsFault> {
        for _ in 0..COLUMNS_MAX {
            if self.peek() != Some(b'"') {
                return Err(RowsFault::Syntax);
            }
            let reserved = self.is_reserved()?;
            if reserved {
                self.flush();
            }
            let kept = self.out.len();
            self.column()?;
            if reserved {
                self.flush();
                self.out.truncate(kept);
            }
            self.space();
            match self.peek() {
                Some(b',') => {
                    self.at += 1;
                    if reserved {
                        self.skip_to(self.at);
                    }
                }
                Some(b'}') => return Ok(()),
                _ => return Err(RowsFault::Syntax),
            }
            self.space();
        }
        Err(RowsFault::TooWide)
    }

    /// A key, a colon and a scalar.
    #[inline]
    fn column(&mut self) -> Result<(), RowsFault> {
        self.string()?;
        self.space();
        if self.peek() != Some(b':') {
            return Err(RowsFault::Syntax);
        }
        self.at += 1;
        self.space();
        match self.peek() {
            Some(b'"') => self.string(),
            Some(b'-' | b'0'..=b'9') => self.quoted(),
            Some(b't') => self.quoted_literal(b"true"),
            Some(b'f') => self.quoted_literal(b"false"),
            Some(b'n') => {
                self.flush();
                self.out.extend_from_slice(br#""""#);
                self.literal(b"null")
            }
            Some(b'{' | b'[') => Err(RowsFault::Nested),
            _ => Err(RowsFault::Syntax),
        }
    }

    /// A string; copied as it is, but for what no JSON reader would take.
    #[inline]
    fn string(&mut self) -> Result<(), RowsFault> {
        self.at += 1;
        loop {
            self.at += plain_len(&self.src[self.at..]);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') if self.is_at_short_escape() => self.at += 2,
                Some(b'\\') => match escape(&self.src[self.at..]) {
                    Escape::Char(_, used) => self.at += used,
                    Escape::Lone => self.replace(6, br"\ufffd"),
                    Escape::Invalid => return Err(RowsFault::Syntax),
                },
                Some(control) => {
                    let digits = b"0123456789abcdef";
                    let low = digits[usize::from(control & 15)];
                    let high = digits[usize::from(control >> 4)];
                    self.replace(1, &[b'\\', b'u', b'0', b'0', high, low]);
                }
                None => return Err(RowsFault::Syntax),
            }
        }
    }

    /// Whether the backslash here begins an escape of two bytes: nearly all do.
    #[inline]
    fn is_at_short_escape(&self) -> bool {
        let next = self.src.get(self.at + 1);
        next.is_some_and(|byte| br#""\/bfnrt"#.contains(byte))
    }

    /// Copies `with` instead of the next `len` bytes.
    fn replace(&mut self, len: usize, with: &[u8]) {
        self.flush();
        self.out.extend_from_slice(with);
        self.skip_to(self.at + len);
    }

    /// A number, between quotes.
    fn quoted(&mut self) -> Result<(), RowsFault> {
        let rest = &self.src[self.at..];
        let len = rest.iter().take_while(|byte| is_scalar(**byte)).count();
        let number = rest[..len].iter();
        if !number.clone().any(u8::is_ascii_digit) || number.clone().any(is_no_number) {
            return Err(RowsFault::Syntax);
        }
        self.flush();
        self.out.push(b'"');
        self.at += len;
        self.flush();
        self.out.push(b'"');
        Ok(())
    }

    fn quoted_literal(&mut self, literal: &[u8]) -> Result<(), RowsFault> {
        self.flush();
        self.out.push(b'"');
        self.out.extend_from_slice(literal);
        self.out.push(b'"');
        self.literal(literal)
    }

    /// Passes over a literal without copying it.
    fn literal(&mut self, literal: &[u8]) -> Result<(), RowsFault> {
        let rest = &self.src[self.at..];
        let after = rest.get(literal.len());
        if !rest.starts_with(literal) || after.is_some_and(|byte| is_scalar(*byte)) {
            return Err(RowsFault::Syntax);
        }
        self.skip_to(self.at + literal.len());
        Ok(())
    }

    /// Whether the key here is one of [`RESERVED`], however it is written.
    fn is_reserved(&self) -> Result<bool, RowsFault> {
        let rest = &self.src[self.at + 1..];
        // Every spelling of a reserved name begins like this.
        if !matches!(rest.first(), Some(b'h' | b'\\')) {
            return Ok(false);
        }
        let end = string_end(self.src, self.at).map_err(|_| RowsFault::Syntax)?;
        let raw = std::str::from_utf8(&self.src[self.at..end]);
        let key = raw.ok().and_then(|raw| Value::parse(raw).ok()?.text());
        Ok(key.is_some_and(|key| RESERVED.contains(&&*key)))
    }
}

fn is_no_number(byte: &u8) -> bool {
    byte.is_ascii_alphabetic() && !matches!(byte, b'e' | b'E')
}

#[cfg(test)]
#[path = "rows_tests.rs"]
mod tests;
