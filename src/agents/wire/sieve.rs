//! Reads a body that cannot be taken whole in constant memory, and keeps the parts of it that can.
//!
//! osquery sends the answers of all its queries together and again until they are taken, so one answer that is too
//! large would hold back all others for ever. The sieve goes over the body as it arrives, copies what fits into a body
//! that is well formed, and says which queries it had to leave out and why.

use std::borrow::Cow;

use super::scan::{DEPTH_MAX, Value, is_scalar, plain_len};

/// Bytes that the members beside the items (node key, statuses, messages, stats) may take when the items take all of
/// theirs.
const BESIDE_BYTES: usize = 1 << 20;
/// Bytes of a name. SQL names what it likes; a query's name is ours and short.
const NAME_BYTES: usize = 4 << 10;
/// Names that are kept of items that were left out. An agent has at most as many queries as campaigns are active.
const OMITTED_MAX: usize = 4096;

/// Which member of a body holds the items, each of which is kept or left out as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Items {
    /// The members of the object `queries`.
    Queries,
    /// The elements of the list `data`.
    Data,
}

impl Items {
    const fn key(self) -> &'static [u8] {
        match self {
            Self::Queries => b"\"queries\"",
            Self::Data => b"\"data\"",
        }
    }

    const fn brackets(self) -> (u8, u8) {
        match self {
            Self::Queries => (b'{', b'}'),
            Self::Data => (b'[', b']'),
        }
    }
}

/// Why an item was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It has this many bytes, or with those before it the body would have more than it may.
    TooLarge(u64),
    /// It is nested deeper than [`DEPTH_MAX`].
    TooDeep,
    /// The body ended, or stopped being JSON, within it.
    Cut,
}

/// An item that was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Omitted {
    /// The query's name; empty for an element of a list.
    pub name: String,
    /// Why.
    pub reason: Reason,
}

/// What is left of a body.
#[derive(Debug)]
pub struct Sieved {
    /// A well-formed body with what fits.
    pub body: Vec<u8>,
    /// The items that are not in it, in their order.
    pub omitted: Vec<Omitted>,
    /// Further ones, whose names are not kept.
    pub more: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before the body's opening bracket.
    Start,
    /// Between the members of an object or the elements of a list.
    Between,
    Name {
        escaped: bool,
    },
    Colon,
    /// Before a value.
    Before,
    Within(Nesting),
    /// Behind the body's closing bracket, or behind a fault.
    Done,
}

/// Where in a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Nesting {
    depth: u32,
    /// The open brackets, the innermost lowest; 1 for an object.
    objects: u64,
    string: bool,
    escaped: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Sieve {
    items: Items,
    /// Bytes that the items may take together.
    room: usize,
    state: State,
    /// Whether the member at hand belongs to the items.
    in_items: bool,
    out: Vec<u8>,
    /// Where in `out` the member at hand begins, its comma included.
    start: usize,
    /// The name of the member at hand, with its quotation marks.
    name: Vec<u8>,
    /// The bytes of its value so far.
    size: u64,
    /// Why it is left out, once that is known.
    reason: Option<Reason>,
    omitted: Vec<Omitted>,
    more: u64,
}

impl Sieve {
    /// A sieve whose items take at most `room` bytes.
    #[must_use]
    pub const fn new(items: Items, room: usize) -> Self {
        Self {
            items,
            room,
            state: State::Start,
            in_items: false,
            out: Vec::new(),
            start: 0,
            name: Vec::new(),
            size: 0,
            reason: None,
            omitted: Vec::new(),
            more: 0,
        }
    }

