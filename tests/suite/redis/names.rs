//! Nodes know of each other: two of one name are told so, and a Redis that is in use is not migrated from.

use crate::broker::{Broker, answerback};
use crate::redis_server::{RedisServer, is_installed};

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_of_one_name_are_told() {
    if !is_installed() {
        return;
    }
    let redis = RedisServer::start();
    let url = redis.url();
    let mut first = Broker::start(&["--store", &url, "--node", "twin"]).await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().display().to_string();
    let start = |name: &str| {
        let place = [
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--data-dir",
            &data,
            "--store",
            &url,
        ];
        answerback(3, &[&place[..], &["--node", name]].concat()).1
    };
    let said = start("twin");
    assert!(
        said.contains("a node named \"twin\" was here") && said.contains("--node"),
        "{said}"
    );
    assert!(!start("other").contains("was here"));
    // A node that has ended leaves nothing behind that its successor would be told of.
    assert!(first.stop().await);
    assert!(!start("twin").contains("was here"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_in_use_is_not_migrated_from() {
    if !is_installed() {
        return;
    }
    let redis = RedisServer::start();
    let url = redis.url();
    let mut broker = Broker::start(&["--store", &url, "--node", "busy"]).await;
    // A start counts once it has not failed for half a second.
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let dir = tempfile::tempdir().expect("a directory");
    let to = format!("embedded:{}", dir.path().join("data").display());
    let (code, said) = answerback(30, &["migrate", "--from", &url, "--to", &to]);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("brokers run on") && said.contains("busy"),
        "{said}"
    );
    assert!(broker.stop().await);
    let (code, said) = answerback(30, &["migrate", "--from", &url, "--to", &to]);
    assert_eq!(code, Some(0), "{said}");
}
