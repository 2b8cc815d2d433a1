//! Hosts that are deleted, or moved out of the teams that were asked, while campaigns ask them.

use roaring::{MultiOps as _, RoaringBitmap};
use tokio::sync::watch;

use super::Catalog;
use crate::results::{CampaignId, TeamId};
use crate::store::StoreError;

impl Catalog {
    /// Tells that hosts were deleted or changed their team, by whatever node.
    #[must_use]
    pub fn departures(&self) -> watch::Receiver<()> {
        self.departures.subscribe()
    }

    /// Those of a campaign's targets that there are no more, or that have left the teams that were asked; none given
    /// stands for all.
    #[must_use]
    pub fn gone(&self, targets: &RoaringBitmap, teams: &[Option<TeamId>]) -> RoaringBitmap {
        let state = self.read();
        if teams.is_empty() {
            return targets - state.hosts.all();
        }
        let teams = teams.iter().map(|team| team.unwrap_or_default());
        let members = teams.filter_map(|team| state.hosts.of_team(team));
        targets - members.union()
    }

    /// Those of a campaign's targets that were gone before they had answered: they are no targets any more. The
    /// answers of others stay, so these stay targets.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn departed(
        &self,
        id: CampaignId,
        targets: &RoaringBitmap,
        teams: &[Option<TeamId>],
    ) -> Result<RoaringBitmap, StoreError> {
        if self.gone(targets, teams).is_empty() {
            return Ok(RoaringBitmap::new());
        }
        // Another node may have enrolled and asked hosts of which this one has not heard yet.
        self.catch_up().await?;
        let gone = self.gone(targets, teams);
        if gone.is_empty() {
            return Ok(gone);
        }
        let progress = self.store.progress(id).await?.unwrap_or_default();
        Ok(gone - progress.answered)
    }
}
