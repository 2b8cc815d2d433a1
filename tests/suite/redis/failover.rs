//! A cluster and a master with Sentinels, in which a server is killed under load. Long: run with `--ignored`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use answerback::clock::Timestamp;
use answerback::results::{CampaignId, Claim, Ending};
use answerback::store::contract::{self, Fixture};
use answerback::store::redis::{RedisStore, Settings, StoreClock};
use answerback::store::{Appended, Change, Committed, Expect, Store};
use async_trait::async_trait;

use super::{Viewer, answer, append_until_taken, eventually, node, now, question};
use crate::redis_server::{RedisCluster, RedisSentinels, is_installed};

const HOSTS: u32 = 6_000;
/// A failover here takes about two seconds.
const FAILOVER: Duration = Duration::from_secs(30);

/// Appends all hosts' answers, a few at a time, until each is taken; says how long the longest pause was.
fn load(store: &Arc<RedisStore>, id: CampaignId) -> tokio::task::JoinHandle<Duration> {
    let store = Arc::clone(store);
    tokio::spawn(async move {
        let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
        for first in (1..=HOSTS).step_by(10) {
            let ten = (first..first + 10).map(|host| append_until_taken(&store, id, host));
            for appended in futures_util::future::join_all(ten).await {
                assert!(matches!(appended, Appended::At(_) | Appended::Duplicate));
            }
            longest = longest.max(last.elapsed());
            last = Instant::now();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        longest
    })
}

async fn works(store: &Arc<RedisStore>) {
    let created = store.create(question(1..=3), now()).await.unwrap().id;
    assert_eq!(
        store.claim(created, "a", now()).await.unwrap(),
        Claim::Claimed
    );
    let appended = store.append(created, answer(2), now()).await.unwrap();
    assert!(matches!(appended, Appended::At(_)), "{appended:?}");
    assert!(store.end(created, Ending::Stopped, now()).await.unwrap());
    let change = Change {
        kind: "host",
        key: created.to_string(),
        expect: Expect::Absent,
        value: Some("1".into()),
    };
    let committed = store.commit(vec![change]).await.unwrap();
    assert!(matches!(committed, Committed::Done(_)));
    store.ping().await.unwrap();
    store.health().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long run"]
async fn a_cluster_that_loses_a_primary_loses_no_answer() {
    if !is_installed() {
        return;
    }
    let mut cluster = RedisCluster::start();
    let (a, b) = (
        node(&cluster.url(), "a").await,
        node(&cluster.url(), "b").await,
    );
    works(&a).await;
    let id = a.create(question(1..=HOSTS), now()).await.unwrap().id;
    a.claim(id, "b", now()).await.unwrap();
    let mut viewer = Viewer::open(&b, id).await;
    for key in [format!("ab:{{{id}}}:log"), "ab:{ctl}:active".to_owned()] {
        let id = a.create(question(1..=HOSTS), now()).await;
        let id = id.unwrap().id;
        a.claim(id, "b", now()).await.unwrap();
        let loading = load(&a, id);
        let mut viewer = Viewer::open(&b, id).await;
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        let primary = cluster.primary_of(&key);
        primary.kill();
        let longest = loading.await.unwrap();
        eprintln!("{key}: the longest pause was {longest:?}");
        viewer.await_hosts(HOSTS as usize, FAILOVER).await;
        let dead = cluster
            .servers
            .iter_mut()
            .find(|server| server.cli(&["ping"]).is_empty());
        dead.unwrap().restart();
        cluster.await_ok();
        eventually("the store works", FAILOVER, async || {
            a.reap(now()).await.is_ok()
        })
        .await;
        works(&a).await;
    }
    let loading = load(&a, id);
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let primary = cluster.primary_of(&format!("ab:{{{id}}}:log"));
    primary.kill();
    loading.await.unwrap();
    viewer.await_hosts(HOSTS as usize, FAILOVER).await;
    let mut late = Viewer::open(&node(&cluster.url(), "c").await, id).await;
    late.await_hosts(HOSTS as usize, FAILOVER).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long run"]
async fn sentinels_name_a_new_master_and_no_answer_is_lost() {
    if !is_installed() {
        return;
    }
    let mut sentinels = RedisSentinels::start();
    let (a, b) = (
        node(&sentinels.url(), "a").await,
        node(&sentinels.url(), "b").await,
    );
    works(&a).await;
    let id = a.create(question(1..=HOSTS), now()).await.unwrap().id;
    a.claim(id, "b", now()).await.unwrap();
    let mut viewer = Viewer::open(&b, id).await;
    let loading = load(&a, id);
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    sentinels.servers[0].kill();
    let longest = loading.await.unwrap();
    eprintln!("the longest pause was {longest:?}");
    viewer.await_hosts(HOSTS as usize, FAILOVER).await;
    eventually("the store works", FAILOVER, async || a.ping().await.is_ok()).await;
    works(&a).await;
    let mut late = Viewer::open(&node(&sentinels.url(), "c").await, id).await;
    late.await_hosts(HOSTS as usize, FAILOVER).await;
    // The old master comes back as a replica; it must not be written to.
    sentinels.servers[0].restart();
    tokio::time::sleep(Duration::from_secs(3)).await;
    works(&b).await;
}

struct InCluster {
    cluster: RedisCluster,
    prefix: String,
}

impl InCluster {
    async fn node(&self) -> Arc<dyn Store> {
        let mut settings = Settings::new(&self.cluster.url(), "node", contract::encode);
        settings.prefix.clone_from(&self.prefix);
        settings.clock = StoreClock::Caller;
        RedisStore::connect(settings).await.unwrap()
    }
}

#[async_trait]
impl Fixture for InCluster {
    async fn fresh(&self) -> Arc<dyn Store> {
        self.node().await
    }

    async fn reopen(&self, store: Arc<dyn Store>, _: Timestamp) -> Arc<dyn Store> {
        store.close().await;
        drop(store);
        self.node().await
    }

    async fn second_node(&self, _: &Arc<dyn Store>) -> Option<Arc<dyn Store>> {
        Some(self.node().await)
    }
}

/// Runs guarantees one after the other on one cluster.
macro_rules! in_turn {
    ($fixture:ident, $($guarantee:ident)*) => {
        $(
            $fixture.prefix = concat!(stringify!($guarantee), ":").to_owned();
            contract::$guarantee(&$fixture).await;
        )*
    };
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long run"]
async fn a_cluster_keeps_the_contract() {
    if !is_installed() {
        return;
    }
    let mut fixture = InCluster {
        cluster: RedisCluster::start(),
        prefix: String::new(),
    };
    in_turn! { fixture,
        a_commit_makes_all_its_changes_or_none
        a_commit_conflicts_with_a_record_that_is_not_as_expected
        revisions_grow_and_changes_tell_what_followed_one
        changes_tell_whole_commits_until_there_are_no_more
        one_of_many_commits_that_expect_the_same_wins
        a_commit_reaches_the_other_node
        a_number_is_reserved_once
        the_latest_check_in_of_a_host_counts
        a_created_campaign_waits_and_is_given_to_its_targets
        campaigns_are_listed_newest_first
        an_unclaimed_campaign_is_cancelled_after_60_s_and_not_before
        a_claim_holds_for_its_lease_and_the_grace
        many_reapers_end_a_campaign_once
        results_are_forgotten_after_the_retention
        what_is_unknown_is_told_as_unknown
        each_answer_gets_its_verdict
        answers_that_come_together_get_places_without_gaps
        of_answers_from_one_host_that_come_together_one_is_taken
        no_answer_is_taken_after_the_end
        a_host_is_handed_the_query_again_when_overdue_at_most_three_times
        a_hand_out_that_is_taken_back_does_not_count
        progress_tells_who_has_done_what
        a_follower_sees_every_answer_in_order_and_goes_on
        a_late_follower_sees_everything
        the_log_is_read_in_pages
        a_restart_keeps_answers_and_goes_on_counting
        a_restart_keeps_deadlines
    }
}
