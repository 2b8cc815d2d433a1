//! What a store guarantees of answers and hand-outs.

use std::collections::BTreeSet;
use std::sync::Arc;

use roaring::RoaringBitmap;
use tokio::task::JoinSet;

use super::{Fixture, answer, append, append_all, at, created, two_nodes};
use crate::clock::Timestamp;
use crate::results::{CampaignId, Ending, HandOut, HostId, Seq};
use crate::{Appended, Store};

pub(super) async fn hand_out(
    store: &dyn Store,
    id: CampaignId,
    host: u32,
    now: Timestamp,
) -> HandOut {
    store.hand_out(id, HostId(host), now).await.unwrap()
}

fn places(appended: &[Appended]) -> BTreeSet<Seq> {
    let place = |appended: &Appended| match appended {
        Appended::At(seq) => Some(*seq),
        _ => None,
    };
    appended.iter().filter_map(place).collect()
}

fn first(count: u64) -> BTreeSet<Seq> {
    (1..=count).map(Seq).collect()
}

pub async fn each_answer_gets_its_verdict(fixture: &dyn Fixture) {
    let (store, other) = two_nodes(fixture).await;
    let campaign = created(&*store, 1..=3).await;
    assert_eq!(append(&*store, &campaign, 3).await, Appended::At(Seq(1)));
    assert_eq!(append(&*other, &campaign, 1).await, Appended::At(Seq(2)));
    assert_eq!(append(&*other, &campaign, 3).await, Appended::Duplicate);
    assert_eq!(append(&*store, &campaign, 3).await, Appended::Duplicate);
    assert_eq!(append(&*other, &campaign, 4).await, Appended::NotTargeted);
    assert_eq!(append(&*other, &campaign, 2).await, Appended::At(Seq(3)));
    other
        .end(campaign.id, Ending::Stopped, at(1))
        .await
        .unwrap();
    assert_eq!(append(&*store, &campaign, 2).await, Appended::Closed);
    let records = store.read(campaign.id, Seq(0), 1 << 20).await.unwrap();
    let hosts: Vec<u32> = records.iter().map(|record| record.answer.host.0).collect();
    assert_eq!(hosts, [3, 1, 2]);
    assert!(
        records
            .iter()
            .all(|record| record.answer == answer(record.answer.host.0))
    );
}

pub async fn answers_that_come_together_get_places_without_gaps(fixture: &dyn Fixture) {
    let (store, other) = two_nodes(fixture).await;
    let campaign = created(&*store, 1..=2_000).await;
    let mut tasks = JoinSet::new();
    for task in 0..50_u32 {
        let node = Arc::clone(if task % 2 == 0 { &store } else { &other });
        let campaign = campaign.clone();
        tasks.spawn(async move {
            let mut appended = Vec::new();
            for host in (1..=2_000).skip(task as usize).step_by(50) {
                appended.push(append(&*node, &campaign, host).await);
            }
            appended
        });
    }
    let appended = tasks.join_all().await.concat();
    assert_eq!(places(&appended), first(2_000));
    let records = store.read(campaign.id, Seq(0), 1 << 30).await.unwrap();
    let seqs: Vec<Seq> = records.iter().map(|record| record.seq).collect();
    assert_eq!(seqs, (1..=seqs.len() as u64).map(Seq).collect::<Vec<_>>());
}

pub async fn of_answers_from_one_host_that_come_together_one_is_taken(fixture: &dyn Fixture) {
    let (store, other) = two_nodes(fixture).await;
    let campaign = created(&*store, 1..=20).await;
    let mut tasks = JoinSet::new();
    for task in 0..400_u32 {
        let node = Arc::clone(if task % 2 == 0 { &store } else { &other });
        let campaign = campaign.clone();
        tasks.spawn(async move { append(&*node, &campaign, task / 20 + 1).await });
    }
    let appended = tasks.join_all().await;
    assert_eq!(places(&appended), first(20));
    let twice = appended.iter().filter(|one| **one == Appended::Duplicate);
    assert_eq!(twice.count(), 380);
}

