//! What a viewer's two messages make happen: the token is looked up, the campaign opened, joined and claimed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Shared;
use super::ticker;
use super::watch::CampaignWatch;
use crate::auth::Actor;
use crate::results::{Campaign, Ended, Selection, Seq, Status, StreamError};
use crate::sampled;
use crate::store::{CampaignLog, StoreError};
use crate::wake::WakeSlot;

/// How long a place in the log that is not here yet is waited for: what another node has appended is here within a
/// second even if its wake slot is lost.
const ARRIVE_WITHIN: Duration = Duration::from_secs(2);
/// How often it is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What a task found out, for the conversation to pick up when it is asked next.
pub(super) enum Found {
    Authenticated(Result<Actor, StreamError>),
    Selected(Result<Selected, StreamError>),
}

/// A place among a campaign's viewers. Dropped without being taken (the client left meanwhile), it is given back.
pub(super) struct Selected {
    shared: Arc<Shared>,
    wake_slot: WakeSlot,
    watch: Arc<CampaignWatch>,
    taken: bool,
}

impl Selected {
    pub(super) fn watch(&self) -> &CampaignWatch {
        &self.watch
    }

    /// The place is taken: from now on the taker gives it back.
    pub(super) fn into_watch(mut self) -> Arc<CampaignWatch> {
        self.taken = true;
        Arc::clone(&self.watch)
    }
}

impl Drop for Selected {
    fn drop(&mut self) {
        if !self.taken {
            self.watch.log.unsubscribe(&self.wake_slot);
            self.shared.leave(&self.watch);
        }
    }
}

/// A token that this node does not know may have been made on another one a moment ago.
pub(super) async fn authenticate_late(shared: Arc<Shared>, token: String) -> Found {
    let caught_up = shared.catalog.look_for_strangers().await;
    let actor = shared.auth.authenticate(&token, shared.clock.now());
    Found::Authenticated(match (actor, caught_up) {
        (Some(actor), _) => Ok(actor),
        (None, Ok(())) => Err(StreamError::unauthorized()),
        (None, Err(error)) => {
            sampled!(warn, %error, "a viewer's token could not be looked up");
            Err(StreamError::cannot_authenticate())
        }
    })
}

/// Opens the campaign for this viewer.
pub(super) async fn select(
    shared: Arc<Shared>,
    actor: Arc<Actor>,
    selection: Selection,
    wake_slot: WakeSlot,
) -> Found {
    Found::Selected(open(&shared, &actor, selection, wake_slot).await)
}

async fn open(
    shared: &Arc<Shared>,
    actor: &Actor,
    selection: Selection,
    wake_slot: WakeSlot,
) -> Result<Selected, StreamError> {
    let id = selection.campaign;
    let unreadable = |error: crate::store::StoreError| {
        tracing::warn!(campaign = %id, %error, "a viewer could not open the campaign");
        StreamError::cannot_open(id)
    };
    let campaign = shared.store.campaign(id).await.map_err(unreadable)?;
    // Which campaigns there are is nobody's business who may not watch them.
    let campaign = campaign.filter(|campaign| actor.may_watch(campaign));
    let campaign = campaign.ok_or_else(|| StreamError::campaign_not_found(id))?;
    audit(actor, &campaign);
    if campaign.is_cancelled() {
        return Err(StreamError::campaign_cancelled(id));
    }
    let log = place(shared, &campaign, selection)
        .await
        .map_err(unreadable)??;
    let now = shared.clock.now();
    let watch = {
        let key = (id, log.epoch());
        let ended = campaign.ended.map(|(_, ending)| shared.ended(ending));
        let count = (&*shared.catalog, now);
        let make = || Arc::new(CampaignWatch::new(&campaign, log, key.1, ended, count));
        let entry = shared.watches.entry(key).or_insert_with(make);
        // Counted under the table's lock: the last viewer of before cannot take the watch out in between.
        entry.viewers.fetch_add(1, Ordering::AcqRel);
        Arc::clone(&entry)
    };
    watch.log.subscribe(&wake_slot);
    let selected = Selected {
        shared: Arc::clone(shared),
        wake_slot,
        watch,
        taken: false,
    };
    if ticker::miss(shared, selected.watch()).await {
        selected
            .watch()
            .look(&shared.catalog, None, shared.clock.now());
    }
    if campaign.status != Status::Complete
        && let Some(ended) = shared.claim(selected.watch()).await.map_err(unreadable)?
    {
        return after_the_end(shared, selected, ended).await;
    }
    Ok(selected)
}

/// The log in which the viewer's place is. Another node may have told the viewer of answers, or of an epoch, that have
/// not reached this one yet: they are waited for.
async fn place(
    shared: &Shared,
    campaign: &Campaign,
    selection: Selection,
) -> Result<Result<Arc<CampaignLog>, StreamError>, StoreError> {
    let (id, after) = (selection.campaign, selection.after);
    // Who tells none has a place in the first one, or has read no totals: what it has seen at its place is not known.
    let epoch = selection.epoch.unwrap_or(0);
    let other_epoch = (after > Seq(0) || selection.epoch.is_some()) && epoch != campaign.epoch;
    let give_up = tokio::time::Instant::now() + ARRIVE_WITHIN;
    loop {
        let Some(log) = shared.store.follow(id).await? else {
            return Ok(Err(StreamError::results_gone(id)));
        };
        let is_late = tokio::time::Instant::now() >= give_up;
        let same_epoch = log.epoch() == campaign.epoch;
        if !other_epoch && after <= log.last() && (same_epoch || (is_late && after == Seq(0))) {
            return Ok(Ok(log));
        }
        if other_epoch || is_late {
            return Ok(Err(StreamError::cannot_resume(id, after)));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The campaign ended between the look and the claim.
async fn after_the_end(
    shared: &Shared,
    selected: Selected,
    ended: Ended,
) -> Result<Selected, StreamError> {
    let id = selected.watch().id();
    let campaign = shared.store.campaign(id).await.ok().flatten();
    if campaign.is_none_or(|campaign| campaign.is_cancelled()) {
        return Err(StreamError::campaign_cancelled(id));
    }
    let now = shared.clock.now();
    selected.watch().look(&shared.catalog, Some(ended), now);
    Ok(selected)
}

/// Admins who watch what is not theirs leave a trace.
fn audit(actor: &Actor, campaign: &Campaign) {
    if actor.user.id != campaign.question.user_id {
        tracing::info!(
            target: "audit", user = %actor.user.id, campaign = %campaign.id, "an admin watches another's campaign"
        );
    }
}
