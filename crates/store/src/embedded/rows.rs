//! The rows of campaigns: what was asked and of whom, where it stands, and what is left when the results are gone.

use std::sync::Arc;

use roaring::RoaringBitmap;
use rusqlite::types::Type;
use rusqlite::{Connection, Error, OptionalExtension, Result, Row, params};
use serde::{Deserialize, Serialize};

use super::catalog;
use super::faults::{int, number};
use crate::clock::Timestamp;
use crate::names;
use crate::results::{
    Campaign, CampaignId, Ending, Progress, QueryId, Question, Seq, Status, TeamId, UserId,
};

/// At most so many campaigns whose results are forgotten are still listed,
const ROWS_MAX: i64 = 10_000;
/// and for at most so long after their end: a week.
const ROWS_KEPT_MS: u64 = 7 * 24 * 3600 * 1000;

const COLUMNS: &str =
    "id, created_at, status, ended_at, ending, epoch, question, targets, incomplete";

/// A question's stored form; new members need a default.
#[derive(Serialize, Deserialize)]
struct StoredQuestion {
    query_id: QueryId,
    query_name: Option<String>,
    user_id: UserId,
    sql: String,
    #[serde(default)]
    teams: Vec<Option<TeamId>>,
}

/// Where a campaign stands, as it is written to its row.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    pub(super) id: CampaignId,
    pub(super) status: Status,
    pub(super) ended: Option<(Timestamp, Ending)>,
    /// In which the places of its answers are valid.
    pub(super) epoch: u64,
    pub(super) is_incomplete: bool,
    /// The place of the last answer, and who has answered; once it has ended.
    pub(super) outcome: Option<(Seq, Progress)>,
}

/// Adds a waiting campaign under the next number.
pub(super) fn insert(db: &Connection, question: &Question, now: Timestamp) -> Result<CampaignId> {
    let id = catalog::reserve(db, "campaign", 1)?;
    let stored = StoredQuestion {
        query_id: question.query_id,
        query_name: question.query_name.clone(),
        user_id: question.user_id,
        sql: question.sql.clone(),
        teams: question.teams.clone(),
    };
    let mut insert = db.prepare_cached(
        "INSERT INTO campaigns (id, created_at, status, question, targets, has_file) VALUES (?1, ?2, ?3, ?4, ?5, 1)",
    )?;
    insert.execute(params![
        int(id),
        int(now.0),
        word(&Status::Waiting)?,
        json(&stored)?,
        blob(&question.targets)
    ])?;
    Ok(CampaignId(id))
}

/// Writes where a campaign stands.
pub(super) fn save(db: &Connection, standing: &Standing) -> Result<()> {
    let ending = standing
        .ended
        .map(|(_, ending)| word(&ending))
        .transpose()?;
    let outcome = standing.outcome.as_ref();
    let mut update = db.prepare_cached(
        "UPDATE campaigns SET status = ?2, ended_at = ?3, ending = ?4, last = ?5, answered = ?6, failed = ?7,
                              epoch = ?8, incomplete = ?9
         WHERE id = ?1",
    )?;
    update.execute(params![
        int(standing.id.0),
        word(&standing.status)?,
        standing.ended.map(|(at, _)| int(at.0)),
        ending,
        outcome.map_or(0, |(last, _)| int(last.0)),
        outcome.map(|(_, progress)| blob(&progress.answered)),
        outcome.map(|(_, progress)| blob(&progress.failed)),
        int(standing.epoch),
        standing.is_incomplete,
    ])?;
    Ok(())
}

/// Notes that a campaign's results are gone, and drops the rows of those that nobody will look for.
pub(super) fn forget(db: &Connection, id: CampaignId, now: Timestamp) -> Result<()> {
    let sql = "UPDATE campaigns SET forgotten = 1 WHERE id = ?1";
    db.prepare_cached(sql)?.execute([int(id.0)])?;
    let mut prune = db.prepare_cached(
        "DELETE FROM campaigns WHERE forgotten = 1 AND (ended_at < ?1
         OR id <= (SELECT id FROM campaigns ORDER BY id DESC LIMIT 1 OFFSET ?2))",
    )?;
    prune.execute(params![int(now.0.saturating_sub(ROWS_KEPT_MS)), ROWS_MAX])?;
    Ok(())
}

/// A campaign whose results are not forgotten, as it was last written.
pub(super) struct Kept {
    pub(super) campaign: Campaign,
    pub(super) last: Seq,
    pub(super) progress: Progress,
    /// Whether it must have a file.
    pub(super) has_file: bool,
}

/// The campaigns whose results are not forgotten.
pub(super) fn kept(db: &Connection) -> Result<Vec<Kept>> {
    let sql = format!(
        "SELECT {COLUMNS}, last, answered, failed, has_file FROM campaigns WHERE forgotten = 0 ORDER BY id"
    );
    let mut select = db.prepare(&sql)?;
    let read = |row: &Row<'_>| -> Result<Kept> {
        Ok(Kept {
            campaign: campaign(row)?,
            last: Seq(number(row.get(9)?)),
            progress: progress(row, 10)?,
            has_file: row.get(12)?,
        })
    };
    let mut rows = select.query([])?;
    let mut kept = Vec::new();
    while let Some(row) = rows.next()? {
        match read(row) {
            Ok(campaign) => kept.push(campaign),
            // One campaign that this version cannot read must not keep all others from going on.
            Err(error) => {
                let id: Option<i64> = row.get(0).ok();
                metrics::counter!(names::CAMPAIGNS_DAMAGED).increment(1);
                tracing::error!(campaign = id, %error, "the record of a campaign cannot be read: it is left out");
            }
        }
    }
    Ok(kept)
}

