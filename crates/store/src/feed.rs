//! A campaign's log on this node, and the wake slots of those who read it.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::yield_now;

use crate::results::{CampaignId, Log, Read, Record, Seq};
use crate::sockjs::Form;
use crate::wake::{WakeSlot, WakeSlots};

/// So many readers, or a row of sessions that share a task, are woken for each worker before they get their turn. With
/// one worker 8 to 64 were all alike (CPU a delivery to 1,000 viewers), and with 256 the gain was gone.
const WOKEN_AT_ONCE: usize = 32;
/// Readers who are still to be woken wait so long for what is being written, the shortest that a timer knows.
const WRITTEN_WITHIN: Duration = Duration::from_millis(1);

/// The shared log of one campaign: a store appends, viewers read through cursors of their own.
#[derive(Debug)]
pub struct CampaignLog {
    id: CampaignId,
    log: Mutex<Log>,
    slots: Mutex<WakeSlots>,
    /// Set while somebody has undertaken to notify.
    notify_due: AtomicBool,
    /// Upper bound for the bytes kept in memory.
    bytes_max: usize,
    epoch: AtomicU64,
    /// One more than the position up to which the store has the same log; 0 while that is all of it.
    forked: AtomicU64,
    /// Writers who are about to append.
    writers: AtomicUsize,
    /// One of them has.
    written: Notify,
}

impl CampaignLog {
    /// A log that keeps at most about `bytes_max` bytes in memory.
    #[must_use]
    pub fn new(log: Log, id: CampaignId, bytes_max: usize) -> Self {
        Self {
            id,
            log: Mutex::new(log),
            slots: Mutex::default(),
            notify_due: AtomicBool::new(false),
            bytes_max,
            epoch: AtomicU64::new(0),
            forked: AtomicU64::new(0),
            writers: AtomicUsize::new(0),
            written: Notify::new(),
        }
    }

    /// Whose log it is.
    #[must_use]
    pub const fn id(&self) -> CampaignId {
        self.id
    }

    /// Adds records in their order; see [`Log::append`]. Rings nobody: call [`CampaignLog::notify`] when a batch is in.
    pub fn append(&self, records: &[Record]) -> bool {
        let mut log = lock(&self.log);
        let added = log.append(records);
        self.bound(&mut log);
        added
    }

    /// Wakes everybody who reads.
    pub fn notify(&self) {
        // Cleared first: what is appended from here on asks for another wake-up.
        self.notify_due.store(false, Ordering::SeqCst);
        lock(&self.slots).notify();
    }

    /// Wakes everybody who reads, a few at a time. What a reader needs is then still in the processor's cache when its
    /// turn comes, and more answers come in between, so that readers of a busy log get more at once.
    pub async fn notify_in_turns(&self) {
        self.notify_due.store(false, Ordering::SeqCst);
        let count = WOKEN_AT_ONCE * Handle::current().metrics().num_workers();
        let notify_some = |left| lock(&self.slots).notify_some(left, count);
        let mut left = notify_some(usize::MAX);
        let mut writers_are_quick = true;
        while left > 0 {
            yield_now().await;
            if writers_are_quick {
                writers_are_quick = self.let_writers_in().await;
            }
            left = notify_some(left);
        }
    }

    /// A writer whose thread waits for a processor would have to wait until all readers are served, and each of them would
    /// be served twice. False if one took too long: its disk is slow, and readers do not wait for it again.
    async fn let_writers_in(&self) -> bool {
        let mut written = std::pin::pin!(self.written.notified());
        written.as_mut().enable();
        self.writers.load(Ordering::SeqCst) == 0
            || tokio::time::timeout(WRITTEN_WITHIN, written).await.is_ok()
    }

    /// For stores that write on other threads: somebody is about to append.
    pub fn begin_writing(&self) {
        self.writers.fetch_add(1, Ordering::SeqCst);
    }

    /// Some of it is appended.
    pub fn has_written(&self) {
        self.written.notify_waiters();
    }

    /// All of it is.
    pub fn end_writing(&self) {
        self.writers.fetch_sub(1, Ordering::SeqCst);
        self.has_written();
    }

    /// For a store that has another notify the wake slots: true if nobody has undertaken to since the last
    /// [`CampaignLog::notify`], so that the caller has to. A burst then wakes each reader once.
    #[must_use]
    pub fn begin_notifying(&self) -> bool {
        !self.notify_due.swap(true, Ordering::SeqCst)
    }

    /// How many wake slots there are.
    #[must_use]
    pub fn listeners(&self) -> usize {
        lock(&self.slots).len()
    }

    /// Bytes kept in memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        lock(&self.log).bytes()
    }

    /// Frees memory until at most about `bytes_max` are kept.
    pub fn shrink(&self, bytes_max: usize) {
        lock(&self.log).evict(bytes_max);
    }

    /// What follows a cursor; see [`Log::read`].
    pub fn read(&self, after: Seq, form: Form, budget: usize) -> Read {
        let mut log = lock(&self.log);
        let read = log.read(after, form, budget);
        self.bound(&mut log);
        read
    }

    /// The position of the last answer.
    #[must_use]
    pub fn last(&self) -> Seq {
        lock(&self.log).last()
    }

    /// The campaign's epoch in which this log's positions are valid. A position of another epoch says nothing here.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// For stores: the positions are valid in this epoch.
    pub fn set_epoch(&self, epoch: u64) {
        self.epoch.store(epoch, Ordering::Release);
    }

    /// For stores: the store has lost answers that this log has. From here on the log goes on by host, and what is
    /// evicted beyond `same` can not be read back from the store.
    pub fn fork(&self, same: Seq) {
        let forked = same.0.saturating_add(1);
        // Of several forks the earliest bounds what can be read back.
        let earliest = |before| match before {
            0 => Some(forked),
            before => Some(forked.min(before)),
        };
        let _ = self
            .forked
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, earliest);
    }

    /// The last position at which the store still has the same answers, if it lost some that are here: beyond it
    /// [`Read::Evicted`] means that the answers are gone.
    #[must_use]
    pub fn forked_after(&self) -> Option<Seq> {
        let forked = self.forked.load(Ordering::Acquire);
        forked.checked_sub(1).map(Seq)
    }

    /// Puts back what was evicted and wakes everybody who reads.
    pub fn restore(&self, records: &[Record]) {
        let mut log = lock(&self.log);
        log.restore(records);
        self.bound(&mut log);
        drop(log);
        self.notify();
    }

    /// Evicts an eighth more than must be, so that not every message evicts.
    fn bound(&self, log: &mut Log) {
        if log.bytes() > self.bytes_max {
            log.evict(self.bytes_max - self.bytes_max / 8);
        }
    }

    /// From now on this wake slot notifies when there is more to read.
    pub fn subscribe(&self, wake_slot: &WakeSlot) {
        lock(&self.slots).add(wake_slot);
    }

    /// This wake slot is not notified any more.
    pub fn unsubscribe(&self, wake_slot: &WakeSlot) {
        lock(&self.slots).remove(wake_slot);
    }
}

/// A poisoned lock means a panic elsewhere while nothing was half done: the data are whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
/// Keeps logs in memory below this many bytes together, each losing its share.
pub(super) fn shrink_all(logs: &[Arc<CampaignLog>], bytes_max: usize) {
    let total: usize = logs.iter().map(|log| log.bytes()).sum();
    if total <= bytes_max {
        return;
    }
    for log in logs {
        let share = log.bytes() as u128 * bytes_max as u128 / total as u128;
        log.shrink(usize::try_from(share).unwrap_or(usize::MAX));
    }
}
