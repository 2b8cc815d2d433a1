//! Saved queries as the API shows them, as items of lists and as specs.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::campaign::or_default;
use super::number::Number;
use super::time::Rfc3339;
use crate::catalog::State;
use crate::catalog::entity::Query;
use crate::results::{QueryId, TeamId, UserId};

/// How a query is scheduled: agents get it with their configuration if it has an interval and automations are on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Schedule {
    /// Seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Number>,
    /// osquery platforms, comma separated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// The least osquery version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_osquery_version: Option<String>,
    /// Whether agents are to run it by its interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub automations_enabled: Option<bool>,
    /// `snapshot`, `differential`, ...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logging: Option<String>,
    /// Whether results are not kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discard_data: Option<bool>,
}

impl Schedule {
    /// As the catalog keeps it: what was said, and nothing else.
    #[must_use]
    pub(crate) fn to_map(&self) -> Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(map)) => map,
            _ => Map::new(),
        }
    }

    /// From what the catalog keeps.
    #[must_use]
    pub(crate) fn of_map(map: &Map<String, Value>) -> Self {
        serde_json::from_value(Value::Object(map.clone())).unwrap_or_default()
    }
}

/// A query's spec as it is taken.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct QuerySpecIn {
    /// Its name.
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    /// For people.
    #[serde(default, deserialize_with = "or_default")]
    pub description: String,
    /// The SQL.
    #[serde(default, deserialize_with = "or_default")]
    pub query: String,
    /// The name of its team; empty for a global one.
    #[serde(default, alias = "fleet", deserialize_with = "or_default")]
    pub team: String,
    /// Whether observers may run it.
    #[serde(default, deserialize_with = "or_default")]
    pub observer_can_run: bool,
    /// How it is scheduled.
    #[serde(flatten)]
    pub schedule: Schedule,
}

/// A query's spec as it is given out.
#[derive(Serialize)]
pub(crate) struct QuerySpecOut<'a> {
    name: &'a str,
    description: &'a str,
    query: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    team: &'a str,
    observer_can_run: bool,
    #[serde(flatten)]
    schedule: Schedule,
}

impl<'a> QuerySpecOut<'a> {
    /// The query's spec.
    #[must_use]
    pub(crate) fn of(query: &'a Query, state: &'a State) -> Self {
        let team = query.team.and_then(|team| state.teams.get(&team));
        Self {
            name: &query.name,
            description: &query.description,
            query: &query.sql,
            team: team.map_or("", |(team, _)| &team.name),
            observer_can_run: query.observer_can_run,
            schedule: Schedule::of_map(&query.schedule),
        }
    }
}

/// A saved query as an item of lists.
#[derive(Serialize)]
pub(crate) struct QueryOut {
    created_at: Rfc3339,
    updated_at: Rfc3339,
    id: QueryId,
    name: String,
    description: String,
    query: String,
    team_id: Option<TeamId>,
    saved: bool,
    observer_can_run: bool,
    author_id: Option<UserId>,
    author_name: String,
    author_email: String,
    #[serde(flatten)]
    schedule: Schedule,
    packs: Vec<Value>,
}

impl QueryOut {
    /// The query with its author's name.
    #[must_use]
    pub(crate) fn of(query: &Query, state: &State) -> Self {
        let author = query.author.and_then(|author| state.users.get(&author));
        Self {
            created_at: Rfc3339(query.created_at),
            updated_at: Rfc3339(query.updated_at),
            id: query.id,
            name: query.name.clone(),
            description: query.description.clone(),
            query: query.sql.clone(),
            team_id: query.team,
            saved: query.saved,
            observer_can_run: query.observer_can_run,
            author_id: query.author,
            author_name: author.map_or_else(String::new, |(user, _)| user.name.clone()),
            author_email: author.map_or_else(String::new, |(user, _)| user.email.clone()),
            schedule: Schedule::of_map(&query.schedule),
            packs: Vec::new(),
        }
    }
}
