//! What a store guarantees of logs: those that are followed, and those that are read.

use std::sync::Arc;
use std::time::Duration;

use super::{
    Fixture, PATIENCE, START, answer, append_all, at, created, named, payloads, two_nodes,
};
use crate::results::{Campaign, Ending, HostId, Read, Seq};
use crate::sockjs::Form;
use crate::wake::WakeSlot;
use crate::{CampaignLog, Store};

/// Reads a log as a viewer does, up to this position: waits for the wake slot at the end, and has what was evicted
/// read back.
pub(super) async fn view(store: &dyn Store, log: &CampaignLog, upto: Seq) -> Vec<(Seq, HostId)> {
    let wake_slot = WakeSlot::default();
    log.subscribe(&wake_slot);
    let (mut seen, mut cursor) = (Vec::new(), Seq(0));
    while cursor < upto {
        match log.read(cursor, Form::RawFrame, 16 * 1024) {
            Read::Slice(slice, last) => {
                for part in &slice.parts {
                    seen.extend(payloads(part).into_iter().map(named));
                }
                cursor = last;
            }
            Read::End => {
                let rung = tokio::time::timeout(PATIENCE, wake_slot.notified()).await;
                assert!(rung.is_ok(), "nobody rang after {cursor}");
            }
            Read::Evicted { first, .. } => {
                let before = Seq(first.0 - 1);
                let records = store.read(log.id(), before, 256 * 1024).await.unwrap();
                assert_eq!(records.first().map(|record| record.seq), Some(first));
                log.restore(&records);
            }
        }
    }
    log.unsubscribe(&wake_slot);
    seen
}

/// Each host from 1 on, at the place of its number.
pub(super) fn in_order(count: u32) -> Vec<(Seq, HostId)> {
    (1..=count)
        .map(|host| (Seq(u64::from(host)), HostId(host)))
        .collect()
}

async fn followed(store: &dyn Store, campaign: &Campaign) -> Arc<CampaignLog> {
    let log = store.follow(campaign.id).await.unwrap().unwrap();
    assert_eq!(log.id(), campaign.id);
    log
}

pub async fn a_follower_sees_every_answer_in_order_and_goes_on(fixture: &dyn Fixture) {
    let (store, other) = two_nodes(fixture).await;
    let campaign = created(&*store, 1..=600).await;
    let mut viewers = tokio::task::JoinSet::new();
    for number in 0..12 {
        let node = Arc::clone(if number % 2 == 0 { &store } else { &other });
        let log = followed(&*node, &campaign).await;
        viewers.spawn(async move { view(&*node, &log, Seq(600)).await });
    }
    append_all(&*store, &campaign, 1..=200).await;
    tokio::time::sleep(Duration::from_millis(30)).await;
    append_all(&*other, &campaign, 201..=400).await;
    append_all(&*store, &campaign, 401..=600).await;
    for seen in viewers.join_all().await {
        assert_eq!(seen, in_order(600));
    }
}

pub async fn a_late_follower_sees_everything(fixture: &dyn Fixture) {
    let (store, other) = two_nodes(fixture).await;
    let campaign = created(&*store, 1..=700).await;
    append_all(&*store, &campaign, 1..=500).await;
    for node in [&store, &other] {
        let log = followed(&**node, &campaign).await;
        assert_eq!(view(&**node, &log, Seq(500)).await, in_order(500));
    }
    append_all(&*store, &campaign, 501..=700).await;
    store
        .end(campaign.id, Ending::Stopped, at(1))
        .await
        .unwrap();
    for node in [&store, &other, &store] {
        let log = followed(&**node, &campaign).await;
        assert_eq!(view(&**node, &log, Seq(700)).await, in_order(700));
    }
}

pub async fn the_log_is_read_in_pages(fixture: &dyn Fixture) {
    let (store, other) = two_nodes(fixture).await;
    let campaign = created(&*store, 1..=1_000).await;
    append_all(&*store, &campaign, 1..=1_000).await;
    for max_bytes in [1, 5_000, 100_000] {
        let (mut after, mut pages) = (Seq(0), 0);
        loop {
            let page = other.read(campaign.id, after, max_bytes).await.unwrap();
            let Some(last) = page.last() else { break };
            let bytes: usize = page.iter().map(|record| record.answer.body.len()).sum();
            let longest = answer(699).body.len();
            assert!(page.len() == 1 || bytes <= max_bytes + longest);
            for (record, place) in page.iter().zip(after.0 + 1..) {
                assert_eq!(record.seq, Seq(place));
                assert_eq!(record.answer, answer(u32::try_from(place).unwrap()));
            }
            (after, pages) = (last.seq, pages + 1);
            if max_bytes == 1 && pages == 50 {
                after = Seq(950);
            }
        }
        assert_eq!(after, Seq(1_000));
    }
    let beyond = store.read(campaign.id, Seq(5_000), 1_000).await.unwrap();
    assert!(beyond.is_empty());
    let empty = store
        .create(campaign.question.clone(), START)
        .await
        .unwrap();
    assert!(
        store
            .read(empty.id, Seq(0), 1_000)
            .await
            .unwrap()
            .is_empty()
    );
}
