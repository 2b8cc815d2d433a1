//! Answers of hosts as the log keeps them, read back: rows with their columns in the order that the host sent.

use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::results::{Answer, HostId};

/// The columns that are added to each row for viewers.
pub(crate) const ADDED_COLUMNS: [&str; 2] = ["host_hostname", "host_display_name"];

/// A row: columns in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Row(pub Vec<(String, String)>);

impl Row {
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

/// One host's answer, its rows still text.
#[derive(Debug, Deserialize)]
pub(crate) struct Stored<'a> {
    /// Who answered.
    #[serde(skip)]
    pub id: HostId,
    /// Its names.
    #[serde(default)]
    pub host: HostNames,
    #[serde(borrow, default)]
    rows: Vec<&'a RawValue>,
    /// Why the query failed there, if it did.
    #[serde(default)]
    pub error: Option<String>,
}

impl<'a> Stored<'a> {
    /// Reads an answer of the log. One that cannot be read is shown as failed, since it must not vanish.
    #[must_use]
    pub(crate) fn read(id: HostId, text: &'a [u8]) -> Self {
        let read = serde_json::from_slice(text).unwrap_or_else(|error| Self {
            id,
            host: HostNames::default(),
            rows: Vec::new(),
            error: Some(format!("the answer cannot be read back: {error}")),
        });
        Self { id, ..read }
    }

    /// How many rows there are.
    #[must_use]
    pub(crate) fn row_count(&self) -> usize {
        self.rows.len()
    }

    /// A row; empty if there is none or it is not one.
    #[must_use]
    pub(crate) fn row(&self, at: usize) -> Row {
        let row = self.rows.get(at);
        row.and_then(|row| serde_json::from_str(row.get()).ok())
            .unwrap_or_default()
    }

    /// The rows, read one by one.
    pub(crate) fn rows(&self) -> impl Iterator<Item = Row> {
        (0..self.rows.len()).map(|at| self.row(at))
    }

    /// The rows as the host sent them, as a JSON list.
    #[must_use]
    pub(crate) fn as_sent(&self) -> Box<RawValue> {
        let mut list = String::from("[");
        for (at, row) in self.rows().enumerate() {
            if at > 0 {
                list.push(',');
            }
            // Texts always serialize.
            list.push_str(&serde_json::to_string(&row.without_added()).unwrap_or_default());
        }
        list.push(']');
        RawValue::from_string(list).unwrap_or_default()
    }
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

/// The text of an answer, for [`Stored::read`]: its members stand in the log without their braces.
#[must_use]
pub(crate) fn text_of(answer: &Answer) -> Vec<u8> {
    let mut text = Vec::with_capacity(answer.body.len() + 2);
    text.push(b'{');
    text.extend_from_slice(&answer.body);
    text.push(b'}');
    text
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
        let text = text_of(&answer);
        let out = Stored::read(HostId(3), &text);
        assert_eq!((out.id, out.host.display_name.as_str()), (HostId(3), "H"));
        assert_eq!(out.as_sent().get(), r#"[{"z":"1","a":"x\n","n":"5"}]"#);
        assert_eq!(out.error, None);
    }

    #[test]
    fn an_answer_that_cannot_be_read_does_not_vanish() {
        let answer = Answer {
            host: HostId(3),
            failed: false,
            body: Bytes::from_static(b"\"rows\":7"),
        };
        let text = text_of(&answer);
        let out = Stored::read(HostId(3), &text);
        assert!(out.error.is_some() && out.row_count() == 0);
        assert_eq!(out.as_sent().get(), "[]");
    }
}
