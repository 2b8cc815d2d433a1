//! What a store guarantees of the life of campaigns.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::{Fixture, START, answer, append, append_all, at, created, eventually, two_nodes};
use crate::clock::Timestamp;
use crate::results::{Campaign, CampaignId, Claim, Ending, HandOut, HostId, Seq, Status, UserId};
use crate::{Appended, Reaped, Store};

async fn status(store: &dyn Store, id: CampaignId) -> Status {
    store.campaign(id).await.unwrap().unwrap().status
}

pub(super) async fn claim(store: &dyn Store, id: CampaignId, node: &str, now: Timestamp) -> Claim {
    store.claim(id, node, now).await.unwrap()
}

pub(super) async fn reap(store: &dyn Store, now: Timestamp) -> Vec<Reaped> {
    store.reap(now).await.unwrap()
}

/// It is over, everywhere, for this reason.
async fn assert_ended(nodes: [&Arc<dyn Store>; 2], campaign: &Campaign, ending: Ending) {
    for store in nodes {
        let found = store.campaign(campaign.id).await.unwrap().unwrap();
        assert_eq!(found.status, Status::Complete);
        assert_eq!(found.ended.unwrap().1, ending);
        let claimed = claim(&**store, campaign.id, "late", at(0)).await;
        assert_eq!(claimed, Claim::Ended(ending));
        assert_eq!(append(&**store, campaign, 1).await, Appended::Closed);
        eventually("the campaign to leave the active ones", || async {
            store.active().get(campaign.id).is_none()
        })
        .await;
        let hand_out = store.hand_out(campaign.id, HostId(1), at(0)).await;
        assert_eq!(hand_out.unwrap(), HandOut::Never);
    }
}

pub async fn a_created_campaign_waits_and_is_given_to_its_targets(fixture: &dyn Fixture) {
    let (store, other) = two_nodes(fixture).await;
    let campaign = created(&*store, [1, 2, 70_000]).await;
    let read = other.campaign(campaign.id).await.unwrap().unwrap();
    assert_eq!(read.question.teams, campaign.question.teams);
    let again = created(&*other, [2]).await;
    assert!(campaign.id.0 >= 1 && again.id > campaign.id);
    assert!(store.active().get(campaign.id).is_some(), "at once here");
    for node in [&store, &other] {
        eventually("both campaigns to be active", || async {
            let active = node.active();
            let given: Vec<_> = active.for_host(HostId(2)).iter().map(|c| c.id).collect();
            given == [campaign.id, again.id]
        })
        .await;
        let active = node.active().get(campaign.id).unwrap();
        assert_eq!(active.sql, "SELECT * FROM uptime");
        assert!(active.targets.contains(70_000) && active.targets.len() == 3);
        let found = node.campaign(campaign.id).await.unwrap().unwrap();
        assert_eq!(found.status, Status::Waiting);
        assert_eq!((found.created_at, found.ended), (START, None));
        assert_eq!(found.question.targets, campaign.question.targets);
        assert_eq!(found.question.query_name.as_deref(), Some("uptime"));
        assert_eq!(found.question.query_id, campaign.question.query_id);
        assert_eq!(found.question.user_id, campaign.question.user_id);
    }
}

pub async fn campaigns_are_listed_newest_first(fixture: &dyn Fixture) {
    let (store, other) = two_nodes(fixture).await;
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(created(&*store, [1]).await.id);
    }
    claim(&*store, ids[3], "node", at(1)).await;
    store.end(ids[2], Ending::Stopped, at(1)).await.unwrap();
    let newest = other.campaigns(3).await.unwrap();
    let listed: Vec<_> = newest.iter().map(|found| found.id).collect();
    assert_eq!(listed, [ids[3], ids[2], ids[1]]);
    let statuses: Vec<_> = newest.iter().map(|found| found.status).collect();
    assert_eq!(
        statuses,
        [Status::Running, Status::Complete, Status::Waiting]
    );
    assert_eq!(other.campaigns(100).await.unwrap().len(), 4);
}

pub async fn an_unclaimed_campaign_is_cancelled_after_60_s_and_not_before(fixture: &dyn Fixture) {
    let (store, other) = two_nodes(fixture).await;
    let campaign = created(&*store, [1]).await;
    assert!(reap(&*other, Timestamp(at(60).0 - 1)).await.is_empty());
    let ended = Reaped::Ended(campaign.id, Ending::Unclaimed);
    assert_eq!(reap(&*other, at(60)).await, [ended]);
    assert!(reap(&*store, at(61)).await.is_empty());
    let found = store.campaign(campaign.id).await.unwrap().unwrap();
    assert!(found.is_cancelled());
    assert_ended([&store, &other], &campaign, Ending::Unclaimed).await;
}

pub async fn a_claim_holds_for_its_lease_and_the_grace(fixture: &dyn Fixture) {
    let (store, other) = two_nodes(fixture).await;
    let campaign = created(&*store, [1]).await;
    assert_eq!(
        claim(&*other, campaign.id, "b", at(59)).await,
        Claim::Claimed
    );
    assert_eq!(status(&*store, campaign.id).await, Status::Running);
    assert_eq!(
        claim(&*other, campaign.id, "b", at(70)).await,
        Claim::Claimed
    );
    assert!(reap(&*store, at(94)).await.is_empty(), "15 s and 10 s");
    let ended = Reaped::Ended(campaign.id, Ending::Unwatched);
    assert_eq!(reap(&*store, at(95)).await, [ended]);
    assert_ended([&store, &other], &campaign, Ending::Unwatched).await;
}

