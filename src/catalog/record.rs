//! Between typed entities and the store's records: kinds, keys, and a versioned JSON value.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::entity::{EnrollSecret, Entity, Host};
use crate::results::{LabelId, TeamId};
use crate::store::Kind;

/// The kinds of records, as stored.
pub mod kind {
    use crate::store::Kind;

    /// People.
    pub const USER: Kind = "user";
    /// Session and API tokens.
    pub const TOKEN: Kind = "token";
    /// Ways into the fleet.
    pub const ENROLL_SECRET: Kind = "enroll_secret";
    /// Saved queries.
    pub const QUERY: Kind = "query";
    /// Packs.
    pub const PACK: Kind = "pack";
    /// Labels.
    pub const LABEL: Kind = "label";
    /// Teams.
    pub const TEAM: Kind = "team";
    /// Enrolled hosts.
    pub const HOST: Kind = "host";
    /// The audit log.
    pub const ACTIVITY: Kind = "activity";
    /// The one record of settings.
    pub const APP_CONFIG: Kind = "app_config";
    /// Unique names.
    pub const NAME: Kind = "name";
    /// Says that records are being copied into this store; see [`super::MIGRATION_KEY`].
    pub const MIGRATION: Kind = "migration";
}

/// The key of the record that stands in a store while another one's catalog is copied into it. No broker reads a
/// catalog that has it.
pub const MIGRATION_KEY: &str = "unfinished";

/// Every sequence from which numbers are reserved. One that is missing here is not carried over by a migration, and
/// its numbers would be given twice.
pub const SEQUENCES: [Kind; 8] = [
    kind::USER,
    kind::HOST,
    kind::LABEL,
    kind::TEAM,
    kind::QUERY,
    kind::PACK,
    kind::ACTIVITY,
    "campaign",
];

/// Labels were numbered from 1 once, and from 6 as in Fleet since then: a catalog of before is read with this added to
/// each number.
pub const LABELS_MOVED_BY: u32 = 5;

/// The key of the one application record.
pub const APP_KEY: &str = "app";

/// The key of an enroll secret: the same secret may stand globally and in teams.
#[must_use]
pub fn secret_key(team: Option<TeamId>, secret: &str) -> String {
    format!("{}/{secret}", team.unwrap_or_default())
}

impl Entity {
    /// The kind that it is stored under.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::User(_) => kind::USER,
            Self::Token(_) => kind::TOKEN,
            Self::EnrollSecret(_) => kind::ENROLL_SECRET,
            Self::Query(_) => kind::QUERY,
            Self::Pack(_) => kind::PACK,
            Self::Label(_) => kind::LABEL,
            Self::Team(_) => kind::TEAM,
            Self::Host(_) => kind::HOST,
            Self::Activity(_) => kind::ACTIVITY,
            Self::AppConfig(_) => kind::APP_CONFIG,
            Self::Name(..) => kind::NAME,
        }
    }

    /// The key that it is stored under.
    #[must_use]
    pub fn key(&self) -> String {
        match self {
            Self::User(user) => user.id.to_string(),
            Self::Token(token) => token.hash.clone(),
            Self::EnrollSecret(EnrollSecret { team, secret, .. }) => secret_key(*team, secret),
            Self::Query(query) => query.id.to_string(),
            Self::Pack(pack) => pack.id.to_string(),
            Self::Label(label) => label.id.to_string(),
            Self::Team(team) => team.id.to_string(),
            Self::Host(host) => host.id.to_string(),
            Self::Activity(activity) => activity.id.to_string(),
            Self::AppConfig(_) => APP_KEY.to_owned(),
            Self::Name(name, _) => name.clone(),
        }
    }

    /// The value that is stored.
    #[must_use]
    pub fn value(&self) -> Bytes {
        match self {
            Self::User(user) => to_json(user),
            Self::Token(token) => to_json(token),
            Self::EnrollSecret(secret) => to_json(secret),
            Self::Query(query) => to_json(query),
            Self::Pack(pack) => to_json(pack),
            Self::Label(label) => to_json(label),
            Self::Team(team) => to_json(team),
            Self::Host(host) => to_json(host),
            Self::Activity(activity) => to_json(activity),
            Self::AppConfig(config) => to_json(config),
            Self::Name(_, number) => to_json(number),
        }
    }

    /// Reads a stored record; none for kinds that this version does not know.
    ///
    /// # Errors
    /// When the value is not what the kind says.
    pub fn parse(kind: &str, key: &str, value: &[u8]) -> Result<Option<Self>, serde_json::Error> {
        Ok(Some(match kind {
            kind::USER => Self::User(from_json(value)?),
            kind::TOKEN => Self::Token(from_json(value)?),
            kind::ENROLL_SECRET => Self::EnrollSecret(from_json(value)?),
            kind::QUERY => Self::Query(from_json(value)?),
            kind::PACK => Self::Pack(from_json(value)?),
            kind::LABEL => Self::Label(from_json(value)?),
            kind::TEAM => Self::Team(from_json(value)?),
            kind::HOST => Self::Host(host(value)?),
            kind::ACTIVITY => Self::Activity(from_json(value)?),
            kind::APP_CONFIG => Self::AppConfig(from_json(value)?),
            kind::NAME => Self::Name(key.to_owned(), from_json(value)?),
            _ => return Ok(None),
        }))
    }
}

#[expect(
    clippy::expect_used,
    reason = "the entities hold nothing that JSON cannot"
)]
fn to_json<T: Serialize>(value: &T) -> Bytes {
    serde_json::to_vec(value)
        .expect("entities serialize")
        .into()
}

/// A host; the labels of one that was stored before they were moved are moved.
fn host(value: &[u8]) -> Result<Box<Host>, serde_json::Error> {
    let mut host: Box<Host> = from_json(value)?;
    // Within a text the quotation marks would be escaped.
    if memchr::memmem::find(value, b"\"label_ids\":").is_none() {
        for LabelId(id) in &mut host.labels {
            *id += LABELS_MOVED_BY;
        }
    }
    Ok(host)
}

fn from_json<T: DeserializeOwned>(value: &[u8]) -> Result<T, serde_json::Error> {
    serde_json::from_slice(value)
}
