//! When each host last checked in, in memory: touched by every request, written to the store in batches.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::Duration;

use roaring::RoaringBitmap;

use super::entity::Entity;
use crate::clock::Timestamp;
use crate::results::HostId;

/// A host is online until its check-in interval and this have passed (spec fleet-live-query, 2.4).
const ONLINE_BUFFER_S: u32 = 60;
/// What agents use unless their options say otherwise; the product's own default for `distributed_interval`.
const INTERVAL_DEFAULT_S: u32 = 10;
/// Hosts unseen for so long count as missing in action.
const MISSING_AFTER: Duration = Duration::from_secs(30 * 24 * 3600);
/// Hosts are new for so long.
const NEW_FOR: Duration = Duration::from_secs(24 * 3600);

/// Last check-ins of all hosts.
#[derive(Debug, Default)]
pub struct Presence {
    hosts: RwLock<Vec<Seen>>,
    dirty: Mutex<RoaringBitmap>,
}

#[derive(Debug, Default)]
struct Seen {
    /// Seconds since the epoch; 0 for never.
    at: AtomicU32,
    /// Seconds after a check-in for which the host counts as online.
    window: AtomicU32,
    /// Seconds since the epoch.
    enrolled: AtomicU32,
}

/// How many hosts of a set are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All of the set.
    pub total: u64,
    /// Checked in lately.
    pub online: u64,
    /// Did not, missing ones included.
    pub offline: u64,
    /// Unseen for 30 days.
    pub missing_in_action: u64,
    /// Enrolled within a day.
    pub new: u64,
}

impl Presence {
    /// The host has just checked in. Costs one atomic store, and a short lock once per batch.
    pub fn touch(&self, host: HostId, now: Timestamp) {
        let now = seconds(now);
        let hosts = self.hosts.read().unwrap_or_else(PoisonError::into_inner);
        let Some(seen) = hosts.get(host.0 as usize) else {
            return;
        };
        if seen.at.swap(now, Ordering::Relaxed) != now {
            self.dirty
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(host.0);
        }
    }

    /// When the host last checked in, here or as far as is known elsewhere.
    #[must_use]
    pub fn seen(&self, host: HostId) -> Option<Timestamp> {
        let hosts = self.hosts.read().unwrap_or_else(PoisonError::into_inner);
        let at = hosts.get(host.0 as usize)?.at.load(Ordering::Relaxed);
        (at > 0).then(|| Timestamp::from_secs(u64::from(at)))
    }

    /// Whether the host counts as online.
    #[must_use]
    pub fn is_online(&self, host: HostId, now: Timestamp) -> bool {
        let hosts = self.hosts.read().unwrap_or_else(PoisonError::into_inner);
        hosts
            .get(host.0 as usize)
            .is_some_and(|seen| seen.is_online(seconds(now)))
    }

    /// Counts a set of hosts by state.
    #[must_use]
    pub fn count(&self, set: &RoaringBitmap, now: Timestamp) -> Counts {
        let hosts = self.hosts.read().unwrap_or_else(PoisonError::into_inner);
        let mut counts = Counts {
            total: set.len(),
            ..Counts::default()
        };
        let secs = seconds(now);
        let (missing, new) = (age(MISSING_AFTER), age(NEW_FOR));
        for host in set {
            let Some(seen) = hosts.get(host as usize) else {
                continue;
            };
            counts.online += u64::from(seen.is_online(secs));
            counts.missing_in_action += u64::from(secs.saturating_sub(seen.last()) >= missing);
            counts.new +=
                u64::from(secs.saturating_sub(seen.enrolled.load(Ordering::Relaxed)) < new);
        }
        counts.offline = counts.total - counts.online;
        counts
    }

    /// The online ones of a set of hosts.
    #[must_use]
    pub fn online(&self, set: &RoaringBitmap, now: Timestamp) -> RoaringBitmap {
        let hosts = self.hosts.read().unwrap_or_else(PoisonError::into_inner);
        let secs = seconds(now);
        set.iter()
            .filter(|host| {
                hosts
                    .get(*host as usize)
                    .is_some_and(|seen| seen.is_online(secs))
            })
            .collect()
    }

    /// Takes in what the store knows; older news change nothing.
    pub fn merge(&self, seen: &[(HostId, Timestamp)]) {
        let hosts = self.hosts.read().unwrap_or_else(PoisonError::into_inner);
        for (host, at) in seen {
            if let Some(seen) = hosts.get(host.0 as usize) {
                seen.at.fetch_max(seconds(*at), Ordering::Relaxed);
            }
        }
    }

    /// The check-ins since the last call, for the store.
    #[must_use]
    pub fn take_dirty(&self) -> Vec<(HostId, Timestamp)> {
        let dirty = std::mem::take(&mut *self.dirty.lock().unwrap_or_else(PoisonError::into_inner));
        let hosts = self.hosts.read().unwrap_or_else(PoisonError::into_inner);
        dirty
            .iter()
            .filter_map(|host| {
                let at = hosts.get(host as usize)?.at.load(Ordering::Relaxed);
                Some((HostId(host), Timestamp::from_secs(u64::from(at))))
            })
            .collect()
    }

    /// Puts check-ins back that the store could not take.
    pub fn give_back(&self, seen: &[(HostId, Timestamp)]) {
        let mut dirty = self.dirty.lock().unwrap_or_else(PoisonError::into_inner);
        dirty.extend(seen.iter().map(|(host, _)| host.0));
    }

    /// Learns of a host, or of its intervals.
    pub(super) fn watch(&self, entity: &Entity) {
        let Entity::Host(host) = entity else {
            return;
        };
        let slot = host.id.0 as usize;
        let known = self
            .hosts
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .len();
        if slot >= known {
            let mut hosts = self.hosts.write().unwrap_or_else(PoisonError::into_inner);
            hosts.resize_with((slot + 1).next_power_of_two(), Seen::default);
        }
        let hosts = self.hosts.read().unwrap_or_else(PoisonError::into_inner);
        let Some(seen) = hosts.get(slot) else {
            return;
        };
        let intervals = [host.distributed_interval, host.config_tls_refresh];
        let least = intervals.into_iter().filter(|interval| *interval > 0).min();
        let window = least
            .unwrap_or(INTERVAL_DEFAULT_S)
            .saturating_add(ONLINE_BUFFER_S);
        seen.window.store(window, Ordering::Relaxed);
        seen.enrolled.store(
            u32::try_from(host.enrolled_at).unwrap_or(u32::MAX),
            Ordering::Relaxed,
        );
    }
}

impl Seen {
    /// The last check-in, or the enrolment before the first.
    fn last(&self) -> u32 {
        self.at
            .load(Ordering::Relaxed)
            .max(self.enrolled.load(Ordering::Relaxed))
    }

    fn is_online(&self, now: u32) -> bool {
        self.last()
            .saturating_add(self.window.load(Ordering::Relaxed))
            > now
    }
}

fn seconds(at: Timestamp) -> u32 {
    u32::try_from(at.secs()).unwrap_or(u32::MAX)
}

fn age(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}
