//! The embedded store's half of the one trait.

use std::convert::identity;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::faults::{file_fault, io_fault};
use super::file::LogFile;
use super::jobs::{Jobs, PATIENCE};
use super::{EmbeddedStore, catalog, rows};
use crate::clock::Timestamp;
use crate::results::{
    Answer, Campaign, CampaignId, Claim, Ending, HandOut, HostId, Progress, Question, Record, Seq,
    Status,
};
use crate::{
    Active, Appended, CampaignLog, Change, Committed, Kind, Reaped, Revision, Store, StoreError,
    Stored, Take,
};

/// At the end there may be gigabytes that the system has not given the disk yet.
const LAST_WRITE: Duration = Duration::from_secs(10);
/// There is no other node, and seldom does somebody leave while the writer commits for them.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Batches of records that may wait to be taken in while more are read.
const BATCHES: usize = 4;
/// Check-ins that are written in one go; others may write between.
const SEEN_AT_ONCE: usize = 4_096;
/// What is written to find out whether the directory takes files: more than most answers have.
const PROBE: &str = "probe";
const PROBE_BYTES: usize = 64 * 1024;
/// At most so many campaigns are listed.
const CAMPAIGNS_LISTED_MAX: usize = 10_000;

#[async_trait]
impl Store for EmbeddedStore {
    fn name(&self) -> &'static str {
        "embedded"
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.trouble.check()?;
        // First, because the system says why a file cannot be written, and SQLite does not.
        let path = self.settings.dir.join(PROBE);
        let owned = self.owned();
        self.reads.check()?;
        self.appends.jobs.check()?;
        let probing = self.upkeep.try_run(move || {
            owned.map_or(Ok(()), |owned| owned.check())?;
            probe(&path)
        });
        probing.await?;
        // A number that nobody uses: the catalog's file is written.
        self.reserve("probe", 1).await.map(|_| ())
    }

    async fn load(&self, take: &mut Take<'_>) -> Result<Revision, StoreError> {
        let (give, mut given) = mpsc::channel(BATCHES);
        let reading = self.readers.read_all(move |db| catalog::load(db, &give));
        // Dropped with what it is given from when `take` fails; then nothing more is read.
        let taking = async move {
            while let Some(batch) = given.recv().await {
                take(batch)?;
            }
            Ok(())
        };
        let (revision, taken) = tokio::join!(reading, taking);
        taken.and(revision)
    }

    async fn commit(&self, changes: Vec<Change>) -> Result<Committed, StoreError> {
        let work = move |db: &rusqlite::Connection| catalog::commit(db, &changes);
        self.writer.write(work, identity).await
    }

    async fn changes(&self, after: Revision) -> Result<Option<Vec<Stored>>, StoreError> {
        self.readers
            .read(move |db| catalog::changes(db, after))
            .await
    }

    async fn committed_elsewhere(&self) {
        tokio::time::sleep(LOOK_EVERY).await;
    }

    async fn reserve(&self, sequence: Kind, count: u32) -> Result<u64, StoreError> {
        let work = move |db: &rusqlite::Connection| catalog::reserve(db, sequence, count);
        self.writer.write(work, identity).await
    }

    async fn put_seen(&self, seen: &[(HostId, Timestamp)]) -> Result<(), StoreError> {
        for some in seen.chunks(SEEN_AT_ONCE) {
            let some = some.to_vec();
            let work = move |db: &rusqlite::Connection| catalog::put_seen(db, &some);
            self.writer.write(work, identity).await?;
        }
        Ok(())
    }

    async fn seen(&self, since: Timestamp) -> Result<Vec<(HostId, Timestamp)>, StoreError> {
        self.readers.read(move |db| catalog::seen(db, since)).await
    }

    async fn create(&self, question: Question, now: Timestamp) -> Result<Campaign, StoreError> {
        let (making, adding) = (Arc::clone(&self.campaigns), Arc::clone(&self.campaigns));
        let work = move |db: &rusqlite::Connection| {
            let id = rows::insert(db, &question, now)?;
            // Now, and not at the first answer: nobody waits for a campaign whose answers have no place.
            let file = LogFile::make(id, making.path(id)).map_err(file_fault)?;
            let campaign = Campaign {
                id,
                question,
                created_at: now,
                status: Status::Waiting,
                ended: None,
                epoch: 0,
                is_incomplete: false,
            };
            Ok((campaign, file))
        };
        // Active from the commit on, even if whoever asked is gone by then.
        let done = move |(campaign, file): (Campaign, LogFile)| {
            adding.add(campaign.clone(), file);
            campaign
        };
        self.writer.write(work, done).await
    }

    async fn campaign(&self, id: CampaignId) -> Result<Option<Campaign>, StoreError> {
        match self.campaigns.find(id) {
            Some(live) => {
                self.looks.wait(&live).await?;
                Ok(Some(live.campaign()))
            }
            None => self.past(id).await,
        }
    }

    async fn campaigns(&self, limit: usize) -> Result<Vec<Campaign>, StoreError> {
        let limit = limit.min(CAMPAIGNS_LISTED_MAX);
        let mut newest = self.readers.read(move |db| rows::newest(db, limit)).await?;
        for row in &mut newest {
            if let Some(live) = self.campaigns.find(row.id) {
                *row = live.campaign();
            }
        }
        Ok(newest)
    }

    async fn progress(&self, id: CampaignId) -> Result<Option<Progress>, StoreError> {
        match self.campaigns.find(id) {
            Some(live) => Ok(Some(live.progress())),
            None => self.readers.read(move |db| rows::outcome(db, id)).await,
        }
    }

    async fn append(
        &self,
        id: CampaignId,
        answer: Answer,
        _now: Timestamp,
    ) -> Result<Appended, StoreError> {
        let appended = self.append_now(id, answer).await;
        self.trouble.note(&appended);
        appended
    }

    async fn hand_out(
        &self,
        id: CampaignId,
        host: HostId,
        now: Timestamp,
    ) -> Result<HandOut, StoreError> {
        self.check_open()?;
        let Some(live) = self.campaigns.find(id) else {
            return Ok(HandOut::Never);
        };
        let (out, begun) = live.hand_out(host, now);
        if begun {
            self.campaigns.note(live);
        }
        Ok(out)
    }

    async fn take_back(&self, id: CampaignId, host: HostId) {
        if let Some(live) = self.campaigns.find(id)
            && live.take_back(host)
        {
            self.campaigns.note(live);
        }
    }

    async fn claim(&self, id: CampaignId, node: &str, now: Timestamp) -> Result<Claim, StoreError> {
        let Some(live) = self.campaigns.find(id) else {
            let past = self.past(id).await?;
            let ended = past.and_then(|campaign| campaign.ended);
            return Ok(ended.map_or(Claim::Unknown, |(_, ending)| Claim::Ended(ending)));
        };
        let claim = live.claim(node, now);
        self.campaigns.schedule(&live);
        if claim == Claim::Claimed && !live.is_saved() {
            self.save(&live).await?;
        }
        Ok(claim)
    }

    async fn release(&self, id: CampaignId, node: &str, now: Timestamp) -> Result<(), StoreError> {
        if let Some(live) = self.campaigns.find(id) {
            live.release(node, now);
            self.campaigns.schedule(&live);
        }
        Ok(())
    }

    async fn end(
        &self,
        id: CampaignId,
        ending: Ending,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let Some(live) = self.campaigns.find(id) else {
            return Ok(false);
        };
        let first = self.end_now(&live, ending, now);
        if live.is_saved() {
            return Ok(first);
        }
        let result = self.save(&live).await;
        if result.is_err() {
            self.campaigns.note_unsaved(live);
        }
        result.map(|()| first)
    }

    async fn reap(&self, now: Timestamp) -> Result<Vec<Reaped>, StoreError> {
        self.check_open()?;
        self.write_hand_outs();
        self.save_unsaved().await;
        let mut reaped = Vec::new();
        for live in self.campaigns.take_due(now) {
            reaped.extend(self.look_at(&live, now).await);
        }
        self.campaigns.shrink_logs(self.settings.logs_bytes_max);
        Ok(reaped)
    }

    fn active(&self) -> &Active {
        &self.campaigns.active
    }

    async fn follow(&self, id: CampaignId) -> Result<Option<Arc<CampaignLog>>, StoreError> {
        let Some(live) = self.campaigns.find(id) else {
            return Ok(None);
        };
        self.looks.wait(&live).await?;
        Ok(Some(live.follow()))
    }

    async fn read(
        &self,
        id: CampaignId,
        after: Seq,
        max_bytes: usize,
    ) -> Result<Vec<Record>, StoreError> {
        let Some(live) = self.campaigns.find(id) else {
            return Ok(Vec::new());
        };
        let reader = live.reader(after);
        if reader.is_done() {
            return Ok(Vec::new());
        }
        let read = self.reads.try_run(move || reader.read(max_bytes));
        let (records, points) = read.await?;
        live.learn(&points);
        Ok(records)
    }

    async fn close(&self) {
        if self.is_closed.swap(true, Ordering::SeqCst) {
            return;
        }
        self.write_hand_outs();
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(PATIENCE, self.tasks.wait())
            .await
            .is_err()
        {
            tracing::error!(
                "the disk of the data directory does not answer: what waits is not written"
            );
            return;
        }
        let flushed = self.flush().await;
        if let Err(error) = &flushed {
            tracing::error!(%error, "what was written may not be on the disk");
        }
        let (witness, readers) = (Arc::clone(&self.witness), self.readers.clone());
        let closed = self.upkeep.try_run(move || {
            readers.close();
            // Else the next start has to look closer.
            match flushed {
                Ok(()) => witness
                    .end()
                    .map_err(|error| io_fault("the witness", &error)),
                Err(_) => Ok(()),
            }
        });
        if let Err(error) = closed.await {
            tracing::warn!(%error, "the catalog's witness is not written");
        }
        self.release_lock();
    }
}

