//! Specs of labels.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::json;

use super::{Numbers, check_lengths, items, last_of_each, name_fault, placed};
use crate::api::Api;
use crate::api::audit;
use crate::api::call::Call;
use crate::api::error::{ApiError, Fault};
use crate::api::reply::Reply;
use crate::api::route::{Access, Route, run};
use crate::api::wire::label::{LabelSpecIn, LabelSpecOut};
use crate::auth::Action;
use crate::catalog::entity::{Entity, Label, Membership};
use crate::catalog::record::kind;
use crate::catalog::state::name_of;
use crate::catalog::{Edit, State};
use crate::limits::LABELS_SQL_BYTES;
use crate::results::LabelId;

/// Host names of one manual label.
const HOSTS_MAX: usize = 100_000;

pub(in crate::api) const ROUTES: &[Route] = &[
    Route::get("/spec/labels", Access::To(Action::See), run!(list))
        .says("The specs of all labels.")
        .gives("{specs: [LabelSpec]}"),
    Route::get("/spec/labels/{name}", Access::To(Action::See), run!(one))
        .says("The spec of one label.")
        .gives("{specs: LabelSpec}"),
    Route::post("/spec/labels", Access::To(Action::WriteLabels), run!(apply))
        .says("Makes and changes labels, all or none; names identify. Builtin labels stay as they are.")
        .takes("{specs: [LabelSpecIn; 0..10000]|null}"),
];

async fn list(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let state = api.parts.catalog.read();
    let visible = call.actor()?.hosts(Action::See, &state);
    let labels = state.labels.values().map(|(label, _)| label);
    let specs: Vec<LabelSpecOut> = labels
        .map(|label| LabelSpecOut::of(label, &state, &visible))
        .collect();
    Ok(Reply::json(&json!({ "specs": specs })))
}

async fn one(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let name = call.param("name");
    let state = api.parts.catalog.read();
    let label = state.label(name);
    let label = label.ok_or_else(|| ApiError::not_found(format_args!("Label {name:?}")))?;
    let visible = call.actor()?.hosts(Action::See, &state);
    let spec = LabelSpecOut::of(label, &state, &visible);
    Ok(Reply::json(&json!({ "specs": spec })))
}

async fn apply(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let actor = call.actor()?;
    let specs: Vec<LabelSpecIn> = items(&call)?;
    check_lengths(&api, specs.iter().map(|spec| (&*spec.name, &*spec.query)))?;
    let fresh = {
        let state = api.parts.catalog.read();
        let known = by_name(&state);
        let fresh = specs
            .iter()
            .filter(|spec| !known.contains_key(spec.name.as_str()));
        fresh.count()
    };
    let numbers = Numbers::reserve(&api, kind::LABEL, fresh).await?;
    let plan = |state: &State| plan(state, &specs, numbers.clone());
    api.parts.catalog.commit(plan).await?;
    let names: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
    let details = json!({"specs": names});
    audit::record(&api, actor, "applied_spec_label", details, call.now).await;
    Ok(Reply::empty())
}

fn by_name(state: &State) -> HashMap<&str, &Arc<Label>> {
    let labels = state.labels.values().map(|(label, _)| label);
    labels.map(|label| (label.name.as_str(), label)).collect()
}

fn plan(
    state: &State,
    specs: &[LabelSpecIn],
    mut numbers: Numbers,
) -> Result<(Vec<Edit>, ()), ApiError> {
    let known = by_name(state);
    let counts = last_of_each(specs.iter().map(|spec| spec.name.as_str()));
    let (mut faults, mut edits) = (Vec::new(), Vec::new());
    for (at, (spec, counts)) in specs.iter().zip(counts).enumerate() {
        let before = known.get(spec.name.as_str()).copied();
        let id = before.map_or(LabelId(0), |label| label.id);
        match label(spec, id, before) {
            Err(wrong) => faults.extend(placed(at, &spec.name, wrong)),
            Ok(next) if !counts || before.is_some_and(|before| **before == next) => {}
            Ok(mut next) => {
                if before.is_none() {
                    next.id = LabelId(numbers.take()?);
                    let number = u64::from(next.id.0);
                    let name = Entity::Name(name_of(kind::LABEL, &next.name), number);
                    edits.push(Edit::Create(name));
                }
                edits.push(Edit::Put(Entity::Label(next)));
            }
        }
    }
    if !faults.is_empty() {
        return Err(ApiError::Invalid(faults));
    }
    check_all(state, &edits)?;
    Ok((edits, ()))
}

