//! Check-ins: what a host is to run. The commonest request by far, and mostly there is nothing.

use std::borrow::Cow;
use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use warp::reply::Response;

use super::http::{Ready, Refusal, reply};
use super::inventory::{Due, is_asked, newest_label};
use super::request::Request;
use super::wire::answer::json;
use super::{Agents, details};
use crate::catalog::entity::Host;
use crate::clock::Timestamp;
use crate::limits::{CHECK_IN_QUERIES, CHECK_IN_SQL_BYTES};
use crate::results::{CampaignId, HandOut, LabelId};
use crate::sampled;
use crate::store::{ActiveCampaign, StoreError};
use crate::telemetry::metrics::names;

const LIVE: &str = "fleet_distributed_query_";
const DETAIL: &str = "fleet_detail_query_";
const LABEL: &str = "fleet_label_query_";

/// Seconds of quicker check-ins for a host of which nothing is known yet (spec fleet-live-query, 4).
const ACCELERATE_UNKNOWN_S: u32 = 10;
/// Accelerated agents check in so often; those that are quicker by themselves would be slowed down.
const ACCELERATED_INTERVAL_S: u32 = 5;
/// What agents use unless their options say otherwise.
const INTERVAL_DEFAULT_S: u32 = 10;

/// What a query's name says it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose<'a> {
    /// A campaign's query.
    Live(CampaignId),
    /// A query about the host itself.
    Detail(&'a str),
    /// A label's query.
    Label(LabelId),
}

impl<'a> Purpose<'a> {
    /// None for names that were never given out.
    pub(super) fn of(name: &'a str) -> Option<Self> {
        let number = |digits: &'a str| {
            let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
            plain.then_some(digits)
        };
        if let Some(id) = name.strip_prefix(LIVE) {
            return Some(Self::Live(CampaignId(number(id)?.parse().ok()?)));
        }
        if let Some(id) = name.strip_prefix(LABEL) {
            return Some(Self::Label(LabelId(number(id)?.parse().ok()?)));
        }
        name.strip_prefix(DETAIL).map(Self::Detail)
    }
}

impl Agents {
    pub(super) async fn read(
        &self,
        request: &Request<'_>,
        now: Timestamp,
    ) -> Result<Response, Refusal> {
        let host = self.identify(request).await?;
        self.catalog.presence().touch(host.id, now);
        let campaigns = self.store.active().for_host(host.id);
        let newest_label = || newest_label(&self.catalog.read());
        let due = self.inventory.ask(&host, newest_label, now);
        if campaigns.is_empty() && due.is_nothing() && is_known(&host) {
            return Ok(Ready::idle());
        }
        let mut queries = self.own_queries(&host, due);
        for (id, sql) in self.live_queries(&host, &campaigns, now).await {
            queries.push((format!("{LIVE}{id}"), Cow::Borrowed(sql)));
        }
        let accelerate_s = self.accelerate_s(&host, !campaigns.is_empty());
        if queries.is_empty() && accelerate_s == self.settings.accelerate_s && accelerate_s > 0 {
            return Ok(self.ready.accelerated());
        }
        Ok(reply(to_run(&queries, accelerate_s)))
    }

    /// What the host is asked about itself and its labels.
    fn own_queries(&self, host: &Host, due: Due) -> Vec<(String, Cow<'static, str>)> {
        let mut queries = Vec::new();
        if due.details {
            let details = details::QUERIES.iter();
            queries.extend(details.map(|(name, sql)| (format!("{DETAIL}{name}"), (*sql).into())));
        }
        if due.labels {
            let state = self.catalog.read();
            let labels = state.labels.values().map(|(label, _)| label);
            let asked = labels.filter(|label| is_asked(label, &host.details.platform));
            let asked =
                asked.map(|label| (format!("{LABEL}{}", label.id), label.query.clone().into()));
            queries.extend(asked);
        }
        queries
    }

