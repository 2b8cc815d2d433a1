//! Saved queries, one by one.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::json;

use super::Api;
use super::audit;
use super::call::Call;
use super::error::ApiError;
use super::page::{self, Page};
use super::renames::{Renamed, carried_over};
use super::reply::Reply;
use super::route::{Access, Route, run};
use super::run::saved;
use super::specs::{Numbers, check_name};
use super::wire::campaign::or_default;
use super::wire::number::Number;
use super::wire::query::{QueryOut, Schedule};
use crate::auth::{Action, Actor};
use crate::catalog::entity::{Entity, Query};
use crate::catalog::record::kind;
use crate::catalog::state::query_name;
use crate::catalog::{Edit, State};
use crate::results::{QueryId, TeamId};

/// Queries that one request deletes.
const DELETIONS_MAX: usize = 1_000;

pub(super) const ROUTES: &[Route] = &[
    Route::get("/queries", Access::To(Action::See), run!(list))
        .also(&["/reports"])
        .says("Saved queries, global ones or a team's.")
        .asks(&[
            "page",
            "per_page",
            "order_key: id|name|created_at|updated_at",
            "order_direction",
            "query",
            "team_id",
        ])
        .gives("{queries: [Query], count: int, meta: PageMeta}"),
    Route::get("/queries/{id}", Access::To(Action::See), run!(one))
        .also(&["/reports/{id}"])
        .says("One saved query.")
        .gives("{query: Query}"),
    Route::post("/queries", Access::To(Action::WriteQueries), run!(create))
        .also(&["/reports"])
        .says("Saves a query.")
        .takes("QueryNew")
        .gives("{query: Query}"),
    Route::patch(
        "/queries/{id}",
        Access::To(Action::WriteQueries),
        run!(change),
    )
    .also(&["/reports/{id}"])
    .says("Changes a saved query; what is not given stays.")
    .takes("QueryChange")
    .gives("{query: Query}"),
    Route::delete(
        "/queries/{name}",
        Access::To(Action::WriteQueries),
        run!(delete_named),
    )
    .also(&["/reports/{name}"])
    .says("Deletes a global saved query by name; with team_id, a team's.")
    .asks(&["team_id"]),
    Route::delete(
        "/queries/id/{id}",
        Access::To(Action::WriteQueries),
        run!(delete_numbered),
    )
    .also(&["/reports/id/{id}"])
    .says("Deletes a saved query by number."),
    Route::post(
        "/queries/delete",
        Access::To(Action::WriteQueries),
        run!(delete_many),
    )
    .also(&["/reports/delete"])
    .says("Deletes saved queries by number, all or none.")
    .takes("{ids: [int; 0..1000]|null}")
    .gives("{deleted: int}"),
];

async fn list(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let actor = call.actor()?;
    let page = Page::of(&call)?;
    let team = call.asked_number("team_id")?.filter(|team| *team != 0);
    let team = team.map(|team| TeamId(u32::try_from(team).unwrap_or(u32::MAX)));
    if team.is_some() && !actor.may_in(Action::See, team) {
        return Err(ApiError::Forbidden);
    }
    let state = api.parts.catalog.read();
    let queries = state.queries.values().map(|(query, _)| query);
    let mut queries: Vec<&Arc<Query>> = queries
        .filter(|query| query.saved && query.team == team)
        .filter(|query| page::matches(&call, &[&query.name]))
        .collect();
    let keys: &[page::By<&Arc<Query>>] = &[
        ("id", |one, other| one.id.cmp(&other.id)),
        ("name", |one, other| one.name.cmp(&other.name)),
        ("created_at", |one, other| {
            one.created_at.cmp(&other.created_at)
        }),
        ("updated_at", |one, other| {
            one.updated_at.cmp(&other.updated_at)
        }),
    ];
    page::order(&mut queries, &call, keys)?;
    let count = queries.len();
    let (queries, meta) = page.cut(queries);
    let queries = queries.iter();
    let queries: Vec<QueryOut> = queries.map(|query| QueryOut::of(query, &state)).collect();
    Ok(Reply::json(
        &json!({"queries": queries, "count": count, "meta": meta}),
    ))
}

async fn one(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let id = QueryId(call.id("id")?);
    shown(&api, call.actor()?, id)
}

fn shown(api: &Api, actor: &Actor, id: QueryId) -> Result<Reply, ApiError> {
    let state = api.parts.catalog.read();
    let (query, _) = saved(&state, actor, id)?;
    Ok(Reply::json(&json!({"query": QueryOut::of(&query, &state)})))
}

#[derive(Deserialize)]
struct QueryIn {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    query: Option<String>,
    #[serde(default)]
    observer_can_run: Option<bool>,
    #[serde(default, alias = "fleet_id")]
    team_id: Option<Number>,
    #[serde(flatten)]
    schedule: Schedule,
}

