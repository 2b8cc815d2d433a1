//! The audit trail: every privileged act becomes an activity in the catalog and a line of the target `audit`.

use serde_json::Value;

use super::Api;
use crate::auth::Actor;
use crate::catalog::trail::Act;
use crate::clock::Timestamp;

/// The actor did this. An act that cannot be recorded has happened nevertheless: it stands in the log at least.
pub(super) async fn record(api: &Api, actor: &Actor, what: &str, details: Value, now: Timestamp) {
    if api.is_rehearsal {
        return;
    }
    let user = &actor.user;
    let act = Act::new(Some(user.id), &user.name, what, details);
    tracing::info!(
        target: "audit",
        user = user.id.0,
        email = %user.email,
        activity = what,
        details = %act.details(),
    );
    if let Err(error) = api.parts.catalog.keep_act(act, now).await {
        tracing::warn!(%error, activity = what, "an activity could not be kept");
    }
}
