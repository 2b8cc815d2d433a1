//! The audit trail, the newest first.

use std::sync::Arc;

use serde_json::{Value, json};

use super::Api;
use super::call::Call;
use super::error::ApiError;
use super::page::{self, Page};
use super::reply::Reply;
use super::route::{Access, Route, run};
use super::wire::time::Rfc3339;
use crate::auth::Action;
use crate::catalog::State;
use crate::catalog::entity::Activity;

pub(super) const ROUTES: &[Route] =
    &[
        Route::get("/activities", Access::To(Action::SeeActivities), run!(list))
            .says("What has been done, and by whom; the newest first unless the order is asc.")
            .asks(&["page", "per_page", "order_direction", "query"])
            .gives("{activities: [Activity], meta: PageMeta}"),
    ];

async fn list(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let page = Page::of(&call)?;
    let asked = call.asked("order_direction").is_some();
    let ascending = !page::is_descending(&call)? && asked;
    let state = api.parts.catalog.read();
    let fits = |activity: &&Arc<Activity>| page::matches(&call, &[&activity.kind, &activity.actor]);
    let activities = state.activities.values().filter(fits);
    let mut activities: Vec<&Arc<Activity>> = activities.collect();
    if !ascending {
        activities.reverse();
    }
    let (activities, meta) = page.cut(activities);
    let activities = activities.iter();
    let activities: Vec<Value> = activities.map(|each| shown(each, &state)).collect();
    Ok(Reply::json(
        &json!({"activities": activities, "meta": meta}),
    ))
}

fn shown(activity: &Activity, state: &State) -> Value {
    let user = activity.user.and_then(|user| state.users.get(&user));
    json!({
        "created_at": Rfc3339(activity.created_at),
        "id": activity.id,
        "actor_full_name": activity.actor,
        "actor_id": activity.user,
        "actor_gravatar": "",
        "actor_email": user.map_or("", |(user, _)| &user.email),
        "type": activity.kind,
        "details": activity.details,
    })
}
