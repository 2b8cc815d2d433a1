//! Redis that evicts, and a catalog that is gone from it.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::broker::{Broker, answerback};
use crate::hosts::Host;
use crate::redis_server::{RedisServer, is_installed};

/// What `serve` on this Redis says when it refuses to start.
fn refusal(url: &str, more: &[&str]) -> (Option<i32>, String) {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path().display().to_string();
    let place = [
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--store",
        url,
        "--data-dir",
        &dir,
    ];
    answerback(3, &[&place[..], more].concat())
}

#[test]
fn a_redis_that_evicts_is_refused_unless_the_loss_is_accepted() {
    if !is_installed() {
        return;
    }
    let redis = RedisServer::start();
    redis.cli(&["config", "set", "maxmemory-policy", "allkeys-lru"]);
    redis.cli(&["config", "set", "maxmemory", "100mb"]);
    let (code, said) = refusal(&redis.url(), &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("allkeys-lru") && said.contains("--accept-eviction"),
        "{said}"
    );
    // It runs until it is stopped.
    let (code, said) = refusal(&redis.url(), &["--accept-eviction"]);
    assert_eq!(code, Some(124), "{said}");
    assert!(said.contains("allkeys-lru"), "{said}");
}

/// The catalog's keys.
fn keys(redis: &RedisServer) -> Vec<String> {
    let all = redis.cli(&["--raw", "keys", "*"]);
    let all = all.lines().map(str::to_owned);
    all.filter(|key| key.contains("{cat}:")).collect()
}

async fn survives(redis: &RedisServer, lost: &[String]) {
    let url = redis.url();
    let a = Broker::start(&["--store", &url, "--node", "a"]).await;
    let b = Broker::start(&["--store", &url, "--node", "b"]).await;
    let host = Host::enroll(&a, "kept").await;
    host.read(&a).await;
    let made = |name: &str| json!({ "name": name, "query": "select 1" });
    let (status, said) = a.post("/api/v1/fleet/queries", made("before")).await;
    assert_eq!(status, 200, "{said}");
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let lost: Vec<String> = match lost {
        [] => keys(redis),
        some => some.to_vec(),
    };
    assert!(!lost.is_empty());
    let gone: Vec<&str> = std::iter::once("del")
        .chain(lost.iter().map(String::as_str))
        .collect();
    redis.cli(&gone);
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(4) {
        for broker in [&a, &b] {
            let (status, said) = broker.get("/api/v1/fleet/hosts").await;
            assert!(
                status == 503 || said["hosts"][0]["hostname"] == "kept",
                "{status} {said}"
            );
            let node = json!({ "node_key": host.node_key });
            let (status, said) = crate::hosts::agent(broker, "distributed/read", &node).await;
            assert!(
                status == 503 || said.get("node_invalid").is_none(),
                "{said}"
            );
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // It is in Redis again, whole: a new node reads it, and what is made gets new numbers.
    let c = Broker::start(&["--store", &url, "--node", "c"]).await;
    for broker in [&a, &b, &c] {
        let (status, said) = broker.get("/api/v1/fleet/hosts").await;
        assert_eq!(
            (status, &said["hosts"][0]["hostname"]),
            (200, &json!("kept"))
        );
        let name = format!("made at {}", broker.address);
        let (status, said) = broker.post("/api/v1/fleet/queries", made(&name)).await;
        assert_eq!(status, 200, "{said}");
    }
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let (_, said) = c.get("/api/v1/fleet/queries").await;
    assert_eq!(said["queries"].as_array().map(Vec::len), Some(4), "{said}");
    let second = Host::enroll(&b, "second").await;
    assert_ne!(second.node_key, host.node_key);
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let (_, said) = a.get("/api/v1/fleet/hosts").await;
    assert_eq!(said["hosts"].as_array().map(Vec::len), Some(2), "{said}");
}

#[tokio::test]
async fn a_catalog_of_which_one_table_is_gone_is_written_back() {
    if !is_installed() {
        return;
    }
    let redis = RedisServer::start();
    let probe = Broker::start(&["--store", &redis.url(), "--node", "probe"]).await;
    let users = keys(&redis)
        .into_iter()
        .filter(|key| key.ends_with("user") || key.ends_with("host"));
    let users: Vec<String> = users.collect();
    drop(probe);
    survives(&redis, &users).await;
}

#[tokio::test]
async fn a_catalog_that_is_gone_altogether_is_written_back() {
    if !is_installed() {
        return;
    }
    let redis = RedisServer::start();
    survives(&redis, &[]).await;
}

#[tokio::test]
async fn no_node_starts_on_what_is_left_of_a_catalog() {
    if !is_installed() {
        return;
    }
    let redis = RedisServer::start();
    let mut broker = Broker::start(&["--store", &redis.url()]).await;
    assert!(broker.stop().await);
    let user = keys(&redis)
        .into_iter()
        .find(|key| key.ends_with("user"))
        .expect("users");
    redis.cli(&["del", &user]);
    let (code, said) = refusal(&redis.url(), &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("gone from Redis") && said.contains("backup"),
        "{said}"
    );
}
