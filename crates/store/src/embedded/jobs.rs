//! Work that a disk may hold up: beside the event loop, bounded in number, and nobody waits for it without end.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use super::faults::closed;
use crate::StoreError;

/// A disk that has not done something for this long hangs: who waits for it is told so, and who comes later at once.
/// Cloud volumes pause for about a second now and then.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// Jobs of one sort.
#[derive(Clone, Debug)]
pub(super) struct Jobs(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    what: &'static str,
    patience: Duration,
    permits: Semaphore,
    /// Owns their threads.
    tasks: TaskTracker,
    running: Mutex<Running>,
}

#[derive(Debug, Default)]
struct Running {
    next: u64,
    /// The number of each, and when it began; a handful.
    since: Vec<(u64, Instant)>,
}

/// A job that runs.
struct Begun<'a>(&'a Inner, u64);

impl Jobs {
    /// At most so many at once, waited for with this patience. `what` names one of them.
    pub(super) fn new(
        what: &'static str,
        at_once: usize,
        patience: Duration,
        tasks: TaskTracker,
    ) -> Self {
        Self(Arc::new(Inner {
            what,
            patience,
            permits: Semaphore::new(at_once),
            tasks,
            running: Mutex::default(),
        }))
    }

    /// Does it on a thread that may block, and waits for as long as that takes. Once begun it is done even if nobody waits
    /// any more.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if it panics.
    pub(super) async fn run<T, W>(&self, work: W) -> Result<T, StoreError>
    where
        T: Send + 'static,
        W: FnOnce() -> T + Send + 'static,
    {
        let permit = self.0.permits.acquire().await.map_err(|_| closed())?;
        // Taken back by the job itself, which may outlive who waits.
        permit.forget();
        let inner = Arc::clone(&self.0);
        let job = self.0.tasks.spawn_blocking(move || {
            let _begun = inner.begin();
            work()
        });
        job.await
            .map_err(|_| StoreError::Unavailable("a write failed".into()))
    }

    /// As [`Jobs::run`], but waits only for a bounded time, and for nothing if the disk hangs already.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the disk does not answer; the job's own.
    pub(super) async fn try_run<T, W>(&self, work: W) -> Result<T, StoreError>
    where
        T: Send + 'static,
        W: FnOnce() -> Result<T, StoreError> + Send + 'static,
    {
        self.check()?;
        let job = std::pin::pin!(self.run(work));
        self.within(job).await??
    }

    /// Waits a bounded time for a job.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if it takes longer; whether it is done later is not known.
    pub(super) async fn within<F: Future>(
        &self,
        job: Pin<&mut F>,
    ) -> Result<F::Output, StoreError> {
        let waited = tokio::time::timeout(self.0.patience, job).await;
        waited.map_err(|_| self.hangs(self.0.patience))
    }

    /// Whether all jobs go on.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if one has been running for too long.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        let oldest = self.0.lock().since.iter().map(|(_, at)| at.elapsed()).max();
        match oldest {
            Some(age) if age >= self.0.patience => Err(self.hangs(age)),
            _ => Ok(()),
        }
    }

    fn hangs(&self, age: Duration) -> StoreError {
        hangs(self.0.what, age)
    }
}

/// The error of a disk that does not do `what` for so long.
pub(super) fn hangs(what: &str, age: Duration) -> StoreError {
    StoreError::Unavailable(format!(
        "the disk of the data directory does not answer: {what} has taken {} s so far",
        age.as_secs()
    ))
}

impl Inner {
    fn begin(&self) -> Begun<'_> {
        let mut running = self.lock();
        let number = running.next;
        running.next += 1;
        running.since.push((number, Instant::now()));
        Begun(self, number)
    }

    /// Nothing is left half changed, so a panic elsewhere does no harm.
    fn lock(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        self.0.lock().since.retain(|(number, _)| *number != self.1);
        self.0.permits.add_permits(1);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Long enough for what a test does at once, short enough to wait for.
    const SHORT: Duration = Duration::from_millis(100);

    #[tokio::test]
    async fn a_job_that_hangs_is_waited_for_once_and_what_follows_it_is_refused_at_once() {
        let jobs = Jobs::new("a write", 1, SHORT, TaskTracker::new());
        let (go_on, hangs) = mpsc::channel::<()>();
        let mut job = Box::pin(jobs.run(move || hangs.recv()));
        let told = jobs.within(job.as_mut()).await;
        assert!(matches!(told, Err(StoreError::Unavailable(_))));
        // There is no place for a second one, which waits as long.
        let next = jobs.run(|| 2);
        let mut next = std::pin::pin!(next);
        assert!(jobs.within(next.as_mut()).await.is_err());
        go_on.send(()).unwrap();
        job.await.unwrap().unwrap();
        assert_eq!(next.await.unwrap(), 2);
        jobs.check().unwrap();
        assert_eq!(jobs.try_run(|| Ok(3)).await.unwrap(), 3);
    }
}