    /// Takes the next bytes of the body.
    pub fn push(&mut self, bytes: &[u8]) {
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            at += match self.state {
                State::Within(nesting) => self.within(nesting, &bytes[at..]),
                State::Done => return,
                State::Name { escaped } => self.name(escaped, *byte),
                _ if byte.is_ascii_whitespace() => 1,
                State::Start => self.open(*byte),
                State::Between => self.between(*byte),
                State::Colon => self.colon(*byte),
                State::Before => self.before(*byte),
            };
        }
    }

    /// Bytes that are held.
    #[must_use]
    pub const fn held(&self) -> usize {
        self.out.len() + self.name.len()
    }

    /// What is left of the body, which ends here.
    #[must_use]
    pub fn finish(mut self) -> Sieved {
        if self.state != State::Done {
            self.break_off();
        }
        Sieved {
            body: self.out,
            omitted: self.omitted,
            more: self.more,
        }
    }

    fn open(&mut self, byte: u8) -> usize {
        if byte == b'{' {
            self.out.push(byte);
            self.state = State::Between;
        } else {
            self.break_off();
        }
        1
    }

    /// The body ends here or is no JSON from here on: leaves the member at hand out and closes what is open.
    fn break_off(&mut self) {
        if !matches!(self.state, State::Start | State::Between) {
            self.reason = Some(Reason::Cut);
            self.end_value();
        }
        if self.in_items {
            self.out.push(self.items.brackets().1);
            self.in_items = false;
        }
        if self.out.is_empty() {
            self.out.push(b'{');
        }
        self.out.push(b'}');
        self.state = State::Done;
    }

    fn is_list(&self) -> bool {
        self.in_items && self.items == Items::Data
    }

    fn between(&mut self, byte: u8) -> usize {
        let closing = if self.in_items {
            self.items.brackets().1
        } else {
            b'}'
        };
        if byte == b',' {
            return 1;
        }
        if byte == closing {
            self.out.push(byte);
            if self.in_items {
                self.in_items = false;
            } else {
                self.state = State::Done;
            }
            return 1;
        }
        self.start = self.out.len();
        self.name.clear();
        self.reason = None;
        self.size = 0;
        // Only a bracket that is still open can be the last byte: values end with a quotation mark, a closing one, or a
        // scalar's character.
        if !matches!(self.out.last(), Some(b'{' | b'[')) {
            self.out.push(b',');
        }
        if self.is_list() {
            self.state = State::Before;
            return 0;
        }
        if byte != b'"' {
            self.out.truncate(self.start);
            self.break_off();
            return 1;
        }
        self.name.push(byte);
        self.state = State::Name { escaped: false };
        1
    }

    fn name(&mut self, escaped: bool, byte: u8) -> usize {
        if self.name.len() < NAME_BYTES {
            self.name.push(byte);
        } else {
            self.reason = Some(Reason::TooLarge(0));
        }
        self.state = match byte {
            b'"' if !escaped => State::Colon,
            _ => State::Name {
                escaped: byte == b'\\' && !escaped,
            },
        };
        1
    }

    fn colon(&mut self, byte: u8) -> usize {
        if byte != b':' {
            self.break_off();
            return 1;
        }
        self.out.extend_from_slice(&self.name);
        self.out.push(byte);
        self.state = State::Before;
        1
    }

    fn before(&mut self, byte: u8) -> usize {
        if !self.in_items && self.name == self.items.key() && byte == self.items.brackets().0 {
            self.out.push(byte);
            self.in_items = true;
            self.state = State::Between;
            return 1;
        }
        if !(byte == b'"' || byte == b'{' || byte == b'[' || is_scalar(byte)) {
            self.break_off();
            return 1;
        }
        self.state = State::Within(Nesting::default());
        0
    }

    /// Goes on within a value; how many of the bytes it used.
    fn within(&mut self, mut nesting: Nesting, bytes: &[u8]) -> usize {
        let byte = bytes[0];
        let mut used = 1;
        let mut ends = false;
        if nesting.string {
            match plain_len(bytes) {
                0 if nesting.escaped => nesting.escaped = false,
                0 if byte == b'\\' => nesting.escaped = true,
                0 if byte == b'"' => {
                    nesting.string = false;
                    ends = nesting.depth == 0;
                }
                0 => {}
                _ if nesting.escaped => nesting.escaped = false,
                plain => used = plain,
            }
        } else {
            match byte {
                // Behind a scalar.
                _ if nesting.depth == 0 && self.size > 0 && !is_scalar(byte) => {
                    self.end_value();
                    return 0;
                }
                b'"' => nesting.string = true,
                b'{' | b'[' => {
                    nesting.depth += 1;
                    nesting.objects = nesting.objects << 1 | u64::from(byte == b'{');
                    if nesting.depth > DEPTH_MAX - 2 {
                        self.reason.get_or_insert(Reason::TooDeep);
                    }
                }
                b'}' | b']' if nesting.depth > 0 => {
                    let matches = (nesting.objects & 1 == 1) == (byte == b'}');
                    // Which brackets are open is not known beyond the depth that is read.
                    if !matches && self.reason != Some(Reason::TooDeep) {
                        self.break_off();
                        return 1;
                    }
                    nesting.objects >>= 1;
                    nesting.depth -= 1;
                    ends = nesting.depth == 0;
                }
                _ => {}
            }
        }
        self.keep(&bytes[..used]);
        self.state = State::Within(nesting);
        if ends {
            self.end_value();
        }
        used
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.size += bytes.len() as u64;
        let room = self.room + if self.in_items { 0 } else { BESIDE_BYTES };
        if self.reason.is_none() && self.out.len() + bytes.len() > room {
            self.reason = Some(Reason::TooLarge(0));
        }
        if self.reason.is_none() {
            self.out.extend_from_slice(bytes);
        } else {
            self.out.truncate(self.start);
        }
    }

    fn end_value(&mut self) {
        self.state = State::Between;
        let Some(reason) = self.reason.take() else {
            return;
        };
        self.out.truncate(self.start);
        if !self.in_items {
            return;
        }
        let reason = match reason {
            Reason::TooLarge(_) => Reason::TooLarge(self.size),
            reason => reason,
        };
        if self.omitted.len() >= OMITTED_MAX {
            self.more += 1;
            return;
        }
        let name = String::from_utf8_lossy(&self.name);
        let name = Value::parse(&name).ok().and_then(Value::text);
        let name = name.map(Cow::into_owned).unwrap_or_default();
        self.omitted.push(Omitted { name, reason });
    }
}

#[cfg(test)]
#[path = "sieve_tests.rs"]
mod tests;
