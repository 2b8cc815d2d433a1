//! Answers of hosts as the log keeps them, read back: rows with their columns in the order that the host sent.

use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::results::{Answer, HostId};

/// The columns that are added to each row for viewers.
pub(crate) const ADDED_COLUMNS: [&str; 2] = ["host_hostname", "host_display_name"];

/// A row: columns in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Row(pub Vec<(String, String)>);

impl Row {
    /// The value of a column.
    #[must_use]
    pub(crate) fn value(&self, column: &str) -> Option<&str> {
        let mut cells = self.0.iter();
        let cell = cells.find(|(name, _)| name == column)?;
        Some(&cell.1)
    }

    /// The row as the host sent it.
    #[must_use]
    pub(crate) fn without_added(mut self) -> Self {
        self.0
            .retain(|(column, _)| !ADDED_COLUMNS.contains(&column.as_str()));
        self
    }
}

impl<'de> Deserialize<'de> for Row {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Cells;

        impl<'de> Visitor<'de> for Cells {
            type Value = Row;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a row")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Row, A::Error> {
                let mut row = Row::default();
                while let Some((column, value)) = map.next_entry::<String, Value>()? {
                    let text = match value {
                        Value::String(text) => text,
                        other => other.to_string(),
                    };
                    row.0.push((column, text));
                }
                Ok(row)
            }
        }

        deserializer.deserialize_map(Cells)
    }
}

impl Serialize for Row {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (column, value) in &self.0 {
            map.serialize_entry(column, value)?;
        }
        map.end()
    }
}

/// One host's answer.
#[derive(Debug, Deserialize)]
pub(crate) struct AnswerOut {
    /// Who answered.
    pub host: HostNames,
    /// What it answered.
    #[serde(default)]
    pub rows: Vec<Row>,
    /// Why the query failed there, if it did.
    #[serde(default)]
    pub error: Option<String>,
}

/// The names that stand in an answer.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct HostNames {
    /// The host name.
    pub hostname: String,
    /// The name for people.
    pub display_name: String,
}

/// Reads an answer of the log. One that cannot be read is shown as failed, since it must not vanish.
#[must_use]
pub(crate) fn read(answer: &Answer) -> (HostId, AnswerOut) {
    let mut text = Vec::with_capacity(answer.body.len() + 2);
    text.push(b'{');
    text.extend_from_slice(&answer.body);
    text.push(b'}');
    let out = serde_json::from_slice(&text).unwrap_or_else(|error| AnswerOut {
        host: HostNames::default(),
        rows: Vec::new(),
        error: Some(format!("the answer cannot be read back: {error}")),
    });
    (answer.host, out)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn columns_keep_their_order_and_lose_what_was_added() {
        let body = r#""host":{"id":3,"hostname":"h","display_name":"H"},"rows":[{"z":"1","a":"x\n","n":5,"host_hostname":"h","host_display_name":"H"}],"stats":null,"error":null"#;
        let answer = Answer {
            host: HostId(3),
            failed: false,
            body: Bytes::from_static(body.as_bytes()),
        };
        let (host, out) = read(&answer);
        assert_eq!((host, out.host.display_name.as_str()), (HostId(3), "H"));
        let row = out.rows[0].clone().without_added();
        assert_eq!(
            serde_json::to_string(&row).unwrap(),
            r#"{"z":"1","a":"x\n","n":"5"}"#
        );
        assert_eq!(out.error, None);
    }

    #[test]
    fn an_answer_that_cannot_be_read_does_not_vanish() {
        let answer = Answer {
            host: HostId(3),
            failed: false,
            body: Bytes::from_static(b"\"rows\":7"),
        };
        assert!(read(&answer).1.error.is_some());
    }
}
