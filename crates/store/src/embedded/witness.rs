//! A witness beside the catalog: how much was written, so that a catalog that was lost or has lost commits is known for one.
//!
//! SQLite takes a missing file for a new one, and what follows a damaged frame of its write-ahead log for never written.
//! So each group of writes has a number, which stands in the catalog and, once the group is acknowledged, in a file of its
//! own. A file that is ahead of the catalog is the proof of a loss.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt as _, OpenOptionsExt};
use std::path::Path;

use rusqlite::{Connection, OptionalExtension, params};

use super::CATALOG;
use super::faults::{int, io_fault, number};
use crate::clock::Timestamp;
use crate::{StoreError, numbers};

/// The witness's file.
const NAME: &str = "catalog.witness";
/// What it begins with: what it is, and in which version.
const MAGIC: &[u8; 16] = b"answerback wit1\n";
/// The writes, in decimal, and a line break.
const COUNT_AT: u64 = 16;
const COUNT_BYTES: usize = 21;
/// The boot of the machine in which they were made, and a line break.
const BOOT_AT: u64 = COUNT_AT + COUNT_BYTES as u64;
const BOOT_BYTES: usize = 37;
/// Whether everything was written when the broker stopped: `clean` or `dirty`.
const STATE_AT: u64 = BOOT_AT + BOOT_BYTES as u64;
const CLEAN: &[u8] = b"clean\n";
const DIRTY: &[u8] = b"dirty\n";
/// The number that the catalog's file has in its file system, in decimal, and a line break. A copy has another one.
const FILE_AT: u64 = STATE_AT + CLEAN.len() as u64;
const FILE_BYTES: usize = 21;
/// Linux's name of a boot; another one means that what was not synchronised may be gone.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// What the witness says of the catalog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Testimony {
    /// Nothing was ever here.
    First,
    /// The catalog has all that was acknowledged.
    Whole,
    /// It may lack what the machine had not put on the disk when it went down; nothing shows that it does.
    AfterPowerCut,
    /// It is whole as far as is known, and was copied here: others may have been written since behind the original.
    Copied,
    /// So many writes are missing, because the machine went down before they were on the disk.
    LostByPowerCut(u64),
    /// So many writes are missing.
    Lost(u64),
    /// The catalog is new, and there was one of so many writes.
    NoCatalog(u64),
}

/// The open file.
#[derive(Debug)]
pub(super) struct Witness {
    file: File,
    /// The number of the catalog's file.
    catalog: u64,
    /// Whether all was written when the last broker stopped.
    was_clean: bool,
}

impl Witness {
    /// Opens the witness of a directory and hears it; makes it if there is none. `has_results` tells of files of campaigns,
    /// which no catalog without campaigns can have made.
    pub(super) fn hear(
        dir: &Path,
        db: &Connection,
        has_results: bool,
    ) -> Result<(Self, Testimony), StoreError> {
        let told = |error: io::Error| io_fault("the catalog's witness", &error);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.mode(0o600).open(dir.join(NAME)).map_err(told)?;
        let known = written(db)?;
        let said = Said::read(&file).map_err(told)?;
        let catalog = file_number(dir);
        let was_clean = said.as_ref().is_some_and(|said| said.clean);
        let testimony = match said {
            None if known == 0 && !has_revisions(db)? && has_results => Testimony::NoCatalog(0),
            None if known == 0 && !has_revisions(db)? => Testimony::First,
            // A directory of a version without witnesses.
            None => Testimony::Whole,
            Some(said) => {
                let same_boot = said.boot == boot();
                match said.count.saturating_sub(known) {
                    _ if known == 0 && said.count > 0 => Testimony::NoCatalog(said.count),
                    0 if said.file.is_some_and(|file| file != catalog) => Testimony::Copied,
                    0 if said.clean || same_boot => Testimony::Whole,
                    0 => Testimony::AfterPowerCut,
                    missing if same_boot || said.clean => Testimony::Lost(missing),
                    missing => Testimony::LostByPowerCut(missing),
                }
            }
        };
        let witness = Self {
            file,
            catalog,
            was_clean,
        };
        Ok((witness, testimony))
    }

    /// Whether all was written when the last broker stopped.
    pub(super) const fn was_clean(&self) -> bool {
        self.was_clean
    }

    /// From now on it speaks of this catalog as it is.
    pub(super) fn begin(&self, db: &Connection) -> Result<(), StoreError> {
        let mut text = MAGIC.to_vec();
        text.extend(count_text(written(db)?));
        text.extend(format!("{:36}\n", boot()).into_bytes());
        text.extend(DIRTY);
        text.extend(count_text(self.catalog));
        let written = self
            .file
            .write_all_at(&text, 0)
            .and_then(|()| self.file.sync_data());
        written.map_err(|error| io_fault("the catalog's witness", &error))
    }

    /// So much is acknowledged.
    pub(super) fn note(&self, count: u64) -> io::Result<()> {
        self.file.write_all_at(&count_text(count), COUNT_AT)
    }

