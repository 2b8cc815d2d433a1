//! Logging in and out, and one's own password.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::json;

use super::Api;
use super::audit;
use super::call::Call;
use super::error::ApiError;
use super::reply::Reply;
use super::route::{Access, Route, run};
use super::wire::user::UserOut;
use crate::auth::LoginError;
use crate::catalog::State;
use crate::catalog::entity::{Team, User};
use crate::sampled;

pub(super) const ROUTES: &[Route] = &[
    Route::post("/login", Access::Open, run!(login))
        .says("Begins a session. Failures are slow, and limited for an account from an address.")
        .limited()
        .takes("{email: string, password: string}")
        .gives("{user: User, available_teams: [TeamSummary], token: string}"),
    Route::post("/logout", Access::Pending, run!(logout))
        .says("Ends the session of the token. A program's token is revoked instead."),
    Route::get("/me", Access::Pending, run!(me))
        .says("Whose token this is.")
        .gives("{user: User, available_teams: [TeamSummary], settings: {}}"),
    Route::post("/change_password", Access::Pending, run!(change_password))
        .says("Replaces one's own password; other sessions end.")
        .limited()
        .takes("{old_password?: string, new_password: password}"),
    Route::post(
        "/perform_required_password_reset",
        Access::Pending,
        run!(perform_reset),
    )
    .says("Sets the password of a user who must change it.")
    .takes("{new_password: password}")
    .gives("{user: User}"),
];

#[derive(Deserialize)]
struct LoginIn {
    /// Older clients call it `username`.
    #[serde(alias = "username")]
    email: String,
    password: String,
}

async fn login(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let LoginIn { email, password } = call.json()?;
    let auth = &api.parts.auth;
    let outcome = auth.login(&email, &password, call.address, call.now).await;
    let login = match outcome {
        Ok(login) => login,
        Err(error) => {
            match error {
                // No guess was tried: who floods this does not write the log as well.
                LoginError::TooMany(_) => {
                    sampled!(warn, address = %call.address, "log-ins are refused after too many failures");
                }
                _ => {
                    tracing::info!(target: "audit", address = %call.address, %error, "a login failed");
                }
            }
            return Err(error.into());
        }
    };
    if let Ok(actor) = auth.resolve(&login.token, call.now) {
        let details = json!({"public_ip": call.address.to_string()});
        audit::record(&api, &actor, "user_logged_in", details, call.now).await;
    }
    let state = api.parts.catalog.read();
    Ok(Reply::json(&json!({
        "user": UserOut::of(&login.user, &state),
        "available_teams": teams_of(&login.user, &state),
        "token": login.token,
    })))
}

async fn logout(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let actor = call.actor()?;
    // The token of a program ends by being revoked, not because somebody tried it in a browser.
    if !actor.token.is_session() {
        let reason = "this token was made for a program and does not log out: revoke it (DELETE /users/{id}/tokens/{token})";
        return Err(ApiError::invalid("base", reason));
    }
    api.parts.auth.revoke(&actor.token).await?;
    Ok(Reply::empty())
}

async fn me(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let actor = call.actor()?;
    let state = api.parts.catalog.read();
    Ok(Reply::json(&json!({
        "user": UserOut::of(&actor.user, &state),
        "available_teams": teams_of(&actor.user, &state),
        "settings": {},
    })))
}

#[derive(Deserialize)]
struct PasswordIn {
    #[serde(default)]
    old_password: String,
    new_password: String,
}

async fn change_password(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let actor = call.actor()?;
    let PasswordIn {
        old_password,
        new_password,
    } = call.json()?;
    if old_password == new_password {
        let reason = "New password may not match the current password";
        return Err(ApiError::invalid("new_password", reason));
    }
    let pair = (old_password.as_str(), new_password.as_str());
    let changed = api
        .parts
        .auth
        .change_password(actor, pair, call.address, call.now);
    changed.await.map_err(|error| match error {
        crate::auth::LoginError::Failed => {
            ApiError::invalid("old_password", "old password does not match")
        }
        other => other.into(),
    })?;
    audit::record(&api, actor, "changed_password", json!({}), call.now).await;
    Ok(Reply::empty())
}

async fn perform_reset(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let actor = call.actor()?;
    if !actor.user.must_change_password {
        let reason = "this user's password needs no reset";
        return Err(ApiError::BadRequest(reason.to_owned()));
    }
    let PasswordIn { new_password, .. } = call.json()?;
    api.parts.auth.set_password(actor, &new_password).await?;
    audit::record(&api, actor, "changed_password", json!({}), call.now).await;
    let state = api.parts.catalog.read();
    let user = state.users.get(&actor.user.id).map(|(user, _)| user);
    let user = user.ok_or_else(|| ApiError::not_found("User"))?;
    Ok(Reply::json(&json!({"user": UserOut::of(user, &state)})))
}

/// The teams that a user may choose among: all with a global role, else their own.
fn teams_of(user: &User, state: &State) -> Vec<serde_json::Value> {
    let teams = state.teams.values().map(|(team, _)| &**team);
    let visible = |team: &&Team| user.global_role.is_some() || user.teams.contains_key(&team.id);
    teams
        .filter(visible)
        .map(|team| json!({"id": team.id, "name": team.name, "description": team.description}))
        .collect()
}
