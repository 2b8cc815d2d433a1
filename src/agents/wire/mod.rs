//! The JSON that osquery sends, and the one copy in which a host's answer becomes part of a log.

pub mod answer;
pub mod rows;
pub mod scan;
pub mod sieve;

use std::borrow::Cow;

use bytes::Bytes;

use crate::limits::AGENT_QUERIES;
use crate::telemetry::metrics::names;
use scan::Cursor;
pub use scan::{Fault, Value};

/// A request body as text. What is not UTF-8 becomes U+FFFD: no answer is lost for it.
#[must_use]
pub fn text(body: &Bytes) -> Cow<'_, str> {
    // The strict check is several times as fast as the lossy one, and nearly always enough.
    match std::str::from_utf8(body) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => String::from_utf8_lossy(body),
    }
}

/// The node key of a body; nothing else of it is kept. For bodies so large that their sender should be known before more
/// is made of them.
///
/// # Errors
/// When the body is not well formed.
pub fn node_key(text: &str) -> Result<Option<Cow<'_, str>>, Fault> {
    let mut found = None;
    let mut cursor = Cursor::new(text);
    cursor.object(|cursor, key| {
        let value = cursor.value()?;
        if key == "node_key" {
            found = value.text();
        }
        Ok(())
    })?;
    Ok(found)
}

/// What every body but an enrolment's has: a node key, and other members.
#[derive(Debug, Default)]
pub struct Body<'a> {
    /// The agent's key, if it is a string.
    pub node_key: Option<Cow<'a, str>>,
    /// Why nothing after the members could be read. The key is judged first, if it came before.
    pub fault: Option<Fault>,
    /// The members of `queries`, where answers are: nearly all of a large body, so it is gone through once.
    pub queries: Vec<(Cow<'a, str>, Value<'a>)>,
    members: Vec<(Cow<'a, str>, Value<'a>)>,
}

/// No body of osquery has as many members.
const MEMBERS_MAX: usize = 64;

impl<'a> Body<'a> {
    /// Cuts a body into its members.
    #[must_use]
    pub fn parse(text: &'a str) -> Self {
        let mut body = Self::default();
        let mut cursor = Cursor::new(text);
        let read = cursor.object(|cursor, key| body.take(cursor, key));
        body.fault = read.and_then(|()| cursor.end()).err();
        body
    }

    fn take(&mut self, cursor: &mut Cursor<'a>, key: Cow<'a, str>) -> Result<(), Fault> {
        if key == "queries" && cursor.is_at_object() {
            return cursor.object(|cursor, name| {
                let value = cursor.value()?;
                if self.queries.len() < AGENT_QUERIES {
                    self.queries.push((name, value));
                } else {
                    metrics::counter!(names::AGENT_ITEMS_OMITTED).increment(1);
                }
                Ok(())
            });
        }
        let value = cursor.value()?;
        if key == "node_key" {
            self.node_key = value.text();
        } else if self.members.len() < MEMBERS_MAX {
            self.members.push((key, value));
        }
        Ok(())
    }

    /// A member, but for `queries` where that is an object; `null` counts as missing.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<Value<'a>> {
        let found = self.members.iter().rev().find(|(key, _)| key == name);
        found
            .map(|(_, value)| *value)
            .filter(|value| !value.is_null())
    }

    /// What a string member says.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<Cow<'a, str>> {
        self.member(name)?.text()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_read_up_to_its_fault() {
        let read = |text| {
            let body = Body::parse(text);
            let key = body.node_key.map(Cow::into_owned);
            (key, body.queries.len(), body.fault.is_some())
        };
        let key = || Some("k".to_owned());
        assert_eq!(
            read(" {\"node_key\" : \"k\", \"queries\" : {\"a\":[],\"b\":\"\"} }\n"),
            (key(), 2, false)
        );
        assert_eq!(read(r#"{"queries":{"a":[{}],"b":[}"#), (None, 1, true));
        assert_eq!(
            read(r#"{"node_key":"k","queries":{"a":[]"#),
            (key(), 1, true)
        );
        assert_eq!(read(r#"{"queries":[],"node_key":"k"}"#), (key(), 0, false));
        assert_eq!(read(r#"{"queries":{},"node_key":5}"#), (None, 0, false));
        assert_eq!(read(r#"{"node_key":"k"}}"#), (key(), 0, true));
        assert_eq!(read(r#"{"node_key":"k"}{"a":1}"#), (key(), 0, true));
        for text in ["", "{", "[]", "{]", r#"{"a":1,}"#, r#"{"a" 1}"#, "null"] {
            assert_eq!(read(text), (None, 0, true), "{text}");
        }
        assert_eq!(read("{}"), (None, 0, false));
    }

    #[test]
    fn the_key_is_found_alone_and_queries_are_bounded() {
        let many: Vec<_> = (0..=AGENT_QUERIES).map(|n| format!("\"{n}\":[]")).collect();
        let text = format!(
            r#"{{"node_key":"a","queries":{{{}}},"node_key":"k"}}"#,
            many.join(",")
        );
        assert_eq!(node_key(&text).unwrap().as_deref(), Some("k"));
        assert_eq!(Body::parse(&text).queries.len(), AGENT_QUERIES);
        for text in ["{}", r#"{"node_key":1}"#] {
            assert_eq!(node_key(text), Ok(None), "{text}");
        }
        for text in ["", "[]", r#"{"node_key":"k""#] {
            assert!(node_key(text).is_err(), "{text}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_become_marks() {
        assert_eq!(text(&Bytes::from_static(b"a\xffb")), "a\u{fffd}b");
        assert!(matches!(
            text(&Bytes::from_static(b"ab")),
            Cow::Borrowed("ab")
        ));
    }
}
