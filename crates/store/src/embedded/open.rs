//! Opening a data directory: its lock, its catalog, and the campaigns that were in it.

use std::fs::{DirBuilder, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite_migration::MigrationDefinitionError;

use super::campaigns::{Campaigns, campaign_of};
use super::faults::io_fault;
use super::live::Logs;
use super::owned::Owned;
use super::witness::{self, Testimony, Witness};
use super::writer::Writer;
use super::{CAMPAIGNS, CATALOG, Fsync, SET_ASIDE, Settings, catalog, rows};
use crate::StoreError;
use crate::clock::Timestamp;
use crate::names;

/// The write-ahead log's file is cut to this size after a checkpoint.
const WAL_BYTES_KEPT: i64 = 64 << 20;
/// SQLite's page cache of the writer, in KiB (negative is what SQLite takes for KiB).
const CACHE_KIB: i64 = -32 * 1024;

/// Another program that holds the catalog's lock is waited for so long, less than for a disk.
const LOCKED_FOR: Duration = Duration::from_secs(2);

/// What a directory holds, opened.
pub(super) struct Opened {
    pub(super) owned: Arc<Owned>,
    pub(super) writer: Writer,
    pub(super) witness: Arc<Witness>,
    /// The catalog's file.
    pub(super) catalog: PathBuf,
    pub(super) campaigns: Arc<Campaigns>,
}

/// Opens or makes everything in the directory. Blocks.
pub(super) fn open(settings: &Settings, now: Timestamp) -> Result<Opened, StoreError> {
    let files = settings.dir.join(CAMPAIGNS);
    make_directory(&files)?;
    let mut owned = Owned::lock(&settings.dir)?;
    let path = settings.dir.join(CATALOG);
    let db = connect(&path, settings.fsync)?;
    let opened = owned.catalog_is_open();
    opened.map_err(|error| io_fault("the catalog's file", &error))?;
    let witness = hear(settings, &files, &db, now)?;
    let logs = Logs {
        encode: settings.encode,
        bytes_max: settings.log_bytes_max,
    };
    let campaigns = Campaigns::new(files, settings.rules, logs);
    let aside = settings.dir.join(SET_ASIDE);
    for kept in rows::kept(&db)? {
        let id = kept.campaign.id;
        if let Some(mended) = campaigns.restore(kept, &aside, now)? {
            if mended.is_incomplete {
                metrics::counter!(names::CAMPAIGNS_DAMAGED).increment(1);
            }
            rows::mended(&db, id, mended)?;
        }
    }
    campaigns
        .set_orphans_aside(&aside, |id| rows::is_forgotten(&db, id))
        .map_err(|error| io_fault("the campaigns' files", &error))?;
    witness.begin(&db)?;
    let witness = Arc::new(witness);
    Ok(Opened {
        owned: Arc::new(owned),
        writer: Writer::start(db, Some(Arc::clone(&witness)))?,
        witness,
        catalog: path,
        campaigns: Arc::new(campaigns),
    })
}

/// Asks the witness whether the catalog is all that was acknowledged, and sees to it that no number is given twice if not.
fn hear(
    settings: &Settings,
    files: &Path,
    db: &Connection,
    now: Timestamp,
) -> Result<Witness, StoreError> {
    let highest =
        highest_campaign(files).map_err(|error| io_fault("the campaigns' files", &error))?;
    let (witness, testimony) = Witness::hear(&settings.dir, db, highest.is_some())?;
    if !witness.was_clean() {
        quick_check(&settings.dir, db)?;
    }
    let dir = settings.dir.display();
    let told = match testimony {
        Testimony::First | Testimony::Whole | Testimony::AfterPowerCut => {
            witness::number_anew(db, testimony, 0, now)?;
            return Ok(witness);
        }
        Testimony::Copied => {
            tracing::warn!(
                "{dir} is a copy, perhaps of an earlier time: new campaigns, hosts and users get numbers that were never \
                 given, and viewers begin anew"
            );
            witness::number_anew(db, testimony, highest.unwrap_or(0), now)?;
            return Ok(witness);
        }
        Testimony::NoCatalog(count) => format!(
            "{dir} had a catalog of {count} writes, and now {CATALOG} is empty or gone: put it back with {CATALOG}-wal, \
             from where it was moved or from a backup"
        ),
        Testimony::Lost(count) | Testimony::LostByPowerCut(count) => {
            format!("the last {count} writes of the catalog in {dir} are missing")
        }
    };
    let is_promised = settings.fsync == Fsync::Always;
    match testimony {
        // That is what `--fsync never` means.
        Testimony::LostByPowerCut(_) if !is_promised => {
            tracing::error!(
                "{told}: the machine went down before they were on the disk (--fsync always waits for it)"
            );
        }
        _ if settings.accept_loss => tracing::error!("{told}: accepted (--accept-loss)"),
        Testimony::NoCatalog(_) => {
            return Err(StoreError::Damaged(format!(
                "{told}; or begin a new catalog with --accept-loss, which sets the campaigns' files aside"
            )));
        }
        _ => {
            return Err(StoreError::Damaged(format!(
                "{told}: put {CATALOG} and {CATALOG}-wal back from a backup, or go on without them with --accept-loss"
            )));
        }
    }
    witness::number_anew(db, testimony, highest.unwrap_or(0), now)?;
    Ok(witness)
}

/// After a stop that was none, a damaged page is found now and not when somebody needs it.
fn quick_check(dir: &Path, db: &Connection) -> Result<(), StoreError> {
    let said: String = db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if said == "ok" {
        return Ok(());
    }
    let dir = dir.display();
    Err(StoreError::Damaged(format!(
        "{CATALOG} in {dir}: {said}: put a backup back (answerback restore), or keep what can be read (answerback repair {dir})"
    )))
}

/// The highest number of a campaign that has a file.
fn highest_campaign(files: &Path) -> std::io::Result<Option<u64>> {
    let mut highest = None;
    for file in std::fs::read_dir(files)? {
        highest = highest.max(campaign_of(&file?.path()).map(|id| id.0));
    }
    Ok(highest)
}

/// Others on the machine have no business with tokens and results: what is made is the owner's alone.
pub(super) fn make_directory(path: &Path) -> Result<(), StoreError> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder
        .create(path)
        .map_err(|error| io_fault(&format!("the directory {}", path.display()), &error))
}

/// A later release has written what is here.
fn newer(path: &Path) -> StoreError {
    StoreError::Damaged(format!(
        "{} was written by a newer answerback: start that version, or a backup of before it",
        path.display()
    ))
}

pub(super) fn connect(path: &Path, fsync: Fsync) -> Result<Connection, StoreError> {
    // SQLite makes its file readable for all: it is made here, so that it is not.
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false);
    let made = options.mode(0o600).open(path);
    made.map_err(|error| io_fault("the catalog's file", &error))?;
    let mut db = Connection::open(path)?;
    db.busy_timeout(LOCKED_FOR)?;
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
        rusqlite_migration::Error::MigrationDefinition(
            MigrationDefinitionError::DatabaseTooFarAhead,
        ) => newer(path),
        other => StoreError::Damaged(format!("the catalog's tables: {other}")),
    })?;
    Ok(db)
}
