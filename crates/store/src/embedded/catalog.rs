//! The catalog's tables: records with revisions, sequences, and when hosts were last seen.

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Result, Row, params};
use rusqlite_migration::{M, Migrations};
use tokio::sync::mpsc;

use super::faults::{int, number};
use crate::clock::Timestamp;
use crate::results::HostId;
use crate::{Change, Committed, Expect, Kind, Revision, Stored};

const SCHEMA: &[M<'static>] = &[
    M::up(include_str!("schema.sql")),
    M::up(
        "ALTER TABLE campaigns ADD COLUMN incomplete INTEGER NOT NULL DEFAULT 0;
         -- Whether its file was made with it; before, a campaign without answers had none.
         ALTER TABLE campaigns ADD COLUMN has_file INTEGER NOT NULL DEFAULT 0",
    ),
];

/// So many records are loaded at once.
const BATCH: usize = 1_024;
/// About so many changes are told at once.
const CHANGES_MAX: u32 = 4_096;
/// Deletions are remembered for so many commits.
const DELETIONS_KEPT: Revision = 65_536;
/// Deletions are dropped every so many commits.
const DROP_EVERY: Revision = 4_096;

/// Brings the tables to this version.
pub(super) fn migrate(db: &mut Connection) -> std::result::Result<(), rusqlite_migration::Error> {
    Migrations::from_slice(SCHEMA).to_latest(db)
}

/// Gives all records in batches until nobody takes them, and the revision up to which they are complete. Runs in a
/// transaction of its own.
pub(super) fn load(db: &mut Connection, give: &mpsc::Sender<Vec<Stored>>) -> Result<Revision> {
    let snapshot = db.transaction()?;
    let revision = counter(&snapshot, "revision")?;
    let sql = "SELECT kind, key, revision, value FROM records WHERE value IS NOT NULL";
    let mut select = snapshot.prepare(sql)?;
    let mut rows = select.query([])?;
    loop {
        let mut batch = Vec::with_capacity(BATCH);
        while batch.len() < BATCH
            && let Some(row) = rows.next()?
        {
            batch.push(stored(row)?);
        }
        if batch.is_empty() || give.blocking_send(batch).is_err() {
            return Ok(revision);
        }
    }
}

/// Makes all the changes or none, in the transaction that is open.
pub(super) fn commit(db: &Connection, changes: &[Change]) -> Result<Committed> {
    for change in changes {
        if !holds(db, change)? {
            let (kind, key) = (change.kind, change.key.clone());
            return Ok(Committed::Conflict { kind, key });
        }
    }
    let mut next = db.prepare_cached(
        "UPDATE counters SET value = value + 1 WHERE name = 'revision' RETURNING value",
    )?;
    let revision = number(next.query_row([], |row| row.get(0))?);
    for change in changes {
        apply(db, change, revision)?;
    }
    if revision.is_multiple_of(DROP_EVERY) && revision > DELETIONS_KEPT {
        drop_deletions(db, revision - DELETIONS_KEPT)?;
    }
    Ok(Committed::Done(revision))
}

fn holds(db: &Connection, change: &Change) -> Result<bool> {
    if change.expect == Expect::Anything {
        return Ok(true);
    }
    let mut select = db.prepare_cached(
        "SELECT revision FROM records WHERE kind = ?1 AND key = ?2 AND value IS NOT NULL",
    )?;
    let found = select
        .query_row(params![change.kind, change.key], |row| row.get(0))
        .optional()?
        .map(number);
    Ok(match change.expect {
        Expect::Anything => true,
        Expect::Absent => found.is_none(),
        Expect::At(revision) => found == Some(revision),
    })
}

fn apply(db: &Connection, change: &Change, revision: Revision) -> Result<()> {
    let revision = int(revision);
    let Some(value) = &change.value else {
        let mut delete = db.prepare_cached(
            "UPDATE records SET value = NULL, revision = ?3
             WHERE kind = ?1 AND key = ?2 AND value IS NOT NULL",
        )?;
        delete.execute(params![change.kind, change.key, revision])?;
        return Ok(());
    };
    let mut put = db.prepare_cached(
        "INSERT INTO records (kind, key, revision, value) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT DO UPDATE SET revision = excluded.revision, value = excluded.value",
    )?;
    put.execute(params![change.kind, change.key, revision, &value[..]])?;
    Ok(())
}

