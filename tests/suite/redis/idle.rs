//! What check-ins cost Redis: nothing.

use serde_json::json;

use crate::broker::Broker;
use crate::hosts::{Host, agent};
use crate::redis_server::{RedisServer, is_installed};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_check_ins_make_no_redis_call_even_with_fifty_campaigns() {
    if !is_installed() {
        return;
    }
    const CHECK_INS: u64 = 400;
    let (redis, dir) = (RedisServer::start(), tempfile::tempdir().unwrap());
    let broker = Broker::start_in(dir.path(), "127.0.0.1:0", &["--store", &redis.url()]).await;
    let hosts = Host::enroll_many(&broker, 3).await;
    for _ in 0..50 {
        let body = json!({ "query": "select 1", "selected": { "hosts": [hosts[0].name] } });
        let path = "/api/latest/fleet/queries/run_by_identifiers";
        assert_eq!(broker.post(path, body).await.0, 200);
    }
    let commands = || -> u64 {
        let info = redis.cli(&["info", "commandstats"]);
        let calls = info
            .lines()
            .filter_map(|line| line.split_once("calls=")?.1.split(',').next());
        calls.map(|calls| calls.parse::<u64>().unwrap()).sum()
    };
    let check_in = async |host: &Host| {
        let body = json!({ "node_key": host.node_key });
        assert_eq!(agent(&broker, "distributed/read", &body).await.0, 200);
    };
    check_in(&hosts[1]).await;
    let (before, since) = (commands(), tokio::time::Instant::now());
    for _ in 0..CHECK_INS {
        check_in(&hosts[1]).await;
    }
    let (busy, took) = (commands() - before, since.elapsed());
    let before = commands();
    tokio::time::sleep(took).await;
    let idle = commands() - before;
    // What goes on by itself varies by a round; a call a check-in would be hundreds more.
    assert!(
        busy < idle + CHECK_INS / 4,
        "{busy} commands, {idle} when nobody checks in"
    );
}
