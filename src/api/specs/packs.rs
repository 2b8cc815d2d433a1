//! Specs of packs, and what else can be done to packs.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde_json::json;

use super::{Numbers, items, last_of_each, name_fault, placed};
use crate::api::Api;
use crate::api::audit;
use crate::api::call::Call;
use crate::api::error::{ApiError, Fault};
use crate::api::page::{self, Page};
use crate::api::reply::Reply;
use crate::api::route::{Access, Route, run};
use crate::api::wire::number::Number;
use crate::api::wire::pack::{PackSpec, PackSpecQuery};
use crate::auth::Action;
use crate::catalog::entity::{Entity, Pack, PackQuery};
use crate::catalog::record::kind;
use crate::catalog::state::name_of;
use crate::catalog::{Edit, State};

/// The longest interval of a scheduled query, in seconds: a week (spec fleet-live-query, 5.3).
const INTERVAL_S_MAX: u64 = 604_800;

pub(in crate::api) const ROUTES: &[Route] = &[
    Route::get("/spec/packs", Access::To(Action::See), run!(specs))
        .says("The specs of all packs.")
        .gives("{specs: [PackSpec]}"),
    Route::get("/spec/packs/{name}", Access::To(Action::See), run!(spec))
        .says("The spec of one pack.")
        .gives("{specs: PackSpec}"),
    Route::post("/spec/packs", Access::To(Action::WritePacks), run!(apply))
        .says("Makes and changes packs, all or none; names identify. A pack may name queries that do not exist yet.")
        .takes("{specs: [PackSpecIn; 0..10000]|null}"),
    Route::get("/packs", Access::To(Action::See), run!(list))
        .says("All packs.")
        .asks(&["page", "per_page", "order_key: id|name", "order_direction", "query"])
        .gives("{packs: [PackSpec], meta: PageMeta}"),
    Route::delete("/packs/{name}", Access::To(Action::WritePacks), run!(delete_named))
        .says("Deletes a pack by name."),
    Route::delete("/packs/id/{id}", Access::To(Action::WritePacks), run!(delete_numbered))
        .says("Deletes a pack by number."),
];

async fn specs(api: Arc<Api>, _: Call) -> Result<Reply, ApiError> {
    let state = api.parts.catalog.read();
    let packs = state.packs.values().map(|(pack, _)| pack);
    let specs: Vec<PackSpec> = packs.map(|pack| PackSpec::from(&**pack)).collect();
    Ok(Reply::json(&json!({ "specs": specs })))
}

async fn spec(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let name = call.param("name");
    let state = api.parts.catalog.read();
    let pack = state.pack(name);
    let pack = pack.ok_or_else(|| ApiError::not_found(format_args!("Pack {name:?}")))?;
    Ok(Reply::json(&json!({"specs": PackSpec::from(&**pack)})))
}

async fn list(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let page = Page::of(&call)?;
    let state = api.parts.catalog.read();
    let packs = state.packs.values().map(|(pack, _)| pack);
    let mut packs: Vec<&Arc<Pack>> = packs
        .filter(|pack| page::matches(&call, &[&pack.name]))
        .collect();
    let keys: &[page::By<&Arc<Pack>>] = &[
        ("id", |one, other| one.id.cmp(&other.id)),
        ("name", |one, other| one.name.cmp(&other.name)),
    ];
    page::order(&mut packs, &call, keys)?;
    let (packs, meta) = page.cut(packs);
    let packs: Vec<PackSpec> = packs.iter().map(|pack| PackSpec::from(&***pack)).collect();
    Ok(Reply::json(&json!({"packs": packs, "meta": meta})))
}

async fn apply(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let actor = call.actor()?;
    let specs: Vec<PackSpec> = items(&call)?;
    let fresh = {
        let state = api.parts.catalog.read();
        let known = by_name(&state);
        let fresh = specs
            .iter()
            .filter(|spec| !known.contains_key(spec.name.as_str()));
        fresh.count()
    };
    let numbers = Numbers::reserve(&api, kind::PACK, fresh).await?;
    let plan = |state: &State| plan(state, &specs, numbers.clone());
    api.parts.catalog.commit(plan).await?;
    let names: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
    let details = json!({"specs": names});
    audit::record(&api, actor, "applied_spec_pack", details, call.now).await;
    Ok(Reply::empty())
}

fn by_name(state: &State) -> HashMap<&str, &Arc<Pack>> {
    let packs = state.packs.values().map(|(pack, _)| pack);
    packs.map(|pack| (pack.name.as_str(), pack)).collect()
}

