//! What a store guarantees to keep over a restart of its process.

use roaring::RoaringBitmap;

use super::answers::hand_out;
use super::campaigns::{claim, reap};
use super::catalog::{commit, loaded, put};
use super::logs::{in_order, view};
use super::{Fixture, START, append, append_all, at, created};
use crate::results::{Claim, Ending, HandOut, HostId, Seq, Status, UserId};
use crate::{Appended, Expect, Reaped, load_all};

pub async fn a_restart_keeps_the_catalog_and_its_numbers(fixture: &dyn Fixture) {
    let store = fixture.fresh().await;
    let first = commit(&*store, vec![put("a", "1", Expect::Absent)]).await;
    let second = commit(&*store, vec![put("b", "2", Expect::Absent)]).await;
    let number = store.reserve("host", 10).await.unwrap();
    store.put_seen(&[(HostId(1), at(5))]).await.unwrap();
    let before = loaded(&*store).await;
    let store = fixture.reopen(store, at(10)).await;
    assert_eq!(loaded(&*store).await, before);
    assert_eq!(load_all(&*store).await.unwrap().1, second);
    let changes = store.changes(first).await.unwrap().unwrap();
    assert_eq!(changes.len(), 1);
    assert!(store.reserve("host", 1).await.unwrap() >= number + 10);
    let third = commit(&*store, vec![put("a", "3", Expect::At(first))]).await;
    assert!(third > second);
    assert_eq!(store.seen(START).await.unwrap().len(), 1);
}

pub async fn a_restart_keeps_answers_and_goes_on_counting(fixture: &dyn Fixture) {
    let store = fixture.fresh().await;
    let campaign = created(&*store, 1..=900).await;
    append_all(&*store, &campaign, 1..=400).await;
    let store = fixture.reopen(store, at(10)).await;
    assert!(store.active().get(campaign.id).is_some());
    let found = store.campaign(campaign.id).await.unwrap().unwrap();
    assert_eq!(found.question.targets, campaign.question.targets);
    assert_eq!(append(&*store, &campaign, 400).await, Appended::Duplicate);
    assert_eq!(append(&*store, &campaign, 901).await, Appended::NotTargeted);
    append_all(&*store, &campaign, 401..=700).await;
    let store = fixture.reopen(store, at(20)).await;
    let log = store.follow(campaign.id).await.unwrap().unwrap();
    assert_eq!(log.last(), Seq(700));
    append_all(&*store, &campaign, 701..=900).await;
    assert_eq!(view(&*store, &log, Seq(900)).await, in_order(900));
    let progress = store.progress(campaign.id).await.unwrap().unwrap();
    assert_eq!(progress.answered, RoaringBitmap::from_iter(1..=900));
    let failed = (1..=900_u32).filter(|host| host.is_multiple_of(3));
    assert_eq!(progress.failed, RoaringBitmap::from_iter(failed));
    assert!(created(&*store, [1]).await.id > campaign.id);
}

pub async fn a_restart_keeps_hand_outs(fixture: &dyn Fixture) {
    let store = fixture.fresh().await;
    let id = created(&*store, [7, 8, 9]).await.id;
    assert_eq!(hand_out(&*store, id, 7, at(0)).await, HandOut::Give);
    assert_eq!(hand_out(&*store, id, 8, at(0)).await, HandOut::Give);
    store.take_back(id, HostId(8)).await;
    let store = fixture.reopen(store, at(10)).await;
    let pending = HandOut::Pending(at(60));
    assert_eq!(hand_out(&*store, id, 7, at(20)).await, pending);
    assert_eq!(hand_out(&*store, id, 7, at(60)).await, HandOut::Give);
    let store = fixture.reopen(store, at(70)).await;
    assert_eq!(hand_out(&*store, id, 7, at(120)).await, HandOut::Give);
    assert_eq!(hand_out(&*store, id, 7, at(180)).await, HandOut::Never);
    for round in 1..=3 {
        let given = hand_out(&*store, id, 8, at(180 + 60 * round)).await;
        assert_eq!(given, HandOut::Give, "the one taken back does not count");
    }
    assert_eq!(hand_out(&*store, id, 8, at(600)).await, HandOut::Never);
}

pub async fn a_restart_keeps_deadlines(fixture: &dyn Fixture) {
    let store = fixture.fresh().await;
    let waiting = created(&*store, [1]).await.id;
    let running = created(&*store, [1]).await.id;
    claim(&*store, running, "a", at(5)).await;
    let store = fixture.reopen(store, at(10)).await;
    let found = store.campaign(running).await.unwrap().unwrap();
    assert_eq!(found.status, Status::Running);
    assert_eq!(claim(&*store, running, "a", at(12)).await, Claim::Claimed);
    assert!(reap(&*store, at(20)).await.is_empty());
    assert_eq!(claim(&*store, running, "a", at(25)).await, Claim::Claimed);
    assert_eq!(claim(&*store, running, "a", at(40)).await, Claim::Claimed);
    assert_eq!(claim(&*store, running, "a", at(55)).await, Claim::Claimed);
    let unclaimed = Reaped::Ended(waiting, Ending::Unclaimed);
    assert_eq!(reap(&*store, at(60)).await, [unclaimed]);
    let store = fixture.reopen(store, at(61)).await;
    assert!(reap(&*store, at(62)).await.is_empty());
    let unwatched = Reaped::Ended(running, Ending::Unwatched);
    // 15 s of lease and 10 s of grace, at the most counted from the restart.
    assert_eq!(reap(&*store, at(61 + 25)).await, [unwatched]);
}

pub async fn a_restart_keeps_endings_and_what_was_forgotten(fixture: &dyn Fixture) {
    let store = fixture.fresh().await;
    let campaign = created(&*store, 1..=300).await;
    append_all(&*store, &campaign, 1..=250).await;
    store
        .end(campaign.id, Ending::StoppedBy(UserId(3)), at(10))
        .await
        .unwrap();
    let store = fixture.reopen(store, at(20)).await;
    let found = store.campaign(campaign.id).await.unwrap().unwrap();
    assert_eq!(found.ended, Some((at(10), Ending::StoppedBy(UserId(3)))));
    assert_eq!(found.question.teams, campaign.question.teams);
    assert!(store.active().is_empty());
    assert_eq!(append(&*store, &campaign, 251).await, Appended::Closed);
    assert!(
        !store
            .end(campaign.id, Ending::Expired, at(21))
            .await
            .unwrap()
    );
    let progress = store.progress(campaign.id).await.unwrap().unwrap();
    assert_eq!(progress.answered.len(), 250);
    let log = store.follow(campaign.id).await.unwrap().unwrap();
    assert_eq!(view(&*store, &log, Seq(250)).await, in_order(250));
    drop(log);
    assert!(reap(&*store, at(3_609)).await.is_empty());
    let forgotten = Reaped::Forgotten(campaign.id);
    assert_eq!(reap(&*store, at(3_610)).await, [forgotten]);
    let store = fixture.reopen(store, at(3_620)).await;
    assert!(store.follow(campaign.id).await.unwrap().is_none());
    assert!(reap(&*store, at(9_000)).await.is_empty());
}
