//! When each host is asked about itself and its labels, and what its answers change in the catalog.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dashmap::DashMap;

use super::details::{self, Row};
use super::{Agents, platform};
use crate::catalog::entity::{Entity, Host, Label, Membership};
use crate::catalog::state::ALL_HOSTS;
use crate::catalog::{Edit, State};
use crate::clock::Timestamp;
use crate::results::{HostId, LabelId};
use crate::store::Revision;

/// A host that was asked and has not answered is asked again after so many seconds.
const RETRY_S: u64 = 60;
/// A changed label is asked of all hosts within so many seconds, and not of all at their next check-in.
const CHANGE_SPREAD_S: u64 = 60;

/// What was asked of hosts lately, by this node. What they answered is in the catalog.
#[derive(Debug)]
pub(super) struct Inventory {
    detail_interval_s: u64,
    label_interval_s: u64,
    asked: DashMap<HostId, Asked>,
    labels: LabelWatch,
}

/// Seconds since the epoch; 0 for never.
#[derive(Clone, Copy, Debug, Default)]
struct Asked {
    details: u64,
    labels: u64,
    /// The last answer, which need not be in the host's record if it changed nothing.
    labels_answered: u64,
}

/// What a host is to be asked now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) details: bool,
    pub(super) labels: bool,
}

impl Due {
    pub(super) const fn is_nothing(self) -> bool {
        !self.details && !self.labels
    }
}

impl Inventory {
    pub(super) fn new(detail_interval: Duration, label_interval: Duration) -> Self {
        Self {
            detail_interval_s: detail_interval.as_secs(),
            label_interval_s: label_interval.as_secs(),
            asked: DashMap::new(),
            labels: LabelWatch::default(),
        }
    }

    /// What this host is to be asked now; counts as asked. Costs no lock while the host's record is fresh.
    pub(super) fn ask(
        &self,
        host: &Host,
        newest_label: impl FnOnce() -> Revision,
        now: Timestamp,
    ) -> Due {
        let now_s = now.secs();
        let changed = self.labels.changed_at(now_s, newest_label);
        let due = Due {
            details: now_s >= self.details_due_at(host),
            labels: now_s >= self.labels_due_at(host, host.labelled_at, changed),
        };
        if due.is_nothing() {
            return due;
        }
        let mut asked = self.asked.entry(host.id).or_default();
        let details = due.details && now_s >= asked.details + RETRY_S;
        let answered = host.labelled_at.max(asked.labels_answered);
        let labels = due.labels
            && now_s >= asked.labels + RETRY_S
            && now_s >= self.labels_due_at(host, answered, changed);
        if details {
            asked.details = now_s;
        }
        if labels {
            asked.labels = now_s;
        }
        Due { details, labels }
    }

    /// The host has answered label queries.
    fn labels_answered(&self, host: HostId, now: Timestamp) {
        self.asked.entry(host).or_default().labels_answered = now.secs();
    }

    /// The host enrolled anew: it is asked at its next check-in.
    pub(super) fn forget(&self, host: HostId) {
        self.asked.remove(&host);
    }

    fn details_due_at(&self, host: &Host) -> u64 {
        due_at(host, host.detailed_at, self.detail_interval_s)
    }

    fn labels_due_at(&self, host: &Host, answered: u64, changed: u64) -> u64 {
        let regular = due_at(host, answered, self.label_interval_s);
        if changed > answered && answered > 0 {
            regular.min(changed + jitter(host, CHANGE_SPREAD_S))
        } else {
            regular
        }
    }
}

/// An interval after the last answer, and up to a tenth more so that hosts drift apart; at once if there was none.
fn due_at(host: &Host, last: u64, interval_s: u64) -> u64 {
    if last == 0 {
        return 0;
    }
    last + interval_s + jitter(host, interval_s / 10)
}

/// Always the same for a host, and spread evenly over hosts: Knuth's multiplicative hash of the number.
fn jitter(host: &Host, below: u64) -> u64 {
    (u64::from(host.id.0.wrapping_mul(2_654_435_761)) * below) >> 32
}

