//! A campaign that viewers of this node watch: one log, one count of hosts, one claim for all of them.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use roaring::RoaringBitmap;

use crate::auth::Actor;
use crate::catalog::Catalog;
use crate::clock::Timestamp;
use crate::results::{Campaign, CampaignId, Ended, Seq, TeamId, Tick, Totals, UserId};
use crate::sampled;
use crate::store::{CampaignLog, Store, StoreError};

/// Bytes of bodies read back from the store at once when a viewer needs what memory no longer has: some blocks of the
/// log, because whoever needs one will need the next.
const RECALL_BYTES: usize = 512 * 1024;

/// Targets that were deleted.
#[derive(Debug, Default)]
struct Departed {
    /// All of them.
    gone: RoaringBitmap,
    /// Those that had not answered, and are no targets any more.
    unanswered: RoaringBitmap,
}

/// What all viewers of one campaign on this node share.
#[derive(Debug)]
pub(super) struct CampaignWatch {
    pub(super) log: Arc<CampaignLog>,
    targets: Arc<RoaringBitmap>,
    /// Whether results are known to be missing.
    pub(super) is_incomplete: bool,
    departed: Mutex<Departed>,
    /// Who asked, and the teams of the hosts that were asked: who may watch is decided by both.
    maker: UserId,
    teams: Box<[Option<TeamId>]>,
    /// The log's epoch when the first viewer came.
    epoch: u64,
    tick: Mutex<Tick>,
    /// Its number, for viewers to see whether it is new to them.
    tick_number: AtomicU64,
    pub(super) viewers: AtomicUsize,
    /// Held while the claim is made or given back, so that the two never cross.
    pub(super) claiming: tokio::sync::Mutex<()>,
    recalling: AtomicBool,
    /// The last position that the store was asked for in vain: it and those before it that memory has dropped are gone.
    gone: AtomicU64,
    /// Whether viewers have been told that the store does not answer.
    pub(super) troubled: AtomicBool,
}

impl CampaignWatch {
    pub(super) fn new(
        campaign: &Campaign,
        log: Arc<CampaignLog>,
        epoch: u64,
        ended: Option<Ended>,
        (catalog, now): (&Catalog, Timestamp),
    ) -> Self {
        let watch = Self {
            log,
            epoch,
            targets: Arc::clone(&campaign.question.targets),
            is_incomplete: campaign.is_incomplete,
            departed: Mutex::default(),
            maker: campaign.question.user_id,
            teams: campaign.question.teams.as_slice().into(),
            tick: Mutex::default(),
            tick_number: AtomicU64::new(0),
            viewers: AtomicUsize::new(0),
            claiming: tokio::sync::Mutex::default(),
            recalling: AtomicBool::new(false),
            gone: AtomicU64::new(0),
            troubled: AtomicBool::new(false),
        };
        watch.look(catalog, ended, now);
        watch
    }

    pub(super) fn id(&self) -> CampaignId {
        self.log.id()
    }

    /// Its place among the node's watches.
    pub(super) fn key(&self) -> (CampaignId, u64) {
        (self.id(), self.epoch)
    }

    pub(super) fn is_watched(&self) -> bool {
        self.viewers.load(Ordering::Acquire) > 0
    }

    pub(super) fn tick(&self) -> Tick {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Tick> {
        lock(&self.tick)
    }

    /// Whether viewers have been told that the campaign is over.
    pub(super) fn has_ended(&self) -> bool {
        self.lock().ended.is_some()
    }

    /// Whether somebody may go on watching.
    pub(super) fn allows(&self, actor: &Actor) -> bool {
        actor.may_read(self.maker, &self.teams)
    }

    /// Has every viewer look at the tick again when it gets its turn, though nothing has been counted.
    pub(super) fn renumber(&self) {
        let mut tick = self.lock();
        tick.number += 1;
        self.tick_number.store(tick.number, Ordering::Release);
    }

    pub(super) fn tick_number(&self) -> u64 {
        self.tick_number.load(Ordering::Acquire)
    }

    /// Counts the hosts anew and wakes the viewers; each tells its client what has changed.
    pub(super) fn look(&self, catalog: &Catalog, ended: Option<Ended>, now: Timestamp) {
        let counts = {
            let departed = lock(&self.departed);
            if departed.unanswered.is_empty() {
                catalog.presence().count(&self.targets, now)
            } else {
                let asked = &*self.targets - &departed.unanswered;
                catalog.presence().count(&asked, now)
            }
        };
        let totals = Totals {
            count: counts.total,
            online: counts.online,
            offline: counts.offline,
            missing_in_action: counts.missing_in_action,
            epoch: self.log.epoch(),
        };
        let mut tick = self.lock();
        *tick = Tick {
            number: tick.number + 1,
            totals,
            ended: tick.ended.take().or_else(|| ended.map(Arc::new)),
        };
        self.tick_number.store(tick.number, Ordering::Release);
        drop(tick);
        self.log.notify();
    }

    /// Finds out which targets were deleted; true if that is news. [`CampaignWatch::look`] counts without them from then on.
    pub(super) async fn miss(&self, catalog: &Catalog) -> Result<bool, StoreError> {
        let gone = catalog.gone(&self.targets, &self.teams);
        if lock(&self.departed).gone == gone {
            return Ok(false);
        }
        let unanswered = catalog
            .departed(self.id(), &self.targets, &self.teams)
            .await?;
        let gone = catalog.gone(&self.targets, &self.teams);
        *lock(&self.departed) = Departed { gone, unanswered };
        Ok(true)
    }

    /// Whether what memory has dropped from this position on can not be read back: the store has forgotten it, or lost
    /// it in a failover and has other answers at these positions.
    pub(super) fn is_gone(&self, first: Seq) -> bool {
        let forked = self.log.forked_after();
        forked.is_some_and(|same| first > same) || first.0 <= self.gone.load(Ordering::Acquire)
    }

    /// Reads a part of the log back from the store. Viewers who wait for other parts ask again when they are notified.
    pub(super) async fn recall(&self, store: &dyn Store, first: Seq, last: Seq) {
        if self.recalling.swap(true, Ordering::AcqRel) {
            return;
        }
        let read = store.read(self.id(), Seq(first.0 - 1), RECALL_BYTES).await;
        self.recalling.store(false, Ordering::Release);
        match read {
            Ok(mut records) => {
                if let Some(same) = self.log.forked_after() {
                    records.retain(|record| record.seq <= same);
                }
                if records.is_empty() {
                    self.gone.fetch_max(last.0, Ordering::AcqRel);
                }
                self.log.restore(&records);
            }
            Err(error @ StoreError::Damaged(_)) => {
                // Asking again is of no use. Whoever waits is told when it looks again.
                sampled!(error, campaign = %self.id(), first = first.0, %error, "results are damaged");
                self.gone.fetch_max(last.0, Ordering::AcqRel);
                self.log.restore(&[]);
            }
            Err(error) => {
                sampled!(warn, campaign = %self.id(), first = first.0, %error, "results could not be read back");
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
