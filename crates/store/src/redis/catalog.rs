//! Catalog records: a hash a kind, one script a commit, and a stream of the last changes for nodes that follow.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use redis::Value;

use super::reply::{bytes, list, natural, number, text, unexpected};
use super::{Core, lock, scripts};
use crate::{Change, Committed, Expect, Revision, StoreError, Stored, Take};

/// Records asked for at once while loading.
const SCAN_COUNT: usize = 1_000;
/// Changes asked for at once.
const CHANGES_COUNT: usize = 500;
/// Changes told at once, except that a commit is never split.
const CHANGES_MAX: usize = 2_000;

impl Core {
    pub(super) async fn load(&self, take: &mut Take<'_>) -> Result<Revision, StoreError> {
        // What is committed while the hashes are scanned may or may not be found; `changes` tells it again.
        let (revision, nonce) = self.head().await?;
        let mut kinds = redis::cmd("SMEMBERS");
        kinds.arg(self.keys.kinds());
        let kinds = list(self.control.call(&kinds).await?).ok_or_else(|| unexpected("SMEMBERS"))?;
        for kind in kinds.iter().filter_map(text) {
            self.load_kind(kind, take).await?;
        }
        *lock(&self.seen_commit) = (revision, nonce);
        Ok(revision)
    }

    /// A record may be told twice while the hash is being rebuilt.
    async fn load_kind(&self, kind: &str, take: &mut Take<'_>) -> Result<(), StoreError> {
        let mut cursor = "0".to_owned();
        loop {
            let mut cmd = redis::cmd("HSCAN");
            cmd.arg(self.keys.kind(kind)).arg(&cursor);
            cmd.arg("COUNT").arg(SCAN_COUNT);
            let reply = list(self.control.call(&cmd).await?);
            let [next, page] = pair(reply).ok_or_else(|| unexpected("HSCAN"))?;
            let mut page = list(page).ok_or_else(|| unexpected("HSCAN"))?.into_iter();
            let mut found = Vec::with_capacity(page.len() / 2);
            while let (Some(key), Some(value)) = (page.next(), page.next()) {
                let key = text(&key).ok_or_else(|| unexpected("HSCAN"))?.to_owned();
                let (revision, value) = versioned(value)?;
                found.push(Stored {
                    kind: kind.to_owned(),
                    key,
                    revision,
                    value: Some(value),
                });
            }
            take(found)?;
            cursor = text(&next).ok_or_else(|| unexpected("HSCAN"))?.to_owned();
            if cursor == "0" {
                return Ok(());
            }
        }
    }

    pub(super) async fn commit(&self, changes: Vec<Change>) -> Result<Committed, StoreError> {
        let mut keys = vec![self.keys.head(), self.keys.changes(), self.keys.kinds()];
        if changes.is_empty() {
            return Ok(Committed::Done(self.head().await?.0));
        }
        let mut kinds: Vec<&str> = Vec::new();
        for change in &changes {
            if !kinds.contains(&change.kind) {
                kinds.push(change.kind);
                keys.push(self.keys.kind(change.kind));
            }
        }
        let mut cmd = scripts::COMMIT.call(&keys);
        cmd.arg(self.nonce()).arg(self.settings.changes_kept);
        cmd.arg(self.highest.load(Ordering::Relaxed));
        for change in &changes {
            let hash = kinds.iter().position(|kind| *kind == change.kind);
            cmd.arg(hash.map_or(0, |at| at + 1)).arg(change.kind);
            cmd.arg(&change.key).arg(expectation(change.expect));
            cmd.arg(i32::from(change.value.is_some()));
            cmd.arg(change.value.as_deref().unwrap_or_default());
        }
        let reply = list(self.run_safely(&scripts::COMMIT, &cmd).await?);
        let [done, what] = pair(reply).ok_or_else(|| unexpected("a commit"))?;
        let what = natural(&what).ok_or_else(|| unexpected("a commit"))?;
        if number(&done) == Some(1) {
            self.highest.fetch_max(what, Ordering::Relaxed);
            self.notices.catalog();
            return Ok(Committed::Done(what));
        }
        if number(&done) == Some(2) {
            // Says that it is gone.
            self.head().await?;
            return Err(unexpected("a commit"));
        }
        let refused = usize::try_from(what).ok().and_then(|at| changes.get(at));
        let refused = refused.ok_or_else(|| unexpected("a commit"))?;
        Ok(Committed::Conflict {
            kind: refused.kind,
            key: refused.key.clone(),
        })
    }

