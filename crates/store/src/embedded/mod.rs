//! The store of one process: the catalog in SQLite, each campaign's answers in a file of their own.
//!
//! A data directory holds `catalog.db` (with its write-ahead log), `campaigns/<number>.log` and `lock`.
//! It is one process's alone. What has been acknowledged survives kill -9; whether it survives the machine
//! is [`Fsync`]'s to say.

mod appends;
pub mod backup;
mod campaigns;
mod catalog;
mod deadlines;
mod entry;
mod faults;
mod file;
mod jobs;
mod live;
mod looks;
mod open;
mod owned;
mod pulse;
mod readers;
pub mod repair;
mod rows;
mod salvage;
mod scan;
mod state;
mod store;
mod wake_task;
mod witness;
mod writer;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use appends::Appends;
use campaigns::Campaigns;
use faults::closed;
use jobs::{Jobs, PATIENCE};
use live::Live;
use looks::Looks;
use owned::Owned;
use readers::Readers;
use wake_task::WakeTask;
use witness::Witness;
use writer::Writer;

use crate::clock::Timestamp;
use crate::results::{Campaign, CampaignId, Ending, Rules};
use crate::trouble::Trouble;
use crate::{Reaped, StoreError};

pub use crate::results::Encode;

/// The catalog's file in the data directory.
const CATALOG: &str = "catalog.db";
/// The directory of the campaigns' files in the data directory.
const CAMPAIGNS: &str = "campaigns";
/// Where files go at a start that nothing is known of, in the data directory.
const SET_ASIDE: &str = "set-aside";
/// The lock's file in the data directory.
const LOCK: &str = "lock";

/// Files that are written, or read, at once. More would wait for the same disk.
const JOBS_MAX: usize = 8;

/// When the disk, and not only the operating system, has what was acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fsync {
    /// Some time after: a crash of the machine may lose the last seconds, a crash of the process nothing.
    #[default]
    Never,
    /// Before it is acknowledged.
    Always,
}

/// How the embedded store works.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The data directory; made if it is not there.
    pub dir: PathBuf,
    /// The periods that rule campaigns.
    pub rules: Rules,
    /// Bytes of one campaign's log that are kept in memory; the rest is read back from its file.
    pub log_bytes_max: usize,
    /// Bytes of all logs together that are kept in memory, looked after at each [`crate::Store::reap`].
    pub logs_bytes_max: usize,
    /// When the disk has what was acknowledged.
    pub fsync: Fsync,
    /// Whether a catalog that has lost writes is taken as it is.
    pub accept_loss: bool,
    /// What makes the logs' wire forms.
    pub encode: Encode,
}

/// The store of one process.
#[derive(Debug)]
pub struct EmbeddedStore {
    settings: Settings,
    writer: Writer,
    witness: Arc<Witness>,
    readers: Readers,
    campaigns: Arc<Campaigns>,
    appends: Appends,
    /// Readings of campaigns' files and of the catalog.
    reads: Jobs,
    /// What is done with files beside that.
    upkeep: Jobs,
    looks: Arc<Looks>,
    /// Owns every task and blocking job of the store.
    tasks: TaskTracker,
    stop: CancellationToken,
    is_closed: AtomicBool,
    trouble: Trouble,
    /// Held until the store is closed.
    owned: Mutex<Option<Arc<Owned>>>,
}

impl EmbeddedStore {
    /// Opens the directory, and reads back the campaigns in it as of `now`. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if another process has the directory open, or it cannot be used;
    /// [`StoreError::Damaged`] if what is in it was not written by this version or an older one.
    pub async fn open(settings: Settings, now: Timestamp) -> Result<Arc<Self>, StoreError> {
        let task = {
            let settings = settings.clone();
            tokio::task::spawn_blocking(move || open::open(&settings, now))
        };
        let opened = task.await.map_err(|_| closed())??;
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let jobs = |what| Jobs::new(what, JOBS_MAX, PATIENCE, tasks.clone());
        let appends = Appends {
            jobs: jobs("a write"),
            wake_task: Arc::new(WakeTask::start(&tasks, stop.clone())),
            synchronise: settings.fsync == Fsync::Always,
        };
        let looking = TaskTracker::new();
        let looks = Looks {
            jobs: Jobs::new(
                "looking through a file",
                JOBS_MAX,
                PATIENCE,
                looking.clone(),
            ),
            tasks: looking,
            campaigns: Arc::clone(&opened.campaigns),
            aside: settings.dir.join(SET_ASIDE),
            opened_at: now,
        };
        let reads = jobs("a read");
        let store = Arc::new(Self {
            settings,
            writer: opened.writer,
            witness: opened.witness,
            readers: Readers::new(opened.catalog, reads.clone()),
            campaigns: opened.campaigns,
            appends,
            reads,
            upkeep: jobs("a look at the directory"),
            looks: Arc::new(looks),
            tasks,
            stop,
            is_closed: AtomicBool::new(false),
            trouble: Trouble::default(),
            owned: Mutex::new(Some(opened.owned)),
        });
        store.looks.begin(store.stop.clone());
        Ok(store)
    }

