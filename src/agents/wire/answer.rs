//! What a host reports of each query, and the `result.data` that viewers get for it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::ops::Range;

use super::rows::{RowsFault, write_rows};
use super::scan::plain_len;
use super::{Body, Value};
use crate::limits::AGENT_QUERIES;
use crate::results::{Answer, HostId};

/// Bytes that one answer may have in the log. Above what a body may hold, because columns are added to each row.
pub const ANSWER_BYTES_MAX: usize = 32 << 20;
/// Bytes of a failed query's message that are kept; SQLite's are short.
const MESSAGE_BYTES_MAX: usize = 16 << 10;

/// What an agent says of one query.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report<'a> {
    /// The rows, or `""` for a failed query.
    pub rows: Option<Value<'a>>,
    /// 0 for success; a number or a numeric string.
    pub status: Option<Value<'a>>,
    /// Why it failed; osquery 4.4.0 and later.
    pub message: Option<Value<'a>>,
    /// What it cost; later still.
    pub stats: Option<Value<'a>>,
    /// Why its answer could not be taken from the host's body.
    pub refused: Option<&'a str>,
}

/// The reports of one body, by query name. Nearly always one, or a few: quicker than with hashes.
pub type Reports<'a> = BTreeMap<Cow<'a, str>, Report<'a>>;

/// Collects what a `distributed/write` body says of each query. Missing maps count as empty; a query that only
/// has a status counts as reported. What is no map is passed over, and a map that is not JSON is read as far as it is:
/// the same body would come again and again if it were refused.
#[must_use]
pub fn reports<'a>(body: &Body<'a>) -> Reports<'a> {
    let mut reports = Reports::new();
    for (name, rows) in &body.queries {
        reports.entry(name.clone()).or_default().rows = Some(*rows);
    }
    for status in map(body, "statuses").take(AGENT_QUERIES) {
        let (name, status) = status;
        reports.entry(name).or_default().status = Some(status);
    }
    for message in map(body, "messages").take(AGENT_QUERIES) {
        let (name, message) = message;
        if let Some(report) = reports.get_mut(&name) {
            report.message = Some(message);
        }
    }
    for stats in map(body, "stats").take(AGENT_QUERIES) {
        let (name, stats) = stats;
        if let Some(report) = reports.get_mut(&name) {
            report.stats = Some(stats);
        }
    }
    reports
}

/// The members of a map; nulls count as missing, and something else than a map as empty.
fn map<'a>(body: &Body<'a>, name: &str) -> impl Iterator<Item = (Cow<'a, str>, Value<'a>)> {
    let members = body.member(name).and_then(Value::members);
    let members = members.into_iter().flatten().flatten();
    members.filter(|(_, value)| !value.is_null())
}

impl<'a> Report<'a> {
    /// Of a query whose answer could not be taken.
    #[must_use]
    pub fn refused(text: &'a str) -> Self {
        Self {
            refused: Some(text),
            ..Self::default()
        }
    }

    /// Why the query failed; none if it did not. Never empty: viewers show an empty text as no text.
    #[must_use]
    pub fn failure(&self) -> Option<Cow<'a, str>> {
        if let Some(refused) = self.refused {
            return Some(Cow::Borrowed(refused));
        }
        let status = match self.status {
            Some(status) => status.integer(),
            None if self.rows.is_none_or(is_nothing) => Some(1),
            None => Some(0),
        };
        if status == Some(0) {
            return None;
        }
        let message = self.message.and_then(Value::scalar);
        if let Some(message) = message.filter(|message| !message.trim().is_empty()) {
            return Some(clip(message));
        }
        Some(match (status, self.status) {
            (Some(status), Some(_)) => format!("query failed with status {status}").into(),
            (_, None) => "query failed".into(),
            (None, _) => "query failed with a status that is no number".into(),
        })
    }

    /// The rows, if there are any to read.
    #[must_use]
    pub fn rows(&self) -> Option<Value<'a>> {
        self.rows.filter(|rows| !is_nothing(*rows))
    }
}

/// How osquery writes the rows of a failed query.
fn is_nothing(rows: Value<'_>) -> bool {
    matches!(rows.raw(), "\"\"" | "null")
}

