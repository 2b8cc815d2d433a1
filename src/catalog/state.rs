//! The catalog as it stands: typed tables with their indexes, built by applying stored records.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use roaring::RoaringBitmap;

use super::applied::Applied;
use super::entity::{
    Activity, AppConfig, EnrollSecret, Entity, Host, Label, Membership, Pack, Query, Role, Team,
    Token, User,
};
use super::hosts::Hosts;
use super::record::{APP_KEY, kind};
use crate::results::{HostId, LabelId, QueryId, TeamId, UserId};
use crate::store::Revision;

/// So many activities are kept in memory, the newest.
const ACTIVITIES_MAX: usize = 10_000;

/// A table of records by number, each with its revision.
pub type Table<K, T> = BTreeMap<K, (Arc<T>, Revision)>;

/// Everything in the catalog. Read it through [`super::Catalog::read`].
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Which commits it has in it.
    pub(super) applied: Applied,
    /// Users by number.
    pub users: Table<UserId, User>,
    /// Tokens by the hex SHA-256 of the token.
    pub tokens: HashMap<String, Arc<Token>>,
    /// Enroll secrets by key; see [`super::record::secret_key`].
    pub secrets: BTreeMap<String, EnrollSecret>,
    /// Queries by number.
    pub queries: Table<QueryId, Query>,
    /// Packs by number.
    pub packs: Table<u32, Pack>,
    /// Labels by number.
    pub labels: Table<LabelId, Label>,
    /// Teams by number.
    pub teams: Table<TeamId, Team>,
    /// Enrolled hosts.
    pub hosts: Hosts,
    /// The newest activities by number.
    pub activities: BTreeMap<u64, Arc<Activity>>,
    /// The installation's settings.
    pub app: AppConfig,
    app_revision: Option<Revision>,
    names: HashMap<String, u64>,
}

impl State {
    /// Whether the installation's settings were ever set.
    pub(super) const fn has_app_config(&self) -> bool {
        self.app_revision.is_some()
    }

    /// The unique names and what they stand for; those of hosts are not among them.
    pub(super) fn names(&self) -> impl Iterator<Item = (&String, &u64)> {
        self.names.iter()
    }

