//! What this node has in memory, as records: for a store that has lost them.

use super::entity::{Entity, Host};
use super::state::host_name;
use super::{Catalog, State};
use crate::store::{Revision, StoreError, Stored};

impl Catalog {
    /// The store has lost the catalog: it gets back what is in memory here. Until then nothing is committed, and
    /// nobody is told that what they look for does not exist.
    pub(super) async fn put_back(&self, why: &StoreError) {
        tracing::error!("{why}");
        let (records, upto) = {
            let state = self.read();
            (records(&state), state.applied.upto())
        };
        let count = records.len();
        match self.store.put_back(records, upto).await {
            Ok(()) => tracing::warn!(records = count, "the catalog was written back"),
            Err(error) => tracing::error!(%error, "the catalog could not be written back"),
        }
    }
}

fn records(state: &State) -> Vec<Stored> {
    let mut entities: Vec<Entity> = Vec::new();
    let users = state.users.values();
    entities.extend(users.map(|(user, _)| Entity::User((**user).clone())));
    let tokens = state.tokens.values();
    entities.extend(tokens.map(|token| Entity::Token((**token).clone())));
    let secrets = state.secrets.values();
    entities.extend(secrets.cloned().map(Entity::EnrollSecret));
    let queries = state.queries.values();
    entities.extend(queries.map(|(query, _)| Entity::Query((**query).clone())));
    let packs = state.packs.values();
    entities.extend(packs.map(|(pack, _)| Entity::Pack((**pack).clone())));
    let labels = state.labels.values();
    entities.extend(labels.map(|(label, _)| Entity::Label((**label).clone())));
    let teams = state.teams.values();
    entities.extend(teams.map(|(team, _)| Entity::Team((**team).clone())));
    let activities = state.activities.values();
    entities.extend(activities.map(|activity| Entity::Activity((**activity).clone())));
    if state.has_app_config() {
        entities.push(Entity::AppConfig(state.app.clone()));
    }
    entities.extend(
        state
            .names()
            .map(|(name, number)| Entity::Name(name.clone(), *number)),
    );
    for host in state.hosts.iter() {
        entities.push(Entity::Host(Box::new(Host::clone(host))));
        let number = u64::from(host.id.0);
        entities.push(Entity::Name(host_name(host), number));
    }
    let upto = state.applied.upto();
    entities
        .iter()
        .map(|entity| record(state, entity, upto))
        .collect()
}

/// A record whose revision nobody keeps is as old as what has been applied.
fn record(state: &State, entity: &Entity, upto: Revision) -> Stored {
    Stored {
        kind: entity.kind().to_owned(),
        key: entity.key(),
        revision: state.revision_of(entity).unwrap_or(upto),
        value: Some(entity.value()),
    }
}