fn clip(message: Cow<'_, str>) -> Cow<'_, str> {
    if message.len() <= MESSAGE_BYTES_MAX {
        return message;
    }
    let mut end = MESSAGE_BYTES_MAX;
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    Cow::Owned(message[..end].to_owned())
}

/// A host as its answers name it: the JSON that is the same in each.
#[derive(Clone, Debug)]
pub struct HostHeader {
    host: HostId,
    /// `"host_hostname":"...","host_display_name":"..."`
    columns: Vec<u8>,
    /// Where the two names are in the columns, quotation marks included.
    names: [Range<usize>; 2],
}

impl HostHeader {
    /// The voice of a host.
    #[must_use]
    pub fn new(host: HostId, hostname: &str, display_name: &str) -> Self {
        let mut columns = Vec::with_capacity(hostname.len() + display_name.len() + 64);
        let mut put = |key: &str, name: &str| {
            columns.extend_from_slice(key.as_bytes());
            let start = columns.len();
            put_json(name, &mut columns);
            start..columns.len()
        };
        let names = [
            put(r#""host_hostname":"#, hostname),
            put(r#","host_display_name":"#, display_name),
        ];
        Self {
            host,
            columns,
            names,
        }
    }

    /// Appends `"host":{...},"rows":`.
    fn put_opening(&self, out: &mut Vec<u8>) {
        let [hostname, display_name] = self.names.clone().map(|name| &self.columns[name]);
        // Writing to memory cannot fail.
        let _ = write!(out, r#""host":{{"id":{},"hostname":"#, self.host);
        out.extend_from_slice(hostname);
        out.extend_from_slice(br#","display_name":"#);
        out.extend_from_slice(display_name);
        out.extend_from_slice(br#"},"rows":"#);
    }

    /// The answer that a report is, and what was wrong with its rows. Rows that cannot be read make it a failed
    /// answer without rows: a viewer must not take it for "nothing found".
    #[must_use]
    pub fn answer(&self, report: &Report<'_>) -> (Answer, Option<RowsFault>) {
        let mut failure = report.failure();
        let mut out = Vec::with_capacity(self.capacity(report));
        self.put_opening(&mut out);
        let mut fault = None;
        let rows_at = out.len();
        match report.rows() {
            None => out.extend_from_slice(b"[]"),
            Some(rows) => {
                if let Err(error) = write_rows(rows, &self.columns, ANSWER_BYTES_MAX, &mut out) {
                    out.truncate(rows_at);
                    out.extend_from_slice(b"[]");
                    fault = Some(error);
                    failure =
                        failure.or_else(|| Some(format!("unreadable answer: {error}").into()));
                }
            }
        }
        write_stats(report.stats, &mut out);
        out.extend_from_slice(br#","error":"#);
        match &failure {
            None => out.extend_from_slice(b"null"),
            Some(failure) => put_json(failure, &mut out),
        }
        if out.capacity() > out.len() + out.len() / 4 {
            out.shrink_to_fit();
        }
        let answer = Answer {
            host: self.host,
            failed: failure.is_some(),
            body: out.into(),
        };
        (answer, fault)
    }

    /// About the size of the answer, so that it is copied once: every row ends with a brace.
    fn capacity(&self, report: &Report<'_>) -> usize {
        let rows = report.rows().map_or("", Value::raw).as_bytes();
        let braces = memchr::memchr_iter(b'}', rows).count();
        let size = rows.len() + braces.saturating_mul(self.columns.len() + 1);
        size.min(ANSWER_BYTES_MAX) + self.columns.len() + 256
    }
}

/// `,"stats":{...}` in the form that viewers know, or null.
fn write_stats(stats: Option<Value<'_>>, out: &mut Vec<u8>) {
    let Some(members) = stats.and_then(Value::members) else {
        out.extend_from_slice(br#","stats":null"#);
        return;
    };
    let [mut wall_time, mut user_time, mut system_time, mut memory] = [0u64; 4];
    for (name, value) in members.flatten() {
        let number = value
            .integer()
            .and_then(|number| u64::try_from(number).ok());
        let number = number.unwrap_or(0);
        match &*name {
            "wall_time_ms" | "wall_time" => wall_time = number,
            "user_time" => user_time = number,
            "system_time" => system_time = number,
            "memory" => memory = number,
            _ => {}
        }
    }
    // Writing to memory cannot fail.
    let _ = write!(
        out,
        r#","stats":{{"wall_time_ms":{wall_time},"user_time":{user_time},"system_time":{system_time},"memory":{memory}}}"#
    );
}

/// A text as a JSON string.
pub(crate) fn json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn put_json(text: &str, out: &mut Vec<u8>) {
    // Nearly every name has nothing to escape.
    if plain_len(text.as_bytes()) == text.len() {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
        return;
    }
    // Writing a text to memory cannot fail.
    let _ = serde_json::to_writer(out, text);
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn answers(body: &str) -> HashMap<String, (bool, serde_json::Value)> {
        let body = Body::parse(body);
        assert_eq!(body.fault, None);
        let voice = HostHeader::new(HostId(3), "web\"1", "Web 1");
        let reports = reports(&body);
        let answers = reports.iter().map(|(name, report)| {
            let (answer, _) = voice.answer(report);
            let text = format!("{{{}}}", std::str::from_utf8(&answer.body).unwrap());
            (
                name.to_string(),
                (answer.failed, serde_json::from_str(&text).unwrap()),
            )
        });
        answers.collect()
    }

    #[test]
    fn names_are_escaped_if_they_have_to_be() {
        for text in [
            "",
            "web-1",
            "Wéb 1\u{7f}",
            "a\"b",
            "a\\b",
            "a\nb",
            "\u{1f}",
            "\0",
        ] {
            let mut out = Vec::new();
            put_json(text, &mut out);
            assert_eq!(out, serde_json::to_vec(text).unwrap(), "{text:?}");
        }
    }

    #[test]
    fn an_answer_names_its_host_and_carries_rows_and_stats() {
        let answers = answers(
            r#"{"queries":{"q":[{"a":1},null]},"statuses":{"q":"0"},"messages":{"q":""},
            "stats":{"q":{"wall_time_ms":"5","user_time":-1,"memory":1e3,"other":[]}}}"#,
        );
        let expected = serde_json::json!({
            "host": {"id": 3, "hostname": "web\"1", "display_name": "Web 1"},
            "rows": [{"a": "1", "host_hostname": "web\"1", "host_display_name": "Web 1"}],
            "stats": {"wall_time_ms": 5, "user_time": 0, "system_time": 0, "memory": 1000},
            "error": null,
        });
        assert_eq!(answers["q"], (false, expected));
    }

    #[test]
    fn a_query_failed_if_its_status_or_the_lack_of_rows_says_so() {
        let answers = answers(
            r#"{"queries":{"message":"","plain":"","silent":"","text":"","ok":[],"empty":"","no map":[],"bad":[]},
            "statuses":{"message":1,"plain":"2","ok":0,"empty":0,"only":1,"bad":"x","text":null},
            "messages":{"message":"no such table: x\ud800","plain":"  ","text":"because"},"stats":{"ok":null}}"#,
        );
        let error = |name: &str| {
            let (failed, data) = &answers[name];
            assert_eq!(*failed, !data["error"].is_null(), "{name}");
            assert_eq!(data["rows"], serde_json::json!([]));
            assert!(data["stats"].is_null());
            data["error"].as_str().map(str::to_owned)
        };
        assert_eq!(error("message").unwrap(), "no such table: x\u{fffd}");
        assert_eq!(error("plain").unwrap(), "query failed with status 2");
        assert_eq!(error("silent").unwrap(), "query failed");
        assert_eq!(error("text").unwrap(), "because");
        assert_eq!(
            error("bad").unwrap(),
            "query failed with a status that is no number"
        );
        assert_eq!(error("only").unwrap(), "query failed with status 1");
        assert_eq!(
            (error("ok"), error("empty"), error("no map")),
            (None, None, None)
        );
    }

    #[test]
    fn unreadable_rows_are_an_error_and_not_an_empty_answer() {
        let answers = answers(r#"{"queries":{"q":[{"a":"1"},[2]]},"statuses":{}}"#);
        let (failed, data) = &answers["q"];
        assert!(*failed);
        assert_eq!(data["rows"], serde_json::json!([]));
        assert_eq!(
            data["error"],
            "unreadable answer: the rows are not a list of objects"
        );
    }

    #[test]
    fn bodies_that_lie_about_their_shape_are_read_as_empty() {
        assert!(answers(r#"{"node_key":"k"}"#).is_empty());
        assert!(answers(r#"{"queries":null,"statuses":[],"messages":"","stats":7}"#).is_empty());
        for text in [r#"{"queries":[]}"#, r#"{"statuses":{a:1}}"#] {
            assert!(reports(&Body::parse(text)).is_empty(), "{text}");
        }
    }
}
