//! Users: people, and programs that only have tokens.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::json;

use super::Api;
use super::audit;
use super::call::Call;
use super::error::{ApiError, Fault};
use super::page::{self, Page};
use super::reply::Reply;
use super::route::{Access, Route, run};
use super::specs::{Numbers, name_fault};
use super::wire::campaign::or_default;
use super::wire::object::objects;
use super::wire::user::{TeamRoleIn, UserOut, parse_role};
use crate::auth::user::{is_address, weakness};
use crate::auth::{Action, Purpose, other_admin, revoke_all};
use crate::catalog::entity::{Entity, Role, User};
use crate::catalog::record::kind;
use crate::catalog::state::user_name;
use crate::catalog::{Edit, State};
use crate::results::{TeamId, UserId};

pub(super) const ROUTES: &[Route] = &[
    Route::get("/users", Access::To(Action::Users), run!(list))
        .says("All users.")
        .asks(&[
            "page",
            "per_page",
            "order_key: id|name|email|created_at",
            "order_direction",
            "query",
        ])
        .gives("{users: [User], meta: PageMeta}"),
    Route::get("/users/{id}", Access::SignedIn, run!(one))
        .says("One user; oneself, unless one may see all.")
        .gives("{user: User}"),
    Route::post("/users/admin", Access::To(Action::Users), run!(create))
        .says("Makes a user.")
        .takes("UserNew")
        .gives("{user: User}"),
    Route::post(
        "/users/api_only",
        Access::To(Action::Users),
        run!(create_program),
    )
    .says("Makes a user for a program, and its token, which is told once and never expires.")
    .takes("ProgramNew")
    .gives("{user: User, token: string}"),
    Route::patch("/users/{id}", Access::To(Action::Users), run!(change))
        .says("Changes a user; what is not given stays.")
        .takes("UserChange")
        .gives("{user: User}"),
    Route::delete("/users/{id}", Access::To(Action::Users), run!(delete))
        .says("Deletes a user and their tokens."),
    Route::post(
        "/users/{id}/require_password_reset",
        Access::To(Action::Users),
        run!(require_reset),
    )
    .says("Makes a user change their password before anything else.")
    .takes("{require: bool}")
    .gives("{user: User}"),
    Route::delete(
        "/users/{id}/sessions",
        Access::To(Action::Users),
        run!(end_sessions),
    )
    .says("Ends all of a user's sessions and revokes their tokens."),
];

#[derive(Deserialize)]
struct UserIn {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    email: Option<String>,
    #[serde(default, alias = "new_password")]
    password: Option<String>,
    #[serde(default)]
    global_role: Option<String>,
    #[serde(default, alias = "fleets", deserialize_with = "objects")]
    teams: Option<Vec<TeamRoleIn>>,
    #[serde(default, deserialize_with = "or_default")]
    api_only: bool,
    #[serde(default)]
    admin_forced_password_reset: Option<bool>,
}

async fn list(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let page = Page::of(&call)?;
    let state = api.parts.catalog.read();
    let users = state.users.values().map(|(user, _)| user);
    let mut users: Vec<&Arc<User>> = users
        .filter(|user| page::matches(&call, &[&user.name, &user.email]))
        .collect();
    let keys: &[page::By<&Arc<User>>] = &[
        ("id", |one, other| one.id.cmp(&other.id)),
        ("name", |one, other| one.name.cmp(&other.name)),
        ("email", |one, other| one.email.cmp(&other.email)),
        ("created_at", |one, other| {
            one.created_at.cmp(&other.created_at)
        }),
    ];
    page::order(&mut users, &call, keys)?;
    let (users, meta) = page.cut(users);
    let users: Vec<UserOut> = users.iter().map(|user| UserOut::of(user, &state)).collect();
    Ok(Reply::json(&json!({"users": users, "meta": meta})))
}

async fn one(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let actor = call.actor()?;
    let id = UserId(call.id32("id")?);
    if id != actor.user.id && !actor.may(Action::Users) {
        return Err(ApiError::Forbidden);
    }
    shown(&api, id)
}

fn shown(api: &Api, id: UserId) -> Result<Reply, ApiError> {
    let state = api.parts.catalog.read();
    let user = numbered(&state, id)?;
    Ok(Reply::json(&json!({"user": UserOut::of(user, &state)})))
}

pub(super) fn numbered(state: &State, id: UserId) -> Result<&Arc<User>, ApiError> {
    let user = state.users.get(&id).map(|(user, _)| user);
    user.ok_or_else(|| ApiError::not_found(format_args!("User {id}")))
}

