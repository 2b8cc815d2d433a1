//! Repair of a data directory on which no broker runs: what can be read is kept, what was there goes aside.
//!
//! A damaged page of SQLite keeps the rest of its table from being read in one go. So tables are read from both ends, and
//! what is missed between by its key, which an index tells as well.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rusqlite::types::Value;
use rusqlite::{Connection, Params, Row, Statement, params_from_iter};

use super::campaigns::Campaigns;
use super::faults::io_fault;
use super::live::Logs;
use super::open::{connect, make_directory};
use super::owned::Owned;
use super::witness::{self, Testimony, Witness};
use super::{CAMPAIGNS, CATALOG, Encode, Fsync, SET_ASIDE, backup, rows, salvage};
use crate::StoreError;
use crate::clock::Timestamp;
use crate::results::Rules;

/// The new catalog while it is made.
const NEW: &str = "catalog.repaired";

/// What a repair has come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// Rows of the catalog that were read; none if it needed no repair.
    pub rows: Option<u64>,
    /// What is lost or was changed, a line each.
    pub changed: Vec<String>,
}

/// Repairs a data directory. Blocks.
///
/// # Errors
/// [`StoreError::Unavailable`] if a broker runs on it, or it cannot be written; [`StoreError::Damaged`] if nothing of its
/// catalog can be read.
pub fn repair(dir: &Path, encode: Encode, now: Timestamp) -> Result<Repaired, StoreError> {
    let path = dir.join(CATALOG);
    if !path.exists() {
        return Err(StoreError::Damaged(format!(
            "there is no {}: put a backup back (answerback restore), or begin anew with serve --accept-loss",
            path.display()
        )));
    }
    let files = dir.join(CAMPAIGNS);
    make_directory(&files)?;
    let _owned = Owned::lock(dir)?;
    let mut repaired = Repaired::default();
    let faults = faults_of(&path);
    if !faults.is_empty() {
        repaired.changed.extend(faults);
        repaired.rows = Some(rebuild(dir)?);
    }
    let db = connect(&path, Fsync::Always)?;
    number_anew(dir, &db, &mut repaired, now)?;
    mend_campaigns(dir, &db, encode, &mut repaired, now)?;
    Ok(repaired)
}

/// What SQLite says is wrong with a catalog.
fn faults_of(path: &Path) -> Vec<String> {
    match backup::opened_to_read(path).and_then(|db| backup::integrity(&db)) {
        Ok(faults) => faults,
        Err(error) => vec![error.to_string()],
    }
}

/// Numbers that were given out by what is lost are given to nobody else.
fn number_anew(
    dir: &Path,
    db: &Connection,
    repaired: &mut Repaired,
    now: Timestamp,
) -> Result<(), StoreError> {
    let (witness, testimony) = Witness::hear(dir, db, false)?;
    if let (Testimony::NoCatalog(_), None) = (testimony, repaired.rows) {
        return Err(StoreError::Damaged(format!(
            "the catalog in {} is empty, and had something in it: put a backup back (answerback restore), or begin anew with \
             serve --accept-loss",
            dir.display()
        )));
    }
    let testimony = match repaired.rows {
        // What could not be read is lost, whatever the witness knows.
        Some(_) if !matches!(testimony, Testimony::NoCatalog(_)) => Testimony::Lost(0),
        _ => testimony,
    };
    let missing = match testimony {
        Testimony::Lost(writes)
        | Testimony::LostByPowerCut(writes)
        | Testimony::NoCatalog(writes) => writes,
        _ => 0,
    };
    if missing > 0 {
        repaired.changed.push(format!(
            "the last {missing} writes of the catalog are missing"
        ));
    }
    witness::number_anew(db, testimony, 0, now)?;
    witness.begin(db)?;
    witness
        .end()
        .map_err(|error| io_fault("the catalog's witness", &error))
}

