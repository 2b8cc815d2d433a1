//! Failovers at the level of processes: a cluster of three primaries with replicas, and a master with Sentinels. Long.

use super::{Field, HOSTS, Order, TURN, rounds};
use crate::redis_server::{RedisCluster, RedisSentinels, is_installed};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long run"]
async fn a_cluster_fails_over() {
    if !is_installed() {
        return;
    }
    let _turn = TURN.lock().await;
    for _ in 0..rounds() {
        let mut cluster = RedisCluster::start();
        let urls = vec![cluster.url(); 3];
        let mut field = Field::begin(&urls, None).await;
        field.until_acknowledged(HOSTS / 5).await;
        let log = format!("ab:{{{}}}:log", field.campaign);
        cluster.primary_of(&log).kill();
        field.until_acknowledged(HOSTS / 2).await;
        field.end("a cluster fails over", Order::MayFork).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long run"]
async fn sentinels_fail_over() {
    if !is_installed() {
        return;
    }
    let _turn = TURN.lock().await;
    for _ in 0..rounds() {
        let mut sentinels = RedisSentinels::start();
        let urls = vec![sentinels.url(); 3];
        let mut field = Field::begin(&urls, None).await;
        field.until_acknowledged(HOSTS / 5).await;
        sentinels.servers[0].kill();
        field.until_acknowledged(HOSTS / 2).await;
        field.end("Sentinels fail over", Order::MayFork).await;
    }
}
