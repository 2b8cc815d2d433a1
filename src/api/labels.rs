//! Labels: listed with their counts, made, changed and deleted one by one.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::audit;
use super::call::Call;
use super::error::ApiError;
use super::finder::{self, Wanted};
use super::page::{self, Page};
use super::renames::{Renamed, carried_over};
use super::reply::Reply;
use super::route::{Access, Route, run};
use super::specs::{Numbers, check_name, labels as specs};
use super::wire::host::HostOut;
use super::wire::label::{LabelOut, LabelSpecIn, label_type};
use crate::auth::Action;
use crate::catalog::entity::{Entity, Label};
use crate::catalog::record::kind;
use crate::catalog::state::name_of;
use crate::catalog::{Edit, State};
use crate::results::LabelId;

pub(super) const ROUTES: &[Route] = &[
    Route::get("/labels", Access::To(Action::See), run!(list))
        .says("Labels, each with how many of its hosts one may see.")
        .asks(&["page", "per_page", "order_key: id|name", "order_direction", "query"])
        .gives("{labels: [Label], meta: PageMeta}"),
    Route::get("/labels/summary", Access::To(Action::See), run!(summary))
        .says("Labels by name, without counts.")
        .gives("{labels: [{id: int, name: string, description: string, label_type: string}]}"),
    Route::get("/labels/{id}", Access::To(Action::See), run!(one))
        .says("One label.")
        .gives("{label: Label}"),
    Route::get("/labels/{id}/hosts", Access::To(Action::See), run!(hosts))
        .says("The hosts of a label, with the filters of the list of hosts.")
        .asks(finder::ASKS)
        .gives("{hosts: [Host], meta: PageMeta}"),
    Route::post("/labels", Access::To(Action::WriteLabels), run!(create))
        .says("Makes a label: dynamic with a query, manual with hosts.")
        .takes("{name: name, description?: string|null, query: text, platform?: string|null, hosts?: null}|{name: name, description?: string|null, query?: string|null, platform?: string|null, hosts: [string; 0..100000]}")
        .gives("{label: Label}"),
    Route::patch("/labels/{id}", Access::To(Action::WriteLabels), run!(change))
        .says("Changes a label's name, description, or a manual one's hosts.")
        .takes("{name?: name|null, description?: string|null, hosts?: [string; 0..100000]|null}")
        .gives("{label: Label}"),
    Route::delete("/labels/{name}", Access::To(Action::WriteLabels), run!(delete_named))
        .says("Deletes a label by name."),
    Route::delete("/labels/id/{id}", Access::To(Action::WriteLabels), run!(delete_numbered))
        .says("Deletes a label by number."),
];

async fn list(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let actor = call.actor()?;
    let page = Page::of(&call)?;
    let state = api.parts.catalog.read();
    let labels = state.labels.values().map(|(label, _)| label);
    let mut labels: Vec<&Arc<Label>> = labels
        .filter(|label| page::matches(&call, &[&label.name]))
        .collect();
    let keys: &[page::By<&Arc<Label>>] = &[
        ("id", |one, other| one.id.cmp(&other.id)),
        ("name", |one, other| one.name.cmp(&other.name)),
    ];
    page::order(&mut labels, &call, keys)?;
    let (labels, meta) = page.cut(labels);
    let visible = actor.hosts(Action::See, &state);
    let labels = labels.iter();
    let labels: Vec<LabelOut> = labels
        .map(|label| LabelOut::of(label, &state, &visible))
        .collect();
    Ok(Reply::json(&json!({"labels": labels, "meta": meta})))
}

async fn summary(api: Arc<Api>, _: Call) -> Result<Reply, ApiError> {
    let state = api.parts.catalog.read();
    let labels = state.labels.values().map(|(label, _)| label);
    let labels: Vec<Value> = labels
        .map(|label| {
            json!({
                "id": label.id,
                "name": label.name,
                "description": label.description,
                "label_type": label_type(label),
            })
        })
        .collect();
    Ok(Reply::json(&json!({ "labels": labels })))
}

async fn one(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let id = LabelId(call.id32("id")?);
    shown(&api, &call, id)
}

fn shown(api: &Api, call: &Call, id: LabelId) -> Result<Reply, ApiError> {
    let state = api.parts.catalog.read();
    let label = numbered(&state, id)?;
    let visible = call.actor()?.hosts(Action::See, &state);
    let out = LabelOut::of(label, &state, &visible);
    Ok(Reply::json(&json!({ "label": out })))
}

async fn hosts(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let id = LabelId(call.id32("id")?);
    let (wanted, page) = (Wanted::of(&call)?, Page::of(&call)?);
    let mut set = finder::filtered(&api, call.actor()?, &call)?;
    {
        let state = api.parts.catalog.read();
        set &= state.members(numbered(&state, id)?);
    }
    let (hosts, meta) = finder::find(&api, &set, &wanted, page).await;
    let state = api.parts.catalog.read();
    let presence = api.parts.catalog.presence();
    let shown = hosts.iter();
    let shown: Vec<HostOut> = shown
        .map(|host| HostOut::of(host, &state, presence, call.now))
        .collect();
    Ok(Reply::json(&json!({"hosts": shown, "meta": meta})))
}