impl EmbeddedStore {
    /// Has the disk take everything, and the catalog's writer end.
    async fn flush(&self) -> Result<(), StoreError> {
        let jobs = Jobs::new("the last write", 1, LAST_WRITE, TaskTracker::new());
        let campaigns = Arc::clone(&self.campaigns);
        let files = jobs.try_run(move || {
            Self::synchronise(&campaigns);
            Ok(())
        });
        let files = files.await;
        self.writer.close().await.and(files)
    }

    async fn append_now(&self, id: CampaignId, answer: Answer) -> Result<Appended, StoreError> {
        self.check_open()?;
        let Some(live) = self.campaigns.find(id) else {
            let past = self.past(id).await?;
            return Ok(past.map_or(Appended::Unknown, |_| Appended::Closed));
        };
        let (reply, first) = live.enqueue(answer)?;
        if first {
            self.tasks.spawn(self.appends.clone().write_waiting(live));
        }
        reply.await.map_err(|_| super::closed())?
    }
}

/// Whether the data directory takes a file. Blocks.
fn probe(path: &Path) -> Result<(), StoreError> {
    let written = std::fs::write(path, [0; PROBE_BYTES]);
    // It is overwritten by the next probe if it stays.
    let _ = std::fs::remove_file(path);
    written.map_err(|error| io_fault("a probe of the data directory", &error))
}