async fn create(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let actor = call.actor()?;
    let body: QueryIn = call.json()?;
    let name = body.name.unwrap_or_default();
    let sql = body.query.unwrap_or_default();
    check_name("name", &name)?;
    check_sql(&api, &sql)?;
    let team = body.team_id.map(Number::narrow).filter(|team| *team != 0);
    let team = team.map(TeamId);
    if !actor.may_in(Action::WriteQueries, team) {
        return Err(ApiError::Forbidden);
    }
    let numbers = Numbers::reserve(&api, kind::QUERY, 1).await?;
    let plan = |state: &State| {
        if team.is_some_and(|team| !state.teams.contains_key(&team)) {
            return Err(ApiError::not_found("Team"));
        }
        if state.query(team, &name).is_some() {
            return Err(ApiError::Exists(format!("query {name:?} exists")));
        }
        let id = numbers.clone().take_long()?;
        let query = Query {
            id: QueryId(id),
            name: name.clone(),
            description: body.description.clone().unwrap_or_default(),
            sql: sql.clone(),
            observer_can_run: body.observer_can_run.unwrap_or(false),
            saved: true,
            team,
            author: Some(actor.user.id),
            created_at: call.now.secs(),
            updated_at: call.now.secs(),
            schedule: body.schedule.to_map(),
        };
        let edits = vec![
            Edit::Create(Entity::Name(query_name(team, &name), id)),
            Edit::Create(Entity::Query(query)),
        ];
        Ok((edits, QueryId(id)))
    };
    let id = api.parts.catalog.commit(plan).await?;
    let details = json!({"query_id": id, "query_name": name});
    audit::record(&api, actor, "created_saved_query", details, call.now).await;
    shown(&api, actor, id)
}

fn check_sql(api: &Api, sql: &str) -> Result<(), ApiError> {
    if sql.trim().is_empty() {
        return Err(ApiError::invalid("query", "must not be empty"));
    }
    let fault = api.sql_fault("query", sql);
    fault.map_or(Ok(()), |fault| Err(ApiError::Invalid(vec![fault])))
}

async fn change(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let actor = call.actor()?;
    let id = QueryId(call.id("id")?);
    let body: QueryIn = call.json()?;
    if let Some(name) = &body.name {
        check_name("name", name)?;
    }
    if let Some(sql) = &body.query {
        check_sql(&api, sql)?;
    }
    let now = call.now.secs();
    let plan = |state: &State| changed(state, actor, id, &body, now);
    api.parts.catalog.commit(plan).await?;
    let details = json!({"query_id": id});
    audit::record(&api, actor, "edited_saved_query", details, call.now).await;
    shown(&api, actor, id)
}

fn changed(
    state: &State,
    actor: &Actor,
    id: QueryId,
    body: &QueryIn,
    now: u64,
) -> Result<(Vec<Edit>, ()), ApiError> {
    let query = writable(state, actor, id)?;
    let mut next = Query::clone(&query);
    let mut edits = Vec::new();
    if let Some(name) = body.name.as_ref().filter(|name| **name != query.name) {
        if state.query(query.team, name).is_some() {
            return Err(ApiError::Exists(format!("query {name:?} exists")));
        }
        let old = query_name(query.team, &query.name);
        edits.push(Edit::Delete(kind::NAME, old));
        let name_record = Entity::Name(query_name(query.team, name), id.0);
        edits.push(Edit::Create(name_record));
        edits.extend(carried_over(
            state,
            Renamed::Query(query.team),
            &query.name,
            name,
        ));
        next.name.clone_from(name);
    }
    if let Some(description) = &body.description {
        next.description.clone_from(description);
    }
    if let Some(sql) = &body.query {
        next.sql.clone_from(sql);
    }
    next.observer_can_run = body.observer_can_run.unwrap_or(query.observer_can_run);
    next.schedule.extend(body.schedule.to_map());
    next.updated_at = now;
    edits.push(Edit::Put(Entity::Query(next)));
    Ok((edits, ()))
}

/// A saved query that the actor may change.
fn writable(state: &State, actor: &Actor, id: QueryId) -> Result<Arc<Query>, ApiError> {
    let (query, _) = saved(state, actor, id)?;
    if !actor.may_in(Action::WriteQueries, query.team) {
        return Err(ApiError::Forbidden);
    }
    Ok(query)
}

async fn delete_named(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let name = call.param("name");
    let team = call.asked_number("team_id")?.filter(|team| *team != 0);
    let team = team.map(|team| TeamId(u32::try_from(team).unwrap_or(u32::MAX)));
    let id = {
        let state = api.parts.catalog.read();
        state.query(team, name).map(|query| query.id)
    };
    let id = id.ok_or_else(|| ApiError::not_found(format_args!("Query {name:?}")))?;
    delete(&api, &call, &[id]).await?;
    Ok(Reply::empty())
}

async fn delete_numbered(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let id = QueryId(call.id("id")?);
    delete(&api, &call, &[id]).await?;
    Ok(Reply::empty())
}

#[derive(Deserialize)]
struct DeleteIn {
    #[serde(deserialize_with = "or_default")]
    ids: Vec<Number>,
}

async fn delete_many(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let DeleteIn { ids } = call.json()?;
    if ids.len() > DELETIONS_MAX {
        let reason = format!("must not have more than {DELETIONS_MAX} numbers");
        return Err(ApiError::invalid("ids", reason));
    }
    let mut ids: Vec<QueryId> = ids.into_iter().map(|id| QueryId(id.0)).collect();
    ids.sort_unstable();
    ids.dedup();
    delete(&api, &call, &ids).await?;
    Ok(Reply::json(&json!({"deleted": ids.len()})))
}

async fn delete(api: &Api, call: &Call, ids: &[QueryId]) -> Result<(), ApiError> {
    let actor = call.actor()?;
    let plan = |state: &State| {
        let mut edits = Vec::new();
        let mut names = Vec::new();
        for id in ids {
            let query = writable(state, actor, *id)?;
            edits.push(Edit::Delete(kind::QUERY, id.to_string()));
            let name = query_name(query.team, &query.name);
            edits.push(Edit::Delete(kind::NAME, name));
            names.push(query.name.clone());
        }
        Ok::<_, ApiError>((edits, names))
    };
    let names = api.parts.catalog.commit(plan).await?;
    let details = json!({"query_ids": ids, "query_names": names});
    audit::record(api, actor, "deleted_saved_query", details, call.now).await;
    Ok(())
}
