//! Specs of saved queries.

use std::sync::Arc;

use serde_json::json;

use super::{Numbers, check_lengths, items, last_of_each, name_fault, placed};
use crate::api::Api;
use crate::api::audit;
use crate::api::call::Call;
use crate::api::error::{ApiError, Fault};
use crate::api::reply::Reply;
use crate::api::route::{Access, Route, run};
use crate::api::wire::query::{QuerySpecIn, QuerySpecOut};
use crate::auth::{Action, Actor};
use crate::catalog::entity::{Entity, Query};
use crate::catalog::record::kind;
use crate::catalog::state::query_name;
use crate::catalog::{Edit, State};
use crate::clock::Timestamp;
use crate::results::{QueryId, TeamId};

pub(in crate::api) const ROUTES: &[Route] = &[
    Route::get("/spec/queries", Access::To(Action::See), run!(list))
        .also(&["/spec/reports"])
        .says("The specs of all saved queries, global ones or a team's.")
        .asks(&["team_id"])
        .gives("{specs: [QuerySpec]}"),
    Route::get("/spec/queries/{name}", Access::To(Action::See), run!(one))
        .also(&["/spec/reports/{name}"])
        .says("The spec of one saved query.")
        .asks(&["team_id"])
        .gives("{specs: QuerySpec}"),
    Route::post(
        "/spec/queries",
        Access::To(Action::WriteQueries),
        run!(apply),
    )
    .also(&["/spec/reports"])
    .says("Makes and changes saved queries, all or none; names identify.")
    .takes("{specs: [QuerySpecIn; 0..10000]|null}"),
];

/// The team that a request asks about, if the actor may see it.
fn team_of(call: &Call, actor: &Actor) -> Result<Option<TeamId>, ApiError> {
    let Some(team) = call.asked_number("team_id")?.filter(|team| *team != 0) else {
        return Ok(None);
    };
    let team = TeamId(u32::try_from(team).unwrap_or(u32::MAX));
    if !actor.may_in(Action::See, Some(team)) {
        return Err(ApiError::Forbidden);
    }
    Ok(Some(team))
}

async fn list(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let team = team_of(&call, call.actor()?)?;
    let state = api.parts.catalog.read();
    let queries = state.queries.values().map(|(query, _)| query);
    let specs: Vec<QuerySpecOut> = queries
        .filter(|query| query.saved && query.team == team)
        .map(|query| QuerySpecOut::of(query, &state))
        .collect();
    Ok(Reply::json(&json!({ "specs": specs })))
}

async fn one(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let team = team_of(&call, call.actor()?)?;
    let name = call.param("name");
    let state = api.parts.catalog.read();
    let query = state.query(team, name);
    let query = query.ok_or_else(|| ApiError::not_found(format_args!("Query {name:?}")))?;
    Ok(Reply::json(
        &json!({"specs": QuerySpecOut::of(query, &state)}),
    ))
}

async fn apply(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let actor = call.actor()?;
    let specs: Vec<QuerySpecIn> = items(&call)?;
    check_lengths(&api, specs.iter().map(|spec| (&*spec.name, &*spec.query)))?;
    let fresh = {
        let state = api.parts.catalog.read();
        let known = |spec: &&QuerySpecIn| {
            let team = team_named(&state, &spec.team).unwrap_or_default();
            state.query(team, &spec.name).is_none()
        };
        specs.iter().filter(known).count()
    };
    let numbers = Numbers::reserve(&api, kind::QUERY, fresh).await?;
    let plan = |state: &State| plan(state, actor, &specs, numbers.clone(), call.now);
    let names = api.parts.catalog.commit(plan).await?;
    let details = json!({"specs": names});
    audit::record(&api, actor, "applied_spec_saved_query", details, call.now).await;
    Ok(Reply::empty())
}

fn plan(
    state: &State,
    actor: &Actor,
    specs: &[QuerySpecIn],
    mut numbers: Numbers,
    now: Timestamp,
) -> Result<(Vec<Edit>, Vec<String>), ApiError> {
    let mut faults = Vec::new();
    let mut edits = Vec::new();
    let keys: Vec<String> = specs
        .iter()
        .map(|spec| format!("{}\n{}", spec.team, spec.name))
        .collect();
    let counts = last_of_each(keys.iter().map(String::as_str));
    for (at, (spec, counts)) in specs.iter().zip(counts).enumerate() {
        let (team, wrong) = check(state, spec);
        if !wrong.is_empty() {
            faults.extend(placed(at, &spec.name, wrong));
            continue;
        }
        if !actor.may_in(Action::WriteQueries, team) {
            return Err(ApiError::Forbidden);
        }
        if counts {
            edits.extend(upsert(state, actor, (spec, team), &mut numbers, now)?);
        }
    }
    if !faults.is_empty() {
        return Err(ApiError::Invalid(faults));
    }
    Ok((edits, specs.iter().map(|spec| spec.name.clone()).collect()))
}

/// The spec's team, and what is wrong with the spec.
fn check(state: &State, spec: &QuerySpecIn) -> (Option<TeamId>, Vec<Fault>) {
    let mut faults: Vec<Fault> = name_fault("name", &spec.name).into_iter().collect();
    let mut fault = |name: &str, reason: &str| {
        faults.push(Fault {
            name: name.to_owned(),
            reason: reason.to_owned(),
        });
    };
    if spec.query.trim().is_empty() {
        fault("query", "must not be empty");
    }
    let team = team_named(state, &spec.team);
    if team.is_none() {
        fault("team", "names no team");
    }
    (team.unwrap_or_default(), faults)
}

/// No team for an empty name; nothing for a name that no team has.
#[expect(
    clippy::option_option,
    reason = "an unknown team is not the same as no team"
)]
fn team_named(state: &State, name: &str) -> Option<Option<TeamId>> {
    if name.is_empty() {
        return Some(None);
    }
    state.team(name).map(|team| Some(team.id))
}

fn upsert(
    state: &State,
    actor: &Actor,
    (spec, team): (&QuerySpecIn, Option<TeamId>),
    numbers: &mut Numbers,
    now: Timestamp,
) -> Result<Vec<Edit>, ApiError> {
    let Some(known) = state.query(team, &spec.name) else {
        let id = numbers.take_long()?;
        let query = Query {
            id: QueryId(id),
            name: spec.name.clone(),
            description: spec.description.clone(),
            sql: spec.query.clone(),
            observer_can_run: spec.observer_can_run,
            saved: true,
            team,
            author: Some(actor.user.id),
            created_at: now.secs(),
            updated_at: now.secs(),
            schedule: spec.schedule.to_map(),
        };
        let name = Entity::Name(query_name(team, &spec.name), id);
        return Ok(vec![Edit::Create(name), Edit::Create(Entity::Query(query))]);
    };
    let mut next = Query::clone(known);
    next.description.clone_from(&spec.description);
    next.sql.clone_from(&spec.query);
    next.observer_can_run = spec.observer_can_run;
    next.schedule = spec.schedule.to_map();
    if next == **known {
        return Ok(Vec::new());
    }
    next.updated_at = now.secs();
    Ok(vec![Edit::Put(Entity::Query(next))])
}
