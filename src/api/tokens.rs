//! Tokens of programs: made for a user that is one, named, listed, revoked.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::audit;
use super::call::Call;
use super::error::{ApiError, Fault};
use super::reply::Reply;
use super::route::{Access, Route, run};
use super::specs::name_fault;
use super::users::numbered;
use super::wire::number::Number;
use super::wire::time::Rfc3339;
use crate::auth::{Action, Purpose, programs_of};
use crate::catalog::entity::Token;
use crate::catalog::record::kind;
use crate::catalog::{Edit, State};
use crate::results::UserId;

/// Hexadecimal digits of a token's hash that identify it among its user's.
const ID_DIGITS: usize = 16;
/// Ten years: who wants more wants a token that never expires.
const DAYS_MAX: u64 = 3_653;
const DAY_S: u64 = 24 * 3600;

pub(super) const ROUTES: &[Route] = &[
    Route::get("/users/{id}/tokens", Access::To(Action::Users), run!(list))
        .says("A user's tokens for programs, without their texts.")
        .gives("{tokens: [Token]}"),
    Route::post("/users/{id}/tokens", Access::To(Action::Users), run!(issue))
        .says("Makes one more token for a program's user; it is told once. Without expires_in_days it never expires.")
        .takes("{name?: name|null, expires_in_days?: int|null}|null")
        .gives("{id: string, token: string}"),
    Route::delete("/users/{id}/tokens/{token}", Access::To(Action::Users), run!(revoke))
        .says("Revokes a program's token."),
];

#[derive(Default, Deserialize)]
struct TokenIn {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    expires_in_days: Option<Number>,
}

fn id_of(token: &Token) -> &str {
    token.hash.get(..ID_DIGITS).unwrap_or(&token.hash)
}

async fn list(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let id = UserId(call.id32("id")?);
    let state = api.parts.catalog.read();
    numbered(&state, id)?;
    let mut tokens: Vec<&Token> = programs_of(&state, id).collect();
    tokens.sort_by_key(|token| (token.created_at, &token.hash));
    let tokens = tokens.into_iter().map(|token| {
        json!({
            "id": id_of(token),
            "name": token.name.as_deref().unwrap_or_default(),
            "created_at": Rfc3339(token.created_at),
            "expires_at": token.expires_at.map(Rfc3339),
        })
    });
    Ok(Reply::json(
        &json!({"tokens": tokens.collect::<Vec<Value>>()}),
    ))
}

async fn issue(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let id = UserId(call.id32("id")?);
    if !numbered(&api.parts.catalog.read(), id)?.api_only {
        let reason = "only a program's user has tokens: people log in";
        return Err(ApiError::BadRequest(reason.to_owned()));
    }
    let body: TokenIn = call.json_or_default()?;
    let faults = body
        .name
        .as_deref()
        .and_then(|name| name_fault("name", name));
    let days = body.expires_in_days.map(|Number(days)| days);
    let lasting = days.is_some_and(|days| !(1..=DAYS_MAX).contains(&days));
    let faults = faults.into_iter().chain(lasting.then(|| Fault {
        name: "expires_in_days".to_owned(),
        reason: format!("must be between 1 and {DAYS_MAX}, or null for never"),
    }));
    let faults: Vec<Fault> = faults.collect();
    if !faults.is_empty() {
        return Err(ApiError::Invalid(faults));
    }
    let name = body.name.unwrap_or_default();
    let details = json!({"user_id": id, "name": name});
    let purpose = Purpose::Program {
        name,
        expires_at: days.map(|days| call.now.secs() + days * DAY_S),
    };
    let token = api.parts.auth.issue(id, purpose, call.now).await?;
    audit::record(&api, call.actor()?, "created_token", details, call.now).await;
    let hash = crate::auth::token::digest(&token);
    Ok(Reply::json(
        &json!({"id": &hash[..ID_DIGITS], "token": token}),
    ))
}

async fn revoke(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let id = UserId(call.id32("id")?);
    let wanted = call.param("token");
    let plan = |state: &State| {
        numbered(state, id)?;
        let token = programs_of(state, id).find(|token| id_of(token) == wanted);
        let token = token.ok_or_else(|| ApiError::not_found(format_args!("Token {wanted:?}")))?;
        let edits = vec![Edit::Delete(kind::TOKEN, token.hash.clone())];
        Ok::<_, ApiError>((edits, token.name.clone()))
    };
    let name = api.parts.catalog.commit(plan).await?;
    let details = json!({"user_id": id, "token_id": wanted, "name": name});
    audit::record(&api, call.actor()?, "revoked_token", details, call.now).await;
    Ok(Reply::empty())
}
