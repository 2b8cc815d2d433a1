//! Keeps the campaigns that agents are given current: on the wake slot, every second, and after being cut off alike, the
//! whole list is compared. It is a set of numbers; only campaigns that are new here are read.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::time::timeout;

use super::reply::{list, natural, unexpected};
use super::{Core, POLL, lock};
use crate::results::{CampaignId, Status};
use crate::{ActiveCampaign, StoreError};

/// Campaigns read at the same time.
const READS: usize = 16;

impl Core {
    pub(super) async fn keep_active(self: Arc<Self>) {
        loop {
            // An elapsed timeout is the regular look.
            let _ = timeout(POLL, self.resync.notified()).await;
            if let Err(error) = self.sync_active().await {
                tracing::debug!(%error, "cannot compare the active campaigns");
                continue;
            }
            self.append_again().await;
            self.amend_hand_outs().await;
        }
    }

    /// Makes the list in memory what the store says. Campaigns that this node begins or ends meanwhile are left as
    /// they are: the store's list may be older.
    pub(super) async fn sync_active(&self) -> Result<(), StoreError> {
        *lock(&self.touched) = Some(Vec::new());
        let before = self.active.ids();
        let mut cmd = redis::cmd("SMEMBERS");
        cmd.arg(self.keys.active());
        let ids = list(self.data.call(&cmd).await?).ok_or_else(|| unexpected("SMEMBERS"))?;
        let listed: HashSet<CampaignId> = ids.iter().filter_map(natural).map(CampaignId).collect();
        for id in before.iter().filter(|id| !listed.contains(id)) {
            self.unless_touched(*id, || self.active.remove(*id));
        }
        let before: HashSet<_> = before.into_iter().collect();
        let mut new: Vec<_> = listed.difference(&before).copied().collect();
        new.sort_unstable();
        for ids in new.chunks(READS) {
            let read = ids.iter().map(|id| self.campaign(*id));
            for campaign in futures_util::future::join_all(read).await {
                let Some(campaign) = campaign? else { continue };
                if campaign.status == Status::Complete {
                    continue;
                }
                let id = campaign.id;
                let campaign = ActiveCampaign {
                    id,
                    sql: campaign.question.sql,
                    targets: campaign.question.targets,
                    user: campaign.question.user_id,
                    teams: campaign.question.teams,
                };
                self.unless_touched(id, || self.active.insert(campaign));
            }
        }
        *lock(&self.touched) = None;
        Ok(())
    }

    /// This node is about to change the campaign's place in the list itself.
    pub(super) fn touch(&self, id: CampaignId) {
        if let Some(touched) = &mut *lock(&self.touched) {
            touched.push(id);
        }
    }

    fn unless_touched(&self, id: CampaignId, change: impl FnOnce()) {
        let touched = lock(&self.touched);
        if !touched.as_ref().is_some_and(|ids| ids.contains(&id)) {
            change();
        }
    }
}
