//! Opening a data directory: its lock, its catalog, and the campaigns that were in it.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use rusqlite::Connection;

use super::campaigns::Campaigns;
use super::faults::io_fault;
use super::live::Logs;
use super::readers::Readers;
use super::writer::Writer;
use super::{CAMPAIGNS, CATALOG, Fsync, LOCK, Settings, catalog, rows};
use crate::clock::Timestamp;
use crate::store::StoreError;

/// The write-ahead log's file is cut to this size after a checkpoint.
const WAL_BYTES_KEPT: i64 = 64 << 20;
/// SQLite's page cache of the writer, in KiB (negative is what SQLite takes for KiB).
const CACHE_KIB: i64 = -32 * 1024;

/// What a directory holds, opened.
pub(super) struct Opened {
    pub(super) lock: File,
    pub(super) writer: Writer,
    pub(super) readers: Readers,
    pub(super) campaigns: Arc<Campaigns>,
}

/// Opens or makes everything in the directory. Blocks.
pub(super) fn open(settings: &Settings, now: Timestamp) -> Result<Opened, StoreError> {
    let files = settings.dir.join(CAMPAIGNS);
    make_directory(&files)?;
    let lock = lock(&settings.dir.join(LOCK))?;
    let path = settings.dir.join(CATALOG);
    let db = connect(&path, settings.fsync)?;
    let logs = Logs {
        encode: settings.encode,
        bytes_max: settings.log_bytes_max,
    };
    let campaigns = Campaigns::new(files, settings.rules, logs);
    for kept in rows::kept(&db)? {
        campaigns.restore(kept, now)?;
    }
    campaigns
        .remove_orphans()
        .map_err(|error| io_fault("the campaigns' files", &error))?;
    Ok(Opened {
        lock,
        writer: Writer::start(db)?,
        readers: Readers::new(path),
        campaigns: Arc::new(campaigns),
    })
}

/// Others on the machine have no business with tokens and results: what is made is the owner's alone.
fn make_directory(path: &Path) -> Result<(), StoreError> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder
        .create(path)
        .map_err(|error| io_fault(&format!("the directory {}", path.display()), &error))
}

fn lock(path: &Path) -> Result<File, StoreError> {
    let told = format!("the lock {}", path.display());
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let file = options.mode(0o600).open(path);
    let file = file.map_err(|error| io_fault(&told, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::Unavailable(format!(
            "{told} is held: another process has this data directory open"
        ))),
        Err(TryLockError::Error(error)) => Err(io_fault(&told, &error)),
    }
}

fn connect(path: &Path, fsync: Fsync) -> Result<Connection, StoreError> {
    // SQLite makes its file readable for all: it is made here, so that it is not.
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false);
    let made = options.mode(0o600).open(path);
    made.map_err(|error| io_fault("the catalog's file", &error))?;
    let mut db = Connection::open(path)?;
    db.set_prepared_statement_cache_capacity(64);
    db.pragma_update(None, "journal_mode", "WAL")?;
    let synchronous = match fsync {
        Fsync::Never => "NORMAL",
        Fsync::Always => "FULL",
    };
    db.pragma_update(None, "synchronous", synchronous)?;
    db.pragma_update(None, "journal_size_limit", WAL_BYTES_KEPT)?;
    db.pragma_update(None, "cache_size", CACHE_KIB)?;
    catalog::migrate(&mut db).map_err(|error| match error {
        rusqlite_migration::Error::RusqliteError { err, .. } => err.into(),
        other => StoreError::Damaged(format!("the catalog's tables: {other}")),
    })?;
    Ok(db)
}
