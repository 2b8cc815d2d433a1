//! Backups of a data directory, made while a broker runs on it, and what puts one back.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::campaigns::campaign_of;
use super::faults::{int, io_fault, number};
use super::open::make_directory;
use super::scan::{self, Checked};
use super::witness;
use super::{CAMPAIGNS, CATALOG};
use crate::StoreError;
use crate::clock::Timestamp;
use crate::results::{CampaignId, Seq};

/// What a backup holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saved {
    /// The catalog's revision.
    pub revision: u64,
    /// Campaigns whose results are kept.
    pub campaigns: u64,
    /// Bytes of their files.
    pub bytes: u64,
}

/// What a check has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Campaigns' files that are whole.
    pub whole: u64,
    /// What is wrong, a line each.
    pub faults: Vec<String>,
}

fn told(path: &Path) -> impl Fn(io::Error) -> StoreError {
    let what = path.display().to_string();
    move |error| io_fault(&what, &error)
}

pub(super) fn opened(path: &Path) -> Result<Connection, StoreError> {
    open_with(path, OpenFlags::SQLITE_OPEN_READ_WRITE)
}

/// What only reads leaves the catalog and its write-ahead log as they are.
pub(super) fn opened_to_read(path: &Path) -> Result<Connection, StoreError> {
    open_with(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
}

fn open_with(path: &Path, flags: OpenFlags) -> Result<Connection, StoreError> {
    if !path.exists() {
        return Err(StoreError::Damaged(format!(
            "there is no {}",
            path.display()
        )));
    }
    let db = Connection::open_with_flags(path, flags)?;
    db.busy_timeout(std::time::Duration::from_secs(10))?;
    Ok(db)
}

/// Copies the data directory `from`, whose broker may run, to `to`, which must not exist or be empty: the catalog as it is at
/// one moment, and the files of its campaigns with at least what was in them then. Blocks.
///
/// # Errors
/// When something cannot be read or written.
pub fn save(from: &Path, to: &Path) -> Result<Saved, StoreError> {
    must_be_empty(to)?;
    make_directory(&to.join(CAMPAIGNS))?;
    let db = opened(&from.join(CATALOG))?;
    let target = to.join(CATALOG);
    // SQLite makes the file readable for all, and takes one that is there if it is empty.
    let mut options = OpenOptions::new();
    let made = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&target);
    made.map_err(told(&target))?;
    db.execute("VACUUM INTO ?1", [target.display().to_string()])?;
    drop(db);
    File::open(&target)
        .and_then(|file| file.sync_all())
        .map_err(told(&target))?;
    let db = opened(&target)?;
    let revision = db.query_row(
        "SELECT value FROM counters WHERE name = 'revision'",
        [],
        |row| row.get::<_, i64>(0),
    )?;
    let kept = kept(&db)?;
    let mut saved = Saved {
        revision: revision.unsigned_abs(),
        campaigns: kept.len() as u64,
        bytes: 0,
    };
    let mut forget = db.prepare("UPDATE campaigns SET forgotten = 1 WHERE id = ?1")?;
    for (id, last) in kept {
        let name = format!("{CAMPAIGNS}/{id}.log");
        match copy(&from.join(&name), &to.join(&name))? {
            Some(bytes) => saved.bytes += bytes,
            // Its results were over while the others were copied.
            None if last > Seq(0) => {
                forget.execute([int(id.0)])?;
                saved.campaigns -= 1;
                continue;
            }
            None => continue,
        }
        // What is being written at this moment was not acknowledged before the backup began.
        scan::trim(id, &to.join(&name))?;
    }
    Ok(saved)
}

