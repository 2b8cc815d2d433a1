//! Logs that this node follows: what other nodes append is read from the stream, when the wake slot notifies and every second.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

use redis::Value;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::append::Added;
use super::bits::read_command;
use super::feed_position::{Entry, Position, Step, entry};
use super::reply::{list, natural, text, unexpected};
use super::{Core, POLL, lock, scripts};
use crate::feed::shrink_all;
use crate::results::{Answer, CampaignId, Log, Record, Seq};
use crate::{CampaignLog, StoreError};

/// Bytes that one reading aims at; the number of entries asked for follows from how large they have been.
const READ_BYTES: usize = 1 << 20;
/// Bounds of that number, and the number before anything is known: an entry may be one answer of 16 MiB.
const READ_MAX: usize = 256;
const READ_FIRST: usize = 8;
/// Answers of one script call when lost ones are appended again.
const AGAIN: usize = 32;

/// The logs that are followed, by campaign. There are several of one campaign only after a failover that lost answers:
/// those from before it live on for their readers.
#[derive(Default)]
pub(super) struct Feeds(Mutex<HashMap<CampaignId, Vec<Arc<Feed>>>>);

struct Feed {
    id: CampaignId,
    log: Weak<CampaignLog>,
    position: Mutex<Position>,
    wake: Notify,
}

impl Feeds {
    /// Another node says that a log has grown.
    pub(super) fn wake(&self, id: CampaignId) {
        for feed in lock(&self.0).get(&id).into_iter().flatten() {
            feed.wake.notify_one();
        }
    }

    /// All logs may have grown.
    pub(super) fn wake_all(&self) {
        for feed in lock(&self.0).values().flatten() {
            feed.wake.notify_one();
        }
    }

    /// This node has appended: its own log need not be read for that.
    pub(super) fn added(&self, id: CampaignId, added: Added) {
        let feeds = lock(&self.0).get(&id).cloned().unwrap_or_default();
        let mut added = Some(added);
        for feed in feeds {
            let mut position = lock(&feed.position);
            let (false, Some(log)) = (position.forked, feed.log.upgrade()) else {
                feed.wake.notify_one();
                continue;
            };
            if let Some(added) = added.take()
                && position.offer(added, &log, Instant::now())
            {
                drop(position);
                log.notify();
            }
        }
    }

    /// This node has nothing more under way: what still waits for something before it must be read.
    pub(super) fn settle(&self, id: CampaignId) {
        for feed in lock(&self.0).get(&id).into_iter().flatten() {
            if lock(&feed.position).waits() {
                feed.wake.notify_one();
            }
        }
    }

    /// The log that new readers get.
    fn current(&self, id: CampaignId) -> Option<Arc<CampaignLog>> {
        let feeds = lock(&self.0);
        let current = feeds.get(&id)?.iter().rev();
        current
            .filter(|feed| !lock(&feed.position).forked)
            .find_map(|feed| feed.log.upgrade())
    }

    /// Keeps the logs in memory below this many bytes together.
    pub(super) fn shrink(&self, bytes_max: usize) {
        let logs: Vec<_> = {
            let feeds = lock(&self.0);
            let all = feeds.values().flatten();
            all.filter_map(|feed| feed.log.upgrade()).collect()
        };
        shrink_all(&logs, bytes_max);
    }

    fn forget(&self, feed: &Arc<Feed>) {
        let mut feeds = lock(&self.0);
        if let Some(of_campaign) = feeds.get_mut(&feed.id) {
            of_campaign.retain(|other| !Arc::ptr_eq(other, feed));
            if of_campaign.is_empty() {
                feeds.remove(&feed.id);
            }
        }
    }
}