    /// Everything is written, and nothing more will be.
    pub(super) fn end(&self) -> io::Result<()> {
        self.file.write_all_at(CLEAN, STATE_AT)?;
        self.file.sync_data()
    }
}

/// What stands in a witness.
struct Said {
    count: u64,
    boot: String,
    clean: bool,
    /// None in a witness of before this was kept.
    file: Option<u64>,
}

impl Said {
    fn file_number(file: &File) -> Option<u64> {
        let mut text = [0; FILE_BYTES];
        file.read_exact_at(&mut text, FILE_AT).ok()?;
        std::str::from_utf8(&text).ok()?.trim().parse().ok()
    }

    /// None if nothing was written yet, or not all of it.
    fn read(file: &File) -> io::Result<Option<Self>> {
        let mut text = vec![0; STATE_AT as usize + CLEAN.len()];
        match file.read_exact_at(&mut text, 0) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        let part = |at: u64, bytes: usize| {
            let at = usize::try_from(at).unwrap_or(usize::MAX);
            let part = text.get(at..at + bytes).unwrap_or_default();
            String::from_utf8_lossy(part).trim().to_owned()
        };
        if !text.starts_with(MAGIC) {
            return Err(io::Error::other(format!("{NAME} is not this version's")));
        }
        let count = part(COUNT_AT, COUNT_BYTES).parse();
        let count = count.map_err(|_| io::Error::other(format!("{NAME} is damaged")))?;
        Ok(Some(Self {
            count,
            boot: part(BOOT_AT, BOOT_BYTES),
            clean: part(STATE_AT, CLEAN.len()) == "clean",
            file: Self::file_number(file),
        }))
    }
}

/// The number of the catalog's file; 0 if it cannot be told.
fn file_number(dir: &Path) -> u64 {
    let catalog = std::fs::metadata(dir.join(CATALOG));
    catalog.map_or(0, |catalog| catalog.ino())
}

fn count_text(count: u64) -> Vec<u8> {
    format!("{count:020}\n").into_bytes()
}

fn boot() -> String {
    let id = std::fs::read_to_string(BOOT_ID).unwrap_or_default();
    id.trim().chars().take(BOOT_BYTES - 1).collect()
}

/// The writes that stand in the catalog.
fn written(db: &Connection) -> rusqlite::Result<u64> {
    let sql = "SELECT value FROM counters WHERE name = 'writes'";
    let count = db.query_row(sql, [], |row| row.get(0)).optional()?;
    Ok(count.map_or(0, number))
}

fn has_revisions(db: &Connection) -> rusqlite::Result<bool> {
    let sql = "SELECT value > 0 FROM counters WHERE name = 'revision'";
    db.query_row(sql, [], |row| row.get(0))
}

/// Counts one more write, in the transaction that is open.
pub(super) fn count(db: &Connection) -> rusqlite::Result<u64> {
    let mut count = db.prepare_cached(
        "INSERT INTO counters (name, value) VALUES ('writes', 1)
         ON CONFLICT (name) DO UPDATE SET value = value + 1 RETURNING value",
    )?;
    count.query_row([], |row| row.get(0)).map(number)
}

/// Sees to it that nothing is given out twice that may have been given out by what the testimony says is lost.
pub(super) fn number_anew(
    db: &Connection,
    testimony: Testimony,
    campaigns_upto: u64,
    now: Timestamp,
) -> rusqlite::Result<()> {
    match testimony {
        Testimony::First | Testimony::Whole => return Ok(()),
        Testimony::AfterPowerCut => {}
        Testimony::Copied
        | Testimony::Lost(_)
        | Testimony::LostByPowerCut(_)
        | Testimony::NoCatalog(_) => skip_numbers(db, campaigns_upto, now)?,
    }
    raise_epochs(db, now)
}

/// Gives out no number twice that commits may have given out which are lost.
pub(super) fn skip_numbers(
    db: &Connection,
    campaigns_upto: u64,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let gap = int(numbers::GAP);
    db.execute("UPDATE sequences SET next = next + ?1", [gap])?;
    // Sequences of which nothing is known may have begun since.
    db.execute(
        "INSERT INTO counters (name, value) VALUES ('first_number', 1 + ?1)
         ON CONFLICT (name) DO UPDATE SET value = value + ?1",
        [gap],
    )?;
    db.execute(
        "INSERT INTO sequences (name, next) VALUES (?1, max(?2, ?3))
         ON CONFLICT (name) DO UPDATE SET next = max(next, excluded.next)",
        params![
            numbers::CAMPAIGN,
            int(campaigns_upto) + gap,
            int(numbers::second(now))
        ],
    )?;
    Ok(())
}

/// Viewers of these campaigns may have seen answers whose places others will get.
pub(super) fn raise_epochs(db: &Connection, now: Timestamp) -> rusqlite::Result<()> {
    db.execute(
        "UPDATE campaigns SET epoch = max(epoch + 1, ?1) WHERE ended_at IS NULL",
        [int(now.secs())],
    )?;
    Ok(())
}
