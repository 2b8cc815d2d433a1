//! Specs of teams: their options and their secrets.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::json;

use super::{Numbers, items, last_of_each, name_fault, placed, secrets};
use crate::api::Api;
use crate::api::audit;
use crate::api::call::Call;
use crate::api::error::{ApiError, Fault};
use crate::api::reply::Reply;
use crate::api::route::{Access, Route, run};
use crate::api::wire::team::{TeamSpecIn, agent_options};
use crate::auth::{Action, Actor};
use crate::catalog::entity::{Entity, Team};
use crate::catalog::record::kind;
use crate::catalog::state::name_of;
use crate::catalog::{Edit, State};
use crate::clock::Timestamp;
use crate::results::TeamId;

pub(in crate::api) const ROUTES: &[Route] = &[
    Route::get("/spec/teams", Access::To(Action::See), run!(list))
        .also(&["/spec/fleets"])
        .says("Teams as their specs; secrets only for who may see them.")
        .gives("{specs: [{name: string, agent_options: object|null, secrets?: [{secret: string}]}]}"),
    Route::post("/spec/teams", Access::To(Action::WriteTeam), run!(apply))
        .also(&["/spec/fleets"])
        .says("Makes and changes teams, all or none; names identify. What a spec does not give stays as it is.")
        .takes("{specs: [TeamSpecIn; 0..10000]|null}")
        .gives("{team_ids_by_name: object}"),
];

async fn list(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let actor = call.actor()?;
    let state = api.parts.catalog.read();
    let teams = state.teams.values().map(|(team, _)| team);
    let seen = teams.filter(|team| actor.may_in(Action::See, Some(team.id)));
    let specs = seen.map(|team| {
        let mut spec = json!({"name": team.name, "agent_options": team.agent_options});
        if actor.may_in(Action::Secrets, Some(team.id)) {
            let secrets = state.secrets.values();
            let own = secrets.filter(|secret| secret.team == Some(team.id));
            let own: Vec<_> = own.map(|own| json!({"secret": own.secret})).collect();
            spec["secrets"] = own.into();
        }
        spec
    });
    let specs: Vec<_> = specs.collect();
    Ok(Reply::json(&json!({ "specs": specs })))
}

async fn apply(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let actor = call.actor()?;
    let specs: Vec<TeamSpecIn> = items(&call)?;
    let fresh = {
        let state = api.parts.catalog.read();
        let fresh = specs.iter().filter(|spec| state.team(&spec.name).is_none());
        fresh.count()
    };
    let numbers = Numbers::reserve(&api, kind::TEAM, fresh).await?;
    let plan = |state: &State| plan(state, actor, &specs, numbers.clone(), call.now);
    let ids = api.parts.catalog.commit(plan).await?;
    let details = json!({"teams": ids});
    audit::record(&api, actor, "applied_spec_team", details, call.now).await;
    Ok(Reply::json(&json!({ "team_ids_by_name": ids })))
}

fn plan(
    state: &State,
    actor: &Actor,
    specs: &[TeamSpecIn],
    mut numbers: Numbers,
    now: Timestamp,
) -> Result<(Vec<Edit>, BTreeMap<String, TeamId>), ApiError> {
    let counts = last_of_each(specs.iter().map(|spec| spec.name.as_str()));
    let (mut faults, mut edits, mut ids) = (Vec::new(), Vec::new(), BTreeMap::new());
    for (at, (spec, counts)) in specs.iter().zip(counts).enumerate() {
        let before = state.team(&spec.name);
        allow(actor, spec, before)?;
        let next = match team(spec, before, now) {
            Ok(next) => next,
            Err(wrong) => {
                faults.extend(placed(at, &spec.name, wrong));
                continue;
            }
        };
        if !counts {
            continue;
        }
        let id = put(next, before, &mut numbers, &mut edits)?;
        ids.insert(spec.name.clone(), id);
        if let Some(wanted) = &spec.secrets {
            edits.extend(secrets::edits(state, Some(id), wanted, now));
        }
    }
    faults.extend(shared_secrets(state, &edits, actor));
    if !faults.is_empty() {
        return Err(ApiError::Invalid(faults));
    }
    Ok((edits, ids))
}

