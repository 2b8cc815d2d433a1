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
use super::masked::{mask, unmask};
use super::reply::Reply;
use super::route::{Access, Route, run};
use super::wire::team::{agent_options, given};
use crate::auth::{Action, Actor};
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

/// Parts that only global admins see, as in Fleet.
const OF_ADMINS: [&str; 6] = [
    "agent_options",
    "smtp_settings",
    "sso_settings",
    "host_expiry_settings",
    "integrations",
    "webhook_settings",
];

async fn show(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    Ok(shown(&api, call.actor()?))
}

fn shown(api: &Api, actor: &Actor) -> Reply {
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
    let mut options: Value = options.unwrap_or(Value::Null);
    mask(&mut options, false);
    document.insert("agent_options".to_owned(), options);
    if !actor.may(Action::WriteConfig) {
        document.retain(|part, _| !OF_ADMINS.contains(&part.as_str()));
    }
    let mut document = Value::Object(document);
    mask(&mut document, true);
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
            let known = next.agent_options.take();
            next.agent_options = whole(options.as_deref(), known.as_deref());
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
    Ok(shown(&api, actor))
}

/// Agents' options as they were written, but for those that came back as asterisks.
fn whole(options: Option<&RawValue>, known: Option<&RawValue>) -> Option<Box<RawValue>> {
    let read = |options: &RawValue| serde_json::from_str::<Value>(options.get());
    if let (Some(new), Some(known)) = (options, known)
        && let (Ok(new), Ok(known)) = (read(new), read(known))
    {
        let mut filled = new.clone();
        unmask(&mut filled, &known);
        if filled != new {
            return serde_json::value::to_raw_value(&filled).ok();
        }
    }
    options.map(ToOwned::to_owned)
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
    let mut change = Value::Object(change.clone());
    unmask(&mut change, &Value::Object(app.other.clone()));
    for (key, value) in change.as_object().into_iter().flatten() {
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