async fn create(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let mut spec: LabelSpecIn = call.json()?;
    spec.label_type = None;
    let kind = if spec.hosts.is_some() {
        "manual"
    } else {
        "dynamic"
    };
    spec.label_membership_type = Some(kind.to_owned());
    check_name("name", &spec.name)?;
    if let Some(fault) = api.sql_fault("query", &spec.query) {
        return Err(ApiError::Invalid(vec![fault]));
    }
    let numbers = Numbers::reserve(&api, kind::LABEL, 1).await?;
    let plan = |state: &State| {
        if state.label(&spec.name).is_some() {
            return Err(ApiError::Exists(format!("label {:?} exists", spec.name)));
        }
        let mut numbers = numbers.clone();
        let id = numbers.take()?;
        let label = specs::label(&spec, LabelId(id), None).map_err(ApiError::Invalid)?;
        let name = Entity::Name(name_of(kind::LABEL, &spec.name), u64::from(id));
        let edits = vec![Edit::Create(name), Edit::Create(Entity::Label(label))];
        specs::check_all(state, &edits)?;
        Ok((edits, LabelId(id)))
    };
    let id = api.parts.catalog.commit(plan).await?;
    let details = json!({"label_id": id, "label_name": spec.name});
    audit::record(&api, call.actor()?, "created_label", details, call.now).await;
    shown(&api, &call, id)
}

#[derive(Deserialize)]
struct ChangeIn {
    name: Option<String>,
    description: Option<String>,
    hosts: Option<Vec<String>>,
}

async fn change(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let id = LabelId(call.id32("id")?);
    let body: ChangeIn = call.json()?;
    if let Some(name) = &body.name {
        check_name("name", name)?;
    }
    api.parts
        .catalog
        .commit(|state: &State| changed(state, id, &body))
        .await?;
    let details = json!({"label_id": id});
    audit::record(&api, call.actor()?, "edited_label", details, call.now).await;
    shown(&api, &call, id)
}

fn changed(state: &State, id: LabelId, body: &ChangeIn) -> Result<(Vec<Edit>, ()), ApiError> {
    let label = numbered(state, id)?;
    own(label)?;
    let mut next = Label::clone(label);
    let mut edits = Vec::new();
    if let Some(name) = body.name.as_ref().filter(|name| **name != label.name) {
        if state.label(name).is_some() {
            return Err(ApiError::Exists(format!("label {name:?} exists")));
        }
        let number = u64::from(id.0);
        edits.push(Edit::Delete(kind::NAME, name_of(kind::LABEL, &label.name)));
        edits.push(Edit::Create(Entity::Name(
            name_of(kind::LABEL, name),
            number,
        )));
        edits.extend(carried_over(state, Renamed::Label, &label.name, name));
        next.name.clone_from(name);
    }
    if let Some(description) = &body.description {
        next.description.clone_from(description);
    }
    if let Some(hosts) = &body.hosts {
        if label.membership == crate::catalog::entity::Membership::Dynamic {
            let reason = "a dynamic label gets its hosts by its query";
            return Err(ApiError::invalid("hosts", reason));
        }
        next.hosts.clone_from(hosts);
    }
    edits.push(Edit::Put(Entity::Label(next)));
    Ok((edits, ()))
}

async fn delete_named(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let name = call.param("name").to_owned();
    let find = |state: &State| {
        let label = state.label(&name).cloned();
        label.ok_or_else(|| ApiError::not_found(format_args!("Label {name:?}")))
    };
    delete(&api, &call, find).await
}

async fn delete_numbered(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let id = LabelId(call.id32("id")?);
    delete(&api, &call, |state| numbered(state, id).cloned()).await
}

async fn delete(
    api: &Api,
    call: &Call,
    find: impl Fn(&State) -> Result<Arc<Label>, ApiError>,
) -> Result<Reply, ApiError> {
    let plan = |state: &State| {
        let label = find(state)?;
        own(&label)?;
        let edits = vec![
            Edit::Delete(kind::LABEL, label.id.to_string()),
            Edit::Delete(kind::NAME, name_of(kind::LABEL, &label.name)),
        ];
        Ok((edits, label))
    };
    let label = api.parts.catalog.commit(plan).await?;
    let details = json!({"label_id": label.id, "label_name": label.name});
    audit::record(api, call.actor()?, "deleted_label", details, call.now).await;
    Ok(Reply::empty())
}

fn numbered(state: &State, id: LabelId) -> Result<&Arc<Label>, ApiError> {
    let label = state.labels.get(&id).map(|(label, _)| label);
    label.ok_or_else(|| ApiError::not_found(format_args!("Label {id}")))
}

/// Builtin labels are the product's own.
fn own(label: &Label) -> Result<(), ApiError> {
    if label.builtin {
        let reason = format!("cannot modify built-in label {:?}", label.name);
        return Err(ApiError::invalid("name", reason));
    }
    Ok(())
}