impl Core {
    pub(super) async fn follow(
        self: &Arc<Self>,
        id: CampaignId,
    ) -> Result<Option<Arc<CampaignLog>>, StoreError> {
        if let Some(log) = self.feeds.current(id) {
            return Ok(Some(log));
        }
        let Some(position) = self.end_of_log(id).await? else {
            return Ok(None);
        };
        let memory = Log::new(id, position.seq, self.settings.encode);
        let log = Arc::new(CampaignLog::new(memory, id, self.settings.log_bytes_max));
        log.set_epoch(position.epoch);
        let feed = Arc::new(Feed {
            id,
            log: Arc::downgrade(&log),
            position: Mutex::new(position),
            wake: Notify::new(),
        });
        {
            let mut feeds = lock(&self.feeds.0);
            let of_campaign = feeds.entry(id).or_default();
            let other = of_campaign
                .iter()
                .rev()
                .filter(|other| !lock(&other.position).forked)
                .find_map(|other| other.log.upgrade());
            if other.is_some() {
                return Ok(other);
            }
            of_campaign.push(Arc::clone(&feed));
        }
        feed.wake.notify_one();
        let stop = self.stop.clone();
        self.tasks
            .spawn(super::until(stop, Arc::clone(self).keep_following(feed)));
        Ok(Some(log))
    }

    /// Where the stream ends now, and whose answers it has.
    async fn end_of_log(&self, id: CampaignId) -> Result<Option<Position>, StoreError> {
        let Some((small, created)) = self.size_and_birth(id).await? else {
            return Ok(None);
        };
        let keys = self.keys.campaign(id);
        let mut pipeline = redis::pipe();
        pipeline.atomic();
        pipeline.cmd("HMGET").arg(&keys.meta);
        pipeline.arg("seq").arg("nonce").arg("epoch");
        pipeline.cmd(read_command(small)).arg(&keys.waiting);
        let replies = self.data.pipe(&pipeline).await?;
        let [head, waiting] =
            <[Value; 2]>::try_from(replies).map_err(|_| unexpected("the end of a log"))?;
        let Some((seq, nonce, epoch)) = head_of(head) else {
            return Ok(None);
        };
        let hosts = self.answered(id, created, small, waiting).await?;
        Ok(Some(Position::new(seq, nonce, epoch, hosts)))
    }

    async fn keep_following(self: Arc<Self>, feed: Arc<Feed>) {
        let mut entries_a_read = READ_FIRST;
        loop {
            // An elapsed timeout is the regular look.
            let _ = timeout(POLL, feed.wake.notified()).await;
            let Some(log) = feed.log.upgrade() else {
                break;
            };
            if let Err(error) = self.catch_up(&feed, &log, &mut entries_a_read).await {
                tracing::debug!(campaign = feed.id.0, %error, "cannot read a log");
            }
            lock(&feed.position).forget_old(Instant::now());
        }
        self.feeds.forget(&feed);
    }

    /// Reads until there is nothing more.
    async fn catch_up(
        &self,
        feed: &Feed,
        log: &CampaignLog,
        count: &mut usize,
    ) -> Result<(), StoreError> {
        loop {
            let from = lock(&feed.position).seq;
            let Some((head, entries)) = self.read_on(feed.id, from, *count).await? else {
                return Ok(());
            };
            let (more, size) = (entries.len() >= *count, mean_size(&entries));
            let (last, nonce, epoch) = head;
            let step = {
                let mut position = lock(&feed.position);
                if position.seq != from {
                    // A batch of this node came in between.
                    continue;
                }
                if position.may_precede(last, &nonce) {
                    take_all(&mut position, entries, log)
                } else {
                    Step::Fork
                }
            };
            log.notify_in_turns().await;
            match step {
                Step::Taken if more => *count = (READ_BYTES / size).clamp(1, READ_MAX),
                Step::Taken => {
                    self.note_epoch(feed, log, epoch);
                    return Ok(());
                }
                Step::Gap => {
                    let why = format!("the log of campaign {} has a gap", feed.id);
                    return Err(StoreError::Damaged(why));
                }
                Step::Fork => self.mend(feed, log, last, epoch).await?,
            }
        }
    }

