//! Campaigns as the API shows them.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::number::Number;
use super::object::object_or_default;
use super::time::{Rfc3339, ZERO};
use crate::catalog::presence::Counts;
use crate::results::{Campaign, CampaignId, QueryId, Status, UserId};

/// A campaign just made, to the letter of Fleet's answer: the counts have capitals, and the moments are Go's zero.
#[derive(Serialize)]
pub(crate) struct CreatedOut {
    created_at: &'static str,
    updated_at: &'static str,
    #[serde(rename = "Metrics")]
    metrics: Metrics,
    id: CampaignId,
    query_id: QueryId,
    status: u8,
    user_id: UserId,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Metrics {
    total_hosts: u64,
    online_hosts: u64,
    offline_hosts: u64,
    missing_in_action_hosts: u64,
    new_hosts: u64,
}

impl CreatedOut {
    /// The campaign with the counts of its targets.
    #[must_use]
    pub(crate) fn of(campaign: &Campaign, counts: Counts) -> Self {
        Self {
            created_at: ZERO,
            updated_at: ZERO,
            metrics: Metrics {
                total_hosts: counts.total,
                online_hosts: counts.online,
                offline_hosts: counts.offline,
                missing_in_action_hosts: counts.missing_in_action,
                new_hosts: counts.new,
            },
            id: campaign.id,
            query_id: campaign.question.query_id,
            status: campaign.status.number(),
            user_id: campaign.question.user_id,
        }
    }
}

/// The body of `queries/run` and its kin; `T` names a target.
#[derive(Deserialize)]
#[serde(bound = "T: Deserialize<'de>")]
pub(crate) struct RunIn<T> {
    /// The SQL, unless a saved query is run.
    #[serde(default)]
    pub query: Option<String>,
    /// The saved query.
    #[serde(default, alias = "report_id")]
    pub query_id: Option<Number>,
    /// Whom to ask.
    #[serde(default, deserialize_with = "object_or_default")]
    pub selected: Selected<T>,
}

/// Targets of each kind.
#[derive(Clone, Debug, Deserialize)]
#[serde(bound = "T: Deserialize<'de>")]
pub(crate) struct Selected<T> {
    /// Hosts.
    #[serde(default, deserialize_with = "or_default")]
    pub hosts: Vec<T>,
    /// Labels.
    #[serde(default, deserialize_with = "or_default")]
    pub labels: Vec<T>,
    /// Teams.
    #[serde(default, alias = "fleets", deserialize_with = "or_default")]
    pub teams: Vec<T>,
}

impl<T> Default for Selected<T> {
    fn default() -> Self {
        Self {
            hosts: Vec::new(),
            labels: Vec::new(),
            teams: Vec::new(),
        }
    }
}

/// Reads null as the default: clients written in Go send it for empty lists.
///
/// # Errors
/// What the value's own type refuses.
pub(crate) fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A campaign, with how far it has come where that was asked for.
#[derive(Serialize)]
pub(crate) struct CampaignOut<'a> {
    id: CampaignId,
    created_at: Rfc3339,
    updated_at: Rfc3339,
    query_id: QueryId,
    query_name: Option<&'a str>,
    query: &'a str,
    user_id: UserId,
    /// Fleet's number: 0 waiting, 1 running, 2 complete.
    status: u8,
    state: Status,
    ended_at: Option<Rfc3339>,
    ending: Option<&'static str>,
    /// Who stopped it.
    stopped_by: Option<UserId>,
    targets_count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    counts: Option<Value>,
    /// In which the places of results are valid, once it is not the first.
    #[serde(skip_serializing_if = "is_first")]
    epoch: u64,
    /// Whether results are known to be missing.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    incomplete: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
const fn is_first(epoch: &u64) -> bool {
    *epoch == 0
}

impl<'a> CampaignOut<'a> {
    /// The campaign, with the number of its targets, and these counted by state.
    #[must_use]
    pub(crate) fn of(campaign: &'a Campaign, targets_count: u64, counts: Option<Value>) -> Self {
        let question = &campaign.question;
        let created = campaign.created_at.secs();
        let ended = campaign.ended.map(|(at, _)| Rfc3339(at.secs()));
        Self {
            id: campaign.id,
            created_at: Rfc3339(created),
            updated_at: ended.unwrap_or(Rfc3339(created)),
            query_id: question.query_id,
            query_name: question.query_name.as_deref(),
            query: &question.sql,
            user_id: question.user_id,
            status: campaign.status.number(),
            state: campaign.status,
            ended_at: ended,
            ending: campaign.ended.map(|(_, ending)| ending.reason()),
            stopped_by: campaign.ended.and_then(|(_, ending)| ending.stopped_by()),
            targets_count,
            counts,
            epoch: campaign.epoch,
            incomplete: campaign.is_incomplete,
        }
    }
}