pub async fn the_last_viewer_leaving_starts_the_grace_and_a_return_stops_it(fixture: &dyn Fixture) {
    let (store, other) = two_nodes(fixture).await;
    let campaign = created(&*store, [1]).await;
    claim(&*store, campaign.id, "a", at(10)).await;
    claim(&*other, campaign.id, "b", at(10)).await;
    store.release(campaign.id, "a", at(11)).await.unwrap();
    claim(&*other, campaign.id, "b", at(20)).await;
    assert!(reap(&*store, at(22)).await.is_empty(), "b still watches");
    other.release(campaign.id, "b", at(24)).await.unwrap();
    other.release(campaign.id, "nobody", at(25)).await.unwrap();
    assert!(reap(&*store, at(33)).await.is_empty());
    claim(&*store, campaign.id, "a", at(33)).await;
    assert!(reap(&*other, at(40)).await.is_empty(), "back in time");
    store.release(campaign.id, "a", at(41)).await.unwrap();
    let ended = Reaped::Ended(campaign.id, Ending::Unwatched);
    assert_eq!(reap(&*other, at(51)).await, [ended]);
}

pub async fn no_campaign_runs_longer_than_a_day(fixture: &dyn Fixture) {
    let (store, other) = two_nodes(fixture).await;
    let campaign = created(&*store, [1]).await;
    let day = 24 * 3600;
    claim(&*store, campaign.id, "a", at(1)).await;
    claim(&*store, campaign.id, "a", at(day - 1)).await;
    assert!(reap(&*other, at(day - 1)).await.is_empty());
    let ended = Reaped::Ended(campaign.id, Ending::Expired);
    assert_eq!(reap(&*other, at(day)).await, [ended]);
}

pub async fn a_campaign_ends_once(fixture: &dyn Fixture) {
    let (store, other) = two_nodes(fixture).await;
    let campaign = created(&*store, [1]).await;
    let stopped = Ending::StoppedBy(UserId(3));
    let mut tasks = JoinSet::new();
    for task in 0..16 {
        let (node, id) = (
            Arc::clone(if task % 2 == 0 { &store } else { &other }),
            campaign.id,
        );
        tasks.spawn(async move { node.end(id, stopped, at(1)).await.unwrap() });
    }
    let firsts = tasks.join_all().await.into_iter().filter(|first| *first);
    assert_eq!(firsts.count(), 1);
    assert_ended([&store, &other], &campaign, stopped).await;
    assert!(reap(&*store, at(60)).await.is_empty(), "it is over already");
}

pub async fn many_reapers_end_a_campaign_once(fixture: &dyn Fixture) {
    let (store, other) = two_nodes(fixture).await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(created(&*store, [1]).await.id);
    }
    let mut tasks = JoinSet::new();
    for task in 0..16 {
        let node = Arc::clone(if task % 2 == 0 { &store } else { &other });
        tasks.spawn(async move { reap(&*node, at(60)).await });
    }
    let mut reaped = tasks.join_all().await.concat();
    reaped.sort_by_key(|reaped| match reaped {
        Reaped::Ended(id, _) | Reaped::Forgotten(id) => *id,
    });
    let all = ids.iter().map(|id| Reaped::Ended(*id, Ending::Unclaimed));
    assert_eq!(reaped, all.collect::<Vec<_>>());
}

pub async fn results_are_forgotten_after_the_retention(fixture: &dyn Fixture) {
    let (store, other) = two_nodes(fixture).await;
    let campaign = created(&*store, 1..=9).await;
    append_all(&*store, &campaign, 1..=5).await;
    store
        .end(campaign.id, Ending::Stopped, at(10))
        .await
        .unwrap();
    assert!(reap(&*other, at(3_609)).await.is_empty());
    for node in [&store, &other] {
        assert!(node.follow(campaign.id).await.unwrap().is_some());
        let records = node.read(campaign.id, Seq(0), 1 << 20).await.unwrap();
        assert_eq!(records.len(), 5, "results outlive the end");
    }
    let forgotten = Reaped::Forgotten(campaign.id);
    assert_eq!(reap(&*other, at(3_610)).await, [forgotten]);
    assert!(reap(&*store, at(3_611)).await.is_empty());
    for node in [&store, &other] {
        assert!(node.follow(campaign.id).await.unwrap().is_none());
        let read = node.read(campaign.id, Seq(0), 1 << 20).await.unwrap();
        assert!(read.is_empty());
        let late = node
            .append(campaign.id, answer(6), at(3_612))
            .await
            .unwrap();
        assert!(matches!(late, Appended::Closed | Appended::Unknown));
    }
}

pub async fn what_is_unknown_is_told_as_unknown(fixture: &dyn Fixture) {
    let store = fixture.fresh().await;
    let id = CampaignId(999);
    assert!(store.campaign(id).await.unwrap().is_none());
    assert!(store.progress(id).await.unwrap().is_none());
    assert!(store.follow(id).await.unwrap().is_none());
    assert_eq!(claim(&*store, id, "a", START).await, Claim::Unknown);
    assert!(!store.end(id, Ending::Stopped, START).await.unwrap());
    let appended = store.append(id, answer(1), START).await.unwrap();
    assert_eq!(appended, Appended::Unknown);
    let hand_out = store.hand_out(id, HostId(1), START).await.unwrap();
    assert_eq!(hand_out, HandOut::Never);
    store.take_back(id, HostId(1)).await;
    store.release(id, "a", START).await.unwrap();
    assert!(store.read(id, Seq(0), 1_000).await.unwrap().is_empty());
    assert!(store.campaigns(10).await.unwrap().is_empty());
    store.ping().await.unwrap();
}