/// Does what a start does with campaigns' files, for those that have ended as well.
fn mend_campaigns(
    dir: &Path,
    db: &Connection,
    encode: Encode,
    repaired: &mut Repaired,
    now: Timestamp,
) -> Result<(), StoreError> {
    let logs = Logs {
        encode,
        bytes_max: 0,
    };
    let campaigns = Campaigns::new(dir.join(CAMPAIGNS), Rules::default(), logs);
    let aside = dir.join(SET_ASIDE);
    for kept in rows::kept(db)? {
        let id = kept.campaign.id;
        let mended = match campaigns.restore(kept, &aside, now)? {
            Some(mended) => Some(mended),
            None => {
                let live = campaigns.find(id);
                let has_ended = live.filter(|live| live.campaign().ended.is_some());
                has_ended.map_or(Ok(None), |live| live.look_through(&aside, now))?
            }
        };
        let Some(mended) = mended else {
            continue;
        };
        rows::mended(db, id, mended)?;
        repaired.changed.push(match mended.is_incomplete {
            true => format!("results of campaign {id} are missing"),
            false => format!("the file of campaign {id} had a torn end, which is cut off"),
        });
    }
    campaigns
        .set_orphans_aside(&aside, |id| rows::is_forgotten(db, id))
        .map_err(|error| io_fault("the campaigns' files", &error))
}

/// Makes a new catalog of what can be read of the old one, which goes aside. Gives the number of rows.
fn rebuild(dir: &Path) -> Result<u64, StoreError> {
    let (old_path, new_path) = (dir.join(CATALOG), dir.join(NEW));
    let with = |path: &Path, suffix: &str| PathBuf::from(format!("{}{suffix}", path.display()));
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(with(&new_path, suffix));
    }
    // As it is, before SQLite brings its parts together.
    for suffix in ["", "-wal"] {
        let path = with(&old_path, suffix);
        if path.exists() {
            salvage::keep_copy(&path, &dir.join(SET_ASIDE))
                .map_err(|error| io_fault("the damaged catalog", &error))?;
        }
    }
    let old = backup::opened(&old_path)?;
    let new = connect(&new_path, Fsync::Always)?;
    new.execute_batch("BEGIN; DELETE FROM counters; DELETE FROM sequences")?;
    let mut rows = 0;
    for table in TABLES {
        rows += table.copy(&old, &new)?;
    }
    if rows == 0 {
        return Err(StoreError::Damaged(format!(
            "nothing of {} can be read: put a backup back (answerback restore), or begin anew with serve --accept-loss",
            old_path.display()
        )));
    }
    new.execute_batch(
        "INSERT OR IGNORE INTO counters (name, value)
           SELECT 'revision', coalesce(max(revision), 0) FROM records;
         INSERT OR IGNORE INTO counters (name, value)
           SELECT 'forgotten', coalesce(max(revision), 0) FROM records;
         -- Sequences that cannot be read go on behind what they gave.
         INSERT OR IGNORE INTO sequences (name, next)
           SELECT kind, max(CAST(key AS INTEGER)) + 1 FROM records
           WHERE key NOT GLOB '*[^0-9]*' AND length(key) < 11 GROUP BY kind;
         INSERT OR IGNORE INTO sequences (name, next)
           SELECT 'campaign', max(id) + 1 FROM campaigns HAVING count(*) > 0;
         COMMIT; PRAGMA wal_checkpoint(TRUNCATE)",
    )?;
    drop((old, new));
    for suffix in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(with(&old_path, suffix));
    }
    std::fs::rename(&new_path, &old_path)
        .map_err(|error| io_fault("the repaired catalog", &error))?;
    Ok(rows)
}

/// A table, and how its rows are found.
struct Table {
    name: &'static str,
    key: &'static str,
    columns: &'static str,
    /// Columns that older versions have not got.
    newer: &'static str,
    /// Another way to its keys.
    index: Option<&'static str>,
}