fn drop_deletions(db: &Connection, upto: Revision) -> Result<()> {
    db.execute(
        "DELETE FROM records WHERE value IS NULL AND revision <= ?1",
        [int(upto)],
    )?;
    let sql = "UPDATE counters SET value = ?1 WHERE name = 'forgotten'";
    db.execute(sql, [int(upto)]).map(|_| ())
}

/// What was committed after a revision, whole commits only; none if deletions since may have been dropped.
/// Runs in a transaction of its own.
pub(super) fn changes(db: &mut Connection, after: Revision) -> Result<Option<Vec<Stored>>> {
    let snapshot = db.transaction()?;
    if after < counter(&snapshot, "forgotten")? {
        return Ok(None);
    }
    let sql =
        "SELECT revision FROM records WHERE revision > ?1 ORDER BY revision LIMIT 1 OFFSET ?2";
    let upto: Option<i64> = snapshot
        .query_row(sql, params![int(after), CHANGES_MAX], |row| row.get(0))
        .optional()?;
    let sql = "SELECT kind, key, revision, value FROM records
               WHERE revision > ?1 AND revision <= ?2 ORDER BY revision, kind, key";
    let mut select = snapshot.prepare_cached(sql)?;
    let rows = select.query_map(params![int(after), upto.unwrap_or(i64::MAX)], stored)?;
    Ok(Some(rows.collect::<Result<_>>()?))
}

fn counter(db: &Connection, name: &str) -> Result<u64> {
    let sql = "SELECT value FROM counters WHERE name = ?1";
    db.query_row(sql, [name], |row| row.get(0)).map(number)
}

fn stored(row: &Row<'_>) -> Result<Stored> {
    let value = row.get_ref(3)?.as_blob_or_null()?;
    Ok(Stored {
        kind: row.get(0)?,
        key: row.get(1)?,
        revision: number(row.get(2)?),
        value: value.map(Bytes::copy_from_slice),
    })
}

/// Takes `count` numbers of a sequence, and returns the first.
pub(super) fn reserve(db: &Connection, sequence: Kind, count: u32) -> Result<u64> {
    let mut take = db.prepare_cached(
        "INSERT INTO sequences (name, next)
         VALUES (?1, coalesce((SELECT value FROM counters WHERE name = 'first_number'), 1) + ?2)
         ON CONFLICT DO UPDATE SET next = next + ?2 RETURNING next - ?2",
    )?;
    let first = take.query_row(params![sequence, count], |row| row.get(0))?;
    Ok(number(first))
}

/// Adds check-ins; an older one changes nothing.
pub(super) fn put_seen(db: &Connection, seen: &[(HostId, Timestamp)]) -> Result<()> {
    let mut put = db.prepare_cached(
        "INSERT INTO seen (host, at) VALUES (?1, ?2)
         ON CONFLICT DO UPDATE SET at = excluded.at WHERE excluded.at > at",
    )?;
    for (host, at) in seen {
        put.execute(params![host.0, int(at.0)])?;
    }
    Ok(())
}

/// The last check-ins that are not older than `since`.
pub(super) fn seen(db: &mut Connection, since: Timestamp) -> Result<Vec<(HostId, Timestamp)>> {
    let mut select = db.prepare_cached("SELECT host, at FROM seen WHERE at >= ?1")?;
    let rows = select.query_map([int(since.0)], |row| {
        Ok((HostId(row.get(0)?), Timestamp(number(row.get(1)?))))
    })?;
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delete_and_put(db: &Connection, key: &str) -> Revision {
        let change = |value| Change {
            kind: "host",
            key: key.to_owned(),
            expect: Expect::Anything,
            value,
        };
        commit(db, &[change(Some(Bytes::from_static(b"{}")))]).unwrap();
        match commit(db, &[change(None)]).unwrap() {
            Committed::Done(revision) => revision,
            conflict => panic!("{conflict:?}"),
        }
    }

    #[test]
    fn deletions_are_forgotten_after_a_while_and_that_is_told() {
        let mut db = Connection::open_in_memory().unwrap();
        migrate(&mut db).unwrap();
        let early = delete_and_put(&db, "early");
        let sql = "UPDATE counters SET value = ?1 WHERE name = 'revision'";
        db.execute(sql, [int(DELETIONS_KEPT + 2 * DROP_EVERY - 2)])
            .unwrap();
        let late = delete_and_put(&db, "late");
        assert_eq!(changes(&mut db, early).unwrap(), None);
        let told = changes(&mut db, late - 1).unwrap().unwrap();
        assert_eq!(told.len(), 1);
        assert_eq!((told[0].key.as_str(), &told[0].value), ("late", &None));
    }
}