    /// The number that a unique name stands for; names are made by [`name_of`] and its kin.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<u64> {
        self.names.get(name).copied()
    }

    /// The label of this name.
    #[must_use]
    pub fn label(&self, name: &str) -> Option<&Arc<Label>> {
        self.labels
            .values()
            .map(|(label, _)| label)
            .find(|label| label.name == name)
    }

    /// The team of this name.
    #[must_use]
    pub fn team(&self, name: &str) -> Option<&Arc<Team>> {
        self.teams
            .values()
            .map(|(team, _)| team)
            .find(|team| team.name == name)
    }

    /// The pack of this name.
    #[must_use]
    pub fn pack(&self, name: &str) -> Option<&Arc<Pack>> {
        self.packs
            .values()
            .map(|(pack, _)| pack)
            .find(|pack| pack.name == name)
    }

    /// The saved query of this name in this team (none: global).
    #[must_use]
    pub fn query(&self, team: Option<TeamId>, name: &str) -> Option<&Arc<Query>> {
        let id = self.named(&query_name(team, name))?;
        self.queries.get(&QueryId(id)).map(|(query, _)| query)
    }

    /// The user who logs in with this address.
    #[must_use]
    pub fn user_by_email(&self, email: &str) -> Option<&Arc<User>> {
        let id = self.named(&user_name(email))?;
        self.users
            .get(&UserId(u32::try_from(id).ok()?))
            .map(|(user, _)| user)
    }

    /// The members of a label, dynamic or manual, as raw host numbers.
    #[must_use]
    pub fn members(&self, label: &Label) -> RoaringBitmap {
        if label.builtin && label.name == ALL_HOSTS {
            return self.hosts.all().clone();
        }
        match label.membership {
            Membership::Dynamic => self.hosts.of_label(label.id).cloned().unwrap_or_default(),
            Membership::Manual => {
                let ids = label.hosts.iter().flat_map(|name| self.hosts.named(name));
                ids.map(|HostId(id)| id).collect()
            }
        }
    }

    /// The hosts that a user may see: all with a global role, else those of the user's teams.
    #[must_use]
    pub fn visible_to(&self, user: &User) -> RoaringBitmap {
        if user.global_role.is_some() {
            return self.hosts.all().clone();
        }
        let mut visible = RoaringBitmap::new();
        for team in user.teams.keys() {
            if let Some(hosts) = self.hosts.of_team(*team) {
                visible |= hosts;
            }
        }
        visible
    }

    /// Whether any user is an admin: a fresh catalog has none.
    #[must_use]
    pub fn has_admin(&self) -> bool {
        self.users
            .values()
            .any(|(user, _)| user.global_role == Some(Role::Admin))
    }

    /// The revision of a record, for a commit that changes it.
    pub(super) fn revision_of(&self, entity: &Entity) -> Option<Revision> {
        match entity {
            Entity::User(user) => self.users.get(&user.id).map(|(_, revision)| *revision),
            Entity::Query(query) => self.queries.get(&query.id).map(|(_, revision)| *revision),
            Entity::Pack(pack) => self.packs.get(&pack.id).map(|(_, revision)| *revision),
            Entity::Label(label) => self.labels.get(&label.id).map(|(_, revision)| *revision),
            Entity::Team(team) => self.teams.get(&team.id).map(|(_, revision)| *revision),
            Entity::Host(host) => self.hosts.revision(host.id),
            Entity::AppConfig(_) => self.app_revision,
            Entity::Token(_) | Entity::EnrollSecret(_) | Entity::Activity(_) | Entity::Name(..) => {
                None
            }
        }
    }

    /// Whether a record that is there already tells whether it is newer than this one, or no other can be in its place.
    pub(super) fn tells_age(entity: &Entity) -> bool {
        match entity {
            Entity::Token(_) | Entity::EnrollSecret(_) => false,
            Entity::Name(name, _) => name.starts_with(HOST_NAME),
            _ => true,
        }
    }

    /// Takes in one entity.
    pub(super) fn put(&mut self, entity: Entity, revision: Revision) {
        let key = entity.key();
        match entity {
            Entity::User(user) => drop(self.users.insert(user.id, (Arc::new(user), revision))),
            Entity::Token(token) => drop(self.tokens.insert(key, Arc::new(token))),
            Entity::EnrollSecret(secret) => drop(self.secrets.insert(key, secret)),
            Entity::Query(query) => {
                drop(self.queries.insert(query.id, (Arc::new(query), revision)))
            }
            Entity::Pack(pack) => drop(self.packs.insert(pack.id, (Arc::new(pack), revision))),
            Entity::Label(label) => drop(self.labels.insert(label.id, (Arc::new(label), revision))),
            Entity::Team(team) => drop(self.teams.insert(team.id, (Arc::new(team), revision))),
            Entity::Host(host) => self.hosts.put(*host, revision),
            Entity::Activity(activity) => {
                self.activities.insert(activity.id, Arc::new(activity));
                while self.activities.len() > ACTIVITIES_MAX {
                    self.activities.pop_first();
                }
            }
            Entity::AppConfig(app) => {
                self.app = app;
                self.app_revision = Some(revision);
            }
            // A host's name is its index by identifier; keeping it twice would cost 100 bytes a host.
            Entity::Name(name, _) if name.starts_with(HOST_NAME) => {}
            Entity::Name(name, number) => drop(self.names.insert(name, number)),
        }
    }

    /// Takes out one record.
    pub(super) fn delete(&mut self, kind: &str, key: &str) {
        let number = key.parse::<u32>().ok();
        match kind {
            kind::USER => drop(number.and_then(|id| self.users.remove(&UserId(id)))),
            kind::TOKEN => drop(self.tokens.remove(key)),
            kind::ENROLL_SECRET => drop(self.secrets.remove(key)),
            kind::QUERY => drop(
                key.parse()
                    .ok()
                    .and_then(|id| self.queries.remove(&QueryId(id))),
            ),
            kind::PACK => drop(number.and_then(|id| self.packs.remove(&id))),
            kind::LABEL => {
                if let Some(id) = number.map(LabelId) {
                    self.labels.remove(&id);
                    self.hosts.forget_label(id);
                }
            }
            kind::TEAM => drop(number.and_then(|id| self.teams.remove(&TeamId(id)))),
            kind::HOST => {
                if let Some(id) = number {
                    self.hosts.remove(HostId(id));
                }
            }
            kind::ACTIVITY => drop(
                key.parse()
                    .ok()
                    .and_then(|id: u64| self.activities.remove(&id)),
            ),
            kind::APP_CONFIG if key == APP_KEY => self.app = AppConfig::default(),
            kind::NAME => drop(self.names.remove(key)),
            _ => {}
        }
    }
}

/// The builtin label that holds every host.
pub const ALL_HOSTS: &str = "All Hosts";

const HOST_NAME: &str = "host/";

/// The unique name of a host's identifier, and of which of those that have it.
#[must_use]
pub fn host_name(host: &Host) -> String {
    let identifier = &host.identifier;
    match host.twin {
        0 => format!("{HOST_NAME}{identifier}"),
        // No identifier has a line break.
        twin => format!("{HOST_NAME}{identifier}\n{twin}"),
    }
}

/// The unique name of a user's address.
#[must_use]
pub fn user_name(email: &str) -> String {
    format!("user/{}", email.to_lowercase())
}

/// The unique name of a query within its team.
#[must_use]
pub fn query_name(team: Option<TeamId>, name: &str) -> String {
    format!("query/{}/{name}", team.unwrap_or_default())
}

/// The unique name of a label (`label`), team (`team`) or pack (`pack`).
#[must_use]
pub fn name_of(kind: &str, name: &str) -> String {
    format!("{kind}/{name}")
}