fn allow(actor: &Actor, spec: &TeamSpecIn, before: Option<&Arc<Team>>) -> Result<(), ApiError> {
    let allowed = match before {
        None => actor.may(Action::WriteTeams),
        Some(team) => {
            actor.may_in(Action::WriteTeam, Some(team.id))
                && (spec.secrets.is_none() || actor.may_in(Action::Secrets, Some(team.id)))
        }
    };
    if allowed {
        Ok(())
    } else {
        Err(ApiError::Forbidden)
    }
}

/// The team that a spec describes.
fn team(spec: &TeamSpecIn, before: Option<&Arc<Team>>, now: Timestamp) -> Result<Team, Vec<Fault>> {
    let mut faults: Vec<Fault> = name_fault("name", &spec.name).into_iter().collect();
    if let Some(wanted) = &spec.secrets {
        faults.extend(secrets::faults("secrets", wanted));
    }
    let kept = before.and_then(|before| before.agent_options.clone());
    let options = match spec.agent_options.as_deref().map(agent_options) {
        None => kept,
        Some(Ok(options)) => options,
        Some(Err(reason)) => {
            faults.push(Fault {
                name: "agent_options".to_owned(),
                reason,
            });
            None
        }
    };
    if !faults.is_empty() {
        return Err(faults);
    }
    Ok(Team {
        id: before.map_or(TeamId(0), |before| before.id),
        name: spec.name.clone(),
        description: before.map_or_else(String::new, |before| before.description.clone()),
        agent_options: options,
        created_at: before.map_or(now.secs(), |before| before.created_at),
    })
}

fn put(
    mut next: Team,
    before: Option<&Arc<Team>>,
    numbers: &mut Numbers,
    edits: &mut Vec<Edit>,
) -> Result<TeamId, ApiError> {
    if before.is_none() {
        next.id = TeamId(numbers.take()?);
        let name = Entity::Name(name_of(kind::TEAM, &next.name), u64::from(next.id.0));
        edits.push(Edit::Create(name));
    }
    let id = next.id;
    edits.push(Edit::Put(Entity::Team(next)));
    Ok(id)
}

/// A host's team is found by its secret, so that after these edits no two teams may have the same one. A global
/// secret may be a team's as well if its admin says so: a team's admin would take in all new hosts by it.
#[must_use]
pub(crate) fn shared_secrets(state: &State, edits: &[Edit], actor: &Actor) -> Vec<Fault> {
    let is_global = |text: &str| {
        let mut secrets = state.secrets.values();
        secrets.any(|secret| secret.team.is_none() && secret.secret == text)
    };
    let may_share = actor.may(Action::Secrets);
    let mut owners: HashMap<&str, Vec<TeamId>> = HashMap::new();
    let gone = |key: &String| {
        edits.iter().any(|edit| match edit {
            Edit::Delete(kind, other) => *kind == kind::ENROLL_SECRET && other == key,
            _ => false,
        })
    };
    let mut faults = Vec::new();
    for edit in edits {
        let Edit::Create(Entity::EnrollSecret(secret)) = edit else {
            continue;
        };
        if let Some(team) = secret.team {
            owners.entry(&secret.secret).or_default().push(team);
        }
    }
    for (text, teams) in &owners {
        let kept = state.secrets.iter();
        let elsewhere = kept.filter(|(key, secret)| {
            secret.secret == **text
                && secret.team.is_some_and(|team| !teams.contains(&team))
                && !gone(key)
        });
        if !may_share && is_global(text) {
            faults.push(Fault {
                name: "secrets".to_owned(),
                reason: "a secret is taken already: choose another".to_owned(),
            });
        }
        if teams.len() > 1 || elsewhere.count() > 0 {
            faults.push(Fault {
                name: "secrets".to_owned(),
                reason: "a secret must not belong to two teams".to_owned(),
            });
        }
    }
    faults
}
