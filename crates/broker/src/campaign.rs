//! One campaign: who is asked what, and the rules by which it begins, is claimed and ends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use roaring::RoaringBitmap;
use serde::{Deserialize, Serialize};

use super::ids::{CampaignId, QueryId, TeamId, UserId};
use crate::clock::Timestamp;

/// The periods that rule campaigns. Defaults are the product's (`GET /status/live_query` tells them to nobody;
/// the configuration does).
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// A campaign that no viewer has claimed for this long after its creation is cancelled.
    pub unclaimed: Duration,
    /// How long a running campaign outlives its last viewer, so that a reload is no cancel.
    pub resume_grace: Duration,
    /// How long a node's claim holds without being renewed.
    pub lease: Duration,
    /// The longest that a campaign runs.
    pub longest: Duration,
    /// How long results stay readable after the end.
    pub retention: Duration,
    /// When a host that was handed the query and has not answered may be handed it again.
    pub overdue: Duration,
    /// How often one host is handed one query.
    pub hand_outs_max: u8,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            unclaimed: Duration::from_secs(60),
            resume_grace: Duration::from_secs(10),
            lease: Duration::from_secs(15),
            longest: Duration::from_secs(24 * 3600),
            retention: Duration::from_secs(3600),
            overdue: Duration::from_secs(60),
            hand_outs_max: 3,
        }
    }
}

/// Where a campaign stands. The numbers are those of the REST API's `status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Created; no viewer has selected it yet.
    Waiting,
    /// A viewer has selected it.
    Running,
    /// Ended; agents no longer receive it.
    Complete,
}

impl Status {
    /// The REST API's number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }
}

/// Why a campaign ended. Its stored form is a word, and `stopped:` with the user's number if somebody stopped it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Ending {
    /// Cancelled by the reaper: no viewer came in time.
    Unclaimed,
    /// The last viewer left and none came back within the grace.
    Unwatched,
    /// The request that had started it was over.
    Stopped,
    /// Somebody stopped it.
    StoppedBy(UserId),
    /// It ran for as long as campaigns may run.
    Expired,
}

impl Ending {
    /// The word for it, whoever it was.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Unclaimed => "unclaimed",
            Self::Unwatched => "unwatched",
            Self::Stopped | Self::StoppedBy(_) => "stopped",
            Self::Expired => "expired",
        }
    }

    /// Who stopped it.
    #[must_use]
    pub const fn stopped_by(self) -> Option<UserId> {
        match self {
            Self::StoppedBy(user) => Some(user),
            _ => None,
        }
    }

    /// Reads the stored form.
    #[must_use]
    pub fn from_stored(text: &str) -> Option<Self> {
        Some(match text {
            "unclaimed" => Self::Unclaimed,
            "unwatched" => Self::Unwatched,
            "stopped" => Self::Stopped,
            "expired" => Self::Expired,
            _ => Self::StoppedBy(UserId(text.strip_prefix("stopped:")?.parse().ok()?)),
        })
    }
}

impl From<Ending> for String {
    fn from(ending: Ending) -> Self {
        match ending.stopped_by() {
            Some(user) => format!("{}:{user}", ending.reason()),
            None => ending.reason().to_owned(),
        }
    }
}

impl TryFrom<String> for Ending {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::from_stored(&text).ok_or_else(|| format!("`{text}` is no reason for an ending"))
    }
}

/// Who asked what of whom; never changes.
#[derive(Clone, Debug)]
pub struct Question {
    /// The saved or hidden query behind it.
    pub query_id: QueryId,
    /// The saved query's name; none for SQL typed for this campaign.
    pub query_name: Option<String>,
    /// Who started it.
    pub user_id: UserId,
    /// The SQL that hosts run.
    pub sql: String,
    /// The hosts that are asked, as raw [`super::ids::HostId`]s.
    pub targets: Arc<RoaringBitmap>,
    /// The teams of these hosts when they were asked; `None` stands for hosts without a team. Whoever may not act in
    /// all of them any more may not read the answers. Empty in records from before this was kept.
    pub teams: Vec<Option<TeamId>>,
}

