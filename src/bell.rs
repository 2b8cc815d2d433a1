//! A wake-up that carries no data, from whoever changes something to the one driver that looks.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Wakes the driver of one session. Rings before the driver listens are remembered as one.
#[derive(Clone, Debug, Default)]
pub struct Bell(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    rung: AtomicBool,
    /// Kept from ring to ring: to be registered anew for every result would cost more than all else here.
    driver: Mutex<Option<Waker>>,
}

impl Bell {
    /// Makes the driver ask again. Never waits for one; rings that come together wake once.
    pub fn ring(&self) {
        if !self.0.rung.swap(true, Ordering::AcqRel)
            && let Some(driver) = &*self.driver()
        {
            driver.wake_by_ref();
        }
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
        let mut driver = self.driver();
        match &mut *driver {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
    }

    /// Whether the bell has been rung since the last time. For the task that listens: rings are heard from then on.
    #[must_use]
    pub fn take(&self) -> bool {
        self.0.rung.swap(false, Ordering::AcqRel)
    }

    fn driver(&self) -> MutexGuard<'_, Option<Waker>> {
        self.0.driver.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether both are the same bell.
    #[must_use]
    pub fn is(&self, other: &Bell) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio_util::task::TaskTracker;

    use super::*;

    #[tokio::test]
    async fn rings_before_anyone_listens_count_as_one() {
        let bell = Bell::default();
        bell.ring();
        bell.clone().ring();
        bell.rung().await;
        assert_eq!(bell.rung().now_or_never(), None);
    }

    #[tokio::test]
    async fn a_ring_wakes_the_driver_that_waits() {
        let bell = Bell::default();
        let driver = TaskTracker::new().spawn({
            let bell = bell.clone();
            async move { bell.rung().await }
        });
        tokio::task::yield_now().await;
        bell.ring();
        driver.await.unwrap();
    }
}