/// Puts the backup `from` into the data directory `to`, which must not exist or be empty. What was given out after the backup
/// is not given out again: numbers go on behind a gap, and viewers of its campaigns begin anew. Blocks.
///
/// # Errors
/// When something cannot be read or written, or the backup is damaged.
pub fn restore(from: &Path, to: &Path, now: Timestamp) -> Result<Saved, StoreError> {
    let found = check(from)?;
    if !found.faults.is_empty() {
        return Err(StoreError::Damaged(found.faults.join("; ")));
    }
    let saved = save(from, to)?;
    let db = opened(&to.join(CATALOG))?;
    witness::skip_numbers(&db, 0, now)?;
    witness::raise_epochs(&db, now)?;
    Ok(saved)
}

/// Looks through a data directory on which no broker runs, or a backup. Blocks.
///
/// # Errors
/// When something cannot be read.
pub fn check(dir: &Path) -> Result<Found, StoreError> {
    let mut found = Found::default();
    let db = opened_to_read(&dir.join(CATALOG))?;
    found.faults = integrity(&db)?;
    let kept = kept(&db)?;
    for (id, last) in &kept {
        if *last > Seq(0) && !dir.join(format!("{CAMPAIGNS}/{id}.log")).exists() {
            found.faults.push(format!(
                "the file of campaign {id} is gone, with {last} results"
            ));
        }
    }
    let files = dir.join(CAMPAIGNS);
    for file in std::fs::read_dir(&files).map_err(told(&files))? {
        let path = file.map_err(told(&files))?.path();
        let Some(id) = campaign_of(&path) else {
            continue;
        };
        let (checked, last) = scan::check(id, &path)?;
        let fault = match checked {
            Checked::Whole if kept.get(&id).is_some_and(|known| last >= *known) => {
                found.whole += 1;
                continue;
            }
            Checked::Whole if kept.contains_key(&id) => "ends before its last results",
            Checked::Whole => "belongs to no campaign of the catalog",
            Checked::Torn => "has a torn end, which a start cuts off",
            Checked::Damaged => "is damaged: a start keeps what stands whole in it",
        };
        found.faults.push(format!("{}: {fault}", path.display()));
    }
    Ok(found)
}

/// What SQLite says is wrong, a line each.
pub(super) fn integrity(db: &Connection) -> Result<Vec<String>, StoreError> {
    let mut check = db.prepare("PRAGMA integrity_check(10)")?;
    let lines = check.query_map([], |row| row.get::<_, String>(0))?;
    let mut faults = Vec::new();
    for line in lines {
        let line = line?;
        if line != "ok" {
            faults.push(format!("{CATALOG}: {line}"));
        }
    }
    Ok(faults)
}

/// The campaigns whose results are kept, and the last of those that have ended.
fn kept(db: &Connection) -> rusqlite::Result<BTreeMap<CampaignId, Seq>> {
    let mut select = db.prepare("SELECT id, last FROM campaigns WHERE forgotten = 0")?;
    let rows = select.query_map([], |row| {
        Ok((CampaignId(number(row.get(0)?)), Seq(number(row.get(1)?))))
    })?;
    rows.collect()
}

fn must_be_empty(dir: &Path) -> Result<(), StoreError> {
    let has_entries = match std::fs::read_dir(dir) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(told(dir)(error)),
    };
    if has_entries {
        return Err(StoreError::Unavailable(format!(
            "{} is not empty: name a directory that is new",
            dir.display()
        )));
    }
    Ok(())
}

/// Copies a file, and gives its bytes; none if there is no such file.
fn copy(from: &Path, to: &Path) -> Result<Option<u64>, StoreError> {
    let source = match File::open(from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        source => source.map_err(told(from))?,
    };
    // What is added meanwhile need not be there.
    let length = source.metadata().map_err(told(from))?.len();
    let mut options = OpenOptions::new();
    let target = options.write(true).create_new(true).mode(0o600).open(to);
    let mut target = target.map_err(told(to))?;
    let copied = io::copy(&mut source.take(length), &mut target).map_err(told(to))?;
    target
        .flush()
        .and_then(|()| target.sync_all())
        .map_err(told(to))?;
    Ok(Some(copied))
}
