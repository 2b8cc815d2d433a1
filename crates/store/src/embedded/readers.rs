//! Connections that read from SQLite beside the writer.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, OpenFlags};

use super::faults::closed;
use super::jobs::Jobs;
use crate::StoreError;

/// The connections; made when needed, and kept.
#[derive(Clone, Debug)]
pub(super) struct Readers {
    jobs: Jobs,
    connections: Arc<Connections>,
}

#[derive(Debug)]
struct Connections {
    path: PathBuf,
    /// None once nothing is read any more.
    idle: Mutex<Option<Vec<Connection>>>,
}

impl Readers {
    pub(super) fn new(path: PathBuf, jobs: Jobs) -> Self {
        let idle = Mutex::new(Some(Vec::new()));
        let connections = Arc::new(Connections { path, idle });
        Self { jobs, connections }
    }

    /// Reads on a thread that may block, and waits for it for a bounded time.
    pub(super) async fn read<T, W>(&self, work: W) -> Result<T, StoreError>
    where
        T: Send + 'static,
        W: FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let connections = Arc::clone(&self.connections);
        self.jobs.try_run(move || connections.read(work)).await
    }

    /// Reads what takes as long as it takes.
    pub(super) async fn read_all<T, W>(&self, work: W) -> Result<T, StoreError>
    where
        T: Send + 'static,
        W: FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let connections = Arc::clone(&self.connections);
        let reading = tokio::task::spawn_blocking(move || connections.read(work));
        reading.await.map_err(|_| closed())?
    }

    /// Reads nothing more.
    pub(super) fn close(&self) {
        self.connections.idle().take();
    }
}

impl Connections {
    fn read<T>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let kept = self.idle().as_mut().ok_or_else(closed)?.pop();
        let mut db = match kept {
            Some(db) => db,
            None => connect(&self.path)?,
        };
        let result = work(&mut db)?;
        if let Some(idle) = &mut *self.idle() {
            idle.push(db);
        }
        Ok(result)
    }

    /// The list is never left half changed, so a panic elsewhere does no harm.
    fn idle(&self) -> std::sync::MutexGuard<'_, Option<Vec<Connection>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Not memory-mapped: that saves an eighth of a large load, and turns a read error into a SIGBUS.
fn connect(path: &PathBuf) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(path, flags)
}
