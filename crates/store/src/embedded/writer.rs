//! One thread that writes to SQLite: what is asked for at the same time shares one transaction.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::faults::{closed, io_fault};
use super::jobs::{PATIENCE, hangs};
use super::pulse::Pulse;
use super::witness::{self, Witness};
use crate::StoreError;
use crate::sampled;

/// Tasks that wait to be written; more wait for a place.
const WAITING_MAX: usize = 1_024;
/// Tasks that share a transaction.
const GROUP_MAX: usize = 256;
/// SQLite's steps between two signs of life.
const BEAT_EVERY: i32 = 10_000;
/// How often those who wait look whether the writer still goes on.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The handle of the thread. Tasks are run in the order in which they are sent.
#[derive(Debug)]
pub(super) struct Writer {
    tasks: Mutex<Option<mpsc::Sender<Box<dyn Task>>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    pulse: Arc<Pulse>,
}

impl Writer {
    /// Starts the thread. A witness hears of each group of writes before anybody is told that it is done.
    pub(super) fn start(db: Connection, witness: Option<Arc<Witness>>) -> Result<Self, StoreError> {
        let (sender, tasks) = mpsc::channel(WAITING_MAX);
        let pulse = Arc::new(Pulse::default());
        let beats = Arc::clone(&pulse);
        // A long statement is no disk that hangs.
        db.progress_handler(BEAT_EVERY, Some(move || beats.beat()))?;
        let felt = Arc::clone(&pulse);
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || serve(&db, witness.as_deref(), &felt, tasks))
            .map_err(|error| io_fault("the catalog's writer", &error))?;
        Ok(Self {
            tasks: Mutex::new(Some(sender)),
            thread: Mutex::new(Some(thread)),
            pulse,
        })
    }

    /// Runs `work` in a transaction that others may share; if it fails, only what it did is undone.
    /// Answers after the commit. `done` makes of it what the caller gets. It runs on the writer's
    /// thread right after the commit, even if the caller is gone by then; it must not block.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the disk does not answer: what has begun by then may still be done, the rest is not.
    /// The store's own.
    pub(super) async fn write<T, U, W, D>(&self, work: W, done: D) -> Result<U, StoreError>
    where
        T: Send + 'static,
        U: Send + 'static,
        W: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
        D: FnOnce(T) -> U + Send + 'static,
    {
        self.check()?;
        let sender = lock(&self.tasks).clone().ok_or_else(closed)?;
        let (reply, answer) = oneshot::channel();
        let given_up = Arc::new(AtomicBool::new(false));
        let task: Box<dyn Task> = Box::new(Pending {
            work: Some(work),
            result: None,
            done,
            reply,
            given_up: Arc::clone(&given_up),
        });
        let sent = async { sender.send(task).await.map_err(|_| closed()) };
        self.while_it_goes_on(sent).await?;
        // The thread ends when there is none of these any more.
        drop(sender);
        let written = async { answer.await.map_err(|_| closed())? };
        let written = self.while_it_goes_on(written).await;
        if written.is_err() {
            given_up.store(true, Ordering::Relaxed);
        }
        written
    }

    /// Waits for as long as the writer gets on.
    async fn while_it_goes_on<T>(
        &self,
        waited: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let mut waited = std::pin::pin!(waited);
        loop {
            match tokio::time::timeout(LOOK_EVERY, waited.as_mut()).await {
                Ok(written) => return written,
                Err(_) => self.check()?,
            }
        }
    }

    /// Whether the writer gets on.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if it has not for a while.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        match self.pulse.missed() {
            Some(age) if age >= PATIENCE => Err(hangs("a commit", age)),
            _ => Ok(()),
        }
    }

    /// Takes nothing more, and returns when everything is written.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if it is not.
    pub(super) async fn close(&self) -> Result<(), StoreError> {
        lock(&self.tasks).take();
        let thread = lock(&self.thread).take();
        let joined = tokio::task::spawn_blocking(|| thread.map(JoinHandle::join));
        let joined = self.while_it_goes_on(async { joined.await.map_err(|_| closed()) });
        match joined.await? {
            None | Some(Ok(())) => Ok(()),
            Some(Err(_)) => Err(StoreError::Unavailable(
                "the catalog's writer ended badly".into(),
            )),
        }
    }
}

/// The data behind the locks are replaced whole, so a panic elsewhere leaves nothing half done.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Something to be written.
trait Task: Send {
    /// Does it; false if what it did is to be undone.
    fn run(&mut self, db: &Connection) -> bool;
    /// Tells how it went, with the transaction's fate.
    fn finish(self: Box<Self>, committed: Result<(), StoreError>);
}

struct Pending<T, U, W, D> {
    work: Option<W>,
    result: Option<rusqlite::Result<T>>,
    done: D,
    reply: oneshot::Sender<Result<U, StoreError>>,
    /// Whether whoever asked has been told that it is not known to be done.
    given_up: Arc<AtomicBool>,
}

