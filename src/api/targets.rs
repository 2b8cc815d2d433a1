//! Whom a campaign would ask, before it is started: a search over hosts, labels and teams, and counts.

use std::sync::Arc;

use roaring::RoaringBitmap;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::call::Call;
use super::error::ApiError;
use super::finder::{self, Wanted};
use super::page::Page;
use super::reply::Reply;
use super::route::{Access, Route, run};
use super::selection;
use super::wire::campaign::{Selected, or_default};
use super::wire::host::HostOut;
use super::wire::label::LabelOut;
use super::wire::number::Number;
use super::wire::object::object_or_default;
use crate::auth::{Action, Actor};
use crate::catalog::State;
use crate::catalog::presence::Counts;
use crate::results::QueryId;

/// So many hosts are shown for a search of targets.
const HOSTS_SHOWN: u64 = 10;

pub(super) const ROUTES: &[Route] = &[
    Route::post("/targets", Access::To(Action::RunSaved), run!(search))
        .says("Hosts, labels and teams that hold a text, and the counts of what is selected.")
        .takes("{query?: string|null, query_id?: int|null, selected?: SelectedIds|null}")
        .gives("{targets: {hosts: [Host], labels: [Label], teams: [TargetTeam]}, targets_count: int, targets_online: int, targets_offline: int, targets_missing_in_action: int}"),
    Route::post("/targets/count", Access::To(Action::RunSaved), run!(count))
        .says("How many hosts a selection means, and how many of them are online.")
        .takes("{selected?: SelectedIds|null, query_id?: int|null}")
        .gives("{targets_count: int, targets_online: int, targets_offline: int, targets_missing_in_action: int}"),
];

#[derive(Deserialize)]
struct TargetsIn {
    #[serde(default, deserialize_with = "or_default")]
    query: String,
    #[serde(default, alias = "report_id")]
    query_id: Option<Number>,
    #[serde(default, deserialize_with = "object_or_default")]
    selected: Selected<Number>,
}

/// The hosts on which the actor may run a query, or SQL of their own. An observer who only may run what allows it
/// is shown what they would see: without a query, all they may see.
///
/// # Errors
/// 404 for a query that is not there.
pub(super) fn allowed_hosts(
    state: &State,
    actor: &Actor,
    query_id: Option<Number>,
) -> Result<RoaringBitmap, ApiError> {
    let action = match query_id {
        Some(Number(id)) => super::run::saved(state, actor, QueryId(id))?.1,
        None => Action::See,
    };
    Ok(actor.hosts(action, state))
}

fn counted(api: &Api, call: &Call, body: &TargetsIn) -> Result<Counts, ApiError> {
    let actor = call.actor()?;
    let state = api.parts.catalog.read();
    let allowed = allowed_hosts(&state, actor, body.query_id)?;
    let meant = selection::by_ids(&state, &body.selected).resolve(&allowed);
    drop(state);
    Ok(api.parts.catalog.presence().count(&meant, call.now))
}

async fn count(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let body: TargetsIn = call.json()?;
    let counts = counted(&api, &call, &body)?;
    Ok(Reply::json(&json!({
        "targets_count": counts.total,
        "targets_online": counts.online,
        "targets_offline": counts.offline,
        "targets_missing_in_action": counts.missing_in_action,
    })))
}

async fn search(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let body: TargetsIn = call.json()?;
    let counts = counted(&api, &call, &body)?;
    let actor = call.actor()?;
    let mut allowed = allowed_hosts(&api.parts.catalog.read(), actor, body.query_id)?;
    for host in &body.selected.hosts {
        allowed.remove(host.narrow());
    }
    let page = Page {
        number: 0,
        size: HOSTS_SHOWN,
    };
    let wanted = Wanted::text(&body.query);
    let (hosts, _) = finder::find(&api, &allowed, &wanted, page).await;
    let state = api.parts.catalog.read();
    let presence = api.parts.catalog.presence();
    let shown = hosts.iter();
    let shown = shown.map(|host| HostOut::of(host, &state, presence, call.now));
    Ok(Reply::json(&json!({
        "targets": {
            "hosts": shown.collect::<Vec<_>>(),
            "labels": labels(&state, actor, &body),
            "teams": teams(&state, actor, &body),
        },
        "targets_count": counts.total,
        "targets_online": counts.online,
        "targets_offline": counts.offline,
        "targets_missing_in_action": counts.missing_in_action,
    })))
}

fn labels(state: &State, actor: &Actor, body: &TargetsIn) -> Vec<LabelOut> {
    let visible = actor.hosts(Action::See, state);
    let text = body.query.to_lowercase();
    let labels = state.labels.values().map(|(label, _)| label);
    labels
        .filter(|label| label.name.to_lowercase().contains(&text))
        .filter(|label| {
            !body
                .selected
                .labels
                .contains(&Number(u64::from(label.id.0)))
        })
        .map(|label| LabelOut::of(label, state, &visible))
        .collect()
}

fn teams(state: &State, actor: &Actor, body: &TargetsIn) -> Vec<Value> {
    let text = body.query.to_lowercase();
    let teams = state.teams.values().map(|(team, _)| team);
    teams
        .filter(|team| actor.may_in(Action::RunSaved, Some(team.id)))
        .filter(|team| team.name.to_lowercase().contains(&text))
        .filter(|team| !body.selected.teams.contains(&Number(u64::from(team.id.0))))
        .map(|team| {
            let count = state.hosts.of_team(team.id).map_or(0, RoaringBitmap::len);
            json!({
                "id": team.id,
                "name": team.name,
                "description": team.description,
                "display_text": team.name,
                "count": count,
            })
        })
        .collect()
}
