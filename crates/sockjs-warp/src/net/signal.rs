//! A signal for every connection, which costs those who hear nothing next to nothing.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use tokio_util::sync::CancellationToken;

/// Given once, heard by all.
#[derive(Clone, Debug, Default)]
pub(super) struct Signal {
    /// Set before the token is cancelled: to ask the token takes two locks that all connections share.
    given: Arc<AtomicBool>,
    token: CancellationToken,
}

impl Signal {
    pub(super) fn give(&self) {
        self.given.store(true, Ordering::Release);
        self.token.cancel();
    }

    /// Completes once it is given. The future must always be polled by the same task, whose waker is registered once.
    pub(super) async fn given(&self) {
        let mut cancelled = pin!(self.token.cancelled());
        let mut listens = false;
        poll_fn(|cx| {
            if std::mem::replace(&mut listens, true) && !self.given.load(Ordering::Acquire) {
                return Poll::Pending;
            }
            cancelled.as_mut().poll(cx)
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_heard_before_and_after_listening() {
        let signal = Signal::default();
        let listening = tokio::spawn({
            let signal = signal.clone();
            async move { signal.given().await }
        });
        tokio::task::yield_now().await;
        assert!(!listening.is_finished());
        signal.give();
        listening.await.unwrap();
        signal.given().await;
    }
}
