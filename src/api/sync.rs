//! Live queries that answer in one request: a campaign that lives as long as the request waits.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use roaring::RoaringBitmap;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::{Instant, interval, sleep_until};

use super::Api;
use super::call::Call;
use super::error::ApiError;
use super::export::READ_BYTES;
use super::hosts;
use super::patience::{Document, wait_for};
use super::reply::Reply;
use super::route::{Access, Route, run};
use super::run::{Asked, ask, start};
use super::wire::campaign::or_default;
use super::wire::host::status;
use super::wire::number::Number;
use super::wire::rows::{Stored, text_of as text_of_answer};
use crate::auth::{Action, Actor};
use crate::catalog::entity::Host;
use crate::limits::permits::Permit;
use crate::net::aside;
use crate::results::{Campaign, Claim, Ending, HostId, Question, Record, Seq, UserId};
use crate::wake::WakeSlot;

/// A claim is renewed so often; it holds for three times as long.
const RENEWAL: Duration = Duration::from_secs(5);
/// Bytes of answers that one request may collect; there is the export for more.
const ANSWERS_BYTES_MAX: usize = 64 * 1024 * 1024;
/// An answer as text, its rows, and the document.
const ANSWER_BECOMES: usize = 3;
/// Queries of one request.
const QUERIES_MAX: usize = 100;

pub(super) const ROUTES: &[Route] = &[
    Route::get("/queries/run", Access::To(Action::RunSaved), run!(run_many))
        .also(&["/reports/run"])
        .says("Runs saved queries on hosts and waits for the answers. The body comes with a GET.")
        .limited()
        .takes("{query_ids: [int; 1..], host_ids: [int; 1..]}")
        .gives("{summary: {targeted_host_count: int, responded_host_count: int}, live_query_results: [LiveQueryResult]}"),
    Route::post("/queries/{id}/run", Access::To(Action::RunSaved), run!(run_one))
        .also(&["/reports/{id}/run"])
        .says("Runs a saved query on hosts and waits for the answers.")
        .limited()
        .takes("{host_ids: [int; 1..]}")
        .gives("LiveQueryOnHosts"),
    Route::get("/queries/{id}/run", Access::To(Action::RunSaved), run!(run_one))
        .also(&["/reports/{id}/run"])
        .says("The same; the body comes with a GET.")
        .limited()
        .takes("{host_ids: [int; 1..]}")
        .gives("LiveQueryOnHosts"),
    Route::post("/hosts/{id}/query", Access::To(Action::RunAny), run!(on_host))
        .says("Runs SQL on one host and waits for the answer; a host that is offline is not asked.")
        .limited()
        .takes("{query: text}")
        .gives("LiveQueryOnHost"),
    Route::post("/hosts/identifier/{identifier}/query", Access::To(Action::RunAny), run!(on_named_host))
        .says("The same by hostname, UUID, serial number or identifier.")
        .limited()
        .takes("{query: text}")
        .gives("LiveQueryOnHost"),
];

#[derive(Deserialize)]
struct RunIn {
    #[serde(default, alias = "report_ids", deserialize_with = "or_default")]
    query_ids: BTreeSet<Number>,
    #[serde(default, deserialize_with = "or_default")]
    host_ids: BTreeSet<Number>,
}

impl RunIn {
    fn hosts(&self) -> RoaringBitmap {
        let hosts = self.host_ids.iter();
        hosts.map(|host| host.narrow()).collect()
    }
}

/// The answers of one campaign.
#[derive(Default)]
struct Answers {
    list: Vec<HostAnswer>,
    /// The memory that they and their document take.
    taken: Vec<Permit<UserId>>,
}

/// What a host answered.
#[derive(Serialize)]
struct HostAnswer {
    host_id: HostId,
    rows: Box<RawValue>,
    error: Option<String>,
}

/// One query of several.
#[derive(Serialize)]
struct QueryOut {
    query_id: Number,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    results: Vec<HostAnswer>,
}

async fn run_many(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    wait_for(many(api, call)).await
}

