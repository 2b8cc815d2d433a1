//! Users, hosts, labels, queries and their kin: typed, in memory on every node, durable in the store.
//!
//! The store keeps opaque records and decides who wins; this module keeps a typed view that is as new as the
//! node's last look, so that reads (roles, targets, host lists) cost no store call. A commit is planned on the
//! view, made with the expectations that the plan relied on, and planned anew when another writer was faster.

mod applied;
pub mod builtin;
mod departed;
pub mod entity;
pub mod hosts;
pub mod presence;
mod put_back;
pub mod record;
pub mod state;
mod strangers;
pub mod trail;

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::watch;

use crate::sampled;
use crate::store::rehearsal::Rehearsal;
use crate::store::{Change, Committed, Expect, Kind, Revision, Store, StoreError, Stored};
pub use entity::Entity;
pub use presence::Presence;
pub use state::State;
pub use strangers::NoLook;

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

impl Edit {
    /// Whether somebody may have lost something by it.
    fn is_about_people(&self) -> bool {
        match self {
            Self::Put(entity) | Self::Create(entity) | Self::Overwrite(entity) => {
                matches!(entity, Entity::User(_))
            }
            Self::Delete(kind, _) => [record::kind::USER, record::kind::TOKEN].contains(kind),
        }
    }

    /// Whether it can be told from a later commit's by what is there.
    fn tells_age(&self) -> bool {
        match self {
            Self::Put(entity) | Self::Create(entity) | Self::Overwrite(entity) => {
                State::tells_age(entity)
            }
            Self::Delete(..) => false,
        }
    }
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

impl<E: From<StoreError>> CommitError<E> {
    /// The plan's own error, whatever happened; `contended` if others were faster.
    pub fn or_contended(self, contended: impl FnOnce() -> E) -> E {
        match self {
            Self::Refused(error) => error,
            Self::Store(error) => error.into(),
            Self::Contended => contended(),
        }
    }
}

/// The typed view and the way to change it.
pub struct Catalog {
    state: RwLock<State>,
    presence: Arc<Presence>,
    store: Arc<dyn Store>,
    /// See [`Catalog::people`].
    people: watch::Sender<()>,
    /// See [`Catalog::departures`].
    departures: watch::Sender<()>,
    looks: strangers::Looks,
}

impl Catalog {
    /// Reads everything from the store.
    ///
    /// # Errors
    /// When the store fails or holds a record that cannot be read.
    pub async fn load(store: Arc<dyn Store>) -> Result<Self, StoreError> {
        let catalog = Self {
            state: RwLock::default(),
            presence: Arc::default(),
            store,
            people: watch::Sender::default(),
            departures: watch::Sender::default(),
            looks: strangers::Looks::default(),
        };
        catalog.reload().await?;
        Ok(catalog)
    }

    /// The catalog as it stands. Hold it briefly and never across an await.
    pub fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy whose commits go to nobody but itself. Costs about as much memory as the catalog has.
    #[must_use]
    pub fn rehearsal(&self) -> (Self, Arc<dyn Store>) {
        let state = self.read().clone();
        let store = Rehearsal::new(Arc::clone(&self.store), state.applied.upto());
        let store: Arc<dyn Store> = Arc::new(store);
        let copy = Self {
            state: RwLock::new(state),
            presence: Arc::clone(&self.presence),
            store: Arc::clone(&store),
            people: watch::Sender::default(),
            departures: watch::Sender::default(),
            looks: strangers::Looks::default(),
        };
        (copy, store)
    }

    /// Who was seen when.
    pub fn presence(&self) -> &Presence {
        &self.presence
    }

    /// Tells of changes to users and of tokens that are gone, by whatever node they were made: whoever has let somebody
    /// in for longer than a request must then look them up again.
    #[must_use]
    pub fn people(&self) -> watch::Receiver<()> {
        self.people.subscribe()
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
                    if !self.apply_own(edits, revision) {
                        self.try_to_catch_up().await;
                    }
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
            let after = self.read().applied.upto();
            let Some(changes) = self.store.changes(after).await? else {
                self.reload().await?;
                continue;
            };
            let Some(last) = changes.last().map(|stored| stored.revision) else {
                return Ok(());
            };
            let mut state = self.write();
            // Somebody else may have been told more meanwhile.
            let known = state.applied.upto();
            let (mut people, departures) = (false, state.hosts.departures());
            for stored in changes.iter().filter(|stored| stored.revision > known) {
                apply(&mut state, &self.presence, stored)?;
                people |= stored.kind == record::kind::USER
                    || (stored.kind == record::kind::TOKEN && stored.value.is_none());
            }
            state.applied.reach(last);
            let departed = state.hosts.departures() != departures;
            drop(state);
            if people {
                self.people.send_replace(());
            }
            if departed {
                self.departures.send_replace(());
            }
        }
    }

    /// Applies other nodes' commits as they come, for ever.
    pub async fn follow(&self) {
        loop {
            self.store.committed_elsewhere().await;
            self.try_to_catch_up().await;
        }
    }

    /// For whom it can wait: what is committed stays so if the store fails now, and whoever follows asks again.
    async fn try_to_catch_up(&self) {
        let caught_up = self.catch_up().await;
        if let Err(error @ StoreError::Vanished(_)) = &caught_up {
            self.put_back(error).await;
        } else if let Err(error) = caught_up {
            sampled!(warn, %error, "the catalog could not catch up");
        }
    }

    async fn reload(&self) -> Result<(), StoreError> {
        let mut fresh = State::default();
        let mut take = |records: Vec<Stored>| {
            let mut records = records.iter();
            records.try_for_each(|stored| apply(&mut fresh, &self.presence, stored))
        };
        let revision = self.store.load(&mut take).await?;
        fresh.applied.reach(revision);
        *self.write() = fresh;
        self.people.send_replace(());
        self.departures.send_replace(());
        Ok(())
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Own commits are applied at once, in whatever order they come back. False if only the store can tell how the view
    /// is to be, because a later commit may have been about the same records, or one has been missing for long.
    fn apply_own(&self, edits: Vec<Edit>, revision: Revision) -> bool {
        let mut state = self.write();
        if revision <= state.applied.upto() {
            return true;
        }
        if state.applied.is_past(revision) && !edits.iter().all(Edit::tells_age) {
            return false;
        }
        if edits.iter().any(Edit::is_about_people) {
            // Whoever looks now waits for the lock.
            self.people.send_replace(());
        }
        let departures = state.hosts.departures();
        for edit in edits {
            match edit {
                Edit::Put(entity) | Edit::Create(entity) | Edit::Overwrite(entity) => {
                    let known = state.revision_of(&entity);
                    if known.is_none_or(|known| known <= revision) {
                        self.presence.watch(&entity);
                        state.put(entity, revision);
                    }
                }
                Edit::Delete(kind, key) => state.delete(kind, &key),
            }
        }
        if state.hosts.departures() != departures {
            self.departures.send_replace(());
        }
        state.applied.add(revision)
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
