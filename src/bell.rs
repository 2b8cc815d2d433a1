//! A wake-up that carries no data, from whoever changes something to the one driver that looks.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;

/// Wakes the driver of one session. Rings before the driver listens are remembered as one.
#[derive(Clone, Debug, Default)]
pub struct Bell(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    rung: AtomicBool,
    driver: AtomicWaker,
}

impl Bell {
    /// Makes the driver ask again. Never blocks; rings that come together wake once.
    pub fn ring(&self) {
        self.0.rung.store(true, Ordering::Release);
        self.0.driver.wake();
    }

    /// Completes when the bell has been rung since the last completion.
    pub async fn rung(&self) {
        poll_fn(|context| self.poll_rung(context)).await;
    }

    /// Ready if the bell has been rung since it last was; else the task of `context` is woken by
    /// the next ring. Only the task that asked last is.
    pub fn poll_rung(&self, context: &mut Context<'_>) -> Poll<()> {
        // Registered first: a ring between the two is then seen by one or the other.
        self.0.driver.register(context.waker());
        if self.0.rung.swap(false, Ordering::AcqRel) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
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
