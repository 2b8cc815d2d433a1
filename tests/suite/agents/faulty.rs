//! A store around another one that fails when told to, and counts what it is asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use answerback::clock::Timestamp;
use answerback::results::{
    Answer, Campaign, CampaignId, Claim, Ending, HandOut, HostId, Progress, Question, Record, Seq,
};
use answerback::store::{
    Active, Appended, CampaignLog, Change, Committed, Kind, Reaped, Revision, Store, StoreError,
    Stored, Take,
};
use async_trait::async_trait;

use super::bed::Tally;

/// What fails, and what was asked.
pub(super) struct Faulty {
    inner: Arc<dyn Store>,
    pub(super) appends_fail: AtomicBool,
    pub(super) hand_outs_fail: AtomicBool,
    pub(super) commits_fail: AtomicBool,
    pub(super) appends: Tally,
    pub(super) hand_outs: Tally,
    pub(super) take_backs: Tally,
    pub(super) commits: Tally,
    pub(super) looks: Tally,
}

impl Faulty {
    pub(super) fn new(inner: Arc<dyn Store>) -> Self {
        Self {
            inner,
            appends_fail: AtomicBool::default(),
            hand_outs_fail: AtomicBool::default(),
            commits_fail: AtomicBool::default(),
            appends: Tally::default(),
            hand_outs: Tally::default(),
            take_backs: Tally::default(),
            commits: Tally::default(),
            looks: Tally::default(),
        }
    }
}

fn check(fails: &AtomicBool) -> Result<(), StoreError> {
    if fails.load(Ordering::SeqCst) {
        return Err(StoreError::Unavailable("told to fail".to_owned()));
    }
    Ok(())
}

#[async_trait]
impl Store for Faulty {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.inner.ping().await
    }

    async fn load(&self, take: &mut Take<'_>) -> Result<Revision, StoreError> {
        self.inner.load(take).await
    }

    async fn commit(&self, changes: Vec<Change>) -> Result<Committed, StoreError> {
        self.commits.count();
        check(&self.commits_fail)?;
        self.inner.commit(changes).await
    }

    async fn changes(&self, after: Revision) -> Result<Option<Vec<Stored>>, StoreError> {
        self.looks.count();
        check(&self.commits_fail)?;
        self.inner.changes(after).await
    }

    async fn committed_elsewhere(&self) {
        self.inner.committed_elsewhere().await;
    }

    async fn reserve(&self, sequence: Kind, count: u32) -> Result<u64, StoreError> {
        check(&self.commits_fail)?;
        self.inner.reserve(sequence, count).await
    }

    async fn put_seen(&self, seen: &[(HostId, Timestamp)]) -> Result<(), StoreError> {
        self.inner.put_seen(seen).await
    }

    async fn seen(&self, since: Timestamp) -> Result<Vec<(HostId, Timestamp)>, StoreError> {
        self.inner.seen(since).await
    }

    async fn create(&self, question: Question, now: Timestamp) -> Result<Campaign, StoreError> {
        self.inner.create(question, now).await
    }

    async fn campaign(&self, id: CampaignId) -> Result<Option<Campaign>, StoreError> {
        self.inner.campaign(id).await
    }

    async fn campaigns(&self, limit: usize) -> Result<Vec<Campaign>, StoreError> {
        self.inner.campaigns(limit).await
    }

    async fn progress(&self, id: CampaignId) -> Result<Option<Progress>, StoreError> {
        self.inner.progress(id).await
    }

    async fn append(
        &self,
        id: CampaignId,
        answer: Answer,
        now: Timestamp,
    ) -> Result<Appended, StoreError> {
        self.appends.count();
        check(&self.appends_fail)?;
        self.inner.append(id, answer, now).await
    }

    async fn hand_out(
        &self,
        id: CampaignId,
        host: HostId,
        now: Timestamp,
    ) -> Result<HandOut, StoreError> {
        self.hand_outs.count();
        check(&self.hand_outs_fail)?;
        self.inner.hand_out(id, host, now).await
    }

    async fn take_back(&self, id: CampaignId, host: HostId) {
        self.take_backs.count();
        self.inner.take_back(id, host).await;
    }

    async fn claim(&self, id: CampaignId, node: &str, now: Timestamp) -> Result<Claim, StoreError> {
        self.inner.claim(id, node, now).await
    }

    async fn release(&self, id: CampaignId, node: &str, now: Timestamp) -> Result<(), StoreError> {
        self.inner.release(id, node, now).await
    }

    async fn end(
        &self,
        id: CampaignId,
        ending: Ending,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.inner.end(id, ending, now).await
    }

    async fn reap(&self, now: Timestamp) -> Result<Vec<Reaped>, StoreError> {
        self.inner.reap(now).await
    }

    fn active(&self) -> &Active {
        self.inner.active()
    }

    async fn follow(&self, id: CampaignId) -> Result<Option<Arc<CampaignLog>>, StoreError> {
        self.inner.follow(id).await
    }

    async fn read(
        &self,
        id: CampaignId,
        after: Seq,
        max_bytes: usize,
    ) -> Result<Vec<Record>, StoreError> {
        self.inner.read(id, after, max_bytes).await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}
