//! The audit trail's records: who did what, the newest of them, each of a bounded size.

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::entity::{Activity, Entity};
use super::record::kind;
use super::{Catalog, Edit, State};
use crate::clock::Timestamp;
use crate::results::UserId;
use crate::text::hex;

/// So many activities are kept, the newest; each new one takes the place of the one so far back.
const ACTIVITIES_MAX: u64 = 10_000;
/// Of a longer text, such as a query, its beginning is kept, in bytes.
const TEXT_BYTES: usize = 4 * 1024;
/// Of a longer list, such as the hosts of a campaign, its beginning is kept.
const LIST_ELEMENTS: usize = 100;
/// What is longer than this after all is told by its length and hash alone, in bytes.
const DETAILS_BYTES: usize = 32 * 1024;

/// Something that was done, with the beginnings of what is long in its details.
#[derive(Clone, Debug)]
pub struct Act {
    user: Option<UserId>,
    actor: String,
    kind: String,
    details: Value,
}

impl Act {
    /// An act of a user of this name, or of the product itself. `kind` is `live_query`, `user_logged_in` and the like,
    /// `details` an object that says what it was about.
    #[must_use]
    pub fn new(user: Option<UserId>, actor: &str, kind: &str, details: Value) -> Self {
        Self {
            user,
            actor: actor.to_owned(),
            kind: kind.to_owned(),
            details: shortened(details),
        }
    }

    /// What it was about.
    #[must_use]
    pub const fn details(&self) -> &Value {
        &self.details
    }
}

impl Catalog {
    /// Keeps an act.
    ///
    /// # Errors
    /// Why it could not be kept, for people.
    pub async fn keep_act(&self, act: Act, now: Timestamp) -> Result<(), String> {
        let id = self.reserve(kind::ACTIVITY, 1).await;
        let id = id.map_err(|error| error.to_string())?;
        let activity = Activity {
            id,
            created_at: now.secs(),
            user: act.user,
            actor: act.actor,
            kind: act.kind,
            details: act.details,
        };
        let plan = |_: &State| {
            let mut edits = vec![Edit::Create(Entity::Activity(activity.clone()))];
            if let Some(old) = id.checked_sub(ACTIVITIES_MAX) {
                edits.push(Edit::Delete(kind::ACTIVITY, old.to_string()));
            }
            Ok::<_, std::convert::Infallible>((edits, ()))
        };
        let committed = self.commit(plan).await;
        committed.map_err(|error| error.to_string())
    }
}

/// Details of at most about [`DETAILS_BYTES`]. A member `x` that was cut has `x_bytes` or `x_count` and `x_sha256`
/// (of the text, or of the list as compact JSON) beside it.
fn shortened(details: Value) -> Value {
    let short = shorten(details);
    let text = short.to_string();
    if text.len() <= DETAILS_BYTES {
        return short;
    }
    serde_json::json!({"details_bytes": text.len(), "details_sha256": sha256(&text)})
}

fn shorten(value: Value) -> Value {
    match value {
        Value::Object(members) => Value::Object(shorten_members(members)),
        Value::Array(elements) => elements.into_iter().map(shorten).collect(),
        other => other,
    }
}

fn shorten_members(members: Map<String, Value>) -> Map<String, Value> {
    let mut out = Map::new();
    for (name, value) in members {
        match value {
            Value::String(text) if text.len() > TEXT_BYTES => {
                out.insert(format!("{name}_bytes"), text.len().into());
                out.insert(format!("{name}_sha256"), sha256(&text).into());
                let beginning = &text[..text.floor_char_boundary(TEXT_BYTES)];
                out.insert(name, beginning.into());
            }
            Value::Array(mut elements) if elements.len() > LIST_ELEMENTS => {
                out.insert(format!("{name}_count"), elements.len().into());
                let whole = Value::Array(elements.clone()).to_string();
                out.insert(format!("{name}_sha256"), sha256(&whole).into());
                elements.truncate(LIST_ELEMENTS);
                out.insert(name, shorten(Value::Array(elements)));
            }
            other => {
                out.insert(name, shorten(other));
            }
        }
    }
    out
}

fn sha256(text: &str) -> String {
    hex(Sha256::digest(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_long_keeps_its_beginning_its_size_and_a_hash() {
        let kept = json!({"query": "SELECT 1", "host_ids": [1, 2], "deep": {"list": [{"a": 1}]}});
        assert_eq!(shortened(kept.clone()), kept);
        let hosts: Vec<u32> = (0..900_000).collect();
        let sql = format!("SELECT '{}'", "é".repeat(40_000));
        let cut = shortened(json!({"query_sql": sql, "targets": {"host_ids": hosts}}));
        assert!(cut.to_string().len() < DETAILS_BYTES);
        assert_eq!(cut["query_sql_bytes"], sql.len());
        assert!(sql.starts_with(cut["query_sql"].as_str().unwrap()));
        assert_eq!(cut["query_sql_sha256"], sha256(&sql));
        assert_eq!(cut["targets"]["host_ids_count"], 900_000);
        assert_eq!(cut["targets"]["host_ids"].as_array().unwrap().len(), 100);
    }

    #[test]
    fn many_members_of_middling_size_are_told_by_size_and_hash() {
        let members = (0..100).map(|at| (at.to_string(), "x".repeat(1000).into()));
        let cut = shortened(Value::Object(members.collect()));
        assert!(cut["details_bytes"].as_u64().unwrap() > 100_000 - 1);
        assert_eq!(cut.as_object().unwrap().len(), 2);
    }
}
