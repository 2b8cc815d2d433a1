//! Two nodes on one server: what one does, the other sees.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use answerback::clock::Timestamp;
use answerback::results::{CampaignId, Claim, Ending, HandOut, HostId, Rules, Seq};
use answerback::store::redis::{RedisStore, Settings, StoreClock};
use answerback::store::{Appended, Change, Committed, Expect, Reaped, Store, load_all};
use bytes::Bytes;

use super::{Viewer, answer, encode, eventually, node, now, question};
use crate::redis_server::{RedisServer, is_installed};

const SOON: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_node_appends_the_other_follows() {
    if !is_installed() {
        return;
    }
    let server = RedisServer::start();
    let (a, b) = (
        node(&server.url(), "a").await,
        node(&server.url(), "b").await,
    );
    let id = a.create(question(1..=2_000), now()).await.unwrap().id;
    eventually("b knows the campaign", Duration::from_secs(1), async || {
        b.active().get(id).is_some()
    })
    .await;
    let mut on_a = Viewer::open(&a, id).await;
    let mut on_b = Viewer::open(&b, id).await;
    let appends = (1..=2_000).map(|host| {
        let store = if host % 2 == 0 { &a } else { &b };
        store.append(id, answer(host), now())
    });
    let appended = futures_util::future::join_all(appends).await;
    let places: BTreeSet<_> = appended
        .into_iter()
        .map(|appended| match appended {
            Ok(Appended::At(seq)) => seq.0,
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(places.into_iter().eq(1..=2_000), "positions have gaps");
    on_a.await_hosts(2_000, SOON).await;
    on_b.await_hosts(2_000, SOON).await;
    assert_eq!(on_a.hosts, on_b.hosts, "the order is one");
    let mut late = Viewer::open(&node(&server.url(), "c").await, id).await;
    late.await_hosts(2_000, SOON).await;
    assert_eq!(late.hosts, on_a.hosts);
    let again = b.append(id, answer(5), now()).await.unwrap();
    assert_eq!(again, Appended::Duplicate);
    let stranger = b.append(id, answer(2_001), now()).await.unwrap();
    assert_eq!(stranger, Appended::NotTargeted);
    let far = b.append(id, answer(4_000_000_000), now()).await.unwrap();
    assert_eq!(far, Appended::NotTargeted);
    let progress = a.progress(id).await.unwrap().unwrap();
    assert_eq!(progress.answered.len(), 2_000);
    assert_eq!(progress.failed.len(), 2_000 / 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_campaign_ends_once_whichever_nodes_try() {
    if !is_installed() {
        return;
    }
    let server = RedisServer::start();
    let url = server.url();
    let mut nodes = Vec::new();
    for name in ["a", "b", "c"] {
        let mut settings = Settings::new(&url, name, encode);
        settings.clock = StoreClock::Caller;
        nodes.push(RedisStore::connect(settings).await.unwrap());
    }
    let rules = Rules::default();
    let start = now();
    let mut ids = Vec::new();
    for _ in 0..50 {
        ids.push(nodes[0].create(question(1..=3), start).await.unwrap().id);
    }
    let reap = async |at| {
        let reaped = nodes.iter().map(|node| node.reap(at));
        let reaped = futures_util::future::join_all(reaped).await;
        let mut all: Vec<_> = reaped.into_iter().flat_map(Result::unwrap).collect();
        all.sort_by_key(|reaped| match reaped {
            Reaped::Ended(id, _) | Reaped::Forgotten(id) => *id,
        });
        all
    };
    assert_eq!(reap(start + Duration::from_secs(59)).await, []);
    let ended = reap(start + rules.unclaimed).await;
    let expected: Vec<_> = ids
        .iter()
        .map(|id| Reaped::Ended(*id, Ending::Unclaimed))
        .collect();
    assert_eq!(ended, expected);
    for node in &nodes {
        eventually(
            "no node gives the query to hosts",
            Duration::from_secs(1),
            async || node.active().is_empty(),
        )
        .await;
    }
    let stops = ids
        .iter()
        .map(|id| nodes[1].end(*id, Ending::Stopped, now()));
    let stops = futures_util::future::join_all(stops).await;
    assert!(stops.into_iter().all(|stopped| !stopped.unwrap()));
    let forgotten = reap(start + rules.unclaimed + rules.retention).await;
    assert_eq!(forgotten.len(), 50);
    assert!(nodes[2].campaign(ids[0]).await.unwrap().is_none());
    assert!(nodes[2].follow(ids[0]).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_claim_of_a_node_that_died_runs_out_before_the_60_s_of_a_waiting_campaign() {
    if !is_installed() {
        return;
    }
    let server = RedisServer::start();
    let mut settings = Settings::new(&server.url(), "a", encode);
    settings.clock = StoreClock::Caller;
    let a = RedisStore::connect(settings).await.unwrap();
    let start = now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let one = a.create(question(1..=3), start).await.unwrap().id;
    a.claim(one, "dead", at(1)).await.unwrap();
    let other = a.create(question(1..=3), start).await.unwrap().id;
    a.claim(other, "dead", at(2)).await.unwrap();
    a.claim(other, "alive", at(9)).await.unwrap();
    a.release(other, "alive", at(10)).await.unwrap();
    assert_eq!(a.reap(at(25)).await.unwrap(), []);
    let unwatched = |id| Reaped::Ended(id, Ending::Unwatched);
    assert_eq!(a.reap(at(26)).await.unwrap(), [unwatched(one)]);
    assert_eq!(a.reap(at(27)).await.unwrap(), [unwatched(other)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_clock_is_wrong_ends_nothing_and_asks_nobody_again() {
    if !is_installed() {
        return;
    }
    let server = RedisServer::start();
    let (a, b) = (
        node(&server.url(), "a").await,
        node(&server.url(), "b").await,
    );
    let minutes = Duration::from_secs(300);
    let (ahead, behind) = (now() + minutes, Timestamp(now().0 - 300_000));
    let id = a.create(question(1..=3), ahead).await.unwrap().id;
    let created = b.campaign(id).await.unwrap().unwrap().created_at;
    assert!(created < now() + Duration::from_secs(60), "Redis's clock");
    assert_eq!(a.claim(id, "a", behind).await.unwrap(), Claim::Claimed);
    for wrong in [ahead, behind] {
        assert_eq!(b.reap(wrong).await.unwrap(), []);
    }
    let given = a.hand_out(id, HostId(1), behind).await.unwrap();
    assert_eq!(given, HandOut::Give);
    for wrong in [ahead, behind] {
        let HandOut::Pending(until) = b.hand_out(id, HostId(1), wrong).await.unwrap() else {
            panic!("the host has the query already");
        };
        assert!(until > wrong && until <= wrong + Rules::default().overdue);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_is_heard_of_at_once_and_a_gap_means_load_again() {
    if !is_installed() {
        return;
    }
    let server = RedisServer::start();
    let url = server.url();
    let mut settings = Settings::new(&url, "a", encode);
    settings.changes_kept = 200;
    let a = RedisStore::connect(settings).await.unwrap();
    let b = node(&url, "b").await;
    let start = b.load(&mut |_| Ok(())).await.unwrap();
    let change = |key: usize, value: &str| Change {
        kind: "host",
        key: key.to_string(),
        expect: Expect::Anything,
        value: Some(Bytes::from(value.to_owned())),
    };
    // Older wake slots, from the connection itself.
    for _ in 0..2 {
        b.committed_elsewhere().await;
    }
    let waiting = tokio::spawn({
        let b = Arc::clone(&b);
        async move {
            let since = std::time::Instant::now();
            b.committed_elsewhere().await;
            since.elapsed()
        }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    let done = a.commit(vec![change(1, "one"), change(2, "two")]).await;
    assert_eq!(done.unwrap(), Committed::Done(start + 1));
    assert!(waiting.await.unwrap() < Duration::from_millis(900));
    let changes = b.changes(start).await.unwrap().unwrap();
    assert_eq!(changes.len(), 2);
    assert_eq!(b.changes(start + 1).await.unwrap().unwrap(), []);
    assert_eq!(b.changes(start + 2).await.unwrap(), None, "that is to come");
    let many: Vec<_> = (0..3_000).map(|key| change(key, "x")).collect();
    a.commit(many).await.unwrap();
    let (records, revision) = load_all(&*b).await.unwrap();
    assert_eq!((records.len(), revision), (3_000, start + 2));
    assert_eq!(b.changes(start).await.unwrap(), None, "too long ago");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_commit_is_never_told_in_parts() {
    if !is_installed() {
        return;
    }
    let server = RedisServer::start();
    let a = node(&server.url(), "a").await;
    let commit = async |count: usize| {
        let changes = (0..count).map(|key| Change {
            kind: "host",
            key: format!("{count} {key}"),
            expect: Expect::Anything,
            value: None,
        });
        a.commit(changes.collect()).await.unwrap();
    };
    for count in [700, 701, 702, 3_000, 1] {
        commit(count).await;
    }
    let (mut after, mut told) = (0, Vec::new());
    loop {
        let changes = a.changes(after).await.unwrap().unwrap();
        let Some(last) = changes.last() else { break };
        after = last.revision;
        told.push(changes.len());
    }
    assert_eq!(
        told.iter().sum::<usize>(),
        700 + 701 + 702 + 3_001,
        "{told:?}"
    );
    assert_eq!(after, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn presence_and_sessions_are_shared() {
    if !is_installed() {
        return;
    }
    let server = RedisServer::start();
    let (a, b) = (
        node(&server.url(), "a").await,
        node(&server.url(), "b").await,
    );
    let at = now();
    let seen: Vec<_> = (1..=20_000).map(|host| (HostId(host), at)).collect();
    a.put_seen(&seen).await.unwrap();
    let older = answerback::clock::Timestamp(at.0 - 1_000);
    b.put_seen(&[(HostId(5), older), (HostId(300_000), older)])
        .await
        .unwrap();
    let everybody = b.seen(older).await.unwrap();
    assert_eq!(everybody.len(), 20_001);
    assert!(
        everybody.contains(&(HostId(5), at)),
        "an older time does not win"
    );
    assert!(everybody.contains(&(HostId(300_000), older)));
    assert_eq!(b.seen(at).await.unwrap().len(), 20_000);

    let ttl = Duration::from_millis(300);
    assert!(a.put_session("s1", "a:1", ttl).await.unwrap());
    assert!(a.put_session("s1", "a:1", ttl).await.unwrap(), "renewed");
    assert!(!b.put_session("s1", "b:1", ttl).await.unwrap());
    assert_eq!(b.session_owner("s1").await.unwrap().as_deref(), Some("a:1"));
    b.drop_session("s1", "b:1").await;
    assert!(
        b.session_owner("s1").await.unwrap().is_some(),
        "not b's to drop"
    );
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(b.session_owner("s1").await.unwrap(), None);

    let first = a.node_secret("one").await.unwrap();
    assert_eq!(first.as_deref(), Some("one"));
    assert_eq!(b.node_secret("other").await.unwrap(), first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_campaigns_leave_no_key_behind() {
    if !is_installed() {
        return;
    }
    let server = RedisServer::start();
    let mut settings = Settings::new(&server.url(), "a", encode);
    settings.clock = StoreClock::Caller;
    // Keys are counted below, and a node's own record comes and goes by the wall clock.
    settings.is_node = false;
    let a = RedisStore::connect(settings).await.unwrap();
    let start = now();
    let live = async |hosts: u32| {
        let id = a.create(question(1..=hosts), start).await.unwrap().id;
        assert_eq!(
            a.hand_out(id, HostId(1), start).await.unwrap(),
            HandOut::Give
        );
        assert_eq!(
            a.hand_out(id, HostId(2), start).await.unwrap(),
            HandOut::Give
        );
        assert_eq!(a.claim(id, "a", start).await.unwrap(), Claim::Claimed);
        for host in [1, 7] {
            assert!(matches!(
                a.append(id, answer(host), start).await.unwrap(),
                Appended::At(_)
            ));
        }
    };
    live(10).await;
    let later = start + Duration::from_secs(2 * 24 * 3600);
    let latest = later + Rules::default().retention;
    let forget = async || {
        while !a.reap(later).await.unwrap().is_empty() {}
        while !a.reap(latest).await.unwrap().is_empty() {}
    };
    forget().await;
    let before = server.cli(&["dbsize"]);
    for round in 0..20 {
        let campaigns = (0..50).map(|at| live(if (round + at) % 2 == 0 { 10 } else { 5_000 }));
        futures_util::future::join_all(campaigns).await;
    }
    let immortal = "local found = {} for _, key in ipairs(redis.call('KEYS', '*')) do \
        if redis.call('PTTL', key) < 0 then found[#found + 1] = key end end \
        table.sort(found) return found";
    let immortal = server.cli(&["eval", immortal, "0"]);
    let ctl = ["active", "campaigns", "deadlines"].map(|key| format!("ab:{{ctl}}:{key}"));
    let owned = [&["ab:{cat}:sequences".to_owned()], &ctl[..]].concat();
    assert!(
        immortal.lines().eq(owned),
        "keys without an expiry: {immortal}"
    );
    forget().await;
    assert_eq!(server.cli(&["dbsize"]), before);
    assert_eq!(a.campaigns(10).await.unwrap().len(), 0);
    let gone = a.append(CampaignId(5), answer(2), start).await.unwrap();
    assert_eq!(gone, Appended::Unknown);
    assert_eq!(server.cli(&["dbsize"]), before, "a late answer made a key");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_says_what_follows_a_position_wherever_it_lies_in_a_batch() {
    if !is_installed() {
        return;
    }
    let server = RedisServer::start();
    let a = node(&server.url(), "a").await;
    let id = a.create(question(1..=600), now()).await.unwrap().id;
    let appends = (1..=600).map(|host| a.append(id, answer(host), now()));
    futures_util::future::join_all(appends).await;
    for after in [0, 1, 31, 32, 33, 599] {
        let all = a.read(id, Seq(after), 1 << 20).await.unwrap();
        assert!(all.iter().map(|record| record.seq.0).eq(after + 1..=600));
        let one = a.read(id, Seq(after), 1).await.unwrap();
        assert_eq!(one.len(), 1);
        assert_eq!(one[0], all[0]);
    }
    assert!(a.read(id, Seq(600), 1 << 20).await.unwrap().is_empty());
    assert!(a.read(id, Seq(9_000), 1 << 20).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_tls_and_a_password_is_reached() {
    if !is_installed() {
        return;
    }
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let server = RedisServer::with_tls(&certificate, &key, "secret");
    let url = format!("rediss://:secret@localhost:{}", server.port());
    let refused = RedisStore::connect(Settings::new(&url, "a", encode)).await;
    assert!(refused.is_err(), "nobody has signed that certificate");
    let mut settings = Settings::new(&url, "a", encode);
    settings.ca_pem = Some(certificate.into_bytes());
    let wrong = Settings {
        url: url.replace("secret", "wrong"),
        ..settings.clone()
    };
    assert!(RedisStore::connect(wrong).await.is_err());
    let a = RedisStore::connect(settings.clone()).await.unwrap();
    let b = RedisStore::connect(settings).await.unwrap();
    let id = a.create(question(1..=3), now()).await.unwrap().id;
    let mut viewer = Viewer::open(&b, id).await;
    a.append(id, answer(2), now()).await.unwrap();
    viewer.await_hosts(1, SOON).await;
}
