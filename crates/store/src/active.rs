//! The campaigns that agents are to be given, in memory, indexed so that an idle check-in costs next to nothing.

use std::sync::Arc;

use arc_swap::ArcSwap;
use dashmap::DashMap;
use roaring::RoaringBitmap;
use smallvec::SmallVec;
use tokio::sync::Notify;

use crate::results::{CampaignId, HostId, TeamId, UserId};

/// Up to this many targets a campaign is indexed by host; above, each check-in looks into its bitmap.
/// (Fleet's threshold for its reverse index is 1,000 too: spec fleet-live-query, 3.1.)
const SMALL_CAMPAIGN_HOSTS: u64 = 1_000;

/// What agents need to know of a campaign.
#[derive(Debug)]
pub struct ActiveCampaign {
    /// Its number.
    pub id: CampaignId,
    /// What hosts run.
    pub sql: String,
    /// Who runs it, as raw [`HostId`]s.
    pub targets: Arc<RoaringBitmap>,
    /// Who asks.
    pub user: UserId,
    /// The teams that were asked, see [`Question::teams`](crate::results::Question::teams).
    pub teams: Vec<Option<TeamId>>,
}

/// The campaigns that are waiting or running.
#[derive(Debug, Default)]
pub struct Active {
    all: DashMap<CampaignId, Arc<ActiveCampaign>>,
    by_host: DashMap<HostId, SmallVec<[CampaignId; 2]>>,
    large: ArcSwap<Vec<Arc<ActiveCampaign>>>,
    removed: Notify,
}

impl Active {
    /// Adds a campaign; does nothing if it is there.
    pub fn insert(&self, campaign: ActiveCampaign) {
        let campaign = Arc::new(campaign);
        if self
            .all
            .insert(campaign.id, Arc::clone(&campaign))
            .is_some()
        {
            return;
        }
        if campaign.targets.len() > SMALL_CAMPAIGN_HOSTS {
            self.large.rcu(|large| {
                let mut large = Vec::clone(large);
                large.push(Arc::clone(&campaign));
                large
            });
            return;
        }
        for host in campaign.targets.iter() {
            self.by_host
                .entry(HostId(host))
                .or_default()
                .push(campaign.id);
        }
    }

    /// Takes a campaign out; does nothing if it is not there.
    pub fn remove(&self, id: CampaignId) {
        let Some((_, campaign)) = self.all.remove(&id) else {
            return;
        };
        self.removed.notify_one();
        if campaign.targets.len() > SMALL_CAMPAIGN_HOSTS {
            self.large.rcu(|large| {
                large
                    .iter()
                    .filter(|other| other.id != id)
                    .cloned()
                    .collect::<Vec<_>>()
            });
            return;
        }
        for host in campaign.targets.iter() {
            self.by_host.remove_if_mut(&HostId(host), |_, ids| {
                ids.retain(|other| *other != id);
                ids.is_empty()
            });
        }
    }

    /// Completes when a campaign has been taken out since it last completed. For one listener.
    pub async fn removed(&self) {
        self.removed.notified().await;
    }

    /// The campaigns that target this host, oldest first.
    #[must_use]
    pub fn for_host(&self, host: HostId) -> SmallVec<[Arc<ActiveCampaign>; 2]> {
        let mut found: SmallVec<[Arc<ActiveCampaign>; 2]> = self
            .large
            .load()
            .iter()
            .filter(|campaign| campaign.targets.contains(host.0))
            .cloned()
            .collect();
        let small = self
            .by_host
            .get(&host)
            .map(|ids| ids.clone())
            .unwrap_or_default();
        found.extend(small.iter().filter_map(|id| self.get(*id)));
        found.sort_by_key(|campaign| campaign.id);
        found
    }

    /// One of the campaigns.
    #[must_use]
    pub fn get(&self, id: CampaignId) -> Option<Arc<ActiveCampaign>> {
        self.all.get(&id).map(|campaign| Arc::clone(&campaign))
    }

    /// How many campaigns of a user are active.
    #[must_use]
    pub fn of_user(&self, user: UserId) -> usize {
        self.all.iter().filter(|each| each.user == user).count()
    }

    /// How many campaigns are active.
    #[must_use]
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether no campaign is active.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The numbers of all active campaigns, in no order.
    #[must_use]
    pub fn ids(&self) -> Vec<CampaignId> {
        self.all.iter().map(|entry| *entry.key()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn campaign(id: u64, targets: std::ops::Range<u32>) -> ActiveCampaign {
        let targets = Arc::new(RoaringBitmap::from_iter(targets));
        ActiveCampaign {
            id: CampaignId(id),
            sql: "select 1".into(),
            targets,
            user: UserId(1),
            teams: Vec::new(),
        }
    }

    fn ids(active: &Active, host: u32) -> Vec<u64> {
        active
            .for_host(HostId(host))
            .iter()
            .map(|campaign| campaign.id.0)
            .collect()
    }

    #[test]
    fn small_and_large_campaigns_are_found_by_host_and_leave_nothing_behind() {
        let active = Active::default();
        active.insert(campaign(3, 1..5));
        active.insert(campaign(1, 1..5_000));
        active.insert(campaign(2, 4..6));
        active.insert(campaign(2, 4..6));
        assert_eq!(ids(&active, 4), [1, 2, 3]);
        assert_eq!(ids(&active, 4_999), [1]);
        assert!(ids(&active, 5_000).is_empty());
        assert_eq!(
            (active.of_user(UserId(1)), active.of_user(UserId(2))),
            (3, 0)
        );
        for id in 1..=3 {
            active.remove(CampaignId(id));
        }
        assert!(active.is_empty() && active.by_host.is_empty() && active.large.load().is_empty());
    }
}
