//! Users, hosts, labels, queries and their kin: typed, in memory on every node, durable in the store.
//!
//! The store keeps opaque records and decides who wins; this module keeps a typed view that is as new as the
//! node's last look, so that reads (roles, targets, host lists) cost no store call. A commit is planned on the
//! view, made with the expectations that the plan relied on, and planned anew when another writer was faster.

pub mod builtin;
pub mod entity;
pub mod hosts;
pub mod presence;
pub mod record;
pub mod state;

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::store::{Change, Committed, Expect, Kind, Revision, Store, StoreError, Stored};
pub use entity::Entity;
pub use presence::Presence;
pub use state::State;

/// How often a commit is planned anew before it gives up; each round means that another writer made progress.
const COMMIT_ROUNDS: usize = 16;

/// One change that a plan wants.
#[derive(Clone, Debug)]
pub enum Edit {
    /// Puts an entity; it must still be as the plan saw it (absent, or at the same revision).
    Put(Entity),
    /// Puts an entity that must not exist yet, such as a unique name.
    Create(Entity),
    /// Puts an entity whatever is there.
    Overwrite(Entity),
    /// Deletes a record; being gone already is no conflict.
    Delete(Kind, String),
}

/// Why a commit was not made.
#[derive(Debug, thiserror::Error)]
pub enum CommitError<E> {
    /// The plan refused.
    #[error("refused")]
    Refused(E),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Others were faster, again and again.
    #[error("too many writers at once")]
    Contended,
}

/// The typed view and the way to change it.
pub struct Catalog {
    state: RwLock<State>,
    presence: Presence,
    store: Arc<dyn Store>,
}

impl Catalog {
    /// Reads everything from the store.
    ///
    /// # Errors
    /// When the store fails or holds a record that cannot be read.
    pub async fn load(store: Arc<dyn Store>) -> Result<Self, StoreError> {
        let catalog = Self {
            state: RwLock::default(),
            presence: Presence::default(),
            store,
        };
        catalog.reload().await?;
        Ok(catalog)
    }

    /// The catalog as it stands. Hold it briefly and never across an await.
    pub fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who was seen when.
    pub const fn presence(&self) -> &Presence {
        &self.presence
    }

    /// Reserves `count` numbers of a sequence and returns the first.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn reserve(&self, sequence: Kind, count: u32) -> Result<u64, StoreError> {
        self.store.reserve(sequence, count).await
    }

    /// Plans on the catalog as it stands and commits what the plan wants, all or nothing. The plan may run
    /// several times. An empty plan commits nothing.
    ///
    /// # Errors
    /// What the plan refuses, what the store fails with, or [`CommitError::Contended`].
    pub async fn commit<T, E>(
        &self,
        mut plan: impl FnMut(&State) -> Result<(Vec<Edit>, T), E>,
    ) -> Result<T, CommitError<E>> {
        for _ in 0..COMMIT_ROUNDS {
            let (edits, outcome, changes) = {
                let state = self.read();
                let (edits, outcome) = plan(&state).map_err(CommitError::Refused)?;
                let changes: Vec<Change> = edits.iter().map(|edit| change(&state, edit)).collect();
                (edits, outcome, changes)
            };
            if changes.is_empty() {
                return Ok(outcome);
            }
            match self.store.commit(changes).await? {
                Committed::Done(revision) => {
                    self.apply_own(edits, revision);
                    return Ok(outcome);
                }
                Committed::Conflict { .. } => self.catch_up().await?,
            }
        }
        Err(CommitError::Contended)
    }

    /// Applies what other nodes have committed.
    ///
    /// # Errors
    /// When the store fails or holds a record that cannot be read.
    pub async fn catch_up(&self) -> Result<(), StoreError> {
        loop {
            let after = self.read().revision;
            let Some(changes) = self.store.changes(after).await? else {
                return self.reload().await;
            };
            let Some(last) = changes.last().map(|stored| stored.revision) else {
                return Ok(());
            };
            let mut state = self.write();
            for stored in &changes {
                apply(&mut state, &self.presence, stored)?;
            }
            state.revision = state.revision.max(last);
        }
    }

    /// Applies other nodes' commits as they come, for ever.
    pub async fn follow(&self) {
        loop {
            self.store.committed_elsewhere().await;
            if let Err(error) = self.catch_up().await {
                tracing::warn!(%error, "the catalog could not catch up");
            }
        }
    }

    async fn reload(&self) -> Result<(), StoreError> {
        let mut fresh = State::default();
        let mut take = |records: Vec<Stored>| {
            let mut records = records.iter();
            records.try_for_each(|stored| apply(&mut fresh, &self.presence, stored))
        };
        let revision = self.store.load(&mut take).await?;
        fresh.revision = revision;
        *self.write() = fresh;
        Ok(())
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Own commits are applied at once; `changes` will bring them again in order, which changes nothing.
    fn apply_own(&self, edits: Vec<Edit>, revision: Revision) {
        let mut state = self.write();
        for edit in edits {
            match edit {
                Edit::Put(entity) | Edit::Create(entity) | Edit::Overwrite(entity) => {
                    self.presence.watch(&entity);
                    state.put(entity, revision);
                }
                Edit::Delete(kind, key) => state.delete(kind, &key),
            }
        }
        if revision == state.revision + 1 {
            state.revision = revision;
        }
    }
}

fn apply(state: &mut State, presence: &Presence, stored: &Stored) -> Result<(), StoreError> {
    let damaged = |error| StoreError::Damaged(format!("{} {}: {error}", stored.kind, stored.key));
    let Some(value) = &stored.value else {
        state.delete(&stored.kind, &stored.key);
        return Ok(());
    };
    if stored.kind == record::kind::MIGRATION {
        let why = "a migration into this store is not finished: run `answerback migrate` again";
        return Err(StoreError::Damaged(why.to_owned()));
    }
    if let Some(entity) = Entity::parse(&stored.kind, &stored.key, value).map_err(damaged)? {
        presence.watch(&entity);
        state.put(entity, stored.revision);
    }
    Ok(())
}

fn change(state: &State, edit: &Edit) -> Change {
    let put = |entity: &Entity, expect| Change {
        kind: entity.kind(),
        key: entity.key(),
        expect,
        value: Some(entity.value()),
    };
    match edit {
        Edit::Put(entity) => put(
            entity,
            state.revision_of(entity).map_or(Expect::Absent, Expect::At),
        ),
        Edit::Create(entity) => put(entity, Expect::Absent),
        Edit::Overwrite(entity) => put(entity, Expect::Anything),
        Edit::Delete(kind, key) => Change {
            kind,
            key: key.clone(),
            expect: Expect::Anything,
            value: None,
        },
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