fn plan(
    state: &State,
    specs: &[PackSpec],
    mut numbers: Numbers,
) -> Result<(Vec<Edit>, ()), ApiError> {
    let known = by_name(state);
    let counts = last_of_each(specs.iter().map(|spec| spec.name.as_str()));
    let (mut faults, mut edits) = (Vec::new(), Vec::new());
    for (at, (spec, counts)) in specs.iter().zip(counts).enumerate() {
        let wrong = check(spec);
        if !wrong.is_empty() {
            faults.extend(placed(at, &spec.name, wrong));
            continue;
        }
        let before = known.get(spec.name.as_str()).copied();
        if !counts {
            continue;
        }
        let mut next = pack(spec, before.map_or(0, |before| before.id));
        if before.is_some_and(|before| **before == next) {
            continue;
        }
        if before.is_none() {
            next.id = numbers.take()?;
            let name = Entity::Name(name_of(kind::PACK, &next.name), u64::from(next.id));
            edits.push(Edit::Create(name));
        }
        edits.push(Edit::Put(Entity::Pack(next)));
    }
    if !faults.is_empty() {
        return Err(ApiError::Invalid(faults));
    }
    Ok((edits, ()))
}

fn check(spec: &PackSpec) -> Vec<Fault> {
    let mut faults: Vec<Fault> = name_fault("name", &spec.name).into_iter().collect();
    let mut names = HashSet::new();
    for (at, query) in spec.queries.iter().enumerate() {
        let mut fault = |field: &str, reason: &str| {
            faults.push(Fault {
                name: format!("queries[{at}].{field}"),
                reason: reason.to_owned(),
            });
        };
        if query.query.trim().is_empty() {
            fault("query", "must name a query");
        }
        if !(1..=INTERVAL_S_MAX).contains(&query.interval.0) {
            fault("interval", "must be from 1 to 604800 seconds");
        }
        if query.shard.is_some_and(|shard| shard.0 > 100) {
            fault("shard", "must be from 0 to 100 per cent");
        }
        if !names.insert(name_in_pack(query)) {
            fault("name", "stands twice in the pack");
        }
    }
    faults
}

fn name_in_pack(query: &PackSpecQuery) -> &str {
    if query.name.is_empty() {
        &query.query
    } else {
        &query.name
    }
}

fn pack(spec: &PackSpec, id: u32) -> Pack {
    let queries = spec.queries.iter().map(|query| PackQuery {
        query: query.query.clone(),
        name: name_in_pack(query).to_owned(),
        description: query.description.clone(),
        interval: query.interval.narrow(),
        snapshot: query.snapshot,
        removed: query.removed,
        platform: query.platform.clone(),
        version: query.version.clone(),
        shard: query.shard.map(Number::narrow),
        denylist: query.denylist,
    });
    Pack {
        id,
        name: spec.name.clone(),
        description: spec.description.clone(),
        platform: spec.platform.clone(),
        disabled: spec.disabled,
        target_labels: spec.targets.labels.clone(),
        target_teams: spec.targets.teams.clone(),
        queries: queries.collect(),
    }
}

async fn delete_named(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let name = call.param("name").to_owned();
    let find = |state: &State| {
        let pack = state.pack(&name).cloned();
        pack.ok_or_else(|| ApiError::not_found(format_args!("Pack {name:?}")))
    };
    delete(&api, &call, find).await
}

async fn delete_numbered(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let id = call.id32("id")?;
    let find = |state: &State| {
        let pack = state.packs.get(&id).map(|(pack, _)| Arc::clone(pack));
        pack.ok_or_else(|| ApiError::not_found(format_args!("Pack {id}")))
    };
    delete(&api, &call, find).await
}

async fn delete(
    api: &Api,
    call: &Call,
    find: impl Fn(&State) -> Result<Arc<Pack>, ApiError>,
) -> Result<Reply, ApiError> {
    let plan = |state: &State| {
        let pack = find(state)?;
        let edits = vec![
            Edit::Delete(kind::PACK, pack.id.to_string()),
            Edit::Delete(kind::NAME, name_of(kind::PACK, &pack.name)),
        ];
        Ok((edits, pack))
    };
    let pack = api.parts.catalog.commit(plan).await?;
    let details = json!({"pack_id": pack.id, "pack_name": pack.name});
    audit::record(api, call.actor()?, "deleted_pack", details, call.now).await;
    Ok(Reply::empty())
}
