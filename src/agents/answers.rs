//! Answers: into the log before the agent hears that they were taken.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join;
use futures_util::stream::FuturesUnordered;
use metrics::{Counter, Histogram};
use tokio::time::{Instant, timeout};
use warp::reply::Response;

use super::Agents;
use super::details::Row;
use super::distributed::Purpose;
use super::http::{Ready, Refusal};
use super::inventory::News;
use super::request::{Request, refusal};
use super::wire::answer::{HostHeader, Report, Reports, reports};
use crate::catalog::entity::Host;
use crate::clock::Timestamp;
use crate::net::aside;
use crate::results::{CampaignId, HandOut, HostId};
use crate::sampled;
use crate::store::{Appended, StoreError};
use crate::telemetry::metrics::names;

/// Answers of one body that are built and appended at once. An agent seldom has more than two.
const APPENDS_AT_ONCE: usize = 16;
/// How long a store that failed is waited for to take hand-outs back; it is told on a best effort.
const TAKE_BACK_TIME: Duration = Duration::from_millis(200);

impl Agents {
    pub(super) async fn write(
        &self,
        request: &Request<'_>,
        now: Timestamp,
    ) -> Result<Response, Refusal> {
        let host = self.identify(request).await?;
        self.catalog.presence().touch(host.id, now);
        let refusals: Vec<String> = request
            .omitted
            .iter()
            .map(|omitted| refusal(omitted, self.settings.body.bytes))
            .collect();
        let mut reports = reports(&request.body);
        for (omitted, text) in request.omitted.iter().zip(&refusals) {
            reports.insert(omitted.name.as_str().into(), Report::refused(text));
        }
        let (live, news) = sort(&reports);
        let publishing = self.publish(&host, live, now);
        if news.is_empty() {
            // Nearly every time. To wait for two things, and room for both, cost more than to see that there is one.
            publishing.await?;
        } else {
            let learning = self.learn(host.id, news, now);
            Box::pin(join(publishing, learning)).await.0?;
        }
        Ok(Ready::done())
    }