impl<T, U, W, D> Task for Pending<T, U, W, D>
where
    T: Send,
    U: Send,
    W: FnOnce(&Connection) -> rusqlite::Result<T> + Send,
    D: FnOnce(T) -> U + Send,
{
    fn run(&mut self, db: &Connection) -> bool {
        let wanted = |_: &W| !self.given_up.load(Ordering::Relaxed);
        self.result = self.work.take().filter(wanted).map(|work| work(db));
        matches!(self.result, Some(Ok(_)))
    }

    fn finish(self: Box<Self>, committed: Result<(), StoreError>) {
        let result = match (self.result, committed) {
            (Some(Err(error)), _) => Err(error.into()),
            (_, Err(error)) => Err(error),
            (Some(Ok(value)), Ok(())) => Ok((self.done)(value)),
            (None, Ok(())) => Err(closed()),
        };
        // Who asked may be gone.
        let _ = self.reply.send(result);
    }
}

fn serve(
    db: &Connection,
    witness: Option<&Witness>,
    pulse: &Pulse,
    mut tasks: mpsc::Receiver<Box<dyn Task>>,
) {
    let mut group = Vec::with_capacity(GROUP_MAX);
    while let Some(first) = tasks.blocking_recv() {
        group.push(first);
        while group.len() < GROUP_MAX
            && let Ok(next) = tasks.try_recv()
        {
            group.push(next);
        }
        let working = pulse.begin();
        if let Err(error) = execute(db, "BEGIN IMMEDIATE") {
            // Another program holds the catalog locked: nobody waits for that once more behind those who have.
            while let Ok(next) = tasks.try_recv() {
                group.push(next);
            }
            for task in group.drain(..) {
                task.finish(Err(error.clone()));
            }
            continue;
        }
        // A panic must not leave everybody who writes without an answer.
        let committed = catch_unwind(AssertUnwindSafe(|| write_group(db, &mut group)));
        let committed = committed.unwrap_or_else(|_| {
            Err(StoreError::Unavailable(
                "the catalog's writer failed".into(),
            ))
        });
        if committed.is_err() && !db.is_autocommit() {
            let _ = db.execute_batch("ROLLBACK");
        }
        if let (Ok(count), Some(witness)) = (&committed, witness)
            && let Err(error) = witness.note(*count)
        {
            sampled!(warn, %error, "the catalog's witness cannot be written");
        }
        drop(working);
        let committed = committed.map(|_| ());
        for task in group.drain(..) {
            task.finish(committed.clone());
        }
    }
    let _working = pulse.begin();
    // So that a directory at rest is whole in its main file, whoever copies it.
    if let Err(error) = db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())) {
        tracing::warn!(%error, "the catalog's write-ahead log stays beside it");
    }
}

/// Does them in the transaction that is open, and commits it. Gives the number of the write.
fn write_group(db: &Connection, group: &mut [Box<dyn Task>]) -> Result<u64, StoreError> {
    for task in group {
        execute(db, "SAVEPOINT task")?;
        if !task.run(db) {
            // A full disk makes SQLite undo the whole transaction by itself.
            if db.is_autocommit() {
                let told = "the transaction was undone by another's failure";
                return Err(StoreError::Unavailable(told.into()));
            }
            execute(db, "ROLLBACK TO task")?;
        }
        execute(db, "RELEASE task")?;
    }
    let count = witness::count(db)?;
    execute(db, "COMMIT")?;
    Ok(count)
}

fn execute(db: &Connection, sql: &str) -> Result<(), StoreError> {
    db.prepare_cached(sql)?.execute([])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn count(writer: &Writer) -> i64 {
        let sql = "SELECT count(*) FROM t";
        let read = writer.write(|db| db.query_row(sql, [], |row| row.get(0)), |count| count);
        read.await.unwrap()
    }

    #[tokio::test]
    async fn one_failure_in_a_group_undoes_only_itself() {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch("CREATE TABLE t (n INTEGER PRIMARY KEY)")
            .unwrap();
        db.execute_batch("CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER)")
            .unwrap();
        let writer = Writer::start(db, None).unwrap();
        let insert = |first: i64, then: i64| {
            let work = move |db: &Connection| {
                db.execute("INSERT INTO t VALUES (?1)", [first])?;
                db.execute("INSERT INTO t VALUES (?1)", [then])
            };
            writer.write(work, |count| count)
        };
        let (first, twice, other) = tokio::join!(insert(1, 2), insert(3, 1), insert(3, 4));
        assert!(first.is_ok() && twice.is_err() && other.is_ok());
        assert_eq!(count(&writer).await, 4);
        writer.close().await.unwrap();
        let after = writer.write(|_| Ok(()), |_| ()).await;
        assert!(matches!(after, Err(StoreError::Unavailable(_))));
    }
}