    /// The campaigns whose query the store gives this host now, as many as a reply may hold, the oldest first. A campaign
    /// for which the store fails is left out:
    /// the host will ask again.
    async fn live_queries<'a>(
        &self,
        host: &Host,
        campaigns: &'a [Arc<ActiveCampaign>],
        now: Timestamp,
    ) -> Vec<(CampaignId, &'a str)> {
        let asks = |campaign: &&Arc<ActiveCampaign>| {
            let settled = self.handed.is_settled(campaign.id, host.id, now);
            !settled
                && self.catalog.asks(&campaign.teams, host.team)
                && !campaign.sql.trim().is_empty()
        };
        let mut waiting = campaigns.iter().filter(asks).peekable();
        let mut replies = FuturesUnordered::new();
        let mut given = Vec::new();
        // What is given, and what may be.
        let (mut queries, mut bytes) = (0, 0);
        loop {
            while let Some(campaign) = waiting.next_if(|next| {
                let fits = bytes + next.sql.len() <= CHECK_IN_SQL_BYTES;
                queries == 0 || (queries < CHECK_IN_QUERIES && fits)
            }) {
                (queries, bytes) = (queries + 1, bytes + campaign.sql.len());
                replies.push(self.hand_out(campaign, host, now));
            }
            let Some((campaign, reply)) = replies.next().await else {
                return given;
            };
            match reply {
                Ok(HandOut::Give) => {
                    given.push((campaign.id, campaign.sql.as_str()));
                    continue;
                }
                Ok(reply) => {
                    let active = self.store.active();
                    self.handed.remember(campaign.id, host.id, reply, active);
                }
                Err(error) => {
                    metrics::counter!(names::STORE_ERRORS, "operation" => "hand_out").increment(1);
                    sampled!(warn, campaign = campaign.id.0, %error, "a query was not handed out");
                }
            }
            (queries, bytes) = (queries - 1, bytes - campaign.sql.len());
        }
    }

    async fn hand_out<'a>(
        &self,
        campaign: &'a ActiveCampaign,
        host: &Host,
        now: Timestamp,
    ) -> (&'a ActiveCampaign, Result<HandOut, StoreError>) {
        let reply = self.store.hand_out(campaign.id, host.id, now).await;
        (campaign, reply)
    }

    /// For how many seconds the agent is to check in more often; 0 to leave it be. An analyst who has asked a host
    /// once is likely to ask it again, so a targeted host hears the next query within 5 s; the rest of the fleet
    /// is not made to poll twice as often for it.
    fn accelerate_s(&self, host: &Host, targeted: bool) -> u32 {
        let interval = match host.distributed_interval {
            0 => INTERVAL_DEFAULT_S,
            told => told,
        };
        if interval <= ACCELERATED_INTERVAL_S {
            0
        } else if targeted && self.settings.accelerate_s > 0 {
            self.settings.accelerate_s
        } else if is_known(host) {
            0
        } else {
            ACCELERATE_UNKNOWN_S
        }
    }
}

/// Whether the host has told the least that is to be known of it.
fn is_known(host: &Host) -> bool {
    !host.details.hostname.is_empty() && !host.details.platform.is_empty()
}

/// The reply to a check-in. Newer osquery versions run only what `discovery` has an answer for.
fn to_run(queries: &[(String, Cow<'_, str>)], accelerate_s: u32) -> String {
    let mut out = String::from(r#"{"queries":{"#);
    for (at, (name, sql)) in queries.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        out.push_str(&format!("{comma}{}:{}", json(name), json(sql)));
    }
    out.push_str(r#"},"discovery":{"#);
    for (at, (name, _)) in queries.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        out.push_str(&format!(r#"{comma}{}:"SELECT 1""#, json(name)));
    }
    out.push('}');
    if accelerate_s > 0 {
        out.push_str(&format!(r#","accelerate":{accelerate_s}"#));
    }
    out.push('}');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_a_query_is_for() {
        assert_eq!(
            Purpose::of("fleet_distributed_query_12"),
            Some(Purpose::Live(CampaignId(12)))
        );
        assert_eq!(
            Purpose::of("fleet_label_query_3"),
            Some(Purpose::Label(LabelId(3)))
        );
        assert_eq!(
            Purpose::of("fleet_detail_query_uptime"),
            Some(Purpose::Detail("uptime"))
        );
        for name in [
            "",
            "fleet_distributed_query_",
            "fleet_distributed_query_+1",
            "fleet_distributed_query_x",
            "fleet_label_query_-1",
            "fleet_policy_query_1",
            "kolide_distributed_query_1",
            "fleet_distributed_query_99999999999999999999",
        ] {
            assert_eq!(Purpose::of(name), None, "{name}");
        }
    }

    #[test]
    fn a_reply_is_json_whatever_the_sql() {
        let queries = [
            ("a".to_owned(), Cow::Borrowed("select '\"\\\n'")),
            ("b".to_owned(), Cow::Borrowed("x")),
        ];
        let reply: serde_json::Value = serde_json::from_str(&to_run(&queries, 300)).unwrap();
        let expected = serde_json::json!({
            "queries": {"a": "select '\"\\\n'", "b": "x"},
            "discovery": {"a": "SELECT 1", "b": "SELECT 1"},
            "accelerate": 300,
        });
        assert_eq!(reply, expected);
    }
}
