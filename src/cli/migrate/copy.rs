//! The steps of a migration, each of which can be done again: what is there already is left as it is.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::{Display, Formatter};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;

use crate::catalog::record::{MIGRATION_KEY, SEQUENCES, kind};
use crate::clock::Timestamp;
use crate::results::HostId;
use crate::store::{Change, Committed, Expect, Kind, Store, StoreError, Stored, load_all};

/// A commit ends with the record that reaches one of these: a Redis server does nothing else meanwhile.
const BATCH_RECORDS: usize = 200;
const BATCH_BYTES: usize = 1 << 20;
/// Check-ins that are written at once.
const SEEN_AT_ONCE: usize = 8_192;
/// A store that does not answer is asked again so often,
const TRIES: u32 = 8;
/// with pauses that begin with this and double.
const PAUSE: Duration = Duration::from_millis(100);

/// What the target holds before the copy.
pub(super) enum Standing {
    /// Nothing.
    Empty,
    /// A part of the same source's records.
    Unfinished,
    /// All of them, and nothing else.
    Complete,
    /// Something else, and what.
    Other(String),
}

/// The records of a store by kind and key.
type ByKey<'a> = HashMap<(&'a str, &'a str), &'a Bytes>;

fn by_key(records: &[Stored]) -> ByKey<'_> {
    let records = records
        .iter()
        .filter(|record| record.kind != kind::MIGRATION);
    let named = records.filter_map(|record| {
        let value = record.value.as_ref()?;
        Some(((record.kind.as_str(), record.key.as_str()), value))
    });
    named.collect()
}

/// Looks at what the target holds.
pub(super) async fn standing(
    target: &Arc<dyn Store>,
    from: &str,
    wanted: &[Stored],
) -> anyhow::Result<Standing> {
    let (found, _) = load(target).await?;
    if found.is_empty() {
        return Ok(Standing::Empty);
    }
    let mark = found.iter().find(|record| record.kind == kind::MIGRATION);
    if let Some(mark) = mark {
        let value = mark.value.as_deref().unwrap_or_default();
        let source: String = serde_json::from_slice(value).context("the migration's record")?;
        if source == from {
            return Ok(Standing::Unfinished);
        }
        return Ok(Standing::Other(format!(
            "it holds an unfinished copy of {source}"
        )));
    }
    let (found, wanted) = (by_key(&found), by_key(wanted));
    if found == wanted {
        return Ok(Standing::Complete);
    }
    Ok(Standing::Other(format!(
        "it is not empty: it holds {} records of its own",
        found.len()
    )))
}

/// Puts the mark, then every record that is missing or different, and deletes what the source does not have any more.
/// Returns how many changes that took.
pub(super) async fn records(
    target: &Arc<dyn Store>,
    from: &str,
    wanted: &[Stored],
    progress: impl Fn(usize, usize),
) -> anyhow::Result<usize> {
    let (found, _) = load(target).await?;
    let (found, wanted) = (by_key(&found), by_key(wanted));
    let mut kinds = Kinds::default();
    let mut changes = Vec::new();
    for ((of, key), value) in &wanted {
        if found.get(&(*of, *key)) != Some(value) {
            changes.push(change(kinds.of(of), key, Some((*value).clone())));
        }
    }
    let gone = found.keys().filter(|name| !wanted.contains_key(*name));
    for (of, key) in gone {
        changes.push(change(kinds.of(of), key, None));
    }
    if changes.is_empty() {
        return Ok(0);
    }
    let mark = serde_json::to_vec(from).context("the migration's record")?;
    commit(
        target,
        vec![change(kind::MIGRATION, MIGRATION_KEY, Some(mark.into()))],
    )
    .await?;
    let (all, mut done) = (changes.len(), 0);
    let mut rest = changes.into_iter().peekable();
    while rest.peek().is_some() {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while batch.len() < BATCH_RECORDS
            && bytes < BATCH_BYTES
            && let Some(next) = rest.next()
        {
            bytes += next.value.as_ref().map_or(0, Bytes::len);
            batch.push(next);
        }
        done += batch.len();
        commit(target, batch).await?;
        progress(done, all);
    }
    Ok(all)
}

/// Brings the target's sequences up to the source's: no number is given twice.
pub(super) async fn sequences(
    source: &Arc<dyn Store>,
    target: &Arc<dyn Store>,
) -> anyhow::Result<()> {
    for sequence in SEQUENCES {
        let next = async |store: &Arc<dyn Store>| {
            again(async || store.reserve(sequence, 0).await)
                .await
                .with_context(|| format!("the sequence {sequence}"))
        };
        let wanted = next(source).await?;
        // A reservation whose reply was lost may have been made: then this leaves out numbers, which is no harm.
        let mut now = next(target).await?;
        while now < wanted {
            let missing = u32::try_from(wanted - now).unwrap_or(u32::MAX);
            again(async || target.reserve(sequence, missing).await).await?;
            now = next(target).await?;
        }
    }
    Ok(())
}