/// That a host can be asked the queries of all dynamic labels in one check-in, when these edits are made.
///
/// # Errors
/// 422.
pub(crate) fn check_all(state: &State, edits: &[Edit]) -> Result<(), ApiError> {
    let labels = state.labels.iter();
    let mut lengths: HashMap<LabelId, usize> = labels
        .map(|(id, (label, _))| (*id, label.query.len()))
        .collect();
    for edit in edits {
        if let Edit::Put(Entity::Label(label)) | Edit::Create(Entity::Label(label)) = edit {
            lengths.insert(label.id, label.query.len());
        }
    }
    if lengths.values().sum::<usize>() > LABELS_SQL_BYTES {
        let reason = "the queries of all labels together must not have more than 1 MiB";
        return Err(ApiError::invalid("query", reason));
    }
    Ok(())
}

/// The label that a spec describes; `before` is what it changes.
///
/// # Errors
/// What is wrong with the spec.
pub(crate) fn label(
    spec: &LabelSpecIn,
    id: LabelId,
    before: Option<&Arc<Label>>,
) -> Result<Label, Vec<Fault>> {
    let mut faults: Vec<Fault> = name_fault("name", &spec.name).into_iter().collect();
    let membership = match spec.label_membership_type.as_deref() {
        None | Some("" | "dynamic") => Membership::Dynamic,
        Some("manual") => Membership::Manual,
        Some(_) => {
            let field = "label_membership_type";
            faults.push(fault(field, "must be dynamic or manual"));
            Membership::Dynamic
        }
    };
    let kept = before.map(|before| before.hosts.clone());
    let next = Label {
        id,
        name: spec.name.clone(),
        description: spec.description.clone(),
        query: spec.query.clone(),
        platform: spec.platform.clone(),
        builtin: before.is_some_and(|before| before.builtin),
        membership,
        hosts: match membership {
            Membership::Dynamic => Vec::new(),
            Membership::Manual => spec.hosts.clone().or(kept).unwrap_or_default(),
        },
    };
    faults.extend(members_faults(spec, &next, before));
    faults.extend(type_fault(spec, &next, before));
    if faults.is_empty() {
        Ok(next)
    } else {
        Err(faults)
    }
}

fn fault(name: &str, reason: &str) -> Fault {
    Fault {
        name: name.to_owned(),
        reason: reason.to_owned(),
    }
}

/// What is wrong with how the label gets its members.
fn members_faults(spec: &LabelSpecIn, next: &Label, before: Option<&Arc<Label>>) -> Vec<Fault> {
    let mut faults = Vec::new();
    match next.membership {
        Membership::Dynamic if spec.query.trim().is_empty() => {
            faults.push(fault("query", "must not be empty for a dynamic label"));
        }
        Membership::Manual if spec.hosts.is_none() && before.is_none() => {
            faults.push(fault("hosts", "must be given for a manual label"));
        }
        Membership::Dynamic | Membership::Manual => {}
    }
    if next.hosts.len() > HOSTS_MAX {
        faults.push(fault("hosts", "must not have more than 100000 names"));
    }
    if before.is_some_and(|before| before.membership != next.membership) {
        faults.push(fault("label_membership_type", "cannot be changed"));
    }
    faults
}

/// Builtin labels stand in documents as they are, and are neither made nor changed.
fn type_fault(spec: &LabelSpecIn, next: &Label, before: Option<&Arc<Label>>) -> Option<Fault> {
    match spec.label_type.as_deref() {
        None | Some("" | "regular" | "builtin") if next.builtin => {
            let changed = before.is_some_and(|before| **before != *next);
            changed.then(|| fault("name", "is a built-in label, which cannot be modified"))
        }
        None | Some("" | "regular") => None,
        Some("builtin") => Some(fault(
            "label_type",
            "must be regular: built-in labels cannot be made",
        )),
        Some(_) => Some(fault("label_type", "must be regular or builtin")),
    }
}