    /// Appends the answers to their campaigns' logs. If the store fails, the agent keeps all it sent and will send it
    /// again (what was taken is then a duplicate), so that the hand-outs in question do not count.
    async fn publish(
        &self,
        host: &Host,
        mut live: BTreeMap<CampaignId, Report<'_>>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        if live.is_empty() {
            return Ok(());
        }
        let voice = HostHeader::new(host.id, host.hostname(), host.display_name());
        // Nearly every body has one answer, and what is needed for more costs as much as the rest.
        if live.len() == 1
            && let Some((id, report)) = live.pop_first()
        {
            let (_, outcome) = self.append(id, &voice, host, report, now).await;
            if outcome.is_err() {
                self.take_back([id], host.id).await;
            }
            return outcome;
        }
        let mut open: BTreeSet<CampaignId> = live.keys().copied().collect();
        let outcome = self.append_all(live, &mut open, &voice, host, now).await;
        if outcome.is_err() {
            self.take_back(open, host.id).await;
        }
        outcome
    }

    async fn take_back(&self, open: impl IntoIterator<Item = CampaignId>, host: HostId) {
        let mut taking = FuturesUnordered::new();
        for id in open {
            taking.push(self.store.take_back(id, host));
        }
        let all = async { while taking.next().await.is_some() {} };
        let _ = timeout(TAKE_BACK_TIME, all).await;
    }

    /// Appends some at once, until one fails; `open` keeps those that were not taken.
    async fn append_all(
        &self,
        live: BTreeMap<CampaignId, Report<'_>>,
        open: &mut BTreeSet<CampaignId>,
        voice: &HostHeader,
        host: &Host,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut waiting = live.into_iter();
        let mut appends = FuturesUnordered::new();
        loop {
            while appends.len() < APPENDS_AT_ONCE
                && let Some((id, report)) = waiting.next()
            {
                appends.push(self.append(id, voice, host, report, now));
            }
            match appends.next().await {
                None => return Ok(()),
                Some((id, Ok(()))) => drop(open.remove(&id)),
                // The rest would wait for the same store, and the agent for them.
                Some((_, Err(error))) => return Err(error),
            }
        }
    }

    async fn append(
        &self,
        id: CampaignId,
        voice: &HostHeader,
        host: &Host,
        report: Report<'_>,
        now: Timestamp,
    ) -> (CampaignId, Result<(), StoreError>) {
        let active = self.store.active();
        match active.get(id) {
            Some(campaign) if campaign.targets.contains(host.id.0) => {}
            Some(_) => {
                count("not_targeted");
                return (id, Ok(()));
            }
            // It has ended, or begun on another node, or was made up: the store knows, and is not to be asked for ever.
            None if self.strange.take(&host.id).is_err() => {
                count("unknown");
                sampled!(
                    warn,
                    host = host.id.0,
                    "a host answers campaigns that are not running"
                );
                return (id, Ok(()));
            }
            None => {}
        }
        let size = report.rows.map_or(0, |rows| rows.raw().len());
        let (answer, fault) = aside(size, || voice.answer(&report));
        if let Some(fault) = fault {
            metrics::counter!(names::ANSWERS_UNREADABLE).increment(1);
            sampled!(warn, campaign = id.0, host = host.id.0, %fault, "an answer could not be read");
        }
        let failed = answer.failed;
        let began = Instant::now();
        let appended = self.store.append(id, answer, now).await;
        self.meters.append_seconds.record(began.elapsed());
        let appended = match appended {
            Ok(appended) => appended,
            Err(error) => {
                count("store_error");
                return (id, Err(error));
            }
        };
        match appended {
            Appended::At(_) if !failed => self.meters.answered.increment(1),
            other => count(outcome(other, failed)),
        }
        self.handed.remember(id, host.id, HandOut::Never, active);
        (id, Ok(()))
    }
}

const fn outcome(appended: Appended, failed: bool) -> &'static str {
    match appended {
        Appended::At(_) if failed => "failed",
        Appended::At(_) => "answered",
        Appended::Duplicate => "duplicate",
        Appended::NotTargeted => "not_targeted",
        Appended::Closed => "closed",
        Appended::Unknown => "unknown",
    }
}

/// What is counted for every answer; looked up once, because finding a metric by its labels costs more than an append.
pub(super) struct Meters {
    answered: Counter,
    append_seconds: Histogram,
}

impl Default for Meters {
    fn default() -> Self {
        Self {
            answered: metrics::counter!(names::RESULTS, "outcome" => "answered"),
            append_seconds: metrics::histogram!(names::APPEND_SECONDS),
        }
    }
}

fn count(outcome: &'static str) {
    metrics::counter!(names::RESULTS, "outcome" => outcome).increment(1);
}

/// Parts answers to campaigns from what the host says of itself. Names that were never given out are counted.
fn sort<'a>(reports: &Reports<'a>) -> (BTreeMap<CampaignId, Report<'a>>, News) {
    let mut live = BTreeMap::new();
    let mut news = News::default();
    for (name, report) in reports {
        match Purpose::of(name) {
            Some(Purpose::Live(id)) => drop(live.insert(id, *report)),
            // A failed query leaves what is known as it was.
            Some(Purpose::Detail(_) | Purpose::Label(_)) if report.failure().is_some() => {}
            Some(Purpose::Detail(query)) => {
                let rows = report.rows().map(Row::read_all).unwrap_or_default();
                news.details.push((query.to_owned(), rows));
            }
            Some(Purpose::Label(id)) => {
                let rows = report.rows().and_then(|rows| rows.elements());
                let mut found = rows.into_iter().flatten().flatten();
                news.labels.push((id, found.any(|row| !row.is_null())));
            }
            None => count("unknown_name"),
        }
    }
    (live, news)
}