    /// Writes a campaign's row as it is at that moment.
    async fn save(&self, live: &Arc<Live>) -> Result<(), StoreError> {
        let (at, saved) = (Arc::clone(live), Arc::clone(live));
        let work = move |db: &rusqlite::Connection| {
            let standing = at.standing();
            rows::save(db, &standing).map(|()| standing.status)
        };
        self.writer
            .write(work, move |status| saved.saved(status))
            .await
    }

    /// Ends a campaign in memory, so that no host is given it and no answer is taken from here on.
    fn end_now(&self, live: &Live, ending: Ending, now: Timestamp) -> bool {
        let Some(file) = live.end(ending, now) else {
            return false;
        };
        self.campaigns.active.remove(live.id());
        self.campaigns.schedule(live);
        if let Some(file) = file {
            let jobs = self.upkeep.clone();
            self.tasks
                .spawn(async move { jobs.run(move || drop(file)).await });
        }
        true
    }

    /// A campaign whose time has come: ends or forgets it.
    async fn look_at(&self, live: &Arc<Live>, now: Timestamp) -> Option<Reaped> {
        let id = live.id();
        if let Some(ending) = live.due(now)
            && self.end_now(live, ending, now)
        {
            if let Err(error) = self.save(live).await {
                tracing::warn!(campaign = %id, %error, "an ending is not written yet");
                self.campaigns.note_unsaved(Arc::clone(live));
            }
            return Some(Reaped::Ended(id, ending));
        }
        if live.is_over(now) {
            match self.forget(live, now).await {
                Ok(()) => return Some(Reaped::Forgotten(id)),
                Err(error) => tracing::warn!(campaign = %id, %error, "cannot forget results yet"),
            }
        }
        self.campaigns.schedule(live);
        None
    }

    /// Drops a campaign's results.
    async fn forget(&self, live: &Arc<Live>, now: Timestamp) -> Result<(), StoreError> {
        if !live.is_saved() {
            self.save(live).await?;
        }
        let (id, campaigns) = (live.id(), Arc::clone(&self.campaigns));
        let work = move |db: &rusqlite::Connection| rows::forget(db, id, now);
        self.writer
            .write(work, move |()| campaigns.remove(id))
            .await?;
        let path = self.campaigns.path(id);
        self.upkeep.check()?;
        let removed = self.upkeep.run(move || std::fs::remove_file(path));
        let removed = std::pin::pin!(removed);
        match self.upkeep.within(removed).await {
            Ok(Ok(Err(error))) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(campaign = %id, %error, "cannot remove a campaign's file");
            }
            _ => {}
        }
        Ok(())
    }

    /// Writes the rows that could not be written before.
    async fn save_unsaved(&self) {
        for live in self.campaigns.take_unsaved() {
            if !live.is_saved()
                && let Err(error) = self.save(&live).await
            {
                tracing::debug!(campaign = %live.id(), %error, "an ending is still not written");
                self.campaigns.note_unsaved(live);
            }
        }
    }

    /// What is known of a campaign whose results are forgotten.
    async fn past(&self, id: CampaignId) -> Result<Option<Campaign>, StoreError> {
        self.readers.read(move |db| rows::one(db, id)).await
    }

    /// Has the hand-outs written that wait, unless the disk hangs: then they wait longer.
    fn write_hand_outs(&self) {
        if self.appends.jobs.check().is_err() {
            return;
        }
        for live in self.campaigns.take_noted() {
            if live.enqueue_hand_outs() {
                self.tasks.spawn(self.appends.clone().write_waiting(live));
            }
        }
    }

    /// Has the disk take what was written. Blocks.
    fn synchronise(campaigns: &Campaigns) {
        for live in campaigns.all() {
            if let Some(Err(error)) = live.file().map(|file| file.sync_data()) {
                tracing::warn!(campaign = %live.id(), %error, "cannot synchronise a campaign's file");
            }
        }
    }

    fn owned(&self) -> Option<Arc<Owned>> {
        let owned = self.owned.lock().unwrap_or_else(PoisonError::into_inner);
        owned.clone()
    }

    fn release_lock(&self) {
        let mut owned = self.owned.lock().unwrap_or_else(PoisonError::into_inner);
        owned.take();
    }

    fn check_open(&self) -> Result<(), StoreError> {
        if self.is_closed.load(Ordering::Relaxed) {
            return Err(closed());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
