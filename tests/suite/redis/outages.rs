//! A server that is killed, hangs, is full, or loses what it had.

use std::sync::Arc;
use std::time::{Duration, Instant};

use answerback::results::{Claim, Ending, HandOut, HostId, Status};
use answerback::store::redis::{RedisStore, Settings};
use answerback::store::{Appended, Reaped, Store, StoreError};

use super::{Viewer, answer, append_until_taken, encode, eventually, node, now, question};
use crate::redis_server::{RedisServer, is_installed};

/// What the store's trait promises, and something for a busy machine.
const A_SECOND: Duration = Duration::from_millis(1_200);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_redis_is_killed() {
    if is_installed() {
        kill_redis_under_load("always").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_redis_had_not_written_when_it_was_killed_is_appended_again() {
    if is_installed() {
        kill_redis_under_load("everysec").await;
    }
}

async fn kill_redis_under_load(fsync: &str) {
    let mut server = RedisServer::with(&["--appendonly", "yes", "--appendfsync", fsync]);
    let (a, b) = (
        node(&server.url(), "a").await,
        node(&server.url(), "b").await,
    );
    let id = a.create(question(1..=3_000), now()).await.unwrap().id;
    let mut on_b = Viewer::open(&b, id).await;
    let appending = tokio::spawn({
        let a = Arc::clone(&a);
        async move {
            for host in 1..=3_000 {
                // A repeated answer was taken by the first try.
                let appended = append_until_taken(&a, id, host).await;
                assert!(matches!(appended, Appended::At(_) | Appended::Duplicate));
            }
        }
    });
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        server.kill();
        tokio::time::sleep(Duration::from_millis(400)).await;
        server.restart();
    }
    appending.await.unwrap();
    on_b.await_hosts(3_000, Duration::from_secs(20)).await;
    if fsync == "always" {
        assert_eq!(on_b.log.forked_after(), None, "the file has it all");
    }
    let mut late = Viewer::open(&node(&server.url(), "c").await, id).await;
    late.await_hosts(3_000, Duration::from_secs(20)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_redis_hangs_every_call_answers_within_a_second() {
    if !is_installed() {
        return;
    }
    let server = RedisServer::start();
    let a = node(&server.url(), "a").await;
    let id = a.create(question(1..=100), now()).await.unwrap().id;
    assert_eq!(
        a.hand_out(id, HostId(9), now()).await.unwrap(),
        HandOut::Give
    );
    let mut viewer = Viewer::open(&a, id).await;
    server.freeze();
    let frozen = Instant::now();
    while frozen.elapsed() < Duration::from_secs(3) {
        let since = Instant::now();
        let (append, claim, ping, campaign) = tokio::join!(
            a.append(id, answer(9), now()),
            a.claim(id, "a", now()),
            a.ping(),
            a.campaign(id),
        );
        assert!(since.elapsed() < A_SECOND, "{:?}", since.elapsed());
        for error in [
            append.map(|_| ()).unwrap_err(),
            claim.map(|_| ()).unwrap_err(),
            ping.unwrap_err(),
            campaign.map(|_| ()).unwrap_err(),
        ] {
            assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
        }
        a.take_back(id, HostId(9)).await;
    }
    server.thaw();
    eventually("calls succeed", Duration::from_secs(2), async || {
        a.ping().await.is_ok()
    })
    .await;
    // What was sent while it hung may have been done since; asking again is harmless.
    for host in 1..=100 {
        let appended = append_until_taken(&a, id, host).await;
        assert!(matches!(appended, Appended::At(_) | Appended::Duplicate));
    }
    viewer.await_hosts(100, Duration::from_secs(5)).await;
    assert_eq!(a.claim(id, "a", now()).await.unwrap(), Claim::Claimed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_cut_off_finds_out_what_began_and_ended() {
    if !is_installed() {
        return;
    }
    let mut server = RedisServer::start();
    let (a, b) = (
        node(&server.url(), "a").await,
        node(&server.url(), "b").await,
    );
    let ends = a.create(question(1..=10), now()).await.unwrap().id;
    let stays = a.create(question(1..=2_000), now()).await.unwrap().id;
    eventually("b knows both", A_SECOND, async || b.active().len() == 2).await;
    let mut viewer = Viewer::open(&b, stays).await;
    server.cli(&["client", "kill", "type", "normal"]);
    server.cli(&["client", "kill", "type", "pubsub"]);
    server.kill();
    server.restart();
    eventually("a is back", A_SECOND, async || a.ping().await.is_ok()).await;
    assert!(a.end(ends, Ending::Stopped, now()).await.unwrap());
    let begins = a.create(question(3..=4), now()).await.unwrap().id;
    append_until_taken(&a, stays, 77).await;
    eventually(
        "b knows what began and ended",
        Duration::from_secs(2),
        async || b.active().get(ends).is_none() && b.active().get(begins).is_some(),
    )
    .await;
    viewer.await_hosts(1, Duration::from_secs(2)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_an_outage_nothing_runs_out_for_one_lease() {
    if !is_installed() {
        return;
    }
    let mut server = RedisServer::start();
    let mut settings = Settings::new(&server.url(), "a", encode);
    settings.rules.lease = Duration::from_secs(3);
    settings.rules.resume_grace = Duration::from_millis(100);
    let a = RedisStore::connect(settings).await.unwrap();
    let id = a.create(question(1..=10), now()).await.unwrap().id;
    assert_eq!(a.claim(id, "a", now()).await.unwrap(), Claim::Claimed);
    assert_eq!(a.reap(now()).await.unwrap(), []);
    server.kill();
    tokio::time::sleep(Duration::from_secs(4)).await;
    server.restart();
    eventually("the store is back", A_SECOND, async || {
        a.ping().await.is_ok()
    })
    .await;
    let back = Instant::now();
    let mut reaped = a.reap(now()).await.unwrap();
    assert_eq!(
        reaped,
        [],
        "the lease has run out, but nobody could renew it"
    );
    while reaped.is_empty() {
        assert!(back.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(50)).await;
        reaped = a.reap(now()).await.unwrap();
    }
    assert_eq!(reaped, [Reaped::Ended(id, Ending::Unwatched)]);
    assert!(back.elapsed() > Duration::from_millis(2_800));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_server_says_so_and_takes_answers_again_when_it_is_not() {
    if !is_installed() {
        return;
    }
    let server = RedisServer::start();
    let a = node(&server.url(), "a").await;
    let id = a.create(question(1..=10_000), now()).await.unwrap().id;
    server.cli(&["config", "set", "maxmemory", "100000"]);
    let refused = a.append(id, answer(1), now()).await.unwrap_err();
    assert!(matches!(refused, StoreError::Full(_)), "{refused}");
    let health = a.health().await.unwrap();
    assert!(
        health.iter().any(|line| line.contains("nearly full")),
        "{health:?}"
    );
    server.cli(&["config", "set", "maxmemory", "0"]);
    let taken = a.append(id, answer(1), now()).await.unwrap();
    assert!(matches!(taken, Appended::At(_)), "{taken:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_a_failover_lost_are_appended_again_and_viewers_go_on_by_host() {
    if !is_installed() {
        return;
    }
    let server = RedisServer::start();
    let (a, b) = (
        node(&server.url(), "a").await,
        node(&server.url(), "b").await,
    );
    let id = a.create(question(1..=2_000), now()).await.unwrap().id;
    a.claim(id, "a", now()).await.unwrap();
    let mut before = Viewer::open(&a, id).await;
    let mut on_b = Viewer::open(&b, id).await;
    for host in 1..=50 {
        append_until_taken(&a, id, host).await;
    }
    let keys: Vec<String> = ["meta", "waiting", "failed", "log"]
        .iter()
        .map(|key| format!("ab:{{{id}}}:{key}"))
        .collect();
    // What a replica would have had.
    for key in &keys {
        server.cli(&["copy", key, &format!("{key}:old"), "replace"]);
    }
    for host in 51..=100 {
        append_until_taken(&a, id, host).await;
    }
    before.await_hosts(100, A_SECOND).await;
    on_b.await_hosts(100, A_SECOND).await;
    // It is the master now: fifty answers are gone, and another node fills their places before anybody looks.
    let mut script = String::new();
    for key in &keys {
        script.push_str(&format!("redis.call('RENAME','{key}:old','{key}') "));
    }
    server.cli(&["eval", &script, "0"]);
    let c = node(&server.url(), "c").await;
    for host in 151..=220 {
        append_until_taken(&c, id, host).await;
    }
    before.await_hosts(170, Duration::from_secs(5)).await;
    on_b.await_hosts(170, Duration::from_secs(5)).await;
    assert_eq!(
        before.log.forked_after().map(|same| same.0 <= 50),
        Some(true)
    );
    let campaign = a.campaign(id).await.unwrap().unwrap();
    assert_eq!((campaign.epoch, campaign.status), (1, Status::Running));
    // Everything is in the store again, and readers that come now have positions of the new epoch.
    let mut fresh = Viewer::open(&b, id).await;
    assert_eq!(fresh.log.epoch(), 1);
    fresh.await_hosts(170, Duration::from_secs(5)).await;
    for host in 221..=300 {
        append_until_taken(&b, id, host).await;
    }
    before.await_hosts(250, Duration::from_secs(5)).await;
    on_b.await_hosts(250, Duration::from_secs(5)).await;
    fresh.await_hosts(250, Duration::from_secs(5)).await;
    let progress = a.progress(id).await.unwrap().unwrap();
    assert_eq!(progress.answered.len(), 250);
}
