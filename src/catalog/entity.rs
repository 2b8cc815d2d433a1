//! What the catalog holds: typed records in their stored form.
//!
//! The serialized form is the stores' own (`v` counts its versions) and is never sent to a client; the wire
//! has types of its own in `api/wire` and `agents/wire`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::results::{HostId, LabelId, QueryId, TeamId, UserId};

/// What somebody may do; see `auth::role` for the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Everything.
    Admin,
    /// Specs and live queries, not users and secrets.
    Maintainer,
    /// Sees, and runs saved queries that allow it.
    Observer,
    /// Sees, and runs any query.
    ObserverPlus,
}

/// Somebody who may log in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct User {
    /// Number.
    pub id: UserId,
    /// For people.
    pub name: String,
    /// Unique, compared without regard to case.
    pub email: String,
    /// Argon2id in PHC form; none for users that only have API tokens.
    pub password_hash: Option<String>,
    /// Whether the password must be changed before anything else.
    #[serde(default)]
    pub must_change_password: bool,
    /// Has no console login.
    #[serde(default)]
    pub api_only: bool,
    /// The role everywhere; none for users of teams.
    pub global_role: Option<Role>,
    /// The roles in teams.
    #[serde(default)]
    pub teams: BTreeMap<TeamId, Role>,
    /// Seconds since the epoch.
    pub created_at: u64,
}

/// A session or API token. The key of the record is the SHA-256 of the token, in hex.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Token {
    /// SHA-256 of the token, 64 hex digits.
    pub hash: String,
    /// Whose it is.
    pub user: UserId,
    /// Seconds since the epoch.
    pub created_at: u64,
    /// Seconds since the epoch; none if it never expires.
    pub expires_at: Option<u64>,
    /// What a program's token is for. None for sessions, and for tokens from before they had names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl Token {
    /// Whether it was given for a password.
    #[must_use]
    pub const fn is_session(&self) -> bool {
        self.name.is_none() && self.expires_at.is_some()
    }
}

/// A way into the fleet, global or of a team.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EnrollSecret {
    /// As agents send it.
    pub secret: String,
    /// Hosts that enroll with it join this team.
    pub team: Option<TeamId>,
    /// Seconds since the epoch.
    pub created_at: u64,
}

/// A saved query, or the hidden one behind SQL typed for one campaign.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Query {
    /// Number.
    pub id: QueryId,
    /// Unique within the team.
    pub name: String,
    /// For people.
    pub description: String,
    /// What hosts run.
    pub sql: String,
    /// Whether observers may run it.
    #[serde(default)]
    pub observer_can_run: bool,
    /// Whether it is listed; hidden ones stand behind campaigns.
    pub saved: bool,
    /// Whose it is; none for global queries.
    #[serde(default)]
    pub team: Option<TeamId>,
    /// Who wrote it.
    pub author: Option<UserId>,
    /// Seconds since the epoch.
    pub created_at: u64,
    /// Seconds since the epoch.
    pub updated_at: u64,
    /// What else a spec said: interval, platform, min_osquery_version, automations_enabled, logging, discard_data.
    #[serde(default)]
    pub schedule: serde_json::Map<String, serde_json::Value>,
}

/// A pack: queries that targeted hosts run by schedule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pack {
    /// Number.
    pub id: u32,
    /// Unique.
    pub name: String,
    /// For people.
    pub description: String,
    /// osquery platforms, comma separated; empty for all.
    #[serde(default)]
    pub platform: String,
    /// Whether agents do not get it.
    #[serde(default)]
    pub disabled: bool,
    /// Names of labels; none is kept apart from an empty list because the API tells them apart.
    pub target_labels: Option<Vec<String>>,
    /// Names of teams.
    #[serde(default)]
    pub target_teams: Option<Vec<String>>,
    /// In the spec's order.
    pub queries: Vec<PackQuery>,
}

/// One scheduled query of a pack.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PackQuery {
    /// The saved query's name; it may not exist yet.
    pub query: String,
    /// Unique within the pack.
    pub name: String,
    /// For people.
    #[serde(default)]
    pub description: String,
    /// Seconds, 1 to 604,800.
    pub interval: u32,
    /// Whether the whole result is logged each time.
    pub snapshot: Option<bool>,
    /// Whether removed rows are logged.
    pub removed: Option<bool>,
    /// osquery platforms.
    pub platform: Option<String>,
    /// The least osquery version.
    pub version: Option<String>,
    /// Per cent of hosts, 1 to 100.
    pub shard: Option<u32>,
    /// Whether the watchdog may denylist it.
    pub denylist: Option<bool>,
}

/// How a label gets its members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Membership {
    /// Hosts answer the label's query.
    Dynamic,
    /// Hosts are named.
    Manual,
}

/// A named set of hosts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Label {
    /// Number.
    pub id: LabelId,
    /// Unique.
    pub name: String,
    /// For people.
    #[serde(default)]
    pub description: String,
    /// SQL whose rows make a host a member.
    #[serde(default)]
    pub query: String,
    /// The osquery platform that the query is for; empty for all.
    #[serde(default)]
    pub platform: String,
    /// Made by the product, not to be changed.
    #[serde(default)]
    pub builtin: bool,
    /// How it gets its members.
    pub membership: Membership,
    /// Host names of a manual label; hosts of these names join when they enroll.
    #[serde(default)]
    pub hosts: Vec<String>,
}

