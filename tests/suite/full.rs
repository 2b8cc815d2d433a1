//! Stores that answer but take no writes: readiness, the API's health, the metrics and refusals name the cause.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use serde_json::json;

use crate::broker::Broker;
use crate::hosts::Host;
use crate::redis_server::{RedisServer, is_installed};
use crate::rights::as_admin;
use crate::viewer::Viewer;

/// What everybody who asks is told: the cause if there is one, else none.
async fn assert_told(broker: &Broker, cause: Option<&str>) {
    let expected = if cause.is_some() { 503 } else { 200 };
    let metric = if cause.is_some() { " 0" } else { " 1" };
    let give_up = Instant::now() + Duration::from_secs(20);
    loop {
        let readiness = text(broker, "/readyz").await;
        let metrics = text(broker, "/metrics").await.1;
        let writable = metrics
            .lines()
            .find(|line| line.starts_with("answerback_store_writable"));
        let mut said = vec![readiness];
        for path in ["/status/result_store", "/status/live_query"] {
            let (status, body) = broker.get(&format!("/api/v1/fleet{path}")).await;
            said.push((status, body.to_string()));
        }
        let all = said.iter().all(|(status, text)| {
            *status == expected && cause.is_none_or(|cause| text.contains(cause))
        });
        if all && writable.is_some_and(|line| line.ends_with(metric)) {
            return;
        }
        assert!(Instant::now() < give_up, "{said:?}, {writable:?}");
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

async fn text(broker: &Broker, path: &str) -> (u16, String) {
    let (status, said) = broker.send(Method::GET, path, &[], Bytes::new()).await;
    (status, said.as_str().unwrap_or_default().to_owned())
}

/// A campaign that one host is asked in; `break_it` makes the store refuse, `mend_it` ends that.
async fn refuses_and_recovers(
    broker: &Broker,
    cause: &str,
    break_it: impl FnOnce(),
    mend_it: impl FnOnce(),
) {
    let host = Host::enroll(broker, "asked").await;
    host.read(broker).await;
    let campaign = broker.run_on_all("select 1").await;
    let mut viewer = Viewer::watch(broker, campaign, 0).await;
    assert_eq!(viewer.message().await["type"], "totals");
    assert!(host.is_given(broker, campaign).await);
    assert_told(broker, None).await;
    break_it();
    assert_told(broker, Some(cause)).await;
    let rows = json!([{ "a": "x".repeat(40_000) }]);
    // Redis takes answers as long as the script's first write frees memory; then they are kept.
    let taken = host.answer(broker, campaign, rows.clone()).await;
    assert!(
        taken == 503 || cause.contains("maxmemory") && taken == 200,
        "{taken}"
    );
    let body = json!({ "name": "q", "query": "select 1" });
    let (status, said) = broker.post("/api/v1/fleet/queries", body.clone()).await;
    assert!(
        status == 200 || !said.to_string().contains("does not answer"),
        "{status} {said}"
    );
    mend_it();
    assert_told(broker, None).await;
    assert_eq!(host.answer(broker, campaign, rows).await, 200);
    viewer.until_results(1).await;
    let told = as_admin(
        broker,
        Method::GET,
        &format!("/campaigns/{campaign}"),
        json!({}),
    )
    .await;
    assert_eq!(told["campaign"]["counts"]["answered"], 1);
}

#[tokio::test]
async fn a_redis_without_memory_is_told_by_all() {
    if !is_installed() {
        return;
    }
    let redis = RedisServer::start();
    let broker = Broker::start(&["--store", &redis.url()]).await;
    let limit = |bytes: &str| {
        redis.cli(&["config", "set", "maxmemory", bytes]);
    };
    let (cause, break_it, mend_it) = ("raise its maxmemory", || limit("1"), || limit("0"));
    refuses_and_recovers(&broker, cause, break_it, mend_it).await;
}

#[tokio::test]
async fn a_data_directory_that_takes_no_files_is_told_by_all() {
    let broker = Broker::start(&[]).await;
    let pid = broker.pid().to_string();
    // A soft limit of the files' size stands in for the disk.
    let limit = |bytes: &str| {
        let soft = format!("--fsize={bytes}:");
        let done = std::process::Command::new("prlimit")
            .args(["--pid", &pid, &soft])
            .status();
        assert!(done.expect("prlimit runs").success());
    };
    let (cause, break_it, mend_it) = (
        "a limit of the size of files is reached: raise it",
        || limit("20000"),
        || limit("unlimited"),
    );
    refuses_and_recovers(&broker, cause, break_it, mend_it).await;
}
