//! Hosts: found, shown, moved between teams, deleted.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::audit;
use super::call::Call;
use super::error::ApiError;
use super::finder::{self, Wanted};
use super::page::Page;
use super::reply::Reply;
use super::route::{Access, Route, run};
use super::targets::allowed_hosts;
use super::wire::campaign::or_default;
use super::wire::host::HostOut;
use super::wire::number::Number;
use crate::auth::{Action, Actor};
use crate::catalog::entity::{Entity, Host};
use crate::catalog::record::kind;
use crate::catalog::state::host_name;
use crate::catalog::{Edit, State};
use crate::results::{HostId, TeamId};

/// So many hosts are found for a search, as in Fleet.
const SEARCH_HOSTS: u64 = 10;
/// Hosts that one commit changes.
const HOSTS_PER_COMMIT: usize = 500;

pub(super) const ROUTES: &[Route] = &[
    Route::get("/hosts", Access::To(Action::See), run!(list))
        .says("Hosts, by page; filtered by text, presence, team and label.")
        .asks(finder::ASKS)
        .gives("{hosts: [Host], meta: PageMeta}"),
    Route::get("/hosts/count", Access::To(Action::See), run!(count))
        .says("How many hosts the same filters leave.")
        .asks(finder::ASKS)
        .gives("{count: int}"),
    Route::get("/host_summary", Access::To(Action::See), run!(summary))
        .says("How many hosts there are, by presence.")
        .asks(&["team_id"])
        .gives("{team_id?: int, totals_hosts_count: int, online_count: int, offline_count: int, mia_count: int, missing_30_days_count: int, new_count: int}"),
    Route::post("/hosts/search", Access::To(Action::See), run!(search))
        .says("The first ten hosts that hold a text, of those that may be asked.")
        .takes("{query?: string|null, query_id?: int|null, excluded_host_ids?: [int]|null}")
        .gives("{hosts: [Host]}"),
    Route::get("/hosts/{id}", Access::To(Action::See), run!(by_id))
        .says("One host, with its labels.")
        .gives("{host: Host}"),
    Route::get("/hosts/identifier/{identifier}", Access::To(Action::See), run!(by_identifier))
        .says("One host by hostname, UUID, serial number or identifier.")
        .gives("{host: Host}"),
    Route::delete("/hosts/{id}", Access::To(Action::WriteHosts), run!(delete))
        .says("Forgets a host; it enrolls anew when it next checks in with a good secret."),
    Route::post("/hosts/transfer", Access::To(Action::WriteHosts), run!(transfer))
        .says("Moves hosts to a team, or out of any with null.")
        .takes("{team_id?: int|null, hosts: [int]|null}"),
];

async fn list(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let (wanted, page) = (Wanted::of(&call)?, Page::of(&call)?);
    let set = finder::filtered(&api, call.actor()?, &call)?;
    let (hosts, meta) = finder::find(&api, &set, &wanted, page).await;
    Ok(Reply::json(
        &json!({"hosts": shown(&api, &hosts, &call), "meta": meta}),
    ))
}

async fn count(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    // The page makes no difference to the count, but it must be one.
    let (wanted, _) = (Wanted::of(&call)?, Page::of(&call)?);
    let set = finder::filtered(&api, call.actor()?, &call)?;
    let count = finder::count(&api, &set, &wanted).await;
    Ok(Reply::json(&json!({"count": count})))
}

async fn summary(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let set = finder::filtered(&api, call.actor()?, &call)?;
    let counts = api.parts.catalog.presence().count(&set, call.now);
    let mut out = json!({
        "totals_hosts_count": counts.total,
        "online_count": counts.online,
        "offline_count": counts.offline,
        "mia_count": counts.missing_in_action,
        "missing_30_days_count": counts.missing_in_action,
        "new_count": counts.new,
    });
    if let Some(team) = call.asked_number("team_id")? {
        out["team_id"] = json!(team);
    }
    Ok(Reply::json(&out))
}

#[derive(Deserialize)]
struct SearchIn {
    #[serde(default, deserialize_with = "or_default")]
    query: String,
    #[serde(default, alias = "report_id")]
    query_id: Option<Number>,
    #[serde(default, deserialize_with = "or_default")]
    excluded_host_ids: Vec<Number>,
}

async fn search(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let actor = call.actor()?;
    let body: SearchIn = call.json()?;
    let mut set = allowed_hosts(&api.parts.catalog.read(), actor, body.query_id)?;
    for host in body.excluded_host_ids {
        set.remove(host.narrow());
    }
    let page = Page {
        number: 0,
        size: SEARCH_HOSTS,
    };
    let (hosts, _) = finder::find(&api, &set, &Wanted::text(&body.query), page).await;
    Ok(Reply::json(&json!({"hosts": shown(&api, &hosts, &call)})))
}

async fn by_id(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let id = HostId(call.id32("id")?);
    let host = visible(&api.parts.catalog.read(), call.actor()?, id)?;
    Ok(detail(&api, &host, &call))
}

async fn by_identifier(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let name = call.param("identifier");
    let host = named(&api.parts.catalog.read(), call.actor()?, name)?;
    Ok(detail(&api, &host, &call))
}

