//! What the catalog's half of a store guarantees.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::{Fixture, at, eventually, two_nodes};
use crate::results::HostId;
use crate::{Change, Committed, Expect, Revision, Store, StoreError, Stored, load_all};

pub(super) fn put(key: &str, value: &str, expect: Expect) -> Change {
    Change {
        kind: "host",
        key: key.into(),
        expect,
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
    }
}

fn delete(key: &str, expect: Expect) -> Change {
    let value = None;
    Change {
        value,
        ..put(key, "", expect)
    }
}

pub(super) async fn commit(store: &dyn Store, changes: Vec<Change>) -> Revision {
    match store.commit(changes).await.unwrap() {
        Committed::Done(revision) => revision,
        conflict @ Committed::Conflict { .. } => panic!("{conflict:?}"),
    }
}

/// The values of all records by key.
pub(super) async fn loaded(store: &dyn Store) -> BTreeMap<String, (Revision, Bytes)> {
    let (records, revision) = load_all(store).await.unwrap();
    assert!(records.iter().all(|record| record.revision <= revision));
    let by_key = |record: Stored| (record.key, (record.revision, record.value.unwrap()));
    records.into_iter().map(by_key).collect()
}

fn conflict(key: &str) -> Committed {
    let (kind, key) = ("host", key.into());
    Committed::Conflict { kind, key }
}

pub async fn a_commit_makes_all_its_changes_or_none(fixture: &dyn Fixture) {
    let (store, other) = two_nodes(fixture).await;
    assert!(loaded(&*store).await.is_empty());
    let first = commit(
        &*store,
        vec![
            put("a", "1", Expect::Absent),
            put("b", "2", Expect::Anything),
        ],
    )
    .await;
    let changes = vec![
        put("c", "3", Expect::Absent),
        delete("a", Expect::Anything),
        put("b", "4", Expect::Absent),
    ];
    assert_eq!(other.commit(changes).await.unwrap(), conflict("b"));
    let records = loaded(&*other).await;
    assert_eq!(records.len(), 2, "nothing of the second commit is there");
    assert_eq!(records["a"], (first, Bytes::from_static(b"1")));
    assert_eq!(records["b"], (first, Bytes::from_static(b"2")));
}

pub async fn a_commit_conflicts_with_a_record_that_is_not_as_expected(fixture: &dyn Fixture) {
    let (store, other) = two_nodes(fixture).await;
    let first = commit(&*store, vec![put("a", "1", Expect::Absent)]).await;
    let second = commit(&*other, vec![put("a", "2", Expect::At(first))]).await;
    assert!(second > first);
    for change in [
        put("a", "3", Expect::At(first)),
        delete("a", Expect::At(first)),
        put("a", "3", Expect::Absent),
    ] {
        assert_eq!(store.commit(vec![change]).await.unwrap(), conflict("a"));
    }
    let missing = vec![delete("b", Expect::At(second))];
    assert_eq!(store.commit(missing).await.unwrap(), conflict("b"));
    let third = commit(&*store, vec![delete("a", Expect::At(second))]).await;
    let gone = vec![put("a", "4", Expect::At(third))];
    assert_eq!(store.commit(gone).await.unwrap(), conflict("a"));
    commit(&*other, vec![put("a", "5", Expect::Absent)]).await;
    assert_eq!(loaded(&*store).await["a"].1, Bytes::from_static(b"5"));
}

pub async fn revisions_grow_and_changes_tell_what_followed_one(fixture: &dyn Fixture) {
    let (store, other) = two_nodes(fixture).await;
    let first = commit(
        &*store,
        vec![
            put("a", "1", Expect::Anything),
            put("b", "1", Expect::Anything),
        ],
    )
    .await;
    let second = commit(&*other, vec![put("c", "2", Expect::Anything)]).await;
    let third = commit(&*store, vec![delete("a", Expect::Anything)]).await;
    assert!(0 < first && first < second && second < third);
    let told = |records: Vec<Stored>| -> Vec<(Revision, String, Option<Bytes>)> {
        let tell = |record: Stored| (record.revision, record.key, record.value);
        records.into_iter().map(tell).collect()
    };
    let after = store.changes(first).await.unwrap().unwrap();
    let value = Some(Bytes::from_static(b"2"));
    assert_eq!(
        told(after),
        [(second, "c".into(), value), (third, "a".into(), None)]
    );
    let all = store.changes(0).await.unwrap().unwrap();
    let keys: Vec<_> = told(all).into_iter().map(|(_, key, _)| key).collect();
    assert_eq!(keys, ["b", "c", "a"]);
    assert!(store.changes(third).await.unwrap().unwrap().is_empty());
    assert_eq!(load_all(&*store).await.unwrap().1, third);
}

pub async fn changes_tell_whole_commits_until_there_are_no_more(fixture: &dyn Fixture) {
    let (store, other) = two_nodes(fixture).await;
    for round in 0..7 {
        let keys = (0..900).map(|key| format!("{round}-{key}"));
        let changes = keys.map(|key| put(&key, "x", Expect::Absent)).collect();
        commit(&*store, changes).await;
    }
    let (mut seen, mut after) = (BTreeSet::new(), 0);
    loop {
        let changes = other.changes(after).await.unwrap().unwrap();
        let Some(last) = changes.last() else { break };
        assert!(changes.iter().all(|change| change.revision > after));
        assert!(changes.is_sorted_by_key(|change| change.revision));
        after = last.revision;
        seen.extend(changes.into_iter().map(|change| change.key));
    }
    assert_eq!(seen.len(), 6_300);
}

