//! When each campaign has to be looked at next.

use std::collections::{BTreeSet, HashMap};

use crate::clock::Timestamp;
use crate::results::CampaignId;

/// One moment for each campaign, the earliest found at once. A moment may be too early, never too late: who is
/// told that a campaign is due asks its lifecycle, and sets the next moment.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    order: BTreeSet<(Timestamp, CampaignId)>,
    set: HashMap<CampaignId, Timestamp>,
}

impl Deadlines {
    /// Looks at the campaign at this moment, if not sooner.
    pub(super) fn sooner(&mut self, id: CampaignId, at: Timestamp) {
        if let Some(before) = self.set.get(&id).copied() {
            if before <= at {
                return;
            }
            self.order.remove(&(before, id));
        }
        self.set.insert(id, at);
        self.order.insert((at, id));
    }

    /// Takes out the campaigns that are due, earliest first.
    pub(super) fn take_due(&mut self, now: Timestamp) -> Vec<CampaignId> {
        let mut due = Vec::new();
        while let Some((at, id)) = self.order.first().copied()
            && at <= now
        {
            self.order.pop_first();
            self.set.remove(&id);
            due.push(id);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_moment_of_a_campaign_counts_and_is_told_once() {
        let mut deadlines = Deadlines::default();
        deadlines.sooner(CampaignId(1), Timestamp(50));
        deadlines.sooner(CampaignId(2), Timestamp(40));
        deadlines.sooner(CampaignId(1), Timestamp(60));
        deadlines.sooner(CampaignId(1), Timestamp(30));
        assert!(deadlines.take_due(Timestamp(29)).is_empty());
        let due = deadlines.take_due(Timestamp(45));
        assert_eq!(due, [CampaignId(1), CampaignId(2)]);
        assert!(deadlines.take_due(Timestamp(1_000)).is_empty());
        assert!(deadlines.order.is_empty() && deadlines.set.is_empty());
    }
}
