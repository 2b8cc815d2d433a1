//! Hosts that are deleted while campaigns ask them.

use roaring::RoaringBitmap;
use tokio::sync::watch;

use super::Catalog;
use crate::results::CampaignId;
use crate::store::StoreError;

impl Catalog {
    /// Tells that hosts were deleted, by whatever node.
    #[must_use]
    pub fn departures(&self) -> watch::Receiver<()> {
        self.departures.subscribe()
    }

    /// Those of these hosts that there are no more.
    #[must_use]
    pub fn gone(&self, targets: &RoaringBitmap) -> RoaringBitmap {
        targets - self.read().hosts.all()
    }

    /// Those of a campaign's targets that were deleted before they had answered: they are no targets any more. The
    /// answers of others stay, so these stay targets.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn departed(
        &self,
        id: CampaignId,
        targets: &RoaringBitmap,
    ) -> Result<RoaringBitmap, StoreError> {
        if self.gone(targets).is_empty() {
            return Ok(RoaringBitmap::new());
        }
        // Another node may have enrolled and asked hosts of which this one has not heard yet.
        self.catch_up().await?;
        let gone = self.gone(targets);
        if gone.is_empty() {
            return Ok(gone);
        }
        let progress = self.store.progress(id).await?.unwrap_or_default();
        Ok(gone - progress.answered)
    }
}
