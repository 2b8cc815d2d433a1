//! Campaigns: listed, looked into, stopped.

use std::sync::Arc;

use roaring::RoaringBitmap;
use serde_json::{Value, json};

use super::Api;
use super::audit;
use super::call::Call;
use super::error::ApiError;
use super::export;
use super::page::Page;
use super::reply::Reply;
use super::route::{Access, Route, run};
use super::wire::campaign::CampaignOut;
use super::wire::host::status;
use super::wire::time::Rfc3339;
use crate::auth::Action;
use crate::catalog::State;
use crate::clock::Timestamp;
use crate::results::{Campaign, Ending, HostId, Progress, Question};

/// So many of the newest campaigns are looked through for those that one may see.
const NEWEST: usize = 1_000;

pub(super) const ROUTES: &[Route] = &[
    Route::get("/campaigns", Access::To(Action::RunSaved), run!(list))
        .says("The newest thousand campaigns, as far as one may watch them.")
        .asks(&["page", "per_page"])
        .gives("{campaigns: [Campaign], meta: PageMeta}"),
    Route::get("/campaigns/{id}", Access::To(Action::RunSaved), run!(one))
        .says("One campaign, with how far it has come.")
        .gives("{campaign: Campaign}"),
    Route::get(
        "/campaigns/{id}/hosts",
        Access::To(Action::RunSaved),
        run!(hosts),
    )
    .says("The hosts of a campaign by state: answered, failed, waiting or offline.")
    .asks(&["state", "page", "per_page"])
    .gives("{hosts: [CampaignHost], counts: CampaignCounts, meta: PageMeta}"),
    Route::get(
        "/campaigns/{id}/results",
        Access::To(Action::RunSaved),
        run!(export::results),
    )
    .says(
        "The results, streamed as ndjson, json or csv, from the start or after a place in the log.",
    )
    .asks(&["format", "after", "epoch"])
    .gives(""),
    Route::post(
        "/campaigns/{id}/stop",
        Access::To(Action::RunSaved),
        run!(stop),
    )
    .says("Stops a campaign; its results stay. Stopping it twice is no fault.")
    .gives("{campaign: Campaign}"),
];

async fn list(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let actor = call.actor()?;
    let page = Page::of(&call)?;
    let mut campaigns = api.parts.store.campaigns(NEWEST).await?;
    campaigns.retain(|campaign| actor.may_watch(campaign));
    let (campaigns, meta) = page.cut(campaigns);
    let mut out = Vec::with_capacity(campaigns.len());
    for each in &campaigns {
        let Question { targets, teams, .. } = &each.question;
        let departed = api.parts.catalog.departed(each.id, targets, teams).await?;
        out.push(CampaignOut::of(each, targets.len() - departed.len(), None));
    }
    Ok(Reply::json(&json!({"campaigns": out, "meta": meta})))
}

async fn one(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let campaign = call.campaign(&api).await?;
    shown(&api, &campaign, call.now).await
}

async fn shown(api: &Api, campaign: &Campaign, now: Timestamp) -> Result<Reply, ApiError> {
    let progress = api.parts.store.progress(campaign.id).await?;
    let sets = progress.map(|progress| Sets::of(api, campaign, &progress, now));
    let targets = campaign.question.targets.len();
    let targets = sets.as_ref().map_or(targets, |sets| sets.targets.len());
    let counts = sets.as_ref().map(Sets::counts);
    let out = CampaignOut::of(campaign, targets, counts);
    Ok(Reply::json(&json!({ "campaign": out })))
}

async fn stop(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let campaign = call.campaign(&api).await?;
    let id = campaign.id;
    let ending = Ending::StoppedBy(call.actor()?.user.id);
    if api.parts.store.end(id, ending, call.now).await? {
        let details = json!({"campaign_id": id});
        audit::record(&api, call.actor()?, "stopped_campaign", details, call.now).await;
    }
    let campaign = call.campaign(&api).await?;
    shown(&api, &campaign, call.now).await
}

/// The targets of a campaign, each in exactly one of the next four sets. Those that were deleted before they had
/// answered are targets no more.
struct Sets {
    targets: RoaringBitmap,
    answered: RoaringBitmap,
    failed: RoaringBitmap,
    waiting: RoaringBitmap,
    offline: RoaringBitmap,
    handed: RoaringBitmap,
}

impl Sets {
    fn of(api: &Api, campaign: &Campaign, progress: &Progress, now: Timestamp) -> Self {
        let Question { targets, teams, .. } = &campaign.question;
        let gone = api.parts.catalog.gone(targets, teams);
        let silent = &**targets - &progress.answered - gone;
        let waiting = api.parts.catalog.presence().online(&silent, now);
        Self {
            targets: &silent | &progress.answered,
            answered: &progress.answered - &progress.failed,
            failed: progress.failed.clone(),
            offline: silent - &waiting,
            waiting,
            handed: progress.handed.clone(),
        }
    }

    fn counts(&self) -> Value {
        json!({
            "answered": self.answered.len(),
            "failed": self.failed.len(),
            "waiting": self.waiting.len(),
            "offline": self.offline.len(),
        })
    }

    fn state(&self, host: u32) -> &'static str {
        if self.failed.contains(host) {
            "failed"
        } else if self.answered.contains(host) {
            "answered"
        } else if self.waiting.contains(host) {
            "waiting"
        } else {
            "offline"
        }
    }
}

async fn hosts(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let campaign = call.campaign(&api).await?;
    let page = Page::of(&call)?;
    let progress = api.parts.store.progress(campaign.id).await?;
    let progress = progress.unwrap_or_default();
    let sets = Sets::of(&api, &campaign, &progress, call.now);
    let set = match call.asked("state") {
        None => &sets.targets,
        Some("answered") => &sets.answered,
        Some("failed") => &sets.failed,
        Some("waiting") => &sets.waiting,
        Some("offline") => &sets.offline,
        Some(other) => {
            let reason =
                format!("state must be answered, failed, waiting or offline, and is {other:?}");
            return Err(ApiError::BadRequest(reason));
        }
    };
    let start = usize::try_from(page.start()).unwrap_or(usize::MAX);
    let size = usize::try_from(page.size).unwrap_or(usize::MAX);
    let state = api.parts.catalog.read();
    let hosts = set.iter().skip(start).take(size);
    let hosts: Vec<Value> = hosts
        .map(|host| shown_host(&api, &state, &sets, host, call.now))
        .collect();
    Ok(Reply::json(&json!({
        "hosts": hosts,
        "counts": sets.counts(),
        "meta": page.meta(set.len()),
    })))
}

/// A host of a campaign. One that was deleted after it had answered has no names, and is still counted.
fn shown_host(api: &Api, state: &State, sets: &Sets, host: u32, now: Timestamp) -> Value {
    let known = state.hosts.get(HostId(host));
    let presence = api.parts.catalog.presence();
    let seen = presence.seen(HostId(host)).map_or(0, Timestamp::secs);
    json!({
        "id": host,
        "hostname": known.map_or("", |host| host.hostname()),
        "display_name": known.map_or("", |host| host.display_name()),
        "state": sets.state(host),
        "handed_out": sets.handed.contains(host),
        "status": status(presence.is_online(HostId(host), now)),
        "seen_time": Rfc3339(seen),
    })
}
