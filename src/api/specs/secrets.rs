//! Enroll secrets: read, and replaced as a whole.

use std::collections::HashSet;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::json;

use crate::api::Api;
use crate::api::audit;
use crate::api::call::Call;
use crate::api::error::{ApiError, Fault};
use crate::api::reply::Reply;
use crate::api::route::{Access, Route, run};
use crate::api::wire::campaign::or_default;
use crate::api::wire::object::object;
use crate::api::wire::team::{SecretIn, secrets_of};
use crate::auth::Action;
use crate::catalog::entity::{EnrollSecret, Entity};
use crate::catalog::record::{kind, secret_key};
use crate::catalog::{Edit, State};
use crate::clock::Timestamp;
use crate::results::TeamId;

/// Secrets of one team, or global ones (spec fleet-live-query, 5.3).
const SECRETS_MAX: usize = 50;
/// Characters of a secret; what Fleet's column holds.
const SECRET_CHARS_MAX: usize = 255;

pub(in crate::api) const ROUTES: &[Route] = &[
    Route::get(
        "/spec/enroll_secret",
        Access::To(Action::Secrets),
        run!(show),
    )
    .says("The global enroll secrets.")
    .gives("{spec: {secrets: [Secret]}}"),
    Route::post(
        "/spec/enroll_secret",
        Access::To(Action::Secrets),
        run!(replace),
    )
    .says("Replaces the global enroll secrets.")
    .takes("{spec: {secrets: [SecretIn; 0..50]|null}}"),
];

#[derive(Deserialize)]
struct ReplaceIn {
    #[serde(deserialize_with = "object")]
    spec: SecretsIn,
}

/// A set of secrets. It must be there, if only as null: replacing all by a slip would lock the fleet out.
#[derive(Deserialize)]
pub(crate) struct SecretsIn {
    /// All of them.
    #[serde(deserialize_with = "or_default")]
    pub secrets: Vec<SecretIn>,
}

async fn show(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    if !call.actor()?.may(Action::Secrets) {
        return Err(ApiError::Forbidden);
    }
    let state = api.parts.catalog.read();
    let secrets = secrets_of(&state, None);
    Ok(Reply::json(&json!({"spec": {"secrets": secrets}})))
}

async fn replace(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let actor = call.actor()?;
    if !actor.may(Action::Secrets) {
        return Err(ApiError::Forbidden);
    }
    let body: ReplaceIn = call.json()?;
    let secrets = body.spec.secrets;
    let faults = faults("spec.secrets", &secrets);
    if !faults.is_empty() {
        return Err(ApiError::Invalid(faults));
    }
    let plan = |state: &State| Ok::<_, ApiError>((edits(state, None, &secrets, call.now), ()));
    api.parts.catalog.commit(plan).await?;
    let details = json!({"count": secrets.len()});
    audit::record(&api, actor, "edited_enroll_secrets", details, call.now).await;
    Ok(Reply::empty())
}

/// What is wrong with a set of secrets, by itself.
#[must_use]
pub(crate) fn faults(field: &str, secrets: &[SecretIn]) -> Vec<Fault> {
    let mut faults = Vec::new();
    if secrets.len() > SECRETS_MAX {
        faults.push(Fault {
            name: field.to_owned(),
            reason: format!("must not have more than {SECRETS_MAX} secrets"),
        });
    }
    for (at, secret) in secrets.iter().enumerate().take(SECRETS_MAX) {
        let text = secret.text();
        let reason = if text.trim().is_empty() {
            "must not be empty"
        } else if text.chars().count() > SECRET_CHARS_MAX {
            "must not be longer than 255 characters"
        } else {
            continue;
        };
        faults.push(Fault {
            name: format!("{field}[{at}].secret"),
            reason: reason.to_owned(),
        });
    }
    faults
}

/// The edits that make these the secrets of a team, or the global ones. Those that stay keep their age.
#[must_use]
pub(crate) fn edits(
    state: &State,
    team: Option<TeamId>,
    wanted: &[SecretIn],
    now: Timestamp,
) -> Vec<Edit> {
    let wanted: HashSet<&str> = wanted.iter().map(SecretIn::text).collect();
    let known: HashSet<&str> = state
        .secrets
        .values()
        .filter(|secret| secret.team == team)
        .map(|secret| secret.secret.as_str())
        .collect();
    let gone = known.difference(&wanted);
    let mut edits: Vec<Edit> = gone
        .map(|secret| Edit::Delete(kind::ENROLL_SECRET, secret_key(team, secret)))
        .collect();
    edits.extend(wanted.difference(&known).map(|secret| {
        Edit::Create(Entity::EnrollSecret(EnrollSecret {
            secret: (*secret).to_owned(),
            team,
            created_at: now.secs(),
        }))
    }));
    edits
}
