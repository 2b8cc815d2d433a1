//! A wake-up that carries no data, from whoever changes something to the one driver that looks.

use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// Wakes a driver. What comes before the driver listens is remembered as one.
#[derive(Clone, Debug)]
pub struct WakeSlot {
    group: WakeGroup,
    /// Its bit.
    which: u64,
    _registration: Option<Arc<Registration>>,
}

/// The bit of a wake slot of no group.
const ALONE: u64 = 1 << 63;
/// Among the bits of what is registered in a wake group: nothing does, and nothing may any more.
const CLOSED: u64 = ALONE;

/// Up to 63 wake slots that one driver listens to.
#[derive(Clone, Debug, Default)]
pub struct WakeGroup(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    notified: AtomicU64,
    registered: AtomicU64,
    /// Kept from wake-up to wake-up: to be registered anew for every result would cost more than all else here.
    driver: Mutex<Option<Waker>>,
}

/// A wake slot's place, given back with its last clone: until then no other wake slot is mistaken for it.
#[derive(Debug)]
struct Registration(WakeGroup, u64);

impl Default for WakeSlot {
    /// A wake slot of no group.
    fn default() -> Self {
        Self {
            group: WakeGroup::default(),
            which: ALONE,
            _registration: None,
        }
    }
}

impl WakeSlot {
    /// Makes the driver ask again. Never waits for one; notifications that come together wake once.
    pub fn notify(&self) {
        self.group.notify(self.which);
    }

    /// Completes when the wake slot has been notified since the last completion.
    pub async fn notified(&self) {
        poll_fn(|context| self.poll_notified(context)).await;
    }

    /// Ready if the wake slot has been notified since it last was; else the task of `context` is woken by
    /// the next wake-up. Only the task that asked last is.
    pub fn poll_notified(&self, context: &mut Context<'_>) -> Poll<()> {
        // First, so that a wake-up between the two is seen by one or the other.
        self.listen(context);
        if self.take() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// The task of `context` is woken by the notifies to come, until another one listens.
    pub fn listen(&self, context: &mut Context<'_>) {
        self.group.listen(context);
    }

    /// Whether the wake slot has been notified since the last time. For the task that listens: notifies are heard from then on.
    #[must_use]
    pub fn take(&self) -> bool {
        let notified = &self.group.0.notified;
        notified.fetch_and(!self.which, Ordering::AcqRel) & self.which != 0
    }

    /// Its number in its wake group: 0 to 62, and 63 if it hangs alone.
    #[must_use]
    pub const fn number(&self) -> u32 {
        self.which.trailing_zeros()
    }
}

/// A wake slot as a waker: whatever would wake its owner's task notifies it.
impl Wake for WakeSlot {
    fn wake(self: Arc<Self>) {
        self.notify();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.notify();
    }
}

impl WakeGroup {
    /// A wake slot at the first place that is free; `None` if there is none, or if the wake group is closed. The place is taken
    /// until the last clone is dropped. Whoever listens to one of several wake slots hears for all of them, so that only the
    /// wake group's driver may.
    #[must_use]
    pub fn register(&self) -> Option<WakeSlot> {
        let first_free =
            |registered: u64| (registered < CLOSED - 1).then(|| registered | (registered + 1));
        let registered = &self.0.registered;
        let before = registered
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, first_free)
            .ok()?;
        let which = !before & (before + 1);
        Some(WakeSlot {
            group: self.clone(),
            which,
            _registration: Some(Arc::new(Registration(self.clone(), which))),
        })
    }

    /// How many wake slots hang here.
    #[must_use]
    pub fn wake_slots(&self) -> u32 {
        (self.0.registered.load(Ordering::Acquire) & !CLOSED).count_ones()
    }

    /// Closes the wake group for good if no wake slot hangs here, and says whether it did. If one does, the driver is woken when
    /// the last has gone, to try again.
    #[must_use]
    pub fn close(&self) -> bool {
        let registered = &self.0.registered;
        registered
            .compare_exchange(0, CLOSED, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// The task of `context` is woken by the notifies to come, until another one listens.
    pub fn listen(&self, context: &mut Context<'_>) {
        let mut driver = self.driver();
        match &mut *driver {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
    }

    /// The wake slots notified since the last time, each a bit by its number. For the task that listens: notifies are heard from
    /// then on.
    #[must_use]
    pub fn take(&self) -> u64 {
        self.0.notified.swap(0, Ordering::AcqRel)
    }

    fn notify(&self, which: u64) {
        if self.0.notified.fetch_or(which, Ordering::AcqRel) == 0 {
            self.wake();
        }
    }

    fn wake(&self) {
        if let Some(driver) = &*self.driver() {
            driver.wake_by_ref();
        }
    }

    fn driver(&self) -> MutexGuard<'_, Option<Waker>> {
        self.0.driver.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is(&self, other: &WakeGroup) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let Self(group, which) = self;
        if group.0.registered.fetch_and(!*which, Ordering::AcqRel) == *which {
            group.wake();
        }
    }
}

/// The wake slots of all who wait for the same. Those of one wake group are notified at once.
#[derive(Debug, Default)]
pub struct WakeSlots {
    /// Of a wake group with several places there is one entry at most.
    rung_together: Vec<(WakeGroup, u64)>,
    count: usize,
}

impl WakeSlots {
    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds a wake slot. One of no group must not be among them yet.
    pub fn add(&mut self, wake_slot: &WakeSlot) {
        let mut entries = self.rung_together.iter_mut();
        let neighbours = if wake_slot.which == ALONE {
            None
        } else {
            entries.find(|(group, _)| group.is(&wake_slot.group))
        };
        match neighbours {
            Some((_, which)) if *which & wake_slot.which != 0 => return,
            Some((_, which)) => *which |= wake_slot.which,
            None => self
                .rung_together
                .push((wake_slot.group.clone(), wake_slot.which)),
        }
        self.count += 1;
    }

    /// Takes a wake slot away, if it is among them.
    pub fn remove(&mut self, wake_slot: &WakeSlot) {
        let mut entries = self.rung_together.iter();
        let among = |(group, which): &(WakeGroup, u64)| {
            group.is(&wake_slot.group) && which & wake_slot.which != 0
        };
        let Some(at) = entries.position(among) else {
            return;
        };
        self.count -= 1;
        let (_, which) = &mut self.rung_together[at];
        *which &= !wake_slot.which;
        if *which == 0 {
            self.rung_together.swap_remove(at);
        }
    }

    /// Rings all.
    pub fn notify(&self) {
        let _ = self.notify_some(usize::MAX, usize::MAX);
    }

    /// Rings at least `count`, if there are so many, and those that hang with them. To be called with `usize::MAX` first
    /// and then with what it says is `left`, in entries of its own, until that is 0. From the end to the front, because
    /// the place of one that leaves is taken by the last, which has been notified by then.
    #[must_use]
    pub fn notify_some(&self, left: usize, count: usize) -> usize {
        let mut left = left.min(self.rung_together.len());
        let mut notified = 0;
        while left > 0 && notified < count {
            left -= 1;
            let (group, which) = &self.rung_together[left];
            group.notify(*which);
            notified += which.count_ones() as usize;
        }
        left
    }
}

#[cfg(test)]
mod tests;