    pub(super) async fn changes(&self, after: Revision) -> Result<Option<Vec<Stored>>, StoreError> {
        let (seen, seen_nonce) = lock(&self.seen_commit).clone();
        let (revision, nonce) = self.head().await?;
        let follows = |at: Revision, its: &str| seen != at || seen_nonce == its;
        // A revision that is gone, or is another commit than it was, means that a failover has lost commits.
        if revision < after || (revision == after && !follows(after, &nonce)) {
            return Ok(None);
        }
        if revision == after {
            return Ok(Some(Vec::new()));
        }
        let mut entries = self.change_entries(after).await?;
        if let Some(first) = entries.first()
            && first.0 == (after, 0)
            && !follows(after, &first.1)
        {
            return Ok(None);
        }
        entries.retain(|(id, ..)| id.0 > after);
        // Revisions have no gaps: if the next one is not there as a whole, it was forgotten.
        let Some((first, ..)) = entries.first() else {
            return Ok(None);
        };
        if *first != (after + 1, 0) {
            return Ok(None);
        }
        if let Some(((last, _), nonce, _)) = entries.last() {
            *lock(&self.seen_commit) = (*last, nonce.clone());
        }
        let records = entries.into_iter().map(|entry| entry.2).collect();
        Ok(Some(latest(records)))
    }

    /// The first change of the revision `after`, if it is still known, and the changes that follow that revision:
    /// whole commits, at least one if there is any.
    async fn change_entries(&self, after: Revision) -> Result<Vec<Entry>, StoreError> {
        let first = format!("{after}-0");
        let mut entries = self.change_range(&first, &first, 1).await?;
        let mut from = format!("{}-0", after + 1);
        loop {
            let page = self.change_range(&from, "+", CHANGES_COUNT).await?;
            let complete = page.len() < CHANGES_COUNT;
            entries.extend(page);
            let Some(&((last, part), ..)) = entries.last() else {
                return Ok(entries);
            };
            if complete {
                return Ok(entries);
            }
            if entries.len() >= CHANGES_MAX
                && entries.iter().any(|(id, ..)| id.0 > after && id.0 < last)
            {
                // The last commit may go on.
                entries.retain(|(id, ..)| id.0 < last);
                return Ok(entries);
            }
            from = format!("({last}-{part}");
        }
    }

    async fn change_range(
        &self,
        from: &str,
        to: &str,
        count: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let mut cmd = redis::cmd("XRANGE");
        cmd.arg(self.keys.changes()).arg(from).arg(to);
        cmd.arg("COUNT").arg(count);
        let reply = list(self.control.call(&cmd).await?).ok_or_else(|| unexpected("XRANGE"))?;
        let entries = reply.into_iter().map(entry);
        entries
            .collect::<Option<_>>()
            .ok_or_else(|| unexpected("XRANGE"))
    }

    pub(super) async fn reserve(&self, sequence: &str, count: u32) -> Result<u64, StoreError> {
        let mut cmd = redis::cmd("HINCRBY");
        cmd.arg(self.keys.sequences()).arg(sequence).arg(count);
        let last = natural(&self.control.call(&cmd).await?).ok_or_else(|| unexpected("HINCRBY"))?;
        self.await_replica().await;
        Ok(last + 1 - u64::from(count))
    }
}

/// A change: revision and place in its commit, the commit's nonce, the record.
type Entry = ((Revision, u64), String, Stored);

fn entry(value: Value) -> Option<Entry> {
    let [id, fields] = pair(list(value))?;
    let (revision, part) = text(&id)?.split_once('-')?;
    let (revision, part) = (revision.parse().ok()?, part.parse().ok()?);
    let mut fields = list(fields)?.into_iter();
    let nonce = fields.nth(1)?;
    let (kind, key) = (fields.next()?, fields.next()?);
    let value = match fields.nth(1) {
        Some(value) => Some(bytes(value)?),
        None => None,
    };
    let record = Stored {
        kind: text(&kind)?.to_owned(),
        key: text(&key)?.to_owned(),
        revision,
        value,
    };
    Some(((revision, part), text(&nonce)?.to_owned(), record))
}

/// Of several changes of one record only the last.
fn latest(records: Vec<Stored>) -> Vec<Stored> {
    let mut told = HashSet::new();
    let mut latest: Vec<Stored> = records
        .into_iter()
        .rev()
        .filter(|record| told.insert((record.kind.clone(), record.key.clone())))
        .collect();
    latest.reverse();
    latest
}

fn expectation(expect: Expect) -> String {
    match expect {
        Expect::Anything => "*".to_owned(),
        Expect::Absent => "-".to_owned(),
        Expect::At(revision) => revision.to_string(),
    }
}

/// Takes `revision:value` apart.
fn versioned(value: Value) -> Result<(Revision, Bytes), StoreError> {
    let damaged = || StoreError::Damaged("a catalog record has no revision".to_owned());
    let value = bytes(value).ok_or_else(damaged)?;
    let colon = memchr::memchr(b':', &value).ok_or_else(damaged)?;
    let revision = std::str::from_utf8(&value[..colon])
        .ok()
        .and_then(|revision| revision.parse().ok())
        .ok_or_else(damaged)?;
    Ok((revision, value.slice(colon + 1..)))
}

fn pair(items: Option<Vec<Value>>) -> Option<[Value; 2]> {
    items?.try_into().ok()
}