async fn many(api: Arc<Api>, call: Call) -> Result<Document, ApiError> {
    let body: RunIn = call.json()?;
    if body.query_ids.is_empty() || body.host_ids.is_empty() {
        return Err(ApiError::BadRequest(
            "query_ids and host_ids are required".to_owned(),
        ));
    }
    if body.query_ids.len() > QUERIES_MAX {
        let reason = format!("must not have more than {QUERIES_MAX} numbers");
        return Err(ApiError::invalid("query_ids", reason));
    }
    let actor = call.actor()?;
    let runs = body.query_ids.iter();
    let runs = runs.map(|id| saved(&api, actor, *id, body.hosts()));
    let outcomes = join_all(runs).await;
    let refused = |outcome: &Result<Answers, ApiError>| matches!(outcome, Err(ApiError::Forbidden));
    if outcomes.iter().all(refused) {
        return Err(ApiError::Forbidden);
    }
    #[derive(Serialize)]
    struct Out {
        summary: Value,
        live_query_results: Vec<QueryOut>,
    }

    let answered = outcomes.iter().flatten().flat_map(|answers| &answers.list);
    let responded: BTreeSet<HostId> = answered.map(|answer| answer.host_id).collect();
    let mut taken = Vec::new();
    let results = body.query_ids.iter().zip(outcomes);
    let results = results.map(|(id, outcome)| {
        let (error, answers) = match outcome {
            Ok(answers) => (None, answers),
            Err(error) => (Some(text_of(&error)), Answers::default()),
        };
        taken.extend(answers.taken);
        QueryOut {
            query_id: *id,
            error,
            results: answers.list,
        }
    });
    let out = Out {
        live_query_results: results.collect(),
        summary: json!({
            "targeted_host_count": body.host_ids.len(),
            "responded_host_count": responded.len(),
        }),
    };
    Ok(Document::of(&out, taken))
}

fn text_of(error: &ApiError) -> String {
    let (title, faults) = error.told();
    let fault = faults.and_then(|faults| faults.into_iter().next());
    fault.map_or_else(|| title.to_owned(), |fault| fault.reason)
}

async fn run_one(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    wait_for(one(api, call)).await
}

async fn one(api: Arc<Api>, call: Call) -> Result<Document, ApiError> {
    #[derive(Serialize)]
    struct Out {
        query_id: u64,
        targeted_host_count: usize,
        responded_host_count: usize,
        results: Vec<HostAnswer>,
    }

    let id = call.id("id")?;
    let body: RunIn = call.json()?;
    if body.host_ids.is_empty() {
        return Err(ApiError::BadRequest("host_ids are required".to_owned()));
    }
    let answers = saved(&api, call.actor()?, Number(id), body.hosts()).await?;
    let out = Out {
        query_id: id,
        targeted_host_count: body.host_ids.len(),
        responded_host_count: answers.list.len(),
        results: answers.list,
    };
    Ok(Document::of(&out, answers.taken))
}

/// Runs a saved query on those of the hosts where the actor may.
async fn saved(
    api: &Arc<Api>,
    actor: &Actor,
    query: Number,
    hosts: RoaringBitmap,
) -> Result<Answers, ApiError> {
    let (asked, targets) = {
        let state = api.parts.catalog.read();
        let asked = ask(&state, actor, None, Some(query))?;
        let targets = hosts & actor.hosts(asked.action, &state);
        (asked, targets)
    };
    answers(api, actor, asked, targets).await
}

#[derive(Deserialize)]
struct QueryIn {
    #[serde(default, deserialize_with = "or_default")]
    query: String,
}

async fn on_host(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let id = HostId(call.id32("id")?);
    let host = hosts::visible(&api.parts.catalog.read(), call.actor()?, id)?;
    wait_for(on(api, call, host)).await
}

async fn on_named_host(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let name = call.param("identifier");
    let host = hosts::named(&api.parts.catalog.read(), call.actor()?, name)?;
    wait_for(on(api, call, host)).await
}

async fn on(api: Arc<Api>, call: Call, host: Arc<Host>) -> Result<Document, ApiError> {
    #[derive(Serialize)]
    struct Out {
        host_id: HostId,
        rows: Box<RawValue>,
        query: String,
        status: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    }

    let QueryIn { query } = call.json()?;
    let actor = call.actor()?;
    let asked = ask(&api.parts.catalog.read(), actor, Some(query.clone()), None)?;
    if !actor.may_in(asked.action, host.team) {
        return Err(ApiError::Forbidden);
    }
    let online = api.parts.catalog.presence().is_online(host.id, call.now);
    let mut out = Out {
        host_id: host.id,
        rows: RawValue::from_string("[]".to_owned()).unwrap_or_default(),
        query,
        status: status(online),
        error: None,
    };
    let mut taken = Vec::new();
    if online {
        let targets = RoaringBitmap::from([host.id.0]);
        let answers = answers(&api, actor, asked, targets).await?;
        taken = answers.taken;
        match answers.list.into_iter().next() {
            None => out.error = Some("timeout waiting for results".to_owned()),
            Some(answer) => {
                out.rows = answer.rows;
                out.error = answer.error;
            }
        }
    }
    Ok(Document::of(&out, taken))
}

