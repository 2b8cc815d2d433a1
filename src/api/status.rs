//! Whether live queries can run: two health checks, the version, and nothing that changes anything.

use std::sync::Arc;

use serde_json::json;

use super::Api;
use super::call::Call;
use super::error::ApiError;
use super::reply::Reply;
use super::route::{Access, Route, run};

/// What live queries that are switched off are answered with.
pub(super) const LIVE_QUERY_DISABLED: &str = "live queries are disabled by administrator";

pub(super) const ROUTES: &[Route] = &[
    Route::get("/status/result_store", Access::SignedIn, run!(result_store))
        .says("Whether the store of results answers."),
    Route::get("/status/live_query", Access::SignedIn, run!(live_query))
        .says("Whether live queries are switched on and can run."),
    Route::get("/version", Access::SignedIn, run!(version))
        .says("What runs here.")
        .gives("{version: string, branch: string, revision: string, build_date: string, build_user: string}"),
];

async fn result_store(api: Arc<Api>, _: Call) -> Result<Reply, ApiError> {
    api.parts.store.ping().await?;
    Ok(Reply::empty())
}

async fn live_query(api: Arc<Api>, _: Call) -> Result<Reply, ApiError> {
    if api.parts.catalog.read().app.live_query_disabled {
        return Err(ApiError::Disabled(LIVE_QUERY_DISABLED));
    }
    api.parts.store.ping().await?;
    Ok(Reply::empty())
}

async fn version(_: Arc<Api>, _: Call) -> Result<Reply, ApiError> {
    Ok(Reply::json(&json!({
        "version": env!("CARGO_PKG_VERSION"),
        "branch": "",
        "revision": option_env!("ANSWERBACK_REVISION").unwrap_or(""),
        "build_date": "",
        "build_user": "",
    })))
}
