//! Faults around one Redis server.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use super::crew::{client, post};
use super::proxy::{Proxy, Weather};
use super::{Field, Fleet, HOSTS, Order, TURN, rounds};
use crate::redis_server::{RedisServer, is_installed};

const ALWAYS: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];
const EVERY_SECOND: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "everysec"];
/// Longer than any lease, poll and time limit; and in the long run a little more.
const PAUSE: Duration = Duration::from_secs(17);
const LONG_PAUSE: Duration = Duration::from_secs(20);
/// What agents are promised, and something for a busy machine.
const A_SECOND: Duration = Duration::from_millis(1_500);

/// Plays a fault in the midst of a campaign and counts.
async fn endure(
    name: &str,
    redis: &[&str],
    order: Order,
    mut fault: impl AsyncFnMut(&mut Field, &mut RedisServer),
) {
    if !is_installed() {
        return;
    }
    let _turn = TURN.lock().await;
    let fleet = Fleet::get().await;
    for _ in 0..rounds() {
        let mut server = RedisServer::with_files(redis, &fleet.files);
        let urls = vec![server.url(); 3];
        let mut field = Field::begin(&urls, Some(Arc::clone(&fleet.hosts))).await;
        field.until_acknowledged(HOSTS / 5).await;
        fault(&mut field, &mut server).await;
        field.end(name, order).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_killed() {
    endure(
        "a node is killed",
        &ALWAYS,
        Order::Kept,
        async |field, _| {
            field.brokers[0].crash().await;
            field.until_acknowledged(HOSTS / 2).await;
            field.brokers[0].restart().await;
            field.brokers[1].crash().await;
            field.until_acknowledged(HOSTS / 5 * 4).await;
            field.brokers[1].restart().await;
        },
    )
    .await;
}

async fn kill_redis(field: &mut Field, redis: &mut RedisServer) {
    for _ in 0..2 {
        redis.kill();
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        redis.restart();
        let more = (field.done.count() + HOSTS / 5).min(HOSTS);
        field.until_acknowledged(more).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_killed_and_has_written_everything() {
    let name = "Redis is killed, fsync always";
    endure(name, &ALWAYS, Order::Kept, kill_redis).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_killed_with_its_machine_and_loses_a_second() {
    let name = "Redis loses its power, fsync every second";
    let order = Order::MayFork;
    endure(name, &EVERY_SECOND, order, async |field, redis| {
        for node_dies in [false, true] {
            let written = redis.written();
            tokio::time::sleep(Duration::from_millis(900)).await;
            if node_dies {
                field.brokers[0].crash().await;
            }
            redis.kill();
            redis.lose_beyond(written);
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            redis.restart();
            if node_dies {
                field.brokers[0].restart().await;
            }
            let more = (field.done.count() + HOSTS / 5).min(HOSTS);
            field.until_acknowledged(more).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_hangs() {
    let name = "Redis hangs";
    endure(name, &EVERY_SECOND, Order::Kept, async |field, redis| {
        redis.freeze();
        let frozen = Instant::now();
        let pause = if rounds() > 1 { LONG_PAUSE } else { PAUSE };
        tokio::time::sleep(Duration::from_secs(2)).await;
        let (agents, node) = (client(), field.nodes[2].clone());
        let host = Fleet::get().await.hosts[0].clone();
        let answer = json!({
            "node_key": host.node_key,
            "queries": { format!("fleet_distributed_query_{}", field.campaign): [] },
        });
        while frozen.elapsed() < pause {
            let since = Instant::now();
            let check_in = json!({ "node_key": host.node_key });
            let said = post(&agents, &node, "distributed/read", &check_in).await;
            assert_eq!(said.map(|(status, _)| status), Some(200));
            assert!(since.elapsed() < A_SECOND, "{:?}", since.elapsed());
            let since = Instant::now();
            let said = post(&agents, &node, "distributed/write", &answer).await;
            assert_eq!(said.map(|(status, _)| status), Some(503));
            assert!(since.elapsed() < A_SECOND, "{:?}", since.elapsed());
            for broker in &field.brokers {
                assert_eq!(broker.get("/readyz").await.0, 503);
                assert_eq!(broker.get("/healthz").await.0, 200);
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        redis.thaw();
        field.until_acknowledged(HOSTS / 2).await;
        for heard in &field.heard {
            let warnings = heard.lock().unwrap().warnings.clone();
            assert_eq!(warnings, [1], "one connection, one warning");
        }
        for broker in &field.brokers {
            assert_eq!(broker.get("/readyz").await.0, 200);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_full() {
    let name = "Redis is full";
    endure(name, &EVERY_SECOND, Order::Kept, async |field, redis| {
        redis.cli(&["config", "set", "maxmemory", "1mb"]);
        let mut taken = (0, Instant::now());
        field
            .until("nothing is taken any more", |field| {
                // Not even a hand-out is: whether a host still has an answer to be refused is chance.
                if field.done.count() != taken.0 {
                    taken = (field.done.count(), Instant::now());
                }
                taken.1.elapsed() > Duration::from_secs(2)
            })
            .await;
        tokio::time::sleep(Duration::from_secs(7)).await;
        redis.cli(&["config", "set", "maxmemory", "0"]);
        for heard in &field.heard {
            let warnings = heard.lock().unwrap().warnings.clone();
            assert_eq!(warnings, [1], "one connection, one warning");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_network_between_a_node_and_redis_fails() {
    if !is_installed() {
        return;
    }
    let _turn = TURN.lock().await;
    let fleet = Fleet::get().await;
    for _ in 0..rounds() {
        let server = RedisServer::with_files(&EVERY_SECOND, &fleet.files);
        let proxy = Proxy::start(server.port()).await;
        let urls = [proxy.url(), server.url(), server.url()];
        let mut field = Field::begin(&urls, Some(Arc::clone(&fleet.hosts))).await;
        field.until_acknowledged(HOSTS / 5).await;
        let weathers = [
            Weather::Slow,
            Weather::Truncating,
            Weather::Silent,
            Weather::Cut,
        ];
        for weather in weathers {
            proxy.turn(weather);
            tokio::time::sleep(Duration::from_millis(2_500)).await;
            proxy.turn(Weather::Fine);
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        field
            .end("the network to one node fails", Order::Kept)
            .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_nodes_are_restarted_one_after_the_other() {
    let name = "a rolling restart";
    endure(name, &EVERY_SECOND, Order::Kept, async |field, _| {
        for at in 0..field.brokers.len() {
            assert!(field.brokers[at].stop().await, "a clean end");
            field.brokers[at].restart().await;
            let more = (field.done.count() + HOSTS / 10).min(HOSTS);
            field.until_acknowledged(more).await;
        }
    })
    .await;
}