/// Starts a campaign, waits until all have answered or the period is over, and stops it. The work has a task of
/// its own, so that a client that goes away stops its campaign, too.
async fn answers(
    api: &Arc<Api>,
    actor: &Actor,
    asked: Asked,
    targets: RoaringBitmap,
) -> Result<Answers, ApiError> {
    if api.is_rehearsal {
        let now = api.parts.clock.now();
        start(api, actor, asked, targets, now).await?;
        return Ok(Answers::default());
    }
    let (mut sender, receiver) = oneshot::channel();
    let (api, actor) = (Arc::clone(api), actor.clone());
    let tasks = api.parts.tasks.clone();
    tasks.spawn(async move {
        let now = api.parts.clock.now();
        let campaign = match start(&api, &actor, asked, targets, now).await {
            Ok(campaign) => campaign,
            Err(error) => {
                // Whoever waited is gone, or hears it.
                let _ = sender.send(Err(error));
                return;
            }
        };
        let outcome = tokio::select! {
            outcome = collect(&api, &campaign) => Some(outcome),
            () = sender.closed() => None,
        };
        let now = api.parts.clock.now();
        let ended = api.parts.store.end(campaign.id, Ending::Stopped, now).await;
        if let Err(error) = ended {
            tracing::warn!(campaign = campaign.id.0, %error, "a campaign could not be stopped");
        }
        if let Some(outcome) = outcome {
            let _ = sender.send(outcome);
        }
    });
    let cut_off = |_| ApiError::Unavailable("the process is stopping".to_owned());
    receiver.await.map_err(cut_off)?
}

async fn collect(api: &Api, campaign: &Campaign) -> Result<Answers, ApiError> {
    let store = &api.parts.store;
    let log = store.follow(campaign.id).await?;
    let log = log.ok_or_else(|| ApiError::Internal("a new campaign has no log".to_owned()))?;
    let wake_slot = WakeSlot::default();
    log.subscribe(&wake_slot);
    // Its own name: viewers of the same node claim and release under the node's.
    let node = format!("{}/request/{}", api.parts.node, campaign.id);
    let deadline = Instant::now() + api.settings.sync_period;
    let mut renewal = interval(RENEWAL);
    let Question { targets, teams, .. } = &campaign.question;
    let mut expected = targets.len();
    let mut departures = api.parts.catalog.departures();
    while log.last().0 < expected {
        tokio::select! {
            _ = departures.changed() => {
                let departed = api.parts.catalog.departed(campaign.id, targets, teams).await?;
                expected = targets.len() - departed.len();
            }
            () = wake_slot.notified() => {}
            () = sleep_until(deadline) => break,
            _ = renewal.tick() => {
                let claim = store.claim(campaign.id, &node, api.parts.clock.now()).await?;
                if claim != Claim::Claimed {
                    break;
                }
            }
        }
    }
    log.unsubscribe(&wake_slot);
    gather(api, campaign).await
}

/// The answers that are there, while memory for them is left.
async fn gather(api: &Api, campaign: &Campaign) -> Result<Answers, ApiError> {
    let mut answers = Answers::default();
    let (mut after, mut bytes) = (Seq(0), 0);
    loop {
        let records = api.parts.store.read(campaign.id, after, READ_BYTES).await?;
        let Some(last) = records.last() else {
            return Ok(answers);
        };
        after = last.seq;
        for Record { answer, .. } in &records {
            bytes += answer.body.len();
            if bytes > ANSWERS_BYTES_MAX {
                let reason =
                    "more than 64 MiB of answers: run it as a campaign and export its results";
                return Err(ApiError::invalid("base", reason));
            }
            let user = campaign.question.user_id;
            let becomes = answer.body.len() * ANSWER_BECOMES;
            answers.taken.push(api.results.try_take(user, becomes).map_err(|_| {
                let reason = "requests that wait for answers hold as much memory as they may: try again later, or run \
                              it as a campaign and export its results";
                ApiError::Crowded(reason.to_owned())
            })?);
            answers.list.push(aside(answer.body.len(), || {
                let text = text_of_answer(answer);
                let stored = Stored::read(answer.host, &text);
                HostAnswer {
                    host_id: answer.host,
                    rows: stored.as_sent(),
                    error: stored.error,
                }
            }));
        }
    }
}
