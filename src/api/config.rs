//! The installation's settings that the API may change: agent options, the switch for live queries, and whatever
//! else clients keep in the document.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::Api;
use super::audit;
use super::call::Call;
use super::error::ApiError;
use super::reply::Reply;
use super::route::{Access, Route, run};
use super::wire::team::{agent_options, given};
use crate::auth::Action;
use crate::catalog::entity::{AppConfig, Entity};
use crate::catalog::{Edit, State};

/// Bytes of the part of the document that only clients know.
const OTHER_BYTES_MAX: usize = 256 * 1024;

pub(super) const ROUTES: &[Route] = &[
    Route::get("/config", Access::To(Action::See), run!(show))
        .says("The installation's settings.")
        .gives("Config"),
    Route::patch("/config", Access::To(Action::WriteConfig), run!(change))
        .says("Changes settings; what is not given stays.")
        .takes("{agent_options?: AgentOptions|null, server_settings?: {live_query_disabled?: bool, server_url?: string, ...}, org_info?: object, ...}")
        .gives("Config"),
];

async fn show(api: Arc<Api>, _: Call) -> Result<Reply, ApiError> {
    Ok(shown(&api))
}

fn shown(api: &Api) -> Reply {
    let state = api.parts.catalog.read();
    let app = &state.app;
    let mut document = app.other.clone();
    let settings = document.entry("server_settings").or_insert(json!({}));
    if let Value::Object(settings) = settings {
        let disabled = Value::Bool(app.live_query_disabled);
        settings.insert("live_query_disabled".to_owned(), disabled);
        settings.entry("server_url").or_insert(json!(""));
    }
    document
        .entry("org_info")
        .or_insert(json!({"org_name": "", "org_logo_url": ""}));
    // What was checked when it was taken reads back; if not, the client sees that there are none.
    let options = app.agent_options.as_deref();
    let options = options.and_then(|options| serde_json::from_str(options.get()).ok());
    document.insert("agent_options".to_owned(), options.unwrap_or(Value::Null));
    Reply::json(&document)
}

#[derive(Deserialize)]
struct ConfigIn {
    #[serde(default, deserialize_with = "given")]
    agent_options: Option<Box<RawValue>>,
}

async fn change(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let actor = call.actor()?;
    // Twice: the options are kept as they were written, the rest is merged.
    let ConfigIn { agent_options: raw } = call.json()?;
    let mut rest: Map<String, Value> = call.json()?;
    rest.remove("agent_options");
    let options = raw.as_deref().map(agent_options).transpose();
    let options = options.map_err(|reason| ApiError::invalid("agent_options", reason))?;
    let disabled = switch(&mut rest)?;
    let plan = |state: &State| {
        let mut next = state.app.clone();
        if let Some(options) = &options {
            next.agent_options.clone_from(options);
        }
        if let Some(disabled) = disabled {
            next.live_query_disabled = disabled;
        }
        merge(&mut next, &rest)?;
        Ok::<_, ApiError>((vec![Edit::Put(Entity::AppConfig(next))], ()))
    };
    api.parts.catalog.commit(plan).await?;
    let kind = if options.is_some() {
        "edited_agent_options"
    } else {
        "edited_config"
    };
    let details = json!({"global": true, "live_query_disabled": disabled});
    audit::record(&api, actor, kind, details, call.now).await;
    Ok(shown(&api))
}

/// Takes the switch out of a document, and checks what clients read without looking.
fn switch(document: &mut Map<String, Value>) -> Result<Option<bool>, ApiError> {
    let field = "server_settings.live_query_disabled";
    if document
        .get("org_info")
        .is_some_and(|info| !info.is_object())
    {
        return Err(ApiError::invalid("org_info", "must be an object"));
    }
    let Some(settings) = document.get_mut("server_settings") else {
        return Ok(None);
    };
    let Some(settings) = settings.as_object_mut() else {
        return Err(ApiError::invalid("server_settings", "must be an object"));
    };
    if settings
        .get("server_url")
        .is_some_and(|url| !url.is_string())
    {
        return Err(ApiError::invalid(
            "server_settings.server_url",
            "must be a text",
        ));
    }
    match settings.remove("live_query_disabled") {
        None => Ok(None),
        Some(Value::Bool(disabled)) => Ok(Some(disabled)),
        Some(_) => Err(ApiError::invalid(field, "must be true or false")),
    }
}

/// Objects are merged one level deep; everything else is replaced.
fn merge(app: &mut AppConfig, change: &Map<String, Value>) -> Result<(), ApiError> {
    for (key, value) in change {
        match (app.other.get_mut(key), value) {
            (Some(Value::Object(known)), Value::Object(new)) => {
                known.extend(new.clone());
            }
            _ => {
                app.other.insert(key.clone(), value.clone());
            }
        }
    }
    let size = serde_json::to_vec(&app.other).map_or(usize::MAX, |bytes| bytes.len());
    if size > OTHER_BYTES_MAX {
        return Err(ApiError::invalid(
            "base",
            "the settings must not be longer than 256 KiB",
        ));
    }
    Ok(())
}
