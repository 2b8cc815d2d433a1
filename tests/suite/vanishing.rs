//! What vanishes while a campaign runs: hosts, labels, queries, teams, users, and hand-outs that reach nobody.

use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};

use crate::broker::{Broker, TOKEN, two_nodes};
use crate::hosts::Host;
use crate::redis::faults::stream::Stream;
use crate::rights::{ALL, as_admin, next, open};
use crate::viewer::Viewer;

async fn delete(broker: &Broker, path: &str) {
    as_admin(broker, Method::DELETE, path, json!({})).await;
}

/// The number of the host of this name.
async fn number(broker: &Broker, host: &str) -> u64 {
    let path = format!("/hosts/identifier/{host}");
    let told = as_admin(broker, Method::GET, &path, json!({})).await;
    told["host"]["id"].as_u64().expect("a number")
}

async fn told_until(stream: &mut Stream, is_it: impl Fn(&Value) -> bool) -> Value {
    loop {
        let message = next(stream).await;
        if is_it(&message) {
            return message;
        }
    }
}

/// Hosts `first` to `third` are asked; the first answers and is deleted, then the second is.
async fn deleted_hosts_leave(here: &Broker, there: &Broker) {
    let mut hosts = Vec::new();
    for name in ["first", "second", "third"] {
        let host = Host::enroll(here, name).await;
        host.read(here).await;
        hosts.push(host);
    }
    let (first, second) = (number(here, "first").await, number(here, "second").await);
    let campaign = here.run_on_all("select 1").await;
    let mut streams = Vec::new();
    for transport in ALL {
        streams.push(open(here, transport, TOKEN, Some(campaign)).await);
    }
    assert_eq!(hosts[0].answer(here, campaign, json!([])).await, 200);
    for stream in &mut streams {
        told_until(stream, |told| told["type"] == "result").await;
    }
    // An answer stays when its host goes, and so does its place among the targets.
    delete(there, &format!("/hosts/{first}")).await;
    delete(there, &format!("/hosts/{second}")).await;
    let since = Instant::now();
    for stream in &mut streams {
        let totals = told_until(stream, |told| told["type"] == "totals").await;
        assert_eq!(totals["data"]["count"], 2, "{totals}");
    }
    // With the next tick it would be up to five seconds.
    assert!(since.elapsed() < Duration::from_secs(3), "{since:?}");
    let path = format!("/campaigns/{campaign}");
    let told = as_admin(there, Method::GET, &path, json!({})).await;
    let counts = json!({"answered": 1, "failed": 0, "waiting": 1, "offline": 0});
    assert_eq!(told["campaign"]["counts"], counts);
    assert_eq!(told["campaign"]["targets_count"], 2);
    let listed = as_admin(there, Method::GET, "/campaigns", json!({})).await;
    assert_eq!(listed["campaigns"][0]["targets_count"], 2);
    let hosts_told = as_admin(there, Method::GET, &format!("{path}/hosts"), json!({})).await;
    assert_eq!(hosts_told["hosts"].as_array().map(Vec::len), Some(2));
    assert_eq!(hosts[2].answer(here, campaign, json!([])).await, 200);
    for stream in &mut streams {
        let finished = |told: &Value| told["data"]["status"] == "finished";
        let status = told_until(stream, finished).await;
        assert_eq!(status["data"]["actual_results"], 2, "{status}");
    }
}

#[tokio::test]
async fn a_deleted_host_leaves_the_targets_at_once() {
    let broker = Broker::start(&[]).await;
    deleted_hosts_leave(&broker, &broker).await;
}

#[tokio::test]
async fn a_host_deleted_at_another_node_leaves_the_targets_at_once() {
    let Some((_redis, a, b)) = two_nodes().await else {
        return;
    };
    deleted_hosts_leave(&a, &b).await;
}

