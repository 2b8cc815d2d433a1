//! Starting campaigns: who may ask what of whom.

use std::sync::Arc;

use roaring::RoaringBitmap;
use serde_json::json;

use super::Api;
use super::audit;
use super::call::Call;
use super::error::ApiError;
use super::reply::Reply;
use super::route::{Access, Route, run};
use super::selection::{self, Name};
use super::status::LIVE_QUERY_DISABLED;
use super::wire::campaign::{CreatedOut, RunIn};
use super::wire::number::Number;
use crate::auth::{Action, Actor};
use crate::catalog::State;
use crate::catalog::entity::Query;
use crate::clock::Timestamp;
use crate::results::{Campaign, QueryId, Question};

pub(super) const ROUTES: &[Route] = &[
    Route::post("/queries/run", Access::To(Action::RunSaved), run!(by_ids))
        .also(&["/reports/run"])
        .says("Starts a campaign on hosts, labels and teams by number.")
        .limited()
        .takes("RunByIds")
        .gives("{campaign: CreatedCampaign}"),
    Route::post(
        "/queries/run_by_identifiers",
        Access::To(Action::RunSaved),
        run!(by_names),
    )
    .also(&[
        "/queries/run_by_names",
        "/reports/run_by_identifiers",
        "/reports/run_by_names",
    ])
    .says("Starts a campaign on hosts by hostname, UUID, serial number or identifier, and labels and teams by name.")
    .limited()
    .takes("RunByNames")
    .gives("{campaign: CreatedCampaign}"),
];

/// What is to be asked, and what the actor needs to be allowed for it.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    /// The saved query; none for SQL typed for this campaign.
    pub saved: Option<(QueryId, String)>,
    /// What hosts will run.
    pub sql: String,
    /// The permission.
    pub action: Action,
}

async fn by_ids(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let actor = call.actor()?;
    let body: RunIn<Number> = call.json()?;
    let (asked, targets) = {
        let state = api.parts.catalog.read();
        let asked = ask(&state, actor, body.query, body.query_id)?;
        let teams = selection::team_ids(&body.selected);
        selection::allow_teams(actor, &actor.reach(asked.action), teams)?;
        let meant = selection::by_ids(&state, &body.selected);
        let targets = meant.resolve(&actor.hosts(asked.action, &state));
        (asked, targets)
    };
    created(&api, actor, asked, targets, call.now).await
}

async fn by_names(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let actor = call.actor()?;
    let body: RunIn<Name> = call.json()?;
    let (asked, targets) = {
        let state = api.parts.catalog.read();
        let asked = ask(&state, actor, body.query, body.query_id)?;
        let (meant, teams) = selection::by_names(&state, &body.selected)?;
        selection::allow_teams(actor, &actor.reach(asked.action), teams)?;
        let targets = meant.resolve(&actor.hosts(asked.action, &state));
        (asked, targets)
    };
    created(&api, actor, asked, targets, call.now).await
}

async fn created(
    api: &Api,
    actor: &Actor,
    asked: Asked,
    targets: RoaringBitmap,
    now: Timestamp,
) -> Result<Reply, ApiError> {
    let campaign = start(api, actor, asked, targets, now).await?;
    let counts = api.parts.catalog.presence();
    let counts = counts.count(&campaign.question.targets, now);
    let campaign = CreatedOut::of(&campaign, counts);
    Ok(Reply::json(&json!({ "campaign": campaign })))
}

/// What a request asks, if its sender may ask it anywhere. A saved query wins over SQL in the request.
///
/// # Errors
/// 403 when switched off or not allowed, 404 for an unknown query, 422 when there is nothing to ask.
pub(super) fn ask(
    state: &State,
    actor: &Actor,
    sql: Option<String>,
    query_id: Option<Number>,
) -> Result<Asked, ApiError> {
    if state.app.live_query_disabled {
        return Err(ApiError::Disabled(LIVE_QUERY_DISABLED));
    }
    let asked = match query_id {
        Some(Number(id)) => ask_saved(state, actor, QueryId(id))?,
        None => Asked {
            saved: None,
            sql: sql.unwrap_or_default(),
            action: Action::RunAny,
        },
    };
    if asked.sql.trim().is_empty() {
        let reason = "one of query or query_id must be specified";
        return Err(ApiError::invalid("query", reason));
    }
    if actor.reach(asked.action).is_nowhere() {
        return Err(ApiError::Forbidden);
    }
    Ok(asked)
}

/// A saved query that the actor may run, and may run here: a team's query only who may in that team.
fn ask_saved(state: &State, actor: &Actor, id: QueryId) -> Result<Asked, ApiError> {
    let (query, action) = saved(state, actor, id)?;
    if query.team.is_some() && !actor.may_in(action, query.team) {
        return Err(ApiError::Forbidden);
    }
    Ok(Asked {
        saved: Some((id, query.name.clone())),
        sql: query.sql.clone(),
        action,
    })
}

/// A saved query that the actor may see, and the permission that running it takes: observers only run what
/// allows it.
///
/// # Errors
/// 404 for what is not there and for what they may not see.
pub(super) fn saved(
    state: &State,
    actor: &Actor,
    id: QueryId,
) -> Result<(Arc<Query>, Action), ApiError> {
    let query = state.queries.get(&id).map(|(query, _)| query);
    let query = query.filter(|query| {
        query.saved && (query.team.is_none() || actor.may_in(Action::See, query.team))
    });
    let query = query.ok_or_else(|| ApiError::not_found(format_args!("Query {id}")))?;
    let action = if query.observer_can_run {
        Action::RunSaved
    } else {
        Action::RunAny
    };
    Ok((Arc::clone(query), action))
}

/// Creates the campaign.
///
/// # Errors
/// 400 without targets, 429 beyond the user's allowance, and what the store fails with.
pub(super) async fn start(
    api: &Api,
    actor: &Actor,
    asked: Asked,
    targets: RoaringBitmap,
    now: Timestamp,
) -> Result<Campaign, ApiError> {
    if targets.is_empty() {
        return Err(ApiError::BadRequest("no hosts targeted".to_owned()));
    }
    if let Some(fault) = api.sql_fault("query", &asked.sql) {
        return Err(ApiError::Invalid(vec![fault]));
    }
    let _counted = api.count_campaign(actor.user.id)?;
    let (query_id, query_name) = match asked.saved {
        Some((id, name)) => (id, Some(name)),
        // Fleet stores a hidden query for SQL typed for one campaign; here the campaign itself holds the SQL.
        None => (QueryId(api.parts.catalog.reserve("query", 1).await?), None),
    };
    let count = targets.len();
    let teams = api.parts.catalog.read().hosts.teams_of(&targets);
    let question = Question {
        query_id,
        query_name,
        user_id: actor.user.id,
        sql: asked.sql,
        targets: Arc::new(targets),
        teams,
    };
    let campaign = api.parts.store.create(question, now).await?;
    let mut details = json!({
        "campaign_id": campaign.id,
        "targets_count": count,
        "query_sql": campaign.question.sql,
    });
    if let Some(name) = &campaign.question.query_name {
        details["query_name"] = json!(name);
    }
    audit::record(api, actor, "live_query", details, now).await;
    Ok(campaign)
}
