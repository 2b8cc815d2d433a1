//! Hosts that are deleted, or moved out of the teams that were asked, while campaigns ask them.

use roaring::{MultiOps as _, RoaringBitmap};
use tokio::sync::watch;

use super::{Catalog, State};
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
        let own = teams.iter().map(|team| team.unwrap_or_default());
        let orphans = has_orphans(&state, teams).then_some(TeamId(0));
        let members = own.chain(orphans);
        let members = members.filter_map(|team| state.hosts.of_team(team));
        targets - members.union()
    }

    /// Whether a target that is in this team now is still asked by a campaign that asked these: one that was moved to a
    /// team that was not asked is not.
    #[must_use]
    pub fn asks(&self, teams: &[Option<TeamId>], team: Option<TeamId>) -> bool {
        teams.is_empty()
            || teams.contains(&team)
            || (team.is_none() && has_orphans(&self.read(), teams))
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

/// Whether one of these teams was deleted: its hosts are in none now.
fn has_orphans(state: &State, teams: &[Option<TeamId>]) -> bool {
    let mut teams = teams.iter().flatten();
    teams.any(|team| !state.teams.contains_key(team))
}