    /// The head of the stream (position, nonce, epoch) and up to `count` entries beyond a position. `None`: forgotten.
    async fn read_on(
        &self,
        id: CampaignId,
        from: Seq,
        count: usize,
    ) -> Result<Option<(Head, Vec<Entry>)>, StoreError> {
        let keys = self.keys.campaign(id);
        let mut pipeline = redis::pipe();
        pipeline.cmd("HMGET").arg(&keys.meta);
        pipeline.arg("seq").arg("nonce").arg("epoch");
        pipeline.cmd("XRANGE").arg(&keys.log);
        pipeline.arg(format!("({from}-0")).arg("+");
        pipeline.arg("COUNT").arg(count);
        let replies = self.data.pipe(&pipeline).await?;
        let [head, entries] =
            <[Value; 2]>::try_from(replies).map_err(|_| unexpected("the rest of a log"))?;
        let Some(head) = head_of(head) else {
            return Ok(None);
        };
        let entries = list(entries).ok_or_else(|| unexpected("XRANGE"))?;
        let entries: Option<Vec<_>> = entries.into_iter().map(entry).collect();
        let entries = entries.ok_or_else(|| unexpected("XRANGE"))?;
        Ok(Some((head, entries)))
    }

    /// Another node has noticed a fork beyond what is here: the positions here are the new epoch's too.
    fn note_epoch(&self, feed: &Feed, log: &CampaignLog, epoch: u64) {
        let mut position = lock(&feed.position);
        if !position.forked && position.epoch != epoch {
            position.epoch = epoch;
            log.set_epoch(epoch);
        }
    }

    /// A failover has lost what is here: appends it again (hosts that are in the stream make that harmless), counts the
    /// campaign's epoch up, and lets the log continue by host. New readers get a new log.
    async fn mend(
        &self,
        feed: &Feed,
        log: &CampaignLog,
        last: Seq,
        epoch: u64,
    ) -> Result<(), StoreError> {
        let keys = self.keys.campaign(feed.id);
        let mut cmd = scripts::FORK.call(&[&keys.meta]);
        cmd.arg(lock(&feed.position).epoch.min(epoch));
        let now = natural(&self.control.run(&scripts::FORK, &cmd).await?).unwrap_or(epoch);
        let lost: Vec<Answer> = {
            let mut position = lock(&feed.position);
            position.epoch = now;
            let lost = position.fork(last);
            log.fork(position.seq);
            lost
        };
        tracing::warn!(
            campaign = feed.id.0,
            epoch = now,
            answers = lost.len(),
            "a failover has lost answers; they are appended again"
        );
        for answers in lost.chunks(AGAIN) {
            // What is not taken back into the stream is still in the logs of this node's viewers.
            self.append_batch(feed.id, answers.to_vec()).await?;
        }
        Ok(())
    }

    pub(super) async fn read(
        &self,
        id: CampaignId,
        after: Seq,
        max_bytes: usize,
    ) -> Result<Vec<Record>, StoreError> {
        let (mut records, mut bytes) = (Vec::new(), 0);
        let (mut from, mut count) = (after, READ_FIRST.min(1 + max_bytes / 32_768));
        loop {
            let Some((_, entries)) = self.read_on(id, from, count).await? else {
                return Ok(records);
            };
            let (more, size) = (entries.len() >= count, mean_size(&entries));
            let found = entries.into_iter().flat_map(|entry| entry.records);
            for record in found.skip_while(|record| record.seq <= after) {
                if bytes >= max_bytes.max(1) {
                    return Ok(records);
                }
                bytes += record.answer.body.len().max(1);
                from = record.seq;
                records.push(record);
            }
            if !more || bytes >= max_bytes {
                return Ok(records);
            }
            count = ((max_bytes - bytes) / size + 1).clamp(1, READ_MAX);
        }
    }
}

/// The last position of a stream, the nonce of its last entry, the campaign's epoch.
type Head = (Seq, String, u64);

fn head_of(reply: Value) -> Option<Head> {
    let [seq, nonce, epoch] = <[Value; 3]>::try_from(list(reply)?).ok()?;
    let nonce = text(&nonce)?.to_owned();
    Some((Seq(natural(&seq)?), nonce, natural(&epoch)?))
}

fn take_all(position: &mut Position, entries: Vec<Entry>, log: &CampaignLog) -> Step {
    let now = Instant::now();
    for entry in entries {
        let step = position.take(entry, log, now);
        if step != Step::Taken {
            return step;
        }
    }
    Step::Taken
}

/// Bytes of an entry on average; never 0.
fn mean_size(entries: &[Entry]) -> usize {
    let records = entries.iter().flat_map(|entry| &entry.records);
    let bytes: usize = records.map(|record| record.answer.body.len()).sum();
    (bytes / entries.len().max(1)).max(64)
}