async fn create(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let body: UserIn = call.json()?;
    let id = make(&api, &call, body).await?;
    shown(&api, id)
}

async fn create_program(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let mut body: UserIn = call.json()?;
    body.api_only = true;
    // A program has no address of its own unless it is given one.
    if body.email.is_none() {
        let mut random = [0u8; 8];
        getrandom::fill(&mut random).map_err(|error| ApiError::Internal(error.to_string()))?;
        let number = u64::from_be_bytes(random);
        body.email = Some(format!("program-{number:016x}@localhost"));
    }
    let id = make(&api, &call, body).await?;
    let purpose = Purpose::Program {
        name: "first".to_owned(),
        expires_at: None,
    };
    let token = api.parts.auth.issue(id, purpose, call.now).await?;
    let state = api.parts.catalog.read();
    let user = UserOut::of(numbered(&state, id)?, &state);
    Ok(Reply::json(&json!({"user": user, "token": token})))
}

async fn make(api: &Api, call: &Call, body: UserIn) -> Result<UserId, ApiError> {
    let draft = User {
        id: UserId(0),
        name: String::new(),
        email: String::new(),
        password_hash: None,
        must_change_password: false,
        api_only: body.api_only,
        global_role: None,
        teams: BTreeMap::new(),
        created_at: call.now.secs(),
    };
    let mut faults = check(&body);
    if body.name.is_none() {
        faults.push(fault("name", "must not be empty"));
    }
    if body.email.is_none() {
        faults.push(fault("email", "must not be empty"));
    }
    if body.password.is_none() && !body.api_only {
        faults.push(fault("password", "must be given"));
    }
    if !faults.is_empty() {
        return Err(ApiError::Invalid(faults));
    }
    let hash = hashed(api, &body).await?;
    let numbers = Numbers::reserve(api, kind::USER, 1).await?;
    let plan = |state: &State| {
        let mut user = changed(state, &draft, &body, hash.as_ref())?;
        let id = numbers.clone().take()?;
        user.id = UserId(id);
        // Who has only seen a password that an admin chose must choose one of their own.
        user.must_change_password =
            !user.api_only && body.admin_forced_password_reset.unwrap_or(true);
        if state.user_by_email(&user.email).is_some() {
            return Err(ApiError::Exists(format!("user {:?} exists", user.email)));
        }
        let edits = vec![
            Edit::Create(Entity::Name(user_name(&user.email), u64::from(id))),
            Edit::Create(Entity::User(user)),
        ];
        Ok((edits, UserId(id)))
    };
    let id = api.parts.catalog.commit(plan).await?;
    let details = json!({"user_id": id, "user_email": body.email});
    audit::record(api, call.actor()?, "created_user", details, call.now).await;
    Ok(id)
}

/// What is wrong with a user's fields, by themselves.
fn check(body: &UserIn) -> Vec<Fault> {
    let mut faults = Vec::new();
    if let Some(name) = &body.name {
        faults.extend(name_fault("name", name));
    }
    if let Some(email) = &body.email {
        if !is_address(email) {
            faults.push(fault("email", "must be an address"));
        }
        faults.extend(name_fault("email", email));
    }
    if let Some(reason) = body.password.as_deref().and_then(weakness) {
        faults.push(fault("password", reason));
    }
    if let Some(role) = &body.global_role
        && !role.is_empty()
        && parse_role(role).is_none()
    {
        faults.push(fault("global_role", "is none of the roles"));
    }
    for team in body.teams.iter().flatten() {
        if parse_role(&team.role).is_none() {
            faults.push(fault("teams.role", "is none of the roles"));
        }
    }
    faults
}

fn fault(name: &str, reason: &str) -> Fault {
    Fault {
        name: name.to_owned(),
        reason: reason.to_owned(),
    }
}

async fn hashed(api: &Api, body: &UserIn) -> Result<Option<String>, ApiError> {
    let Some(password) = &body.password else {
        return Ok(None);
    };
    let hash = api.parts.auth.passwords().hash(password).await;
    hash.map(Some)
        .map_err(|error| ApiError::Internal(error.to_string()))
}

/// The user after the change. A global role takes the roles in teams away, and teams take the global role, unless
/// both are given.
fn changed(
    state: &State,
    user: &User,
    body: &UserIn,
    hash: Option<&String>,
) -> Result<User, ApiError> {
    let mut next = user.clone();
    if let Some(name) = &body.name {
        next.name.clone_from(name);
    }
    if let Some(email) = &body.email {
        next.email.clone_from(email);
    }
    if let Some(hash) = hash {
        next.password_hash = Some(hash.clone());
    }
    if let Some(role) = &body.global_role {
        next.global_role = parse_role(role);
        if next.global_role.is_some() && body.teams.is_none() {
            next.teams.clear();
        }
    }
    if let Some(teams) = &body.teams {
        next.teams = roles(state, teams)?;
        if !next.teams.is_empty() && body.global_role.is_none() {
            next.global_role = None;
        }
    }
    if let Some(forced) = body.admin_forced_password_reset {
        next.must_change_password = forced;
    }
    Ok(next)
}

