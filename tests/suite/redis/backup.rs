//! Backups of Redis as the pages tell: its own file, put back while no node runs; and the bound of memory on a node.

use answerback::results::Seq;
use answerback::store::Store;
use answerback::store::contract;
use answerback::store::redis::{RedisStore, Settings};
use serde_json::json;

use super::{answer, now, question};
use crate::broker::Broker;
use crate::hosts::Host;
use crate::redis_server::{Files, RedisServer, is_installed};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_of_redis_that_is_put_back_has_everything_and_no_number_is_given_twice() {
    if !is_installed() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let redis = RedisServer::with(&["--appendonly", "no"]);
    let store = redis.url();
    let mut broker = Broker::start_in(dir.path(), "127.0.0.1:0", &["--store", &store]).await;
    let hosts = Host::enroll_many(&broker, 4).await;
    let campaign = broker.run_on_all("select 1").await;
    for host in &hosts {
        assert!(host.is_given(&broker, campaign).await);
        let rows = json!([{ "a": "1" }]);
        assert_eq!(host.answer(&broker, campaign, rows).await, 200);
    }
    let saved = dir.path().join("saved.rdb");
    let saved_to = saved.display().to_string();
    redis.cli(&["--rdb", &saved_to]);
    let later = broker.run_on_all("select 2").await;
    assert!(broker.stop().await);
    drop(redis);

    let file = std::fs::read(&saved).unwrap();
    let files = Files::from([("dump.rdb".into(), file)]);
    let redis = RedisServer::with_files(&["--appendonly", "no"], &files);
    let store = redis.url();
    let args = ["--store", &store, "--accept-loss"];
    let broker = Broker::start_in(dir.path(), "127.0.0.1:0", &args).await;
    let results = format!("/api/v1/fleet/campaigns/{campaign}/results?format=json");
    let (status, said) = broker.get(&results).await;
    assert_eq!(said["results"].as_array().unwrap().len(), 4, "{status}");
    let new = broker.run_on_all("select 3").await;
    assert!(new > later + 1_000, "{new}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_logs_of_a_node_together_have_a_bound() {
    if !is_installed() {
        return;
    }
    let server = RedisServer::start();
    let mut settings = Settings::new(&server.url(), "node", contract::encode);
    settings.logs_bytes_max = 200_000;
    let store = RedisStore::connect(settings).await.unwrap();
    let mut logs = Vec::new();
    for _ in 0..2 {
        let id = store.create(question(1..=2_000), now()).await.unwrap().id;
        let log = store.follow(id).await.unwrap().unwrap();
        let appends = (1..=2_000).map(|host| store.append(id, answer(host), now()));
        futures_util::future::join_all(appends).await;
        while log.last() < Seq(2_000) {
            tokio::task::yield_now().await;
        }
        logs.push(log);
    }
    let bytes = || logs.iter().map(|log| log.bytes()).sum::<usize>();
    let before = bytes();
    assert!(before > 400_000, "{before}");
    store.reap(now()).await.unwrap();
    // The tail and the block read last are always kept.
    assert!(bytes() <= 200_000 + 2 * 64 * 1024, "{}", bytes());
    store.close().await;
}
