//! Teams, one by one.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::Api;
use super::audit;
use super::call::Call;
use super::error::ApiError;
use super::hosts::move_hosts;
use super::page::{self, Page};
use super::renames::{Renamed, carried_over};
use super::reply::Reply;
use super::route::{Access, Route, run};
use super::specs::secrets::{SecretsIn, edits as secret_edits, faults as secret_faults};
use super::specs::teams::shared_secrets;
use super::specs::{Numbers, check_name};
use super::wire::team::{TeamOut, agent_options, given, secrets_of};
use crate::auth::{Action, Actor};
use crate::catalog::entity::{Entity, Team, User};
use crate::catalog::record::{kind, secret_key};
use crate::catalog::state::{name_of, query_name};
use crate::catalog::{Edit, State};
use crate::results::{HostId, TeamId};

pub(super) const ROUTES: &[Route] = &[
    Route::get("/teams", Access::To(Action::See), run!(list))
        .also(&["/fleets"])
        .says("The teams that one may see.")
        .asks(&[
            "page",
            "per_page",
            "order_key: id|name",
            "order_direction",
            "query",
        ])
        .gives("{teams: [Team], meta: PageMeta}"),
    Route::get("/teams/{id}", Access::To(Action::See), run!(one))
        .also(&["/fleets/{id}"])
        .says("One team.")
        .gives("{team: Team}"),
    Route::post("/teams", Access::To(Action::WriteTeams), run!(create))
        .also(&["/fleets"])
        .says("Makes a team.")
        .takes("{name: name, description?: string|null}")
        .gives("{team: Team}"),
    Route::patch("/teams/{id}", Access::To(Action::WriteTeam), run!(change))
        .also(&["/fleets/{id}"])
        .says("Changes a team's name, description, or options.")
        .takes("{name?: name|null, description?: string|null, agent_options?: AgentOptions|null}")
        .gives("{team: Team}"),
    Route::post(
        "/teams/{id}/agent_options",
        Access::To(Action::WriteTeam),
        run!(set_options),
    )
    .also(&["/fleets/{id}/agent_options"])
    .says("Replaces a team's agent options; null takes the global ones.")
    .takes("AgentOptions|null")
    .gives("{team: Team}"),
    Route::get(
        "/teams/{id}/secrets",
        Access::To(Action::Secrets),
        run!(secrets),
    )
    .also(&["/fleets/{id}/secrets"])
    .says("A team's enroll secrets.")
    .gives("{secrets: [Secret]}"),
    Route::patch(
        "/teams/{id}/secrets",
        Access::To(Action::Secrets),
        run!(set_secrets),
    )
    .also(&["/fleets/{id}/secrets"])
    .says("Replaces a team's enroll secrets.")
    .takes("{secrets: [SecretIn; 0..50]|null}")
    .gives("{secrets: [Secret]}"),
    Route::delete("/teams/{id}", Access::To(Action::WriteTeams), run!(delete))
        .also(&["/fleets/{id}"])
        .says("Deletes a team, its queries and secrets; its hosts stay, without a team."),
];

async fn list(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let actor = call.actor()?;
    let page = Page::of(&call)?;
    let state = api.parts.catalog.read();
    let teams = state.teams.values().map(|(team, _)| team);
    let mut teams: Vec<&Arc<Team>> = teams
        .filter(|team| actor.may_in(Action::See, Some(team.id)))
        .filter(|team| page::matches(&call, &[&team.name]))
        .collect();
    let keys: &[page::By<&Arc<Team>>] = &[
        ("id", |one, other| one.id.cmp(&other.id)),
        ("name", |one, other| one.name.cmp(&other.name)),
    ];
    page::order(&mut teams, &call, keys)?;
    let (teams, meta) = page.cut(teams);
    let teams = teams.iter();
    let teams: Vec<TeamOut> = teams.map(|team| out(team, &state, actor)).collect();
    Ok(Reply::json(&json!({"teams": teams, "meta": meta})))
}

async fn one(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let id = TeamId(call.id32("id")?);
    shown(&api, call.actor()?, id)
}

