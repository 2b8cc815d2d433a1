//! The campaigns whose results can be read, in memory, and when each has to be looked at.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dashmap::DashMap;

use super::deadlines::Deadlines;
use super::file::{LogFile, Reloaded};
use super::live::{Live, Logs};
use super::rows::{Kept, Mended, next_epoch};
use super::salvage;
use crate::clock::Timestamp;
use crate::results::ledger::HandedOut;
use crate::results::{Campaign, CampaignId, HostId, Ledger, Lifecycle, Rules, Seq};
use crate::{Active, ActiveCampaign, StoreError, feed};

use super::entry::Entry;

/// The campaigns whose results can be read.
#[derive(Debug)]
pub(super) struct Campaigns {
    dir: PathBuf,
    rules: Rules,
    logs: Logs,
    live: DashMap<CampaignId, Arc<Live>>,
    pub(super) active: Active,
    deadlines: Mutex<Deadlines>,
    /// Those with hand-outs that wait to be written, each once.
    noted: Mutex<Vec<Arc<Live>>>,
    /// Those whose row could not be written.
    unsaved: Mutex<Vec<Arc<Live>>>,
}

impl Campaigns {
    /// None yet; their files are in this directory.
    pub(super) fn new(dir: PathBuf, rules: Rules, logs: Logs) -> Self {
        Self {
            dir,
            rules,
            logs,
            live: DashMap::new(),
            active: Active::default(),
            deadlines: Mutex::default(),
            noted: Mutex::default(),
            unsaved: Mutex::default(),
        }
    }

    /// Adds a campaign that has just been created, with its file.
    pub(super) fn add(&self, campaign: Campaign, file: LogFile) {
        let life = Lifecycle::new(self.rules, campaign.created_at);
        let ledger = Ledger::new(self.rules, Arc::clone(&campaign.question.targets));
        self.insert(Live::new(campaign, life, ledger, file, self.logs));
    }

    /// Adds a campaign read back after a restart: from its file if it goes on, else from its row. A damaged file goes to
    /// `aside`. What its row is to say if the file is not what was shown. Blocks.
    pub(super) fn restore(
        &self,
        kept: Kept,
        aside: &Path,
        now: Timestamp,
    ) -> Result<Option<Mended>, StoreError> {
        let mut mended = None;
        let Kept {
            mut campaign,
            last,
            progress,
            has_file,
        } = kept;
        let path = self.path(campaign.id);
        let life = Lifecycle::restored(
            self.rules,
            campaign.created_at,
            campaign.status,
            campaign.ended,
            now,
        );
        let mut ledger = Ledger::new(self.rules, Arc::clone(&campaign.question.targets));
        let file = if campaign.ended.is_some() {
            for host in &progress.answered {
                ledger.answer(HostId(host), progress.failed.contains(host));
            }
            LogFile::ended(campaign.id, path, last)
        } else {
            let (file, found) = LogFile::reload(campaign.id, path, aside, |entry| match entry {
                Entry::Answer(record) => ledger.answer(record.answer.host, record.answer.failed),
                Entry::HandOut(host, HandedOut { at, times }) => {
                    ledger.restore(host, HandedOut { at, times });
                }
            })?;
            let is_lost = has_file && found == Reloaded::Emptied;
            if found != Reloaded::Whole {
                // Answers may stand at places where viewers have seen others.
                campaign.epoch = next_epoch(campaign.epoch, now);
                campaign.is_incomplete |= is_lost || found == Reloaded::Mended;
                mended = Some(Mended {
                    epoch: campaign.epoch,
                    is_incomplete: campaign.is_incomplete,
                    last: Seq(0),
                });
            }
            file
        };
        self.insert(Live::new(campaign, life, ledger, file, self.logs));
        Ok(mended)
    }

    fn insert(&self, live: Live) {
        let live = Arc::new(live);
        let campaign = live.campaign();
        self.live.insert(live.id(), Arc::clone(&live));
        if campaign.ended.is_none() {
            self.active.insert(ActiveCampaign {
                id: campaign.id,
                sql: campaign.question.sql,
                targets: campaign.question.targets,
                user: campaign.question.user_id,
                teams: campaign.question.teams,
            });
        }
        self.schedule(&live);
    }

    /// One of the campaigns.
    pub(super) fn find(&self, id: CampaignId) -> Option<Arc<Live>> {
        self.live.get(&id).map(|live| Arc::clone(&live))
    }

    /// All of them, in no order.
    pub(super) fn all(&self) -> Vec<Arc<Live>> {
        self.live.iter().map(|live| Arc::clone(&live)).collect()
    }

    /// Takes a campaign out: its results are over.
    pub(super) fn remove(&self, id: CampaignId) {
        self.live.remove(&id);
    }

    /// Where a campaign's file is.
    pub(super) fn path(&self, id: CampaignId) -> PathBuf {
        self.dir.join(format!("{id}.log"))
    }

    /// Removes the files of campaigns whose results are over, and moves those that nothing is known of aside: somebody may
    /// miss them.
    pub(super) fn set_orphans_aside(
        &self,
        aside: &Path,
        is_forgotten: impl Fn(CampaignId) -> rusqlite::Result<bool>,
    ) -> std::io::Result<()> {
        for file in std::fs::read_dir(&self.dir)? {
            let path = file?.path();
            let Some(id) = campaign_of(&path).filter(|id| !self.live.contains_key(id)) else {
                continue;
            };
            if is_forgotten(id).unwrap_or(false) {
                std::fs::remove_file(&path)?;
                continue;
            }
            let to = salvage::set_aside(&path, aside)?;
            tracing::warn!(campaign = %id, file = %to.display(), "a file of a campaign that the catalog does not know is set aside");
        }
        Ok(())
    }

    // ---- what has to be done later

    /// Has the campaign looked at when it is due.
    pub(super) fn schedule(&self, live: &Live) {
        if let Some(at) = live.deadline() {
            lock(&self.deadlines).sooner(live.id(), at);
        }
    }

    /// The campaigns that have to be looked at now; each is told once, and has to be scheduled again.
    pub(super) fn take_due(&self, now: Timestamp) -> Vec<Arc<Live>> {
        let due = lock(&self.deadlines).take_due(now);
        due.into_iter().filter_map(|id| self.find(id)).collect()
    }

    /// Hand-outs of this campaign have begun to wait.
    pub(super) fn note(&self, live: Arc<Live>) {
        lock(&self.noted).push(live);
    }

    /// The campaigns with hand-outs that wait.
    pub(super) fn take_noted(&self) -> Vec<Arc<Live>> {
        std::mem::take(&mut *lock(&self.noted))
    }

    /// The row of this campaign has to be written again.
    pub(super) fn note_unsaved(&self, live: Arc<Live>) {
        lock(&self.unsaved).push(live);
    }

    /// Those whose row has to be written again.
    pub(super) fn take_unsaved(&self) -> Vec<Arc<Live>> {
        std::mem::take(&mut *lock(&self.unsaved))
    }

    /// Keeps the logs in memory below this many bytes together, each losing its share.
    pub(super) fn shrink_logs(&self, bytes_max: usize) {
        let logs: Vec<_> = self.live.iter().filter_map(|live| live.log()).collect();
        feed::shrink_all(&logs, bytes_max);
    }
}

/// Whose file this is, if it is one.
pub(super) fn campaign_of(path: &Path) -> Option<CampaignId> {
    let id = path.file_name()?.to_str()?.strip_suffix(".log")?;
    id.parse().ok().map(CampaignId)
}

/// Lists are replaced whole, so a panic elsewhere does no harm.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