#[tokio::test]
async fn a_request_that_waits_for_answers_does_not_wait_for_a_deleted_host() {
    let broker = Broker::start(&["--live-query-rest-period-s", "60"]).await;
    let host = Host::enroll(&broker, "goes").await;
    host.read(&broker).await;
    let id = number(&broker, "goes").await;
    let path = format!("/hosts/{id}/query");
    let asking = as_admin(&broker, Method::POST, &path, json!({"query": "select 1"}));
    let deleting = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        delete(&broker, &format!("/hosts/{id}")).await;
    };
    let both = async { tokio::join!(asking, deleting) };
    let (told, ()) = tokio::time::timeout(Duration::from_secs(10), both)
        .await
        .expect("nobody waits for a host that is gone");
    assert_eq!(told["error"], "timeout waiting for results", "{told}");
}

#[tokio::test]
async fn a_campaign_outlives_its_label_query_and_team() {
    let broker = Broker::start(&[]).await;
    let host = Host::enroll(&broker, "stays").await;
    host.read(&broker).await;
    let made = |path: &'static str, body: Value| as_admin(&broker, Method::POST, path, body);
    let query = made("/queries", json!({"name": "q", "query": "select 7"})).await;
    let query = query["query"]["id"].as_u64().expect("a number");
    let label = json!({"name": "l", "hosts": ["stays"], "label_membership_type": "manual"});
    let label = made("/labels", label).await;
    let label = label["label"]["id"].as_u64().expect("a number");
    let team = made("/teams", json!({"name": "t"})).await;
    let team = team["team"]["id"].as_u64().expect("a number");
    let id = number(&broker, "stays").await;
    made("/hosts/transfer", json!({"team_id": team, "hosts": [id]})).await;
    let selected = json!({"labels": [label], "teams": [team], "hosts": []});
    let run = made(
        "/queries/run",
        json!({"query_id": query, "selected": selected}),
    )
    .await;
    let campaign = run["campaign"]["id"].as_u64().expect("a number");
    let mut viewer = Viewer::watch(&broker, campaign, 0).await;
    assert_eq!(viewer.message().await["data"]["count"], 1);
    delete(&broker, &format!("/queries/id/{query}")).await;
    delete(&broker, &format!("/labels/id/{label}")).await;
    delete(&broker, &format!("/teams/{team}")).await;
    assert!(host.is_given(&broker, campaign).await);
    assert_eq!(
        host.answer(&broker, campaign, json!([{"7": "7"}])).await,
        200
    );
    viewer.until_results(1).await;
    viewer.until_finished().await;
    let told = as_admin(
        &broker,
        Method::GET,
        &format!("/campaigns/{campaign}"),
        json!({}),
    )
    .await;
    assert_eq!(told["campaign"]["query"], "select 7");
    assert_eq!(told["campaign"]["counts"]["answered"], 1);
}

#[tokio::test]
async fn hosts_whose_hand_out_was_lost_in_a_hang_are_asked_again_at_once() {
    let Some((redis, a, b)) = two_nodes().await else {
        return;
    };
    let hosts = Host::enroll_many(&a, 20).await;
    for host in &hosts {
        host.read(&a).await;
    }
    let campaign = a.run_on_all("select 1").await;
    let _viewer = Viewer::watch(&a, campaign, 0).await;
    redis.freeze();
    let given =
        futures_util::future::join_all(hosts.iter().map(|host| host.is_given(&a, campaign))).await;
    assert!(given.iter().all(|given| !given), "Redis is frozen");
    tokio::time::sleep(Duration::from_secs(2)).await;
    redis.thaw();
    // Half of them come to the other node, which knows of nothing.
    let since = Instant::now();
    for (at, host) in hosts.iter().enumerate() {
        let node = if at % 2 == 0 { &a } else { &b };
        while !host.is_given(node, campaign).await {
            assert!(
                since.elapsed() < Duration::from_secs(10),
                "host {at} is not asked"
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}