/// A host that the actor may see.
///
/// # Errors
/// 404 for others as for none: who may not see a host does not learn that it exists.
pub(super) fn visible(state: &State, actor: &Actor, id: HostId) -> Result<Arc<Host>, ApiError> {
    let host = state.hosts.get(id);
    let host = host.filter(|host| actor.may_in(Action::See, host.team));
    let host = host.ok_or_else(|| ApiError::not_found(format_args!("Host {id}")))?;
    Ok(Arc::clone(host))
}

/// The first of the hosts of a name that the actor may see.
///
/// # Errors
/// 404.
pub(super) fn named(state: &State, actor: &Actor, name: &str) -> Result<Arc<Host>, ApiError> {
    let ids = state.hosts.named(name);
    let mut hosts = ids.iter().filter_map(|id| state.hosts.get(*id));
    let host = hosts.find(|host| actor.may_in(Action::See, host.team));
    let host = host.ok_or_else(|| ApiError::not_found(format_args!("Host {name:?}")))?;
    Ok(Arc::clone(host))
}

fn detail(api: &Api, host: &Host, call: &Call) -> Reply {
    let state = api.parts.catalog.read();
    let labels = state.labels.values().map(|(label, _)| label);
    let own = labels.filter(|label| state.members(label).contains(host.id.0));
    let labels: Vec<Value> = own
        .map(|label| json!({"id": label.id, "name": label.name, "description": label.description}))
        .collect();
    let out = HostOut::of(host, &state, api.parts.catalog.presence(), call.now);
    Reply::json(&json!({"host": out.with_labels(labels)}))
}

fn shown<'a>(api: &Api, hosts: &'a [Arc<Host>], call: &Call) -> Vec<HostOut<'a>> {
    let state = api.parts.catalog.read();
    let presence = api.parts.catalog.presence();
    let hosts = hosts.iter();
    hosts
        .map(|host| HostOut::of(host, &state, presence, call.now))
        .collect()
}

async fn delete(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let actor = call.actor()?;
    let id = HostId(call.id32("id")?);
    let plan = |state: &State| {
        let host = visible(state, actor, id)?;
        if !actor.may_in(Action::WriteHosts, host.team) {
            return Err(ApiError::Forbidden);
        }
        let edits = vec![
            Edit::Delete(kind::HOST, id.to_string()),
            Edit::Delete(kind::NAME, host_name(&host)),
        ];
        Ok((edits, host.display_name().to_owned()))
    };
    let name = api.parts.catalog.commit(plan).await?;
    let details = json!({"host_id": id, "host_display_name": name});
    audit::record(&api, actor, "deleted_host", details, call.now).await;
    Ok(Reply::empty())
}

#[derive(Deserialize)]
struct TransferIn {
    #[serde(alias = "fleet_id")]
    team_id: Option<Number>,
    #[serde(deserialize_with = "or_default")]
    hosts: Vec<Number>,
}

async fn transfer(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let actor = call.actor()?;
    let TransferIn { team_id, hosts } = call.json()?;
    let team = team_id.map(Number::narrow).filter(|team| *team != 0);
    let team = team.map(TeamId);
    if !actor.may_in(Action::WriteHosts, team) {
        return Err(ApiError::Forbidden);
    }
    let hosts: Vec<HostId> = hosts.iter().map(|host| HostId(host.narrow())).collect();
    let moved = move_hosts(&api, &hosts, team, Some(actor)).await?;
    let details = json!({"team_id": team, "host_ids": hosts, "moved": moved});
    audit::record(&api, actor, "transferred_hosts", details, call.now).await;
    Ok(Reply::empty())
}

/// Moves hosts to a team, some hundred in a commit. An actor, if any, must be allowed to take each away.
/// Unknown hosts are left out.
///
/// # Errors
/// 403, 404 for a team that is not there; hosts of earlier commits have then been moved.
pub(super) async fn move_hosts(
    api: &Api,
    hosts: &[HostId],
    team: Option<TeamId>,
    actor: Option<&Actor>,
) -> Result<u64, ApiError> {
    let mut moved = 0;
    for chunk in hosts.chunks(HOSTS_PER_COMMIT) {
        let plan = |state: &State| {
            if team.is_some_and(|team| !state.teams.contains_key(&team)) {
                return Err(ApiError::not_found("Team"));
            }
            let known = chunk.iter().filter_map(|id| state.hosts.get(*id));
            let elsewhere: Vec<&Arc<Host>> = known.filter(|host| host.team != team).collect();
            let free = |host: &&Arc<Host>| {
                actor.is_none_or(|actor| actor.may_in(Action::WriteHosts, host.team))
            };
            if !elsewhere.iter().all(free) {
                return Err(ApiError::Forbidden);
            }
            let moves = elsewhere.iter().map(|host| {
                let mut host = Host::clone(host);
                // Who has the former team's secret may enrol it again after this, and nobody else.
                host.home.get_or_insert(host.team.unwrap_or_default());
                host.team = team;
                Edit::Put(Entity::Host(Box::new(host)))
            });
            Ok((moves.collect(), elsewhere.len() as u64))
        };
        moved += api.parts.catalog.commit(plan).await?;
    }
    Ok(moved)
}