fn shown(api: &Api, actor: &Actor, id: TeamId) -> Result<Reply, ApiError> {
    let state = api.parts.catalog.read();
    let team = visible(&state, actor, id)?;
    Ok(Reply::json(&json!({"team": out(team, &state, actor)})))
}

fn out<'a>(team: &'a Team, state: &State, actor: &Actor) -> TeamOut<'a> {
    TeamOut::of(team, state, actor.may_in(Action::Secrets, Some(team.id)))
}

/// A team that the actor may see.
fn visible<'a>(state: &'a State, actor: &Actor, id: TeamId) -> Result<&'a Arc<Team>, ApiError> {
    let team = state.teams.get(&id).map(|(team, _)| team);
    let team = team.filter(|_| actor.may_in(Action::See, Some(id)));
    team.ok_or_else(|| ApiError::not_found(format_args!("Team {id}")))
}

/// A team in which the actor may do this.
fn allowed<'a>(
    state: &'a State,
    actor: &Actor,
    id: TeamId,
    action: Action,
) -> Result<&'a Arc<Team>, ApiError> {
    let team = visible(state, actor, id)?;
    if !actor.may_in(action, Some(id)) {
        return Err(ApiError::Forbidden);
    }
    Ok(team)
}

#[derive(Deserialize)]
struct TeamIn {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    description: Option<String>,
    #[serde(default, deserialize_with = "given")]
    agent_options: Option<Box<RawValue>>,
}

async fn create(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let actor = call.actor()?;
    let body: TeamIn = call.json()?;
    let name = body.name.unwrap_or_default();
    check_name("name", &name)?;
    let description = body.description.unwrap_or_default();
    let numbers = Numbers::reserve(&api, kind::TEAM, 1).await?;
    let plan = |state: &State| {
        if state.team(&name).is_some() {
            return Err(ApiError::Exists(format!("team {name:?} exists")));
        }
        let id = numbers.clone().take()?;
        let team = Team {
            id: TeamId(id),
            name: name.clone(),
            description: description.clone(),
            agent_options: None,
            created_at: call.now.secs(),
        };
        let edits = vec![
            Edit::Create(Entity::Name(name_of(kind::TEAM, &name), u64::from(id))),
            Edit::Create(Entity::Team(team)),
        ];
        Ok((edits, TeamId(id)))
    };
    let id = api.parts.catalog.commit(plan).await?;
    let details = json!({"team_id": id, "team_name": name});
    audit::record(&api, actor, "created_team", details, call.now).await;
    shown(&api, actor, id)
}

async fn change(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let actor = call.actor()?;
    let id = TeamId(call.id32("id")?);
    let body: TeamIn = call.json()?;
    if let Some(name) = &body.name {
        check_name("name", name)?;
    }
    let options = options(body.agent_options.as_deref())?;
    let plan = |state: &State| {
        let team = allowed(state, actor, id, Action::WriteTeam)?;
        let mut next = Team::clone(team);
        let mut edits = Vec::new();
        if let Some(name) = body.name.as_ref().filter(|name| **name != team.name) {
            if state.team(name).is_some() {
                return Err(ApiError::Exists(format!("team {name:?} exists")));
            }
            edits.push(Edit::Delete(kind::NAME, name_of(kind::TEAM, &team.name)));
            let name_record = Entity::Name(name_of(kind::TEAM, name), u64::from(id.0));
            edits.push(Edit::Create(name_record));
            edits.extend(carried_over(state, Renamed::Team, &team.name, name));
            next.name.clone_from(name);
        }
        if let Some(description) = &body.description {
            next.description.clone_from(description);
        }
        if let Some(options) = &options {
            next.agent_options.clone_from(options);
        }
        edits.push(Edit::Put(Entity::Team(next)));
        Ok((edits, ()))
    };
    api.parts.catalog.commit(plan).await?;
    let details = json!({"team_id": id});
    audit::record(&api, actor, "edited_team", details, call.now).await;
    shown(&api, actor, id)
}

/// Options that were given, checked; nothing if none were.
#[expect(
    clippy::option_option,
    reason = "options that are taken away are not the same as none given"
)]
fn options(given: Option<&RawValue>) -> Result<Option<Option<Box<RawValue>>>, ApiError> {
    let checked = given.map(agent_options).transpose();
    checked.map_err(|reason| ApiError::invalid("agent_options", reason))
}