pub async fn one_of_many_commits_that_expect_the_same_wins(fixture: &dyn Fixture) {
    let (store, other) = two_nodes(fixture).await;
    let mut at = commit(&*store, vec![put("a", "0", Expect::Absent)]).await;
    for round in 0..5 {
        let mut tasks = JoinSet::new();
        for task in 0..16 {
            let node = Arc::clone(if task % 2 == 0 { &store } else { &other });
            tasks.spawn(async move {
                let own = format!("{round}-{task}");
                let changes = vec![
                    put(&own, "mine", Expect::Absent),
                    put("a", &own, Expect::At(at)),
                ];
                (own, node.commit(changes).await.unwrap())
            });
        }
        let mut winners = Vec::new();
        for (own, committed) in tasks.join_all().await {
            match committed {
                Committed::Done(revision) => winners.push((own, revision)),
                lost => assert_eq!(lost, conflict("a")),
            }
        }
        let [(own, revision)] = winners.try_into().unwrap();
        let records = loaded(&*store).await;
        assert_eq!(records["a"], (revision, Bytes::from(own.clone())));
        assert_eq!(records.len(), round + 2, "losers left nothing behind");
        assert!(records.contains_key(&own));
        at = revision;
    }
}

pub async fn a_commit_reaches_the_other_node(fixture: &dyn Fixture) {
    let store = fixture.fresh().await;
    let Some(other) = fixture.second_node(&store).await else {
        return;
    };
    let before = load_all(&*other).await.unwrap().1;
    let revision = commit(&*store, vec![put("a", "1", Expect::Absent)]).await;
    eventually("a commit of the other node", || async {
        other.committed_elsewhere().await;
        let changes = other.changes(before).await.unwrap().unwrap();
        changes.iter().any(|change| change.revision == revision)
    })
    .await;
}

pub async fn a_load_comes_in_batches_and_stops_at_a_refusal(fixture: &dyn Fixture) {
    const RECORDS: usize = 6_000;
    let store = fixture.fresh().await;
    for first in (0..RECORDS).step_by(1_000) {
        let keys = first..first + 1_000;
        let changes = keys.map(|key| put(&key.to_string(), "1", Expect::Absent));
        commit(&*store, changes.collect()).await;
    }
    let (mut batches, mut keys) = (0, BTreeSet::new());
    let mut take = |batch: Vec<Stored>| {
        batches += 1;
        keys.extend(batch.into_iter().map(|record| record.key));
        Ok(())
    };
    store.load(&mut take).await.unwrap();
    assert!(batches > 1 && keys.len() == RECORDS, "{batches}");
    let mut asked = 0;
    let mut refuse = |_| {
        asked += 1;
        Err(StoreError::Damaged("a record".to_owned()))
    };
    let refused = store.load(&mut refuse).await;
    assert!(matches!(refused, Err(StoreError::Damaged(_))) && asked == 1);
}

pub async fn a_number_is_reserved_once(fixture: &dyn Fixture) {
    let (store, other) = two_nodes(fixture).await;
    assert_eq!(store.reserve("host", 1).await.unwrap(), 1);
    assert_eq!(store.reserve("label", 1).await.unwrap(), 1);
    let mut tasks = JoinSet::new();
    for task in 0..40_u32 {
        let node = Arc::clone(if task % 2 == 0 { &store } else { &other });
        tasks.spawn(async move {
            let count = task % 5 + 1;
            let first = node.reserve("host", count).await.unwrap();
            first..first + u64::from(count)
        });
    }
    let numbers: Vec<u64> = tasks.join_all().await.into_iter().flatten().collect();
    let unique: BTreeSet<u64> = numbers.iter().copied().collect();
    assert_eq!(unique.len(), numbers.len());
    assert!(!unique.contains(&0) && !unique.contains(&1));
}

pub async fn the_latest_check_in_of_a_host_counts(fixture: &dyn Fixture) {
    let (store, other) = two_nodes(fixture).await;
    let put = |node: &Arc<dyn Store>, seen: Vec<(u32, u64)>| {
        let node = Arc::clone(node);
        let seen: Vec<_> = seen.iter().map(|(id, s)| (HostId(*id), at(*s))).collect();
        async move { node.put_seen(&seen).await.unwrap() }
    };
    put(&store, vec![(1, 10), (2, 20)]).await;
    put(&other, vec![(2, 15), (3, 30)]).await;
    put(&other, (100..10_100).map(|host| (host, 5)).collect()).await;
    let mut recent = store.seen(at(10)).await.unwrap();
    recent.sort_unstable();
    let hosts: Vec<u32> = recent.iter().map(|(host, _)| host.0).collect();
    assert_eq!(hosts, [1, 2, 3]);
    assert!(recent[1].1 >= at(20), "an older check-in changes nothing");
    assert_eq!(store.seen(at(0)).await.unwrap().len(), 10_003);
}