/// A campaign as a store tells it.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// Its number.
    pub id: CampaignId,
    /// Who asked what of whom.
    pub question: Question,
    /// When it was created; the 60 s and the 24 h count from here.
    pub created_at: Timestamp,
    /// Where it stands.
    pub status: Status,
    /// When and why it ended.
    pub ended: Option<(Timestamp, Ending)>,
    /// Counts forks of the log after a store failover; 0 until the first.
    pub epoch: u64,
    /// Whether answers that were acknowledged are known to be missing, because their file was damaged.
    pub is_incomplete: bool,
}

impl Campaign {
    /// Whether the reaper cancelled it because nobody claimed it.
    #[must_use]
    pub const fn is_cancelled(&self) -> bool {
        matches!(self.ended, Some((_, Ending::Unclaimed)))
    }
}

/// What a node hears when it claims a campaign for its viewers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The campaign runs, and the lease holds until then.
    Claimed,
    /// It has ended; its results may still be read.
    Ended(Ending),
    /// There is no such campaign.
    Unknown,
}

/// The state that decides when a campaign ends. Time is an argument; whoever holds it asks
/// [`Lifecycle::due`] at [`Lifecycle::deadline`] and records the answer with [`Lifecycle::end`].
#[derive(Clone, Debug)]
pub struct Lifecycle {
    rules: Rules,
    created_at: Timestamp,
    status: Status,
    ended: Option<(Timestamp, Ending)>,
    /// Until when each node's claim holds.
    claims: BTreeMap<String, Timestamp>,
    /// Set while the campaign runs without a claim.
    grace_until: Option<Timestamp>,
}

impl Lifecycle {
    /// A campaign created now.
    #[must_use]
    pub fn new(rules: Rules, created_at: Timestamp) -> Self {
        Self {
            rules,
            created_at,
            status: Status::Waiting,
            ended: None,
            claims: BTreeMap::new(),
            grace_until: None,
        }
    }

    /// A campaign read back after a restart: claims died with the nodes that held them, so a running one
    /// has one lease period for its viewers to come back, and then the grace.
    #[must_use]
    pub fn restored(
        rules: Rules,
        created_at: Timestamp,
        status: Status,
        ended: Option<(Timestamp, Ending)>,
        now: Timestamp,
    ) -> Self {
        let grace_until =
            (status == Status::Running).then(|| now + rules.lease + rules.resume_grace);
        Self {
            rules,
            created_at,
            status,
            ended,
            claims: BTreeMap::new(),
            grace_until,
        }
    }

    /// Where the campaign stands.
    #[must_use]
    pub const fn status(&self) -> Status {
        self.status
    }

    /// When and why it ended.
    #[must_use]
    pub const fn ended(&self) -> Option<(Timestamp, Ending)> {
        self.ended
    }

    /// A node claims the campaign for its viewers, or renews its claim.
    pub fn claim(&mut self, node: &str, now: Timestamp) -> Claim {
        if let Some((_, ending)) = self.ended {
            return Claim::Ended(ending);
        }
        self.claims.insert(node.to_owned(), now + self.rules.lease);
        self.status = Status::Running;
        self.grace_until = None;
        Claim::Claimed
    }

    /// The last viewer of a node has left.
    pub fn release(&mut self, node: &str, now: Timestamp) {
        if self.claims.remove(node).is_some() && self.claims.is_empty() && self.ended.is_none() {
            self.grace_until = Some(now + self.rules.resume_grace);
        }
    }

