//! Endings and troubles as viewers hear them: who stopped a campaign, at once and on every node, and a store that hangs.

use std::time::{Duration, Instant};

use http::Method;
use serde_json::json;

use crate::broker::{Broker, TOKEN, two_nodes};
use crate::hosts::Host;
use crate::redis_server::{RedisServer, is_installed};
use crate::rights::{ALL, as_admin, next, open};
use crate::viewer::Viewer;

/// Starts a campaign, watches it at one node and stops it at the other.
async fn a_stop_is_told(here: &Broker, there: &Broker) {
    let hosts = Host::enroll_many(here, 2).await;
    for host in &hosts {
        host.read(here).await;
    }
    let campaign = here.run_on_all("select 1").await;
    let mut streams = Vec::new();
    for transport in ALL {
        streams.push(open(here, transport, TOKEN, Some(campaign)).await);
    }
    assert_eq!(hosts[0].answer(there, campaign, json!([])).await, 200);
    for stream in &mut streams {
        while next(stream).await["type"] != "result" {}
    }
    let path = format!("/campaigns/{campaign}/stop");
    let stopped = as_admin(there, Method::POST, &path, json!({})).await;
    let since = Instant::now();
    for stream in &mut streams {
        let status = loop {
            let message = next(stream).await;
            if message["type"] == "status" && message["data"]["status"] == "finished" {
                break message;
            }
        };
        let ended = json!({ "reason": "stopped", "by": "admin@example.com" });
        assert_eq!(status["data"]["ended"], ended);
        assert_eq!(status["data"]["actual_results"], 1);
    }
    // With the next tick it would be up to five seconds.
    assert!(since.elapsed() < Duration::from_secs(4), "{since:?}");
    let told = &stopped["campaign"];
    assert_eq!(
        (&told["ending"], &told["stopped_by"]),
        (&json!("stopped"), &json!(1))
    );
    assert!(!hosts[1].is_given(here, campaign).await);
    assert!(!hosts[1].is_given(there, campaign).await);
}

#[tokio::test]
async fn viewers_hear_at_once_that_a_campaign_was_stopped_and_by_whom() {
    let broker = Broker::start(&[]).await;
    a_stop_is_told(&broker, &broker).await;
}

#[tokio::test]
async fn viewers_of_another_node_hear_at_once_that_a_campaign_was_stopped() {
    let Some((_redis, a, b)) = two_nodes().await else {
        return;
    };
    a_stop_is_told(&a, &b).await;
}

/// `answerback query` against this broker.
fn query(broker: &Broker) -> tokio::process::Child {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_answerback"));
    command
        .args(["query", "select 1", "--labels", "All Hosts", "--url"])
        .args([&broker.url(""), "--token", TOKEN])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn a_store_that_hangs_is_a_warning_for_viewers_and_for_the_command_line() {
    if !is_installed() {
        return;
    }
    let redis = RedisServer::start();
    let broker = Broker::start(&["--store", &redis.url(), "--node", "a"]).await;
    let hosts = Host::enroll_many(&broker, 1).await;
    hosts[0].read(&broker).await;
    let query = query(&broker);
    let campaign = loop {
        let (_, said) = broker.get("/api/v1/fleet/campaigns").await;
        let newest = &said["campaigns"][0];
        if newest["state"] == "running" {
            break newest["id"].as_u64().unwrap();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let mut viewer = Viewer::watch(&broker, campaign, 0).await;
    assert_eq!(viewer.message().await["type"], "totals");
    redis.freeze();
    let warning = loop {
        let message = viewer.message().await;
        if message["type"] == "error" {
            break message;
        }
    };
    assert_eq!(
        (&warning["code"], &warning["final"]),
        (&json!("store_unavailable"), &json!(false)),
        "{warning}"
    );
    // Who comes now is told that it mends itself, and to come again.
    let mut late = Viewer::watch(&broker, campaign, 0).await;
    let refused = late.message().await;
    assert_eq!(
        (&refused["code"], &refused["final"]),
        (&warning["code"], &json!(false))
    );
    redis.thaw();
    let give_up = Instant::now() + Duration::from_secs(30);
    while hosts[0]
        .answer(&broker, campaign, json!([{ "a": "1" }]))
        .await
        != 200
    {
        assert!(Instant::now() < give_up, "Redis does not come back");
    }
    viewer.until_results(1).await;
    let done = tokio::time::timeout(Duration::from_secs(30), query.wait_with_output()).await;
    let done = done.expect("the command ends").unwrap();
    let printed = String::from_utf8_lossy(&done.stdout);
    assert!(
        done.status.success() && printed.contains("\"a\""),
        "{done:?}"
    );
}
