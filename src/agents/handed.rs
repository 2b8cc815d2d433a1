//! What the store has said of hand-outs, so that a host that checks in every few seconds costs one store call a
//! campaign and not one a check-in.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use dashmap::DashMap;
use roaring::RoaringBitmap;

use crate::clock::Timestamp;
use crate::results::{CampaignId, HandOut, HostId};
use crate::store::Active;

/// Replies by campaign. Forgetting one costs a store call, nothing else.
#[derive(Debug, Default)]
pub(super) struct HandOutCache {
    campaigns: DashMap<CampaignId, Mutex<Replies>>,
}

#[derive(Debug, Default)]
struct Replies {
    /// Hosts that will not be given the query again.
    never: RoaringBitmap,
    /// Hosts that have the query and are not overdue before then.
    pending: HashMap<HostId, Timestamp>,
}

impl HandOutCache {
    /// Whether the host is known to get nothing of this campaign now.
    pub(super) fn is_settled(&self, id: CampaignId, host: HostId, now: Timestamp) -> bool {
        let Some(replies) = self.campaigns.get(&id) else {
            return false;
        };
        let replies = replies.lock().unwrap_or_else(PoisonError::into_inner);
        replies.never.contains(host.0) || replies.pending.get(&host).is_some_and(|at| now < *at)
    }

    /// Remembers a reply, and forgets the campaigns that are over when a new one comes up.
    pub(super) fn remember(&self, id: CampaignId, host: HostId, reply: HandOut, active: &Active) {
        if reply == HandOut::Give {
            return;
        }
        if !self.campaigns.contains_key(&id) {
            if active.get(id).is_none() {
                return;
            }
            self.campaigns.retain(|id, _| active.get(*id).is_some());
        }
        let replies = self.campaigns.entry(id).or_default();
        let mut replies = replies.lock().unwrap_or_else(PoisonError::into_inner);
        if let HandOut::Pending(until) = reply {
            replies.pending.insert(host, until);
        } else {
            replies.pending.remove(&host);
            replies.never.insert(host.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::UserId;
    use crate::store::ActiveCampaign;
    use std::sync::Arc;

    const NOW: Timestamp = Timestamp::from_secs(100);

    fn insert(active: &Active, id: u64) {
        active.insert(ActiveCampaign {
            id: CampaignId(id),
            sql: "select 1".into(),
            targets: Arc::new(RoaringBitmap::from_iter([1u32])),
            user: UserId(1),
            teams: Vec::new(),
        });
    }

    #[test]
    fn replies_hold_until_the_host_is_overdue_or_for_ever() {
        let (active, handed) = (Active::default(), HandOutCache::default());
        let (id, host) = (CampaignId(1), HostId(1));
        insert(&active, 1);
        handed.remember(id, host, HandOut::Give, &active);
        assert!(!handed.is_settled(id, host, NOW));
        let until = Timestamp::from_secs(160);
        handed.remember(id, host, HandOut::Pending(until), &active);
        assert!(handed.is_settled(id, host, NOW));
        assert!(!handed.is_settled(id, HostId(2), NOW));
        assert!(!handed.is_settled(id, host, until));
        handed.remember(id, host, HandOut::Never, &active);
        assert!(handed.is_settled(id, host, Timestamp::from_secs(9_999)));
    }

    #[test]
    fn campaigns_that_are_over_are_forgotten() {
        let (active, handed) = (Active::default(), HandOutCache::default());
        insert(&active, 1);
        handed.remember(CampaignId(1), HostId(1), HandOut::Never, &active);
        active.remove(CampaignId(1));
        insert(&active, 2);
        handed.remember(CampaignId(2), HostId(1), HandOut::Never, &active);
        handed.remember(CampaignId(3), HostId(1), HandOut::Never, &active);
        assert_eq!(handed.campaigns.len(), 1);
    }
}
