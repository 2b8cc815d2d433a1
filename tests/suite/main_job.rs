//! The main job: agents answer, viewers watch, complete and in order, on the embedded store.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use serde_json::json;

use crate::broker::Broker;
use crate::hosts::Host;
use crate::viewer::{Heard, Viewer};

/// All hosts take the query and answer, so many at a time.
async fn all_answer(broker: &Broker, hosts: &[Host], campaign: u64, at_once: usize) {
    stream::iter(hosts)
        .for_each_concurrent(at_once, async |host| {
            assert!(
                host.is_given(broker, campaign).await,
                "{} is given the query",
                host.name
            );
            let rows = json!([{ "name": host.name, "n": 7, "nothing": null }]);
            assert_eq!(host.answer(broker, campaign, rows).await, 200);
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_hosts_reach_twenty_viewers_once_and_in_the_same_order() {
    const HOSTS: usize = 1_000;
    let broker = Arc::new(Broker::start(&[]).await);
    let hosts = Host::enroll_many(&broker, HOSTS).await;
    let campaign = broker.run_on_all("select name from system_info").await;
    let mut watching = Vec::new();
    for _ in 0..18 {
        let mut viewer = Viewer::watch(&broker, campaign, 0).await;
        watching.push(tokio::spawn(async move {
            viewer.until_finished().await;
            viewer
        }));
    }
    let mut stalled = Viewer::watch(&broker, campaign, 0).await;
    let mut broken = Viewer::watch(&broker, campaign, 0).await;
    let answering = {
        let broker = Arc::clone(&broker);
        tokio::spawn(async move { all_answer(&broker, &hosts, campaign, 16).await })
    };
    broken.until_results(100).await;
    let (seen, mut seen_hosts) = (*broken.seqs.last().unwrap(), broken.hosts.clone());
    drop(broken);
    answering.await.unwrap();
    let mut order: Option<Vec<String>> = None;
    for viewer in watching {
        let viewer = viewer.await.unwrap();
        assert_eq!(viewer.seqs, (1..=HOSTS as u64).collect::<Vec<_>>());
        assert_eq!(
            *order.get_or_insert_with(|| viewer.hosts.clone()),
            viewer.hosts
        );
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    stalled.until_finished().await;
    assert_eq!(
        stalled.seqs,
        (1..=HOSTS as u64).collect::<Vec<_>>(),
        "who stopped reading missed nothing"
    );
    let mut back = Viewer::watch(&broker, campaign, seen).await;
    back.until_finished().await;
    assert_eq!(
        back.seqs,
        (seen + 1..=HOSTS as u64).collect::<Vec<_>>(),
        "who came back got exactly the rest"
    );
    seen_hosts.extend(back.hosts);
    assert_eq!(Some(seen_hosts), order);
}

#[tokio::test]
async fn messages_come_in_the_order_and_shape_that_clients_know() {
    let broker = Broker::start(&[]).await;
    let hosts = Host::enroll_many(&broker, 3).await;
    for host in &hosts {
        host.read(&broker).await;
    }
    let campaign = broker.run_on_all("select 1").await;
    for path in [
        "/api/v1/fleet/results/websocket",
        "/api/latest/fleet/results/websockets",
    ] {
        let mut viewer = Viewer::connect_to(&broker, path).await;
        let both = json!([
            { "type": "auth", "data": { "token": crate::broker::TOKEN } },
            { "type": "select_campaign", "data": { "campaign_id": campaign } },
        ]);
        viewer.say(&both).await;
        let totals = viewer.message().await;
        assert_eq!(totals["type"], "totals");
        assert_eq!(
            (&totals["data"]["count"], &totals["data"]["online"]),
            (&json!(3), &json!(3))
        );
        let status = viewer.message().await;
        assert_eq!(
            status["data"],
            json!({ "expected_results": 3, "actual_results": 0, "status": "pending" })
        );
    }
    let mut viewer = Viewer::watch(&broker, campaign, 0).await;
    assert_eq!(
        hosts[0]
            .answer(
                &broker,
                campaign,
                json!([{ "a": "1", "b": 2, "host_hostname": "spoof" }, null])
            )
            .await,
        200
    );
    assert_eq!(
        hosts[1].fail(&broker, campaign, "no such table: x").await,
        200
    );
    viewer.until_results(1).await;
    let failed = viewer.message().await;
    let mut again = Viewer::watch(&broker, campaign, 0).await;
    again.message().await;
    again.message().await;
    let first = again.message().await;
    let data = &first["data"];
    assert_eq!(data["distributed_query_execution_id"], campaign);
    let row = json!({ "a": "1", "b": "2", "host_hostname": "host-00000", "host_display_name": "host-00000" });
    assert_eq!(data["rows"], json!([row]));
    assert_eq!(data["error"], json!(null));
    assert!(data["host"]["id"].is_u64() && data["host"]["display_name"] == "host-00000");
    assert_eq!(
        (&failed["data"]["error"], &failed["data"]["rows"]),
        (&json!("no such table: x"), &json!([]))
    );
}

#[tokio::test]
async fn a_campaign_that_nobody_claims_is_cancelled_and_says_so() {
    let broker = Broker::start(&["--unclaimed-s", "1"]).await;
    let hosts = Host::enroll_many(&broker, 2).await;
    let campaign = broker.run_on_all("select 1").await;
    assert!(hosts[0].is_given(&broker, campaign).await);
    let cancelled = async {
        loop {
            let mut viewer = Viewer::watch(&broker, campaign, 0).await;
            if let Heard::Message(message) = viewer.hear().await
                && message["type"] == "error"
            {
                return message["data"].as_str().unwrap().to_owned();
            }
        }
    };
    tokio::time::sleep(Duration::from_millis(2_100)).await;
    let text = cancelled.await;
    assert!(text.contains("cancelled"), "{text}");
    assert!(
        !hosts[1].is_given(&broker, campaign).await,
        "agents get it no more"
    );
    assert_eq!(
        hosts[0].answer(&broker, campaign, json!([])).await,
        200,
        "a late answer is no error"
    );
}

#[tokio::test]
async fn results_wait_for_a_late_viewer_and_survive_a_kill() {
    let mut broker = Broker::start(&[]).await;
    let hosts = Host::enroll_many(&broker, 20).await;
    let campaign = broker.run_on_all("select 1").await;
    all_answer(&broker, &hosts[..10], campaign, 4).await;
    broker.crash_and_restart().await;
    let mut viewer = Viewer::watch(&broker, campaign, 4).await;
    viewer.until_results(6).await;
    assert_eq!(viewer.seqs, [5, 6, 7, 8, 9, 10]);
    assert!(
        !hosts[0].is_given(&broker, campaign).await,
        "who has answered is not asked again"
    );
    all_answer(&broker, &hosts[10..], campaign, 4).await;
    viewer.until_finished().await;
    assert_eq!(viewer.seqs, (5..=20).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_host_answers_once_and_only_where_it_was_asked() {
    let broker = Broker::start(&[]).await;
    let hosts = Host::enroll_many(&broker, 3).await;
    let body =
        json!({ "query": "select 1", "selected": { "hosts": ["host-00000", "host-00001"] } });
    let (status, said) = broker
        .post("/api/latest/fleet/queries/run_by_identifiers", body)
        .await;
    assert_eq!(status, 200, "{said}");
    let campaign = said["campaign"]["id"].as_u64().unwrap();
    let mut viewer = Viewer::watch(&broker, campaign, 0).await;
    assert!(hosts[0].is_given(&broker, campaign).await);
    assert!(
        !hosts[0].is_given(&broker, campaign).await,
        "handed out once"
    );
    assert!(!hosts[2].is_given(&broker, campaign).await);
    for _ in 0..3 {
        assert_eq!(
            hosts[2]
                .answer(&broker, campaign, json!([{ "spoof": "1" }]))
                .await,
            200
        );
        assert_eq!(hosts[0].answer(&broker, campaign, json!([])).await, 200);
        assert_eq!(hosts[0].answer(&broker, 9_999, json!([])).await, 200);
    }
    assert_eq!(hosts[1].answer(&broker, campaign, json!([])).await, 200);
    viewer.until_finished().await;
    assert_eq!(viewer.hosts, ["host-00000", "host-00001"]);
}

#[tokio::test]
async fn the_last_viewer_leaving_ends_the_campaign_after_the_grace() {
    let broker = Broker::start(&["--resume-grace-s", "1"]).await;
    let hosts = Host::enroll_many(&broker, 2).await;
    let campaign = broker.run_on_all("select 1").await;
    let mut viewer = Viewer::watch(&broker, campaign, 0).await;
    all_answer(&broker, &hosts[..1], campaign, 1).await;
    viewer.until_results(1).await;
    drop(viewer);
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert!(
        !hosts[1].is_given(&broker, campaign).await,
        "the campaign is over"
    );
    let mut late = Viewer::watch(&broker, campaign, 0).await;
    late.until_finished().await;
    assert_eq!(late.seqs, [1], "its results stay readable");
}

#[tokio::test]
async fn a_stop_says_goodbye_and_succeeds() {
    let mut broker = Broker::start(&[]).await;
    Host::enroll_many(&broker, 1).await;
    let campaign = broker.run_on_all("select 1").await;
    let mut viewer = Viewer::watch(&broker, campaign, 0).await;
    viewer.message().await;
    let hearing = tokio::spawn(async move {
        loop {
            if let Heard::Closed(frame) = viewer.hear().await {
                return frame;
            }
        }
    });
    assert!(broker.stop().await);
    assert_eq!(hearing.await.unwrap().map(|(code, _)| code), Some(1001));
}