fn roles(state: &State, teams: &[TeamRoleIn]) -> Result<BTreeMap<TeamId, Role>, ApiError> {
    let mut roles = BTreeMap::new();
    for team in teams {
        let id = TeamId(team.id.narrow());
        if !state.teams.contains_key(&id) {
            return Err(ApiError::not_found(format_args!("Team {id}")));
        }
        if let Some(role) = parse_role(&team.role) {
            roles.insert(id, role);
        }
    }
    Ok(roles)
}

async fn change(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let id = UserId(call.id32("id")?);
    let body: UserIn = call.json()?;
    let faults = check(&body);
    if !faults.is_empty() {
        return Err(ApiError::Invalid(faults));
    }
    let hash = hashed(&api, &body).await?;
    let plan = |state: &State| {
        let user = numbered(state, id)?;
        let next = changed(state, user, &body, hash.as_ref())?;
        keep_an_admin(state, user, next.global_role)?;
        let mut edits = Vec::new();
        if user_name(&next.email) != user_name(&user.email) {
            if state.user_by_email(&next.email).is_some() {
                return Err(ApiError::Exists(format!("user {:?} exists", next.email)));
            }
            edits.push(Edit::Delete(kind::NAME, user_name(&user.email)));
            let name = Entity::Name(user_name(&next.email), u64::from(id.0));
            edits.push(Edit::Create(name));
        }
        // Whoever knew the old password is out.
        if hash.is_some() {
            edits.extend(revoke_all(state, id));
        }
        edits.push(Edit::Put(Entity::User(next)));
        Ok((edits, ()))
    };
    api.parts.catalog.commit(plan).await?;
    let details = json!({"user_id": id, "global_role": body.global_role});
    audit::record(&api, call.actor()?, "edited_user", details, call.now).await;
    shown(&api, id)
}

/// Somebody must remain who may do everything.
/// One global admin must stay.
///
/// # Errors
/// 422.
pub(super) fn keep_an_admin(
    state: &State,
    user: &User,
    role: Option<Role>,
) -> Result<(), ApiError> {
    let was = user.global_role == Some(Role::Admin);
    if was && role != Some(Role::Admin) && !other_admin(state, user.id) {
        let reason = "the last global admin cannot be taken away";
        return Err(ApiError::invalid("global_role", reason));
    }
    Ok(())
}

async fn delete(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let id = UserId(call.id32("id")?);
    let plan = |state: &State| {
        let user = numbered(state, id)?;
        keep_an_admin(state, user, None)?;
        let mut edits = revoke_all(state, id);
        edits.push(Edit::Delete(kind::NAME, user_name(&user.email)));
        edits.push(Edit::Delete(kind::USER, id.to_string()));
        Ok::<_, ApiError>((edits, user.email.clone()))
    };
    let email = api.parts.catalog.commit(plan).await?;
    let details = json!({"user_id": id, "user_email": email});
    audit::record(&api, call.actor()?, "deleted_user", details, call.now).await;
    Ok(Reply::empty())
}

#[derive(Deserialize)]
struct ResetIn {
    require: bool,
}

async fn require_reset(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let id = UserId(call.id32("id")?);
    let ResetIn { require } = call.json()?;
    let plan = |state: &State| {
        let mut next = User::clone(numbered(state, id)?);
        next.must_change_password = require;
        Ok::<_, ApiError>((vec![Edit::Put(Entity::User(next))], ()))
    };
    api.parts.catalog.commit(plan).await?;
    let details = json!({"user_id": id, "require": require});
    audit::record(
        &api,
        call.actor()?,
        "required_password_reset",
        details,
        call.now,
    )
    .await;
    shown(&api, id)
}

async fn end_sessions(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let id = UserId(call.id32("id")?);
    let plan = |state: &State| {
        numbered(state, id)?;
        Ok::<_, ApiError>((revoke_all(state, id), ()))
    };
    api.parts.catalog.commit(plan).await?;
    let details = json!({"user_id": id});
    audit::record(&api, call.actor()?, "ended_sessions", details, call.now).await;
    Ok(Reply::empty())
}