    /// The next moment at which [`Lifecycle::due`] may have something to say.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        if self.ended.is_some() {
            return None;
        }
        let oldest = self.created_at + self.rules.longest;
        let idle = match self.status {
            Status::Waiting => Some(self.created_at + self.rules.unclaimed),
            Status::Running => self.unwatched_at(),
            Status::Complete => None,
        };
        Some(idle.map_or(oldest, |at| at.min(oldest)))
    }

    /// Why the campaign must end now, if it must.
    #[must_use]
    pub fn due(&self, now: Timestamp) -> Option<Ending> {
        if self.ended.is_some() {
            return None;
        }
        if self.status == Status::Waiting && now >= self.created_at + self.rules.unclaimed {
            return Some(Ending::Unclaimed);
        }
        if now >= self.created_at + self.rules.longest {
            return Some(Ending::Expired);
        }
        let unwatched =
            self.status == Status::Running && self.unwatched_at().is_some_and(|at| now >= at);
        unwatched.then_some(Ending::Unwatched)
    }

    /// Ends the campaign; false if it had ended before.
    pub fn end(&mut self, ending: Ending, now: Timestamp) -> bool {
        if self.ended.is_some() {
            return false;
        }
        self.status = Status::Complete;
        self.ended = Some((now, ending));
        self.claims.clear();
        self.grace_until = None;
        true
    }

    /// When the results may be forgotten.
    #[must_use]
    pub fn forgotten_at(&self) -> Option<Timestamp> {
        self.ended.map(|(at, _)| at + self.rules.retention)
    }

    /// When a running campaign ends for want of viewers: the grace, or the last lease and then the grace.
    fn unwatched_at(&self) -> Option<Timestamp> {
        self.grace_until.or_else(|| {
            self.claims
                .values()
                .max()
                .map(|lease| *lease + self.rules.resume_grace)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_secs(1_000);

    #[test]
    fn endings_are_stored_as_words_and_read_back() {
        for ending in [
            Ending::Unclaimed,
            Ending::Unwatched,
            Ending::Stopped,
            Ending::StoppedBy(UserId(7)),
            Ending::Expired,
        ] {
            assert_eq!(Ending::from_stored(&String::from(ending)), Some(ending));
        }
        assert_eq!(String::from(Ending::StoppedBy(UserId(7))), "stopped:7");
        assert_eq!(Ending::from_stored("stopped:x"), None);
    }

    fn at(seconds: u64) -> Timestamp {
        START + Duration::from_secs(seconds)
    }

    #[test]
    fn an_unclaimed_campaign_is_cancelled_after_60_s_and_not_before() {
        let mut life = Lifecycle::new(Rules::default(), START);
        assert_eq!(life.deadline(), Some(at(60)));
        assert_eq!(life.due(Timestamp(at(60).0 - 1)), None);
        assert_eq!(life.due(at(60)), Some(Ending::Unclaimed));
        assert!(life.end(Ending::Unclaimed, at(60)));
        assert!(!life.end(Ending::Stopped, at(61)), "it ends once");
        assert_eq!(life.claim("node", at(61)), Claim::Ended(Ending::Unclaimed));
        assert_eq!(life.forgotten_at(), Some(at(3660)));
    }

    #[test]
    fn the_last_viewer_leaving_starts_the_grace_and_a_return_stops_it() {
        let mut life = Lifecycle::new(Rules::default(), START);
        assert_eq!(life.claim("a", at(59)), Claim::Claimed);
        assert_eq!(life.status(), Status::Running);
        life.claim("b", at(59));
        life.release("a", at(60));
        assert_eq!(life.due(at(70)), None, "b still watches");
        life.claim("b", at(70));
        life.release("b", at(72));
        assert_eq!(life.due(at(81)), None);
        life.claim("a", at(81));
        assert_eq!(life.due(at(90)), None, "a came back in time");
        life.release("a", at(90));
        assert_eq!(life.deadline(), Some(at(100)));
        assert_eq!(life.due(at(100)), Some(Ending::Unwatched));
    }

    #[test]
    fn a_claim_that_is_not_renewed_runs_out_and_then_the_grace() {
        let mut life = Lifecycle::new(Rules::default(), START);
        life.claim("dead node", at(1));
        assert_eq!(life.due(at(25)), None);
        assert_eq!(
            life.due(at(26)),
            Some(Ending::Unwatched),
            "15 s lease and 10 s grace"
        );
    }

    #[test]
    fn no_campaign_outlives_24_hours() {
        let mut life = Lifecycle::new(Rules::default(), START);
        let day = 24 * 3600;
        life.claim("a", at(1));
        life.claim("a", at(day - 1));
        assert_eq!(life.due(at(day - 1)), None);
        assert_eq!(life.due(at(day)), Some(Ending::Expired));
    }

    #[test]
    fn a_restart_gives_viewers_one_lease_to_come_back() {
        let life = Lifecycle::restored(Rules::default(), START, Status::Running, None, at(100));
        assert_eq!(life.due(at(124)), None);
        assert_eq!(life.due(at(125)), Some(Ending::Unwatched));
    }
}
