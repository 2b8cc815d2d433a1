//! The audit trail: every privileged act becomes an activity in the catalog and a line of the target `audit`.

use serde_json::Value;

use super::Api;
use crate::auth::Actor;
use crate::catalog::entity::{Activity, Entity};
use crate::catalog::record::kind;
use crate::catalog::{Edit, State};
use crate::clock::Timestamp;

/// So many activities are kept, the newest; each new one takes the place of the one so far back.
const ACTIVITIES_MAX: u64 = 10_000;

/// The actor did this. An act that cannot be recorded has happened nevertheless: it stands in the log at least.
pub(super) async fn record(api: &Api, actor: &Actor, what: &str, details: Value, now: Timestamp) {
    if api.is_rehearsal {
        return;
    }
    let user = &actor.user;
    tracing::info!(
        target: "audit",
        user = user.id.0,
        email = %user.email,
        activity = what,
        %details,
    );
    if let Err(error) = store(api, actor, what, details, now).await {
        tracing::warn!(%error, activity = what, "an activity could not be kept");
    }
}

async fn store(
    api: &Api,
    actor: &Actor,
    what: &str,
    details: Value,
    now: Timestamp,
) -> Result<(), String> {
    let catalog = &api.parts.catalog;
    let id = catalog.reserve("activity", 1).await;
    let id = id.map_err(|error| error.to_string())?;
    let activity = Activity {
        id,
        created_at: now.secs(),
        user: Some(actor.user.id),
        actor: actor.user.name.clone(),
        kind: what.to_owned(),
        details,
    };
    let plan = |_: &State| {
        let mut edits = vec![Edit::Create(Entity::Activity(activity.clone()))];
        if let Some(old) = id.checked_sub(ACTIVITIES_MAX) {
            edits.push(Edit::Delete(kind::ACTIVITY, old.to_string()));
        }
        Ok::<_, std::convert::Infallible>((edits, ()))
    };
    let committed = catalog.commit(plan).await;
    committed.map_err(|error| error.to_string())
}
