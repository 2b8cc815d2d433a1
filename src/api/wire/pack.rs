//! Packs as specs.

use serde::{Deserialize, Serialize};

use super::campaign::or_default;
use super::number::Number;
use super::object::{object_or_default, objects_or_none};
use crate::catalog::entity::{Pack, PackQuery};

/// A pack's spec, taken and given out alike. Its number does not count when it is taken.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct PackSpec {
    /// Its number.
    #[serde(default, deserialize_with = "or_default")]
    pub id: Number,
    /// Its name.
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    /// For people.
    #[serde(default, deserialize_with = "or_default")]
    pub description: String,
    /// osquery platforms.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub platform: String,
    /// Whether agents do not get it.
    #[serde(default, deserialize_with = "or_default")]
    pub disabled: bool,
    /// Whose it is.
    #[serde(default, deserialize_with = "object_or_default")]
    pub targets: PackTargets,
    /// In order.
    #[serde(default, deserialize_with = "objects_or_none")]
    pub queries: Vec<PackSpecQuery>,
}

/// The names that a pack is targeted at. Null and an empty list are kept apart.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct PackTargets {
    /// Labels.
    #[serde(default)]
    pub labels: Option<Vec<String>>,
    /// Teams.
    #[serde(default, alias = "fleets", skip_serializing_if = "Option::is_none")]
    pub teams: Option<Vec<String>>,
}

/// One scheduled query.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct PackSpecQuery {
    /// The saved query's name; it may not exist yet.
    #[serde(default, deserialize_with = "or_default")]
    pub query: String,
    /// Its name in the pack; the query's if none is given.
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    /// For people.
    #[serde(default, deserialize_with = "or_default")]
    pub description: String,
    /// Seconds.
    #[serde(default)]
    pub interval: Number,
    /// Whether the whole result is logged each time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<bool>,
    /// Whether removed rows are logged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed: Option<bool>,
    /// Per cent of hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<Number>,
    /// osquery platforms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// The least osquery version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Whether the watchdog may denylist it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denylist: Option<bool>,
}

impl From<&Pack> for PackSpec {
    fn from(pack: &Pack) -> Self {
        Self {
            id: Number(u64::from(pack.id)),
            name: pack.name.clone(),
            description: pack.description.clone(),
            platform: pack.platform.clone(),
            disabled: pack.disabled,
            targets: PackTargets {
                labels: pack.target_labels.clone(),
                teams: pack.target_teams.clone(),
            },
            queries: pack.queries.iter().map(PackSpecQuery::from).collect(),
        }
    }
}

/// As the document shows it, with an empty platform and version where none was given.
impl From<&PackQuery> for PackSpecQuery {
    fn from(query: &PackQuery) -> Self {
        Self {
            query: query.query.clone(),
            name: query.name.clone(),
            description: query.description.clone(),
            interval: Number(u64::from(query.interval)),
            snapshot: query.snapshot,
            removed: query.removed,
            shard: query.shard.map(|shard| Number(u64::from(shard))),
            platform: Some(query.platform.clone().unwrap_or_default()),
            version: Some(query.version.clone().unwrap_or_default()),
            denylist: query.denylist,
        }
    }
}
