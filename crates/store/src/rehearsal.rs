//! A store that is tried only: reads come from the real one, writes are accepted and forgotten.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use super::{
    Active, Appended, CampaignLog, Change, Committed, Kind, Reaped, Revision, Store, StoreError,
    Stored, Take,
};
use crate::clock::Timestamp;
use crate::results::{
    Answer, Campaign, CampaignId, Claim, Ending, HandOut, HostId, Progress, Question, Record, Seq,
    Status,
};

/// Takes every write of one request and keeps none, so that what would be answered can be told without doing it.
///
/// Numbers are those that the real store would give next. Conditions of commits are not checked: they are the ones of
/// the view that the commit was planned on, and nobody else writes here.
pub struct Rehearsal {
    real: Arc<dyn Store>,
    /// Numbers that were given of each sequence.
    given: Mutex<HashMap<Kind, u64>>,
    /// Campaigns that were ended.
    ended: Mutex<HashMap<CampaignId, (Timestamp, Ending)>>,
    revision: AtomicU64,
}

impl Rehearsal {
    /// Over a store, at a revision that its catalog has reached.
    #[must_use]
    pub fn new(real: Arc<dyn Store>, revision: Revision) -> Self {
        Self {
            real,
            given: Mutex::default(),
            ended: Mutex::default(),
            revision: AtomicU64::new(revision),
        }
    }

    fn ending(&self, id: CampaignId) -> Option<(Timestamp, Ending)> {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.get(&id).copied()
    }

    fn with_ending(&self, mut campaign: Campaign) -> Campaign {
        if let Some(ended) = self.ending(campaign.id) {
            campaign.status = Status::Complete;
            campaign.ended = Some(ended);
        }
        campaign
    }
}

#[async_trait]
impl Store for Rehearsal {
    fn name(&self) -> &'static str {
        self.real.name()
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.real.ping().await
    }

    async fn health(&self) -> Result<Vec<String>, StoreError> {
        self.real.health().await
    }

    async fn load(&self, take: &mut Take<'_>) -> Result<Revision, StoreError> {
        self.real.load(take).await
    }

    async fn commit(&self, _: Vec<Change>) -> Result<Committed, StoreError> {
        let revision = self.revision.fetch_add(1, Ordering::Relaxed) + 1;
        Ok(Committed::Done(revision))
    }

    async fn changes(&self, _: Revision) -> Result<Option<Vec<Stored>>, StoreError> {
        Ok(Some(Vec::new()))
    }

    async fn committed_elsewhere(&self) {
        self.real.committed_elsewhere().await;
    }

    async fn reserve(&self, sequence: Kind, count: u32) -> Result<u64, StoreError> {
        let next = self.real.reserve(sequence, 0).await?;
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        let given = given.entry(sequence).or_default();
        let first = next + *given;
        *given += u64::from(count);
        Ok(first)
    }

    async fn put_seen(&self, _: &[(HostId, Timestamp)]) -> Result<(), StoreError> {
        Ok(())
    }

    async fn seen(&self, since: Timestamp) -> Result<Vec<(HostId, Timestamp)>, StoreError> {
        self.real.seen(since).await
    }

    async fn create(&self, question: Question, now: Timestamp) -> Result<Campaign, StoreError> {
        let id = self.reserve("campaign", 1).await?;
        Ok(Campaign {
            id: CampaignId(id),
            question,
            created_at: now,
            status: Status::Waiting,
            ended: None,
            epoch: 0,
            is_incomplete: false,
        })
    }

    async fn campaign(&self, id: CampaignId) -> Result<Option<Campaign>, StoreError> {
        let campaign = self.real.campaign(id).await?;
        Ok(campaign.map(|campaign| self.with_ending(campaign)))
    }

    async fn campaigns(&self, limit: usize) -> Result<Vec<Campaign>, StoreError> {
        let campaigns = self.real.campaigns(limit).await?.into_iter();
        Ok(campaigns
            .map(|campaign| self.with_ending(campaign))
            .collect())
    }

    async fn progress(&self, id: CampaignId) -> Result<Option<Progress>, StoreError> {
        self.real.progress(id).await
    }

    async fn append(&self, _: CampaignId, _: Answer, _: Timestamp) -> Result<Appended, StoreError> {
        Ok(Appended::Unknown)
    }

    async fn hand_out(
        &self,
        _: CampaignId,
        _: HostId,
        _: Timestamp,
    ) -> Result<HandOut, StoreError> {
        Ok(HandOut::Never)
    }

    async fn take_back(&self, _: CampaignId, _: HostId) {}

    async fn claim(&self, id: CampaignId, _: &str, _: Timestamp) -> Result<Claim, StoreError> {
        let campaign = self.campaign(id).await?;
        Ok(match campaign {
            None => Claim::Unknown,
            Some(campaign) => campaign
                .ended
                .map_or(Claim::Claimed, |(_, ending)| Claim::Ended(ending)),
        })
    }

    async fn release(&self, _: CampaignId, _: &str, _: Timestamp) -> Result<(), StoreError> {
        Ok(())
    }

    async fn end(
        &self,
        id: CampaignId,
        ending: Ending,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let campaign = self.campaign(id).await?;
        let runs = campaign.is_some_and(|campaign| campaign.ended.is_none());
        if runs {
            let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
            ended.insert(id, (now, ending));
        }
        Ok(runs)
    }

    async fn reap(&self, _: Timestamp) -> Result<Vec<Reaped>, StoreError> {
        Ok(Vec::new())
    }

    fn active(&self) -> &Active {
        self.real.active()
    }

    async fn follow(&self, id: CampaignId) -> Result<Option<Arc<CampaignLog>>, StoreError> {
        self.real.follow(id).await
    }

    async fn read(
        &self,
        id: CampaignId,
        after: Seq,
        max_bytes: usize,
    ) -> Result<Vec<Record>, StoreError> {
        self.real.read(id, after, max_bytes).await
    }

    async fn close(&self) {}
}
