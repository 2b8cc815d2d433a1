//! The store's trait over what the other modules do.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::timeout;

use super::{POLL, RedisStore};
use crate::clock::Timestamp;
use crate::results::{
    Answer, Campaign, CampaignId, Claim, Ending, HandOut, HostId, Progress, Question, Record, Seq,
};
use crate::{
    Active, Appended, CampaignLog, Change, Committed, Kind, Reaped, Revision, Store, StoreError,
    Stored, Take,
};

#[async_trait]
impl Store for RedisStore {
    fn name(&self) -> &'static str {
        "redis"
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.core.trouble.check()?;
        let mut probe = redis::cmd("SET");
        probe.arg(self.core.keys.probe()).arg(1).arg("EX").arg(60);
        tokio::try_join!(self.core.data.call(&probe), self.core.control.call(&probe)).map(|_| ())
    }

    async fn health(&self) -> Result<Vec<String>, StoreError> {
        let warnings = self.core.health().await?;
        Ok(warnings.into_iter().map(|warning| warning.text).collect())
    }

    async fn load(&self, take: &mut Take<'_>) -> Result<Revision, StoreError> {
        self.core.load(take).await
    }

    async fn commit(&self, changes: Vec<Change>) -> Result<Committed, StoreError> {
        self.core.commit(changes).await
    }

    async fn changes(&self, after: Revision) -> Result<Option<Vec<Stored>>, StoreError> {
        self.core.changes(after).await
    }

    async fn put_back(&self, records: Vec<Stored>, upto: Revision) -> Result<(), StoreError> {
        self.core.put_back(records, upto).await
    }

    async fn committed_elsewhere(&self) {
        // An elapsed timeout means that a wake slot may have been lost.
        let _ = timeout(POLL, self.core.committed.notified()).await;
    }

    async fn reserve(&self, sequence: Kind, count: u32) -> Result<u64, StoreError> {
        self.core.reserve(sequence, count).await
    }

    async fn put_seen(&self, seen: &[(HostId, Timestamp)]) -> Result<(), StoreError> {
        self.core.put_seen(seen).await
    }

    async fn seen(&self, since: Timestamp) -> Result<Vec<(HostId, Timestamp)>, StoreError> {
        self.core.seen(since).await
    }

    async fn create(&self, question: Question, now: Timestamp) -> Result<Campaign, StoreError> {
        self.core.create(question, now).await
    }

    async fn campaign(&self, id: CampaignId) -> Result<Option<Campaign>, StoreError> {
        self.core.campaign(id).await
    }

    async fn campaigns(&self, limit: usize) -> Result<Vec<Campaign>, StoreError> {
        self.core.campaigns(limit).await
    }

    async fn progress(&self, id: CampaignId) -> Result<Option<Progress>, StoreError> {
        self.core.progress(id).await
    }

    async fn append(
        &self,
        id: CampaignId,
        answer: Answer,
        _now: Timestamp,
    ) -> Result<Appended, StoreError> {
        let appended = self.core.append(id, answer).await;
        self.core.trouble.note(&appended);
        appended
    }

    async fn hand_out(
        &self,
        id: CampaignId,
        host: HostId,
        now: Timestamp,
    ) -> Result<HandOut, StoreError> {
        self.core.hand_out(id, host, now).await
    }

    async fn take_back(&self, id: CampaignId, host: HostId) {
        self.core.take_back(id, host).await;
    }

    async fn claim(&self, id: CampaignId, node: &str, now: Timestamp) -> Result<Claim, StoreError> {
        self.core.claim(id, node, now).await
    }

    async fn release(&self, id: CampaignId, node: &str, now: Timestamp) -> Result<(), StoreError> {
        self.core.release(id, node, now).await
    }

    async fn end(
        &self,
        id: CampaignId,
        ending: Ending,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.core.end(id, ending, now).await
    }

    async fn reap(&self, now: Timestamp) -> Result<Vec<Reaped>, StoreError> {
        self.core.feeds.shrink(self.core.settings.logs_bytes_max);
        self.core.reap(now).await
    }

    fn active(&self) -> &Active {
        &self.core.active
    }

    async fn follow(&self, id: CampaignId) -> Result<Option<Arc<CampaignLog>>, StoreError> {
        self.core.follow(id).await
    }

    async fn read(
        &self,
        id: CampaignId,
        after: Seq,
        max_bytes: usize,
    ) -> Result<Vec<Record>, StoreError> {
        self.core.read(id, after, max_bytes).await
    }

    async fn put_session(
        &self,
        session: &str,
        node: &str,
        ttl: Duration,
    ) -> Result<bool, StoreError> {
        self.core.put_session(session, node, ttl).await
    }

    async fn session_owner(&self, session: &str) -> Result<Option<String>, StoreError> {
        self.core.session_owner(session).await
    }

    async fn node_secret(&self, offered: &str) -> Result<Option<String>, StoreError> {
        self.core.node_secret(offered).await
    }

    async fn nodes(&self) -> Result<Vec<String>, StoreError> {
        self.core.nodes().await
    }

    async fn drop_session(&self, session: &str, node: &str) {
        self.core.drop_session(session, node).await;
    }

    async fn close(&self) {
        self.core.close().await;
    }
}
