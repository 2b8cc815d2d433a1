//! Who the viewers are, looked up again whenever that may have changed: whoever loses a right loses the streams that came
//! with it.
//!
//! All sessions of one token share an [`Identity`]. Nothing of this is looked at for a delivery: a change is a new
//! number of the watches' ticks, at which every conversation asks whether it may go on.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use dashmap::DashMap;

use super::Shared;
use crate::auth::Actor;
use crate::wake::{WakeSlot, WakeSlots};

/// How often tokens are looked up again without an occasion: those that have run out tell nobody.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Between two looks, however often people change.
const PAUSE: Duration = Duration::from_millis(50);

/// Somebody with open sessions, as they stand now.
#[derive(Debug)]
pub(super) struct Identity {
    hash: String,
    /// None once the token is not good any more.
    actor: ArcSwapOption<Actor>,
    /// Those of the sessions.
    wake_slots: Mutex<WakeSlots>,
}

impl Identity {
    pub(super) fn actor(&self) -> Option<Arc<Actor>> {
        self.actor.load_full()
    }

    fn wake_slots(&self) -> MutexGuard<'_, WakeSlots> {
        self.wake_slots
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// By the token's hash.
#[derive(Debug, Default)]
pub(super) struct Identities(DashMap<String, Arc<Identity>>);

impl Identities {
    /// One more session of somebody who has just been looked up.
    pub(super) fn join(&self, actor: Actor, wake_slot: &WakeSlot) -> Arc<Identity> {
        let hash = actor.token.hash.clone();
        let entry = self.0.entry(hash.clone()).or_insert_with(|| {
            Arc::new(Identity {
                hash,
                actor: ArcSwapOption::empty(),
                wake_slots: Mutex::default(),
            })
        });
        // If the token was revoked since, the next look finds out.
        entry.actor.store(Some(Arc::new(actor)));
        entry.wake_slots().add(wake_slot);
        Arc::clone(&entry)
    }

    /// One session less.
    pub(super) fn leave(&self, identity: &Identity, wake_slot: &WakeSlot) {
        identity.wake_slots().remove(wake_slot);
        self.0.remove_if(&identity.hash, |_, identity| {
            identity.wake_slots().is_empty()
        });
    }
}

/// Looks people up again when something about them has changed, for ever.
pub(super) async fn run(shared: &Shared) {
    let mut changes = shared.catalog.people();
    loop {
        // An elapsed timeout is the regular look.
        let _ = tokio::time::timeout(LOOK_EVERY, changes.changed()).await;
        look(shared);
        tokio::time::sleep(PAUSE).await;
    }
}

fn look(shared: &Shared) {
    let entries = shared.identities.0.iter();
    let identities: Vec<Arc<Identity>> = entries.map(|entry| Arc::clone(&entry)).collect();
    let now = shared.clock.now();
    let mut changed = identities;
    changed.retain(|identity| {
        let Some(before) = identity.actor() else {
            return false;
        };
        let after = shared.auth.renew(&before, now);
        let same = after
            .as_ref()
            .is_some_and(|after| Arc::ptr_eq(&after.user, &before.user));
        if !same {
            identity.actor.store(after.map(Arc::new));
        }
        !same
    });
    if changed.is_empty() {
        return;
    }
    for watch in &shared.watches {
        watch.renumber();
    }
    for identity in changed {
        identity.wake_slots().notify();
    }
}
