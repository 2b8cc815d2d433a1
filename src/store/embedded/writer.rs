//! One thread that writes to SQLite: what is asked for at the same time shares one transaction.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::faults::{closed, io_fault};
use super::witness::{self, Witness};
use crate::sampled;
use crate::store::StoreError;

/// Tasks that wait to be written; more wait for a place.
const WAITING_MAX: usize = 1_024;
/// Tasks that share a transaction.
const GROUP_MAX: usize = 256;
/// Who finds no place for so long hears that the store is unavailable.
const PATIENCE: Duration = Duration::from_secs(1);

/// The handle of the thread. Tasks are run in the order in which they are sent.
#[derive(Debug)]
pub(super) struct Writer {
    tasks: Mutex<Option<mpsc::Sender<Box<dyn Task>>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Writer {
    /// Starts the thread. A witness hears of each group of writes before anybody is told that it is done.
    pub(super) fn start(db: Connection, witness: Option<Arc<Witness>>) -> Result<Self, StoreError> {
        let (sender, tasks) = mpsc::channel(WAITING_MAX);
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || serve(&db, witness.as_deref(), tasks))
            .map_err(|error| io_fault("the catalog's writer", &error))?;
        Ok(Self {
            tasks: Mutex::new(Some(sender)),
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Runs `work` in a transaction that others may share; if it fails, only what it did is undone.
    /// Answers after the commit. `done` runs on the writer's thread right after the commit, even if
    /// the caller is gone by then; it must not block.
    pub(super) async fn write<T, W, D>(&self, work: W, done: D) -> Result<T, StoreError>
    where
        T: Send + 'static,
        W: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
        D: FnOnce(&T) + Send + 'static,
    {
        let sender = lock(&self.tasks).clone().ok_or_else(closed)?;
        let (reply, answer) = oneshot::channel();
        let task: Box<dyn Task> = Box::new(Pending {
            work: Some(work),
            result: None,
            done,
            reply,
        });
        match tokio::time::timeout(PATIENCE, sender.send(task)).await {
            Ok(sent) => sent.map_err(|_| closed())?,
            Err(_) => {
                return Err(StoreError::Unavailable(
                    "too much waits to be written".into(),
                ));
            }
        }
        drop(sender);
        answer.await.map_err(|_| closed())?
    }

    /// Takes nothing more, and returns when everything is written.
    pub(super) async fn close(&self) {
        lock(&self.tasks).take();
        let thread = lock(&self.thread).take();
        let joined = tokio::task::spawn_blocking(|| thread.map(JoinHandle::join)).await;
        if !matches!(joined, Ok(None | Some(Ok(())))) {
            tracing::error!("the catalog's writer ended badly");
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

struct Pending<T, W, D> {
    work: Option<W>,
    result: Option<rusqlite::Result<T>>,
    done: D,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, W, D> Task for Pending<T, W, D>
where
    T: Send,
    W: FnOnce(&Connection) -> rusqlite::Result<T> + Send,
    D: FnOnce(&T) + Send,
{
    fn run(&mut self, db: &Connection) -> bool {
        self.result = self.work.take().map(|work| work(db));
        matches!(self.result, Some(Ok(_)))
    }

    fn finish(self: Box<Self>, committed: Result<(), StoreError>) {
        let result = match (self.result, committed) {
            (Some(Err(error)), _) => Err(error.into()),
            (_, Err(error)) => Err(error),
            (Some(Ok(value)), Ok(())) => {
                (self.done)(&value);
                Ok(value)
            }
            (None, Ok(())) => Err(closed()),
        };
        // Who asked may be gone.
        let _ = self.reply.send(result);
    }
}

fn serve(db: &Connection, witness: Option<&Witness>, mut tasks: mpsc::Receiver<Box<dyn Task>>) {
    let mut group = Vec::with_capacity(GROUP_MAX);
    while let Some(first) = tasks.blocking_recv() {
        group.push(first);
        while group.len() < GROUP_MAX
            && let Ok(next) = tasks.try_recv()
        {
            group.push(next);
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
        let committed = committed.map(|_| ());
        for task in group.drain(..) {
            task.finish(committed.clone());
        }
    }
    // So that a directory at rest is whole in its main file, whoever copies it.
    if let Err(error) = db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())) {
        tracing::warn!(%error, "the catalog's write-ahead log stays beside it");
    }
}

/// Gives the number of the write.
fn write_group(db: &Connection, group: &mut [Box<dyn Task>]) -> Result<u64, StoreError> {
    execute(db, "BEGIN IMMEDIATE")?;
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
        let read = writer.write(|db| db.query_row(sql, [], |row| row.get(0)), |_| ());
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
            writer.write(work, |_| ())
        };
        let (first, twice, other) = tokio::join!(insert(1, 2), insert(3, 1), insert(3, 4));
        assert!(first.is_ok() && twice.is_err() && other.is_ok());
        assert_eq!(count(&writer).await, 4);
        writer.close().await;
        let after = writer.write(|_| Ok(()), |_| ()).await;
        assert!(matches!(after, Err(StoreError::Unavailable(_))));
    }
}
