//! The suite that every implementation of [`Store`] passes: one function a guarantee.
//!
//! An implementation provides a [`Fixture`] and calls [`store_contract!`](crate::store_contract) in a test
//! module; that makes one test of each function here. Stores are opened with [`crate::results::Rules::default`],
//! and time is what the suite says it is. With a second node, half of each scenario runs there.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a test suite that several test binaries share"
)]

mod answers;
mod campaigns;
mod catalog;
mod logs;
mod restart;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{BufMut, Bytes, BytesMut};
use roaring::RoaringBitmap;

use super::{Appended, Store};
use crate::clock::Timestamp;
use crate::results::{Answer, Campaign, HostId, QueryId, Question, Seq, TeamId, UserId};
use crate::sockjs::Form;

pub use answers::*;
pub use campaigns::*;
pub use catalog::*;
pub use logs::*;
pub use restart::*;

/// When every scenario begins: a moment that lies ahead, so that nothing that a store dates by it has expired.
pub const START: Timestamp = Timestamp::from_secs(4_000_000_000);

/// How long a scenario waits for what another node is to learn.
const PATIENCE: Duration = Duration::from_secs(5);

/// How the suite gets at an implementation.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// An empty store, opened at [`START`].
    async fn fresh(&self) -> Arc<dyn Store>;
    /// The same store after a restart of its process at this moment. Nobody else has a handle to it.
    async fn reopen(&self, store: Arc<dyn Store>, now: Timestamp) -> Arc<dyn Store>;
    /// Another node over the same data; none if there can be only one.
    async fn second_node(&self, store: &Arc<dyn Store>) -> Option<Arc<dyn Store>>;
}

/// Makes a test of each guarantee. The argument is an expression that makes a [`Fixture`].
#[doc(hidden)]
#[macro_export]
macro_rules! store_contract {
    ($fixture:expr) => {
        $crate::store_contract! { @each $fixture,
            a_commit_makes_all_its_changes_or_none
            a_commit_conflicts_with_a_record_that_is_not_as_expected
            revisions_grow_and_changes_tell_what_followed_one
            changes_tell_whole_commits_until_there_are_no_more
            one_of_many_commits_that_expect_the_same_wins
            a_commit_reaches_the_other_node
            a_load_comes_in_batches_and_stops_at_a_refusal
            a_number_is_reserved_once
            the_latest_check_in_of_a_host_counts
            a_created_campaign_waits_and_is_given_to_its_targets
            campaigns_are_listed_newest_first
            an_unclaimed_campaign_is_cancelled_after_60_s_and_not_before
            a_claim_holds_for_its_lease_and_the_grace
            the_last_viewer_leaving_starts_the_grace_and_a_return_stops_it
            no_campaign_runs_longer_than_a_day
            a_campaign_ends_once
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
            a_restart_keeps_the_catalog_and_its_numbers
            a_restart_keeps_answers_and_goes_on_counting
            a_restart_keeps_hand_outs
            a_restart_keeps_deadlines
            a_restart_keeps_endings_and_what_was_forgotten
        }
    };
    (@each $fixture:expr, $($guarantee:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $guarantee() {
                $crate::contract::$guarantee(&$fixture).await;
            }
        )*
    };
}

/// So many seconds after the beginning.
fn at(seconds: u64) -> Timestamp {
    START + Duration::from_secs(seconds)
}

/// A store, and the same or another node of it.
async fn two_nodes(fixture: &dyn Fixture) -> (Arc<dyn Store>, Arc<dyn Store>) {
    let store = fixture.fresh().await;
    let other = fixture.second_node(&store).await;
    let other = other.unwrap_or_else(|| Arc::clone(&store));
    (store, other)
}

/// Asks these hosts something.
fn question(hosts: impl IntoIterator<Item = u32>) -> Question {
    Question {
        query_id: QueryId(7),
        query_name: Some("uptime".into()),
        user_id: UserId(3),
        sql: "SELECT * FROM uptime".into(),
        targets: Arc::new(RoaringBitmap::from_iter(hosts)),
        teams: vec![None, Some(TeamId(7))],
    }
}

/// A campaign over these hosts, created at the beginning.
async fn created(store: &dyn Store, hosts: impl IntoIterator<Item = u32>) -> Campaign {
    store.create(question(hosts), START).await.unwrap()
}

/// A host's answer; every third host fails.
pub fn answer(host: u32) -> Answer {
    let pad = "x".repeat(host as usize % 700);
    Answer {
        host: HostId(host),
        failed: host.is_multiple_of(3),
        body: Bytes::from(format!(
            r#""host":{{"id":{host}}},"rows":[{{"pad":"{pad}"}}]"#
        )),
    }
}

async fn append(store: &dyn Store, campaign: &Campaign, host: u32) -> Appended {
    let appended = store.append(campaign.id, answer(host), START);
    appended.await.unwrap()
}

async fn append_all(store: &dyn Store, campaign: &Campaign, hosts: std::ops::RangeInclusive<u32>) {
    for host in hosts {
        let appended = append(store, campaign, host).await;
        assert!(matches!(appended, Appended::At(_)), "{host}: {appended:?}");
    }
}

/// Waits until something is so that another node is to learn some time.
async fn eventually<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(waited.await.is_ok(), "in vain waited for: {what}");
}

/// The wire forms for stores under test, as far as logs ask for them: the plain message with the form's number before it.
pub fn encode(form: Form, message: &[u8], out: &mut BytesMut) {
    out.put_u8(b'0' + u8::try_from(form.index()).unwrap_or_default());
    out.put_slice(message);
}

/// The payloads of whole frames that follow each other.
fn payloads(mut frames: &[u8]) -> Vec<&[u8]> {
    let mut payloads = Vec::new();
    while frames.len() > 1 {
        let (head, len) = match frames[1] {
            126 => (4, usize::from(u16::from_be_bytes([frames[2], frames[3]]))),
            127 => (
                10,
                u64::from_be_bytes(frames[2..10].try_into().unwrap()) as usize,
            ),
            short => (2, usize::from(short)),
        };
        payloads.push(&frames[head..head + len]);
        frames = &frames[head + len..];
    }
    payloads
}

/// The place and the host that a message of a log names.
fn named(message: &[u8]) -> (Seq, HostId) {
    let message: serde_json::Value = serde_json::from_slice(message).unwrap();
    let number = |value: &serde_json::Value| value.as_u64().unwrap();
    let host = u32::try_from(number(&message["data"]["host"]["id"])).unwrap();
    (Seq(number(&message["data"]["seq"])), HostId(host))
}