async fn set_options(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let actor = call.actor()?;
    let id = TeamId(call.id32("id")?);
    let given = call.raw_json()?;
    let options = agent_options(&given);
    let options = options.map_err(|reason| ApiError::invalid("agent_options", reason))?;
    let plan = |state: &State| {
        let mut next = Team::clone(allowed(state, actor, id, Action::WriteTeam)?);
        next.agent_options.clone_from(&options);
        Ok::<_, ApiError>((vec![Edit::Put(Entity::Team(next))], ()))
    };
    api.parts.catalog.commit(plan).await?;
    let details = json!({"team_id": id, "global": false});
    audit::record(&api, actor, "edited_agent_options", details, call.now).await;
    shown(&api, actor, id)
}

async fn secrets(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let id = TeamId(call.id32("id")?);
    let state = api.parts.catalog.read();
    allowed(&state, call.actor()?, id, Action::Secrets)?;
    Ok(Reply::json(
        &json!({"secrets": secrets_of(&state, Some(id))}),
    ))
}

async fn set_secrets(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let actor = call.actor()?;
    let id = TeamId(call.id32("id")?);
    let SecretsIn { secrets } = call.json()?;
    let faults = secret_faults("secrets", &secrets);
    if !faults.is_empty() {
        return Err(ApiError::Invalid(faults));
    }
    let plan = |state: &State| {
        allowed(state, actor, id, Action::Secrets)?;
        let edits = secret_edits(state, Some(id), &secrets, call.now);
        let faults = shared_secrets(state, &edits, actor);
        if faults.is_empty() {
            Ok((edits, ()))
        } else {
            Err(ApiError::Invalid(faults))
        }
    };
    api.parts.catalog.commit(plan).await?;
    let details = json!({"team_id": id, "count": secrets.len()});
    audit::record(&api, actor, "edited_enroll_secrets", details, call.now).await;
    let state = api.parts.catalog.read();
    Ok(Reply::json(
        &json!({"secrets": secrets_of(&state, Some(id))}),
    ))
}

async fn delete(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let actor = call.actor()?;
    let id = TeamId(call.id32("id")?);
    let hosts: Vec<HostId> = {
        let state = api.parts.catalog.read();
        visible(&state, actor, id)?;
        let hosts = state.hosts.of_team(id).into_iter().flatten();
        hosts.map(HostId).collect()
    };
    move_hosts(&api, &hosts, None, None).await?;
    let plan = |state: &State| {
        let team = visible(state, actor, id)?;
        Ok::<_, ApiError>((deletion(state, team), team.name.clone()))
    };
    let name = api.parts.catalog.commit(plan).await?;
    let details = json!({"team_id": id, "team_name": name});
    audit::record(&api, actor, "deleted_team", details, call.now).await;
    Ok(Reply::empty())
}

/// Everything that ends with a team: its name, secrets, queries and roles. A host that has enrolled since its hosts
/// were moved keeps a team that nobody has a role in, until it is moved.
fn deletion(state: &State, team: &Team) -> Vec<Edit> {
    let id = team.id;
    let mut edits = vec![
        Edit::Delete(kind::TEAM, id.to_string()),
        Edit::Delete(kind::NAME, name_of(kind::TEAM, &team.name)),
    ];
    let secrets = state.secrets.values();
    let secrets = secrets.filter(|secret| secret.team == Some(id));
    edits.extend(
        secrets
            .map(|secret| Edit::Delete(kind::ENROLL_SECRET, secret_key(Some(id), &secret.secret))),
    );
    let queries = state.queries.values().map(|(query, _)| query);
    for query in queries.filter(|query| query.team == Some(id)) {
        edits.push(Edit::Delete(kind::QUERY, query.id.to_string()));
        edits.push(Edit::Delete(kind::NAME, query_name(Some(id), &query.name)));
    }
    let users = state.users.values().map(|(user, _)| user);
    for user in users.filter(|user| user.teams.contains_key(&id)) {
        let mut next = User::clone(user);
        next.teams.remove(&id);
        edits.push(Edit::Put(Entity::User(next)));
    }
    edits
}