/// Notices changed labels by looking at most once a second.
#[derive(Debug, Default)]
struct LabelWatch {
    looked_at: AtomicU64,
    revision: AtomicU64,
    changed_at: AtomicU64,
}

impl LabelWatch {
    /// When the labels were last found changed, in seconds; 0 before that.
    fn changed_at(&self, now_s: u64, newest: impl FnOnce() -> Revision) -> u64 {
        if self.looked_at.swap(now_s, Ordering::Relaxed) != now_s {
            let newest = newest();
            let before = self.revision.fetch_max(newest, Ordering::Relaxed);
            // The first look finds what the hosts' records were made with.
            if before > 0 && newest > before {
                self.changed_at.store(now_s, Ordering::Relaxed);
            }
        }
        self.changed_at.load(Ordering::Relaxed)
    }
}

/// The newest revision of any label.
pub(super) fn newest_label(state: &State) -> Revision {
    let revisions = state.labels.values().map(|(_, revision)| *revision);
    revisions.max().unwrap_or_default()
}

/// Whether hosts of this platform are asked the label's query.
pub(super) fn is_asked(label: &Label, host_platform: &str) -> bool {
    label.membership == Membership::Dynamic
        && !label.query.trim().is_empty()
        && !(label.builtin && label.name == ALL_HOSTS)
        && platform::fits(&label.platform, host_platform)
}

/// What a host's answers say of it.
#[derive(Debug, Default)]
pub(super) struct News {
    /// Detail queries that succeeded, with their rows.
    pub(super) details: Vec<(String, Vec<Row>)>,
    /// Label queries that succeeded, and whether they found anything.
    pub(super) labels: Vec<(LabelId, bool)>,
}

impl News {
    /// Whether there is none.
    pub(super) const fn is_empty(&self) -> bool {
        self.details.is_empty() && self.labels.is_empty()
    }

    fn apply(&self, host: &mut Host, state: &State, now: Timestamp) {
        for (query, rows) in &self.details {
            details::apply(query, rows, host);
        }
        if !self.details.is_empty() {
            host.detailed_at = now.secs();
        }
        if self.labels.is_empty() {
            return;
        }
        host.labelled_at = now.secs();
        let mut member: BTreeSet<LabelId> = host.labels.iter().copied().collect();
        for (label, found) in &self.labels {
            if *found {
                member.insert(*label);
            } else {
                member.remove(label);
            }
        }
        let platform = &host.details.platform;
        let exists = |id: &LabelId| {
            let label = state.labels.get(id);
            label.is_some_and(|(label, _)| is_asked(label, platform))
        };
        host.labels = member.into_iter().filter(exists).collect();
    }
}

impl Agents {
    /// Takes in what a host says of itself. A failure costs nothing but time: the host is asked again.
    pub(super) async fn learn(&self, id: HostId, news: News, now: Timestamp) {
        let commit = self.catalog.commit(|state| {
            let Some(before) = state.hosts.get(id) else {
                return Ok::<_, std::convert::Infallible>((Vec::new(), ()));
            };
            let mut host = Host::clone(before);
            news.apply(&mut host, state, now);
            let worth = self.inventory.is_worth_a_write(before, &host);
            let put = worth.then(|| Edit::Put(Entity::Host(Box::new(host))));
            Ok((put.into_iter().collect(), ()))
        });
        match commit.await {
            Ok(()) if !news.labels.is_empty() => self.inventory.labels_answered(id, now),
            Ok(()) => {}
            Err(error) => tracing::warn!(host = id.0, %error, "a host's details were not kept"),
        }
    }
}

impl Inventory {
    /// Whether anything changed but times, or the times kept are half as old as they may be.
    fn is_worth_a_write(&self, before: &Host, after: &Host) -> bool {
        let mut same = before.clone();
        same.detailed_at = after.detailed_at;
        same.labelled_at = after.labelled_at;
        same.details.uptime_s = after.details.uptime_s;
        let old = |before: u64, after, interval_s| after > before + interval_s / 2;
        same != *after
            || old(
                before.detailed_at,
                after.detailed_at,
                self.detail_interval_s,
            )
            || old(before.labelled_at, after.labelled_at, self.label_interval_s)
    }
}