/// Copies the last check-ins, and sees that none is missing. Returns of how many hosts.
pub(super) async fn check_ins(
    source: &Arc<dyn Store>,
    target: &Arc<dyn Store>,
) -> anyhow::Result<usize> {
    let seen = again(async || source.seen(Timestamp(0)).await).await?;
    for some in seen.chunks(SEEN_AT_ONCE) {
        again(async || target.put_seen(some).await).await?;
    }
    let found = again(async || target.seen(Timestamp(0)).await).await?;
    let found: HashMap<HostId, Timestamp> = found.into_iter().collect();
    let missing =
        |(host, at): &&(HostId, Timestamp)| found.get(host).is_none_or(|found| found < at);
    let missing = seen.iter().filter(missing).count();
    if missing > 0 {
        bail!("{missing} last check-ins were not copied");
    }
    Ok(seen.len())
}

/// Reads the target back and compares every record.
pub(super) async fn compare(target: &Arc<dyn Store>, wanted: &[Stored]) -> anyhow::Result<()> {
    let (found, _) = load(target).await?;
    let (found, wanted) = (by_key(&found), by_key(wanted));
    if let Some((of, key)) = wanted
        .keys()
        .find(|name| found.get(*name) != wanted.get(*name))
    {
        bail!("{of} {key} is not in the target as it is in the source; run the command again");
    }
    if let Some((of, key)) = found.keys().find(|name| !wanted.contains_key(*name)) {
        bail!("{of} {key} is in the target alone; run the command again");
    }
    Ok(())
}

/// Takes the mark away: brokers may start.
pub(super) async fn finish(target: &Arc<dyn Store>) -> anyhow::Result<()> {
    commit(target, vec![change(kind::MIGRATION, MIGRATION_KEY, None)]).await
}

async fn load(store: &Arc<dyn Store>) -> anyhow::Result<(Vec<Stored>, u64)> {
    let loaded = again(async || load_all(&**store).await).await;
    loaded.context("cannot read the target")
}

async fn commit(target: &Arc<dyn Store>, changes: Vec<Change>) -> anyhow::Result<()> {
    let done = again(async || target.commit(changes.clone()).await);
    match done.await.context("cannot write to the target")? {
        Committed::Done(_) => Ok(()),
        Committed::Conflict { kind, key } => bail!("{kind} {key} conflicts"),
    }
}

/// Every step can be repeated, so a store that is away for a moment only costs time.
async fn again<T>(mut step: impl AsyncFnMut() -> Result<T, StoreError>) -> Result<T, StoreError> {
    let mut pause = PAUSE;
    for _ in 1..TRIES {
        match step().await {
            Err(StoreError::Unavailable(_)) => tokio::time::sleep(pause).await,
            other => return other,
        }
        pause *= 2;
    }
    step().await
}

fn change(kind: Kind, key: &str, value: Option<Bytes>) -> Change {
    Change {
        kind,
        key: key.to_owned(),
        expect: Expect::Anything,
        value,
    }
}

/// Kinds that only a newer version knows are copied too: a handful, each kept for the rest of the command.
#[derive(Default)]
struct Kinds(HashSet<Kind>);

impl Kinds {
    fn of(&mut self, name: &str) -> Kind {
        if let Some(known) = self.0.get(name) {
            return known;
        }
        let kept: Kind = Box::leak(name.to_owned().into_boxed_str());
        self.0.insert(kept);
        kept
    }
}

/// What was copied.
pub(super) struct Report {
    kinds: BTreeMap<String, usize>,
    changes: usize,
    hosts_seen: usize,
}

impl Report {
    pub(super) fn new(records: &[Stored], changes: usize, hosts_seen: usize) -> Self {
        let mut kinds = BTreeMap::new();
        for record in records {
            *kinds.entry(record.kind.clone()).or_default() += 1;
        }
        Self {
            kinds,
            changes,
            hosts_seen,
        }
    }
}

impl Display for Report {
    fn fmt(&self, out: &mut Formatter<'_>) -> std::fmt::Result {
        let all: usize = self.kinds.values().sum();
        writeln!(
            out,
            "{all} records compared and equal ({} written by this run)",
            self.changes
        )?;
        for (kind, count) in &self.kinds {
            writeln!(out, "  {kind:<15}{count:>9}")?;
        }
        write!(out, "  {:<15}{:>9}", "last check-ins", self.hosts_seen)
    }
}