pub async fn no_answer_is_taken_after_the_end(fixture: &dyn Fixture) {
    let (store, other) = two_nodes(fixture).await;
    let campaign = created(&*store, 1..=500).await;
    let mut tasks = JoinSet::new();
    for host in 1..=500_u32 {
        let node = Arc::clone(if host % 2 == 0 { &store } else { &other });
        let asked = campaign.clone();
        tasks.spawn(async move { append(&*node, &asked, host).await });
        if host == 200 {
            tokio::task::yield_now().await;
            let (node, id) = (Arc::clone(&other), campaign.id);
            assert!(node.end(id, Ending::Stopped, at(1)).await.unwrap());
            // Whatever was taken, was taken before.
            let taken = store.read(id, Seq(0), 1 << 30).await.unwrap().len();
            let late = append(&*store, &campaign, 500).await;
            assert_eq!(late, Appended::Closed);
            let again = store.read(id, Seq(0), 1 << 30).await.unwrap().len();
            assert_eq!(again, taken);
        }
    }
    let appended = tasks.join_all().await;
    let taken = places(&appended);
    assert_eq!(taken, first(taken.len() as u64));
    assert!(
        taken.len() <= 200,
        "those that were sent after the end are not in"
    );
    let records = store.read(campaign.id, Seq(0), 1 << 30).await.unwrap();
    assert_eq!(records.len(), taken.len());
    let closed = appended.iter().filter(|one| **one == Appended::Closed);
    assert_eq!(closed.count(), 500 - taken.len());
}

pub async fn a_host_is_handed_the_query_again_when_overdue_at_most_three_times(
    fixture: &dyn Fixture,
) {
    let (store, other) = two_nodes(fixture).await;
    let id = created(&*store, [7, 8]).await.id;
    assert_eq!(hand_out(&*store, id, 9, at(0)).await, HandOut::Never);
    assert_eq!(hand_out(&*store, id, 7, at(0)).await, HandOut::Give);
    let pending = HandOut::Pending(at(60));
    assert_eq!(hand_out(&*other, id, 7, at(59)).await, pending);
    assert_eq!(hand_out(&*other, id, 7, at(60)).await, HandOut::Give);
    assert_eq!(hand_out(&*store, id, 7, at(120)).await, HandOut::Give);
    assert_eq!(hand_out(&*other, id, 7, at(180)).await, HandOut::Never);
    assert_eq!(hand_out(&*other, id, 8, at(180)).await, HandOut::Give);
    let late = store.append(id, answer(7), at(190)).await.unwrap();
    assert_eq!(late, Appended::At(Seq(1)), "a late answer is still taken");
    store.append(id, answer(8), at(190)).await.unwrap();
    let answered = hand_out(&*other, id, 8, at(500)).await;
    assert_eq!(answered, HandOut::Never);
}

pub async fn a_hand_out_that_is_taken_back_does_not_count(fixture: &dyn Fixture) {
    let (store, other) = two_nodes(fixture).await;
    let id = created(&*store, [7]).await.id;
    for round in 0..6 {
        let given = hand_out(&*store, id, 7, at(60 * round)).await;
        assert_eq!(given, HandOut::Give);
        other.take_back(id, HostId(7)).await;
    }
    for round in 6..9 {
        let given = hand_out(&*other, id, 7, at(60 * round)).await;
        assert_eq!(given, HandOut::Give);
    }
    assert_eq!(hand_out(&*store, id, 7, at(600)).await, HandOut::Never);
}

pub async fn progress_tells_who_has_done_what(fixture: &dyn Fixture) {
    let (store, other) = two_nodes(fixture).await;
    let campaign = created(&*store, 1..=10).await;
    for host in 4..=8 {
        hand_out(&*store, campaign.id, host, at(0)).await;
    }
    append_all(&*store, &campaign, 1..=6).await;
    let progress = other.progress(campaign.id).await.unwrap().unwrap();
    assert_eq!(progress.answered, RoaringBitmap::from_iter(1..=6));
    assert_eq!(progress.failed, RoaringBitmap::from_iter([3, 6]));
    assert_eq!(progress.handed, RoaringBitmap::from_iter([7, 8]));
}