/// A team of hosts with options of its own.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Team {
    /// Number, from 1.
    pub id: TeamId,
    /// Unique.
    pub name: String,
    /// For people.
    #[serde(default)]
    pub description: String,
    /// `{"config":{...},"overrides":{...}}` as the spec gave it.
    pub agent_options: Option<Box<RawValue>>,
    /// Seconds since the epoch.
    pub created_at: u64,
}

/// An enrolled host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// Number, dense from 1.
    pub id: HostId,
    /// What the agent identifies itself by.
    pub identifier: String,
    /// Tells apart machines that identify themselves alike: 0 for the first of them, unique beside the identifier.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub twin: u32,
    /// SHA-256 of its node key, 64 hex digits.
    pub node_key_hash: String,
    /// The team it is in: first the one whose secret it enrolled with, then where it was transferred.
    pub team: Option<TeamId>,
    /// The team whose secret it enrolled with, 0 for the global one; none in records from before this was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<TeamId>,
    /// Seconds since the epoch.
    pub enrolled_at: u64,
    /// Seconds since the epoch of the last detail answers; 0 before the first.
    #[serde(default)]
    pub detailed_at: u64,
    /// Seconds since the epoch of the last label answers; 0 before the first.
    #[serde(default)]
    pub labelled_at: u64,
    /// Seconds: how often the agent checks in.
    #[serde(default)]
    pub distributed_interval: u32,
    /// Seconds: how often the agent asks for its configuration.
    #[serde(default)]
    pub config_tls_refresh: u32,
    /// What detail queries have said.
    #[serde(default)]
    pub details: HostDetails,
    /// The dynamic labels it belongs to, sorted. Records that call them `labels` have the numbers of before
    /// [`super::record::LABELS_MOVED_BY`].
    #[serde(default, rename = "label_ids", alias = "labels")]
    pub labels: Vec<LabelId>,
}

/// What detail queries say of a host. An answer without a column leaves the value as it was.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostDetails {
    /// Name.
    pub hostname: String,
    /// Name for people.
    pub computer_name: String,
    /// Hardware UUID.
    pub uuid: String,
    /// `ubuntu`, `darwin`, `windows`, ...
    pub platform: String,
    /// `debian`, `rhel`, ...
    pub platform_like: String,
    /// `Ubuntu 22.04`.
    pub os_version: String,
    /// osquery's version.
    pub osquery_version: String,
    /// Seconds since boot.
    pub uptime_s: u64,
    /// Bytes of memory.
    pub memory: u64,
    /// CPU type.
    pub cpu_type: String,
    /// CPU brand.
    pub cpu_brand: String,
    /// Physical cores.
    pub cpu_physical_cores: u32,
    /// Logical cores.
    pub cpu_logical_cores: u32,
    /// Vendor.
    pub hardware_vendor: String,
    /// Model.
    pub hardware_model: String,
    /// Version.
    pub hardware_version: String,
    /// Serial number.
    pub hardware_serial: String,
    /// First address.
    pub primary_ip: String,
    /// Its hardware address.
    pub primary_mac: String,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Host {
    /// The name that people and result rows use.
    #[must_use]
    pub fn display_name(&self) -> &str {
        let details = &self.details;
        [
            &details.computer_name,
            &details.hostname,
            &details.uuid,
            &self.identifier,
        ]
        .into_iter()
        .find(|name| !name.is_empty())
        .map_or("", String::as_str)
    }

    /// The host name, or what it identified itself by before it told one.
    #[must_use]
    pub fn hostname(&self) -> &str {
        if self.details.hostname.is_empty() {
            &self.identifier
        } else {
            &self.details.hostname
        }
    }
}

/// A line of the audit log and of the activity feed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Activity {
    /// Number, growing.
    pub id: u64,
    /// Seconds since the epoch.
    pub created_at: u64,
    /// Who did it; none for the product itself.
    pub user: Option<UserId>,
    /// The actor's name as it was then.
    pub actor: String,
    /// `live_query`, `user_logged_in`, `applied_spec_query`, ...
    pub kind: String,
    /// What it was about.
    pub details: serde_json::Value,
}

/// Settings of the whole installation that the API may change.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct AppConfig {
    /// Whether live queries are switched off.
    pub live_query_disabled: bool,
    /// `{"config":{...},"overrides":{...}}`; none for the built-in options.
    pub agent_options: Option<Box<RawValue>>,
    /// The rest of the document as it was last given (organisation's name and the like).
    pub other: serde_json::Map<String, serde_json::Value>,
}

/// Any record of the catalog.
#[derive(Clone, Debug)]
pub enum Entity {
    /// Key: the user's number.
    User(User),
    /// Key: the token's hash.
    Token(Token),
    /// Key: team number, `/`, the secret.
    EnrollSecret(EnrollSecret),
    /// Key: the query's number.
    Query(Query),
    /// Key: the pack's number.
    Pack(Pack),
    /// Key: the label's number.
    Label(Label),
    /// Key: the team's number.
    Team(Team),
    /// Key: the host's number.
    Host(Box<Host>),
    /// Key: the activity's number.
    Activity(Activity),
    /// Key: `app`.
    AppConfig(AppConfig),
    /// Key: a unique name (`host/IDENTIFIER`, `query/TEAM/NAME`, ...). Keeps two writers from making the same thing
    /// twice; the value is the number of the thing.
    Name(String, u64),
}
