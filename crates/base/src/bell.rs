//! A wake-up that carries no data, from whoever changes something to the one driver that looks.

use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// Wakes a driver. Rings before the driver listens are remembered as one.
#[derive(Clone, Debug)]
pub struct Bell {
    belfry: Belfry,
    /// Its bit.
    which: u64,
    _hung: Option<Arc<Hung>>,
}

/// The bit of a bell that hangs alone.
const ALONE: u64 = 1 << 63;
/// Among the bits of what hangs in a belfry: nothing does, and nothing may any more.
const CLOSED: u64 = ALONE;

/// Where up to 63 bells hang that one driver listens to.
#[derive(Clone, Debug, Default)]
pub struct Belfry(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    rung: AtomicU64,
    hung: AtomicU64,
    /// Kept from ring to ring: to be registered anew for every result would cost more than all else here.
    driver: Mutex<Option<Waker>>,
}

/// A bell's place, given back with its last clone: until then no other bell is mistaken for it.
#[derive(Debug)]
struct Hung(Belfry, u64);

impl Default for Bell {
    /// A bell that hangs alone.
    fn default() -> Self {
        Self {
            belfry: Belfry::default(),
            which: ALONE,
            _hung: None,
        }
    }
}

impl Bell {
    /// Makes the driver ask again. Never waits for one; rings that come together wake once.
    pub fn ring(&self) {
        self.belfry.ring(self.which);
    }

    /// Completes when the bell has been rung since the last completion.
    pub async fn rung(&self) {
        poll_fn(|context| self.poll_rung(context)).await;
    }

    /// Ready if the bell has been rung since it last was; else the task of `context` is woken by
    /// the next ring. Only the task that asked last is.
    pub fn poll_rung(&self, context: &mut Context<'_>) -> Poll<()> {
        // First, so that a ring between the two is seen by one or the other.
        self.listen(context);
        if self.take() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// The task of `context` is woken by the rings to come, until another one listens.
    pub fn listen(&self, context: &mut Context<'_>) {
        self.belfry.listen(context);
    }

    /// Whether the bell has been rung since the last time. For the task that listens: rings are heard from then on.
    #[must_use]
    pub fn take(&self) -> bool {
        let rung = &self.belfry.0.rung;
        rung.fetch_and(!self.which, Ordering::AcqRel) & self.which != 0
    }

    /// Its number in its belfry: 0 to 62, and 63 if it hangs alone.
    #[must_use]
    pub const fn number(&self) -> u32 {
        self.which.trailing_zeros()
    }
}

/// A bell as a waker: whatever would wake its owner's task rings it.
impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
    }
}

impl Belfry {
    /// A bell at the first place that is free; `None` if there is none, or if the belfry is closed. The place is taken
    /// until the last clone is dropped. Whoever listens to one of several bells hears for all of them, so that only the
    /// belfry's driver may.
    #[must_use]
    pub fn hang(&self) -> Option<Bell> {
        let first_free = |hung: u64| (hung < CLOSED - 1).then(|| hung | (hung + 1));
        let hung = &self.0.hung;
        let before = hung
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, first_free)
            .ok()?;
        let which = !before & (before + 1);
        Some(Bell {
            belfry: self.clone(),
            which,
            _hung: Some(Arc::new(Hung(self.clone(), which))),
        })
    }

    /// How many bells hang here.
    #[must_use]
    pub fn bells(&self) -> u32 {
        (self.0.hung.load(Ordering::Acquire) & !CLOSED).count_ones()
    }

    /// Closes the belfry for good if no bell hangs here, and says whether it did. If one does, the driver is woken when
    /// the last has gone, to try again.
    #[must_use]
    pub fn close(&self) -> bool {
        let hung = &self.0.hung;
        hung.compare_exchange(0, CLOSED, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// The task of `context` is woken by the rings to come, until another one listens.
    pub fn listen(&self, context: &mut Context<'_>) {
        let mut driver = self.driver();
        match &mut *driver {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
    }

    /// The bells rung since the last time, each a bit by its number. For the task that listens: rings are heard from
    /// then on.
    #[must_use]
    pub fn take(&self) -> u64 {
        self.0.rung.swap(0, Ordering::AcqRel)
    }

    fn ring(&self, which: u64) {
        if self.0.rung.fetch_or(which, Ordering::AcqRel) == 0 {
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

    fn is(&self, other: &Belfry) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Drop for Hung {
    fn drop(&mut self) {
        let Self(belfry, which) = self;
        if belfry.0.hung.fetch_and(!*which, Ordering::AcqRel) == *which {
            belfry.wake();
        }
    }
}

/// The bells of all who wait for the same. Those of one belfry are rung at once.
#[derive(Debug, Default)]
pub struct Bells {
    /// Of a belfry with several places there is one entry at most.
    rung_together: Vec<(Belfry, u64)>,
    count: usize,
}

impl Bells {
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

    /// Adds a bell. One that hangs alone must not be among them yet.
    pub fn add(&mut self, bell: &Bell) {
        let mut entries = self.rung_together.iter_mut();
        let neighbours = if bell.which == ALONE {
            None
        } else {
            entries.find(|(belfry, _)| belfry.is(&bell.belfry))
        };
        match neighbours {
            Some((_, which)) if *which & bell.which != 0 => return,
            Some((_, which)) => *which |= bell.which,
            None => self.rung_together.push((bell.belfry.clone(), bell.which)),
        }
        self.count += 1;
    }

    /// Takes a bell away, if it is among them.
    pub fn remove(&mut self, bell: &Bell) {
        let mut entries = self.rung_together.iter();
        let among =
            |(belfry, which): &(Belfry, u64)| belfry.is(&bell.belfry) && which & bell.which != 0;
        let Some(at) = entries.position(among) else {
            return;
        };
        self.count -= 1;
        let (_, which) = &mut self.rung_together[at];
        *which &= !bell.which;
        if *which == 0 {
            self.rung_together.swap_remove(at);
        }
    }

    /// Rings all.
    pub fn ring(&self) {
        let _ = self.ring_some(usize::MAX, usize::MAX);
    }

    /// Rings at least `count`, if there are so many, and those that hang with them. To be called with `usize::MAX` first
    /// and then with what it says is `left`, in entries of its own, until that is 0. From the end to the front, because
    /// the place of one that leaves is taken by the last, which has been rung by then.
    #[must_use]
    pub fn ring_some(&self, left: usize, count: usize) -> usize {
        let mut left = left.min(self.rung_together.len());
        let mut rung = 0;
        while left > 0 && rung < count {
            left -= 1;
            let (belfry, which) = &self.rung_together[left];
            belfry.ring(*which);
            rung += which.count_ones() as usize;
        }
        left
    }
}

#[cfg(test)]
mod tests;