/// A campaign's file is not what viewers have been shown: answers stand at other places, or are missing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mended {
    /// In which the places are valid now.
    pub(super) epoch: u64,
    pub(super) is_incomplete: bool,
    /// The place of the last answer, if the campaign has ended.
    pub(super) last: Seq,
}

/// Notes that a campaign's file was mended.
pub(super) fn mended(db: &Connection, id: CampaignId, mended: Mended) -> Result<()> {
    let sql = "UPDATE campaigns SET epoch = ?2, incomplete = ?3, last = ?4 WHERE id = ?1";
    let Mended {
        epoch,
        is_incomplete,
        last,
    } = mended;
    db.execute(
        sql,
        params![int(id.0), int(epoch), is_incomplete, int(last.0)],
    )
    .map(|_| ())
}

/// The epoch after this one, and after all that may have been given before a backup of the catalog was put back.
pub(super) fn next_epoch(epoch: u64, now: Timestamp) -> u64 {
    (epoch + 1).max(now.secs())
}

/// Whether the campaign's results are known to be over.
pub(super) fn is_forgotten(db: &Connection, id: CampaignId) -> Result<bool> {
    let sql = "SELECT forgotten FROM campaigns WHERE id = ?1";
    let mut select = db.prepare_cached(sql)?;
    let forgotten: Option<bool> = select.query_row([int(id.0)], |row| row.get(0)).optional()?;
    Ok(forgotten.unwrap_or(false))
}

/// One campaign's row.
pub(super) fn one(db: &Connection, id: CampaignId) -> Result<Option<Campaign>> {
    let sql = format!("SELECT {COLUMNS} FROM campaigns WHERE id = ?1");
    let mut select = db.prepare_cached(&sql)?;
    select.query_row([int(id.0)], campaign).optional()
}

/// The newest campaigns first.
pub(super) fn newest(db: &Connection, limit: usize) -> Result<Vec<Campaign>> {
    let sql = format!("SELECT {COLUMNS} FROM campaigns ORDER BY id DESC LIMIT ?1");
    let mut select = db.prepare_cached(&sql)?;
    select.query_map([int(limit as u64)], campaign)?.collect()
}

/// Who had answered when the campaign ended.
pub(super) fn outcome(db: &Connection, id: CampaignId) -> Result<Option<Progress>> {
    let sql = "SELECT answered, failed FROM campaigns WHERE id = ?1";
    let mut select = db.prepare_cached(sql)?;
    select
        .query_row([int(id.0)], |row| progress(row, 0))
        .optional()
}

fn campaign(row: &Row<'_>) -> Result<Campaign> {
    let ended_at: Option<i64> = row.get(3)?;
    let ending: Option<String> = row.get(4)?;
    let ending = ending.map(|word| from_word(4, &word)).transpose()?;
    let stored: StoredQuestion = serde_json::from_str(row.get_ref(6)?.as_str()?)
        .map_err(|error| damaged(6, Type::Text, error))?;
    Ok(Campaign {
        id: CampaignId(number(row.get(0)?)),
        question: Question {
            query_id: stored.query_id,
            query_name: stored.query_name,
            user_id: stored.user_id,
            sql: stored.sql,
            targets: Arc::new(bitmap(row, 7)?),
            teams: stored.teams,
        },
        created_at: Timestamp(number(row.get(1)?)),
        status: from_word(2, row.get_ref(2)?.as_str()?)?,
        ended: ended_at.map(|at| Timestamp(number(at))).zip(ending),
        epoch: number(row.get(5)?),
        is_incomplete: row.get(8)?,
    })
}

fn progress(row: &Row<'_>, at: usize) -> Result<Progress> {
    Ok(Progress {
        answered: bitmap(row, at)?,
        failed: bitmap(row, at + 1)?,
        handed: RoaringBitmap::new(),
    })
}

fn blob(bitmap: &RoaringBitmap) -> Vec<u8> {
    let mut bitmap = bitmap.clone();
    bitmap.optimize();
    let mut blob = Vec::with_capacity(bitmap.serialized_size());
    // Writing to memory does not fail.
    let _ = bitmap.serialize_into(&mut blob);
    blob
}

fn bitmap(row: &Row<'_>, at: usize) -> Result<RoaringBitmap> {
    match row.get_ref(at)?.as_blob_or_null()? {
        Some(blob) => {
            RoaringBitmap::deserialize_from(blob).map_err(|error| damaged(at, Type::Blob, error))
        }
        None => Ok(RoaringBitmap::new()),
    }
}

/// The word that an enum's variant has in JSON.
fn word(value: &impl Serialize) -> Result<String> {
    Ok(json(value)?.trim_matches('"').to_owned())
}

fn from_word<T: for<'a> Deserialize<'a>>(at: usize, word: &str) -> Result<T> {
    serde_json::from_value(serde_json::Value::from(word))
        .map_err(|error| damaged(at, Type::Text, error))
}

fn json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::ToSqlConversionFailure(Box::new(error)))
}

fn damaged(at: usize, kind: Type, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::FromSqlConversionFailure(at, kind, Box::new(error))
}