const TABLES: [Table; 5] = [
    Table {
        name: "records",
        key: "kind, key",
        columns: "kind, key, revision, value",
        newer: "",
        index: Some("records_by_revision"),
    },
    Table {
        name: "counters",
        key: "name",
        columns: "name, value",
        newer: "",
        index: None,
    },
    Table {
        name: "sequences",
        key: "name",
        columns: "name, next",
        newer: "",
        index: None,
    },
    Table {
        name: "seen",
        key: "host",
        columns: "host, at",
        newer: "",
        index: None,
    },
    Table {
        name: "campaigns",
        key: "id",
        columns: "id, created_at, status, ended_at, ending, epoch, forgotten, last, question, targets, answered, failed",
        newer: ", incomplete, has_file",
        index: None,
    },
];

impl Table {
    /// Copies every row that can be read.
    fn copy(&self, old: &Connection, new: &Connection) -> Result<u64, StoreError> {
        let newer = format!("SELECT id{} FROM {} LIMIT 0", self.newer, self.name);
        let newer = match old.prepare(&newer) {
            Ok(_) => self.newer,
            Err(_) => "",
        };
        let columns = format!("{}{newer}", self.columns);
        let count = columns.split(',').count();
        let marks = vec!["?"; count].join(", ");
        let put = format!(
            "INSERT OR IGNORE INTO {} ({columns}) VALUES ({marks})",
            self.name
        );
        let mut put = new.prepare(&put)?;
        let mut copied = 0;
        let mut take = |row: Vec<Value>| -> Result<(), StoreError> {
            match put.execute(params_from_iter(row)) {
                Ok(count) => copied += count as u64,
                // A row of garbage fits into no table.
                Err(error) if is_constraint(&error) => {}
                Err(error) => return Err(error.into()),
            }
            Ok(())
        };
        let (name, key) = (self.name, self.key);
        let descending = key.replace(',', " DESC,");
        for order in [key.to_owned(), format!("{descending} DESC")] {
            let sql = format!("SELECT {columns} FROM {name} ORDER BY {order}");
            readable(old, &sql, count, &mut take)?;
        }
        let keys = self.keys(old);
        let marks = vec!["?"; key.split(',').count()].join(", ");
        let sql = format!("SELECT {columns} FROM {name} WHERE ({key}) = ({marks})");
        if let Ok(mut select) = old.prepare(&sql) {
            for key in keys {
                found(&mut select, params_from_iter(key), count, &mut take)?;
            }
        }
        Ok(copied)
    }

    /// The keys that an index knows.
    fn keys(&self, old: &Connection) -> BTreeSet<Vec<String>> {
        let mut keys = BTreeSet::new();
        let Some(index) = self.index else {
            return keys;
        };
        for order in ["revision", "revision DESC"] {
            let (name, key) = (self.name, self.key);
            let sql = format!("SELECT {key} FROM {name} INDEXED BY {index} ORDER BY {order}");
            let count = key.split(',').count();
            let take = &mut |row: Vec<Value>| -> Result<(), StoreError> {
                let text = |value| match value {
                    Value::Text(text) => text,
                    other => format!("{other:?}"),
                };
                keys.insert(row.into_iter().map(text).collect());
                Ok(())
            };
            // What fails here is found by the other ways.
            let _ = readable(old, &sql, count, take);
        }
        keys
    }
}

fn is_constraint(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation)
}

/// Gives the rows that a query finds until it comes to what cannot be read.
fn readable(
    db: &Connection,
    sql: &str,
    columns: usize,
    take: &mut impl FnMut(Vec<Value>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    match db.prepare(sql) {
        Ok(mut select) => found(&mut select, [], columns, take),
        Err(_) => Ok(()),
    }
}

/// The same of a query that is prepared.
fn found(
    select: &mut Statement<'_>,
    params: impl Params,
    columns: usize,
    take: &mut impl FnMut(Vec<Value>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let row = |row: &Row<'_>| (0..columns).map(|at| row.get(at)).collect();
    let Ok(mut rows) = select.query(params) else {
        return Ok(());
    };
    while let Ok(Some(found)) = rows.next() {
        let values: rusqlite::Result<Vec<Value>> = row(found);
        if let Ok(values) = values {
            take(values)?;
        }
    }
    Ok(())
}
