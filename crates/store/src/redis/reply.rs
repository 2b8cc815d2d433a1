//! Walks raw answers of Redis. Typed answers cost half the throughput, and their errors say less.

use bytes::Bytes;
use redis::Value;

use crate::StoreError;

/// An answer that is not of the form that the question has.
pub(super) fn unexpected(what: &str) -> StoreError {
    StoreError::Damaged(format!("Redis answered something unexpected to {what}"))
}

/// A list of answers; the elements of a set or map count too.
pub(super) fn list(value: Value) -> Option<Vec<Value>> {
    match value {
        Value::Array(items) | Value::Set(items) => Some(items),
        Value::Map(pairs) => Some(pairs.into_iter().flat_map(|(k, v)| [k, v]).collect()),
        Value::Nil => Some(Vec::new()),
        _ => None,
    }
}

/// A number, however it is written.
pub(super) fn number(value: &Value) -> Option<i64> {
    match value {
        Value::Int(number) => Some(*number),
        #[expect(clippy::cast_possible_truncation, reason = "scores are whole numbers")]
        Value::Double(number) => Some(*number as i64),
        other => text(other)?.parse().ok(),
    }
}

/// The same where only numbers from 0 on make sense.
pub(super) fn natural(value: &Value) -> Option<u64> {
    number(value).and_then(|number| u64::try_from(number).ok())
}

/// A text.
pub(super) fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        Value::Okay => Some("OK"),
        _ => None,
    }
}

/// A string of bytes.
pub(super) fn bytes(value: Value) -> Option<Bytes> {
    match value {
        Value::BulkString(bytes) => Some(Bytes::from(bytes)),
        Value::SimpleString(text) => Some(Bytes::from(text)),
        _ => None,
    }
}
