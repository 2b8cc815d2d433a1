//! Where everything that must outlive a request is kept: catalog records, and campaigns with their logs.
//!
//! One trait, [`Store`], with its guarantees written on it; `contract` is the suite that every
//! implementation passes.

#![cfg_attr(
    test,
    allow(
        clippy::disallowed_methods,
        reason = "tests own their tasks and clocks"
    )
)]

use answerback_base::{clock, names, sampled, wake};
use answerback_broker as results;
use answerback_sockjs as sockjs;

pub mod active;
#[doc(hidden)]
pub mod contract;
pub mod embedded;
pub mod error;
pub mod feed;
pub mod numbers;
pub mod redis;
pub mod rehearsal;
mod trouble;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::clock::Timestamp;
use crate::results::{
    Answer, Campaign, CampaignId, Claim, Ending, HandOut, HostId, Progress, Question, Record, Seq,
};
pub use active::{Active, ActiveCampaign};
pub use error::StoreError;
pub use feed::CampaignLog;

/// The version of a catalog record, and the place of its last change among all changes. Grows with every
/// commit; 0 is before the first.
pub type Revision = u64;

/// The kind of a catalog record: a short lower-case word such as `host`; part of the stored form.
pub type Kind = &'static str;

/// A catalog record as it is stored. The value is the catalog's own versioned JSON; stores do not look inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// What it is, one of the kinds that the catalog knows; others are kept and ignored.
    pub kind: String,
    /// Which one; unique within the kind, at most 1 KiB.
    pub key: String,
    /// Its last change.
    pub revision: Revision,
    /// The record; none where this tells of a deletion (only from [`Store::changes`]).
    pub value: Option<Bytes>,
}

/// One change of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The record's kind.
    pub kind: Kind,
    /// The record's key.
    pub key: String,
    /// What must be so for the commit to happen.
    pub expect: Expect,
    /// The new value, or none to delete.
    pub value: Option<Bytes>,
}

/// A condition on a record before a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// None.
    Anything,
    /// There is no such record.
    Absent,
    /// It is still at this revision.
    At(Revision),
}

/// How a commit went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Committed {
    /// All changes were made, and now have this revision.
    Done(Revision),
    /// None was made: this record is not as was expected.
    Conflict {
        /// Its kind.
        kind: Kind,
        /// Its key.
        key: String,
    },
}

/// How an append went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// The answer is in the log, at this place, and survives the process.
    At(Seq),
    /// This host has answered before; nothing changed.
    Duplicate,
    /// This host was not asked; nothing changed.
    NotTargeted,
    /// The campaign is over; nothing changed.
    Closed,
    /// There is no such campaign.
    Unknown,
}

/// A campaign that [`Store::reap`] has just ended or forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaped {
    /// Ended, for this reason, by this very call.
    Ended(CampaignId, Ending),
    /// Its results are gone: the retention is over.
    Forgotten(CampaignId),
}

/// Takes a batch of records in.
pub type Take<'t> = dyn FnMut(Vec<Stored>) -> Result<(), StoreError> + Send + 't;

/// Everything durable. Guarantees, which `contract` tests:
///
/// - **Acknowledged is durable**: after `Ok`, a commit, a campaign, an accepted answer or an ending survives
///   kill -9 of this process (and what the store's own persistence setting says of the machine).
/// - **Commits** are all or nothing, and are seen by every node in the order of their revisions.
/// - **Appends** of one campaign are atomic (open, targeted, first answer of the host, add) and totally ordered;
///   sequence numbers start at 1 and have no gaps. Repeating a call is harmless.
/// - **Endings** happen exactly once over all nodes; no answer is accepted after one.
/// - An error means that nothing is known of the write. No call waits longer than a second for a store that is down.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// `embedded` or `redis`, for people.
    fn name(&self) -> &'static str;

    /// Whether the store answers and takes writes now. Writes a little to find out.
    async fn ping(&self) -> Result<(), StoreError>;

    /// What an operator should know of the store, as sentences; empty if all is well.
    async fn health(&self) -> Result<Vec<String>, StoreError> {
        self.ping().await.map(|()| Vec::new())
    }

    // ---- catalog

    /// Hands all catalog records to `take`, a batch at a time, so that a large catalog is not in memory twice, and
    /// gives the revision up to which they are complete. A record may come twice; the later one counts.
    ///
    /// # Errors
    /// The store's own, and what `take` gives, after which it is not called again.
    async fn load(&self, take: &mut Take<'_>) -> Result<Revision, StoreError>;

    /// Makes all the changes or none.
    async fn commit(&self, changes: Vec<Change>) -> Result<Committed, StoreError>;

    /// What was committed after this revision, oldest first, by any node; deletions have no value.
    /// At most a few thousand at once; call again until empty. `None`: too long ago, [`Store::load`] again.
    async fn changes(&self, after: Revision) -> Result<Option<Vec<Stored>>, StoreError>;

    /// Writes back a catalog of which [`Store::changes`] has said that it is gone ([`StoreError::Vanished`]). Records that
    /// are there stay as they are; `upto` is how far these are complete.
    async fn put_back(&self, _records: Vec<Stored>, _upto: Revision) -> Result<(), StoreError> {
        Ok(())
    }

    /// Completes when something may have been committed by another node, or by somebody on this one who is gone before
    /// it was applied; at the latest after a second.
    async fn committed_elsewhere(&self);

    /// Reserves `count` numbers of a sequence and returns the first. Sequences start at 1; a number is never
    /// given twice. With a `count` of 0 it tells the next number and reserves nothing.
    async fn reserve(&self, sequence: Kind, count: u32) -> Result<u64, StoreError>;

    // ---- presence

    /// Adds these hosts' last check-ins.
    async fn put_seen(&self, seen: &[(HostId, Timestamp)]) -> Result<(), StoreError>;

    /// The last check-ins of all hosts, as far as they were put by any node; `since` leaves out older ones.
    async fn seen(&self, since: Timestamp) -> Result<Vec<(HostId, Timestamp)>, StoreError>;

    // ---- campaigns

    /// Creates a waiting campaign and makes it active on this node at once, on every node within a second.
    async fn create(&self, question: Question, now: Timestamp) -> Result<Campaign, StoreError>;

    /// The campaign as the store knows it now.
    async fn campaign(&self, id: CampaignId) -> Result<Option<Campaign>, StoreError>;

    /// The newest campaigns first, at most `limit`.
    async fn campaigns(&self, limit: usize) -> Result<Vec<Campaign>, StoreError>;

    /// Who has done what.
    async fn progress(&self, id: CampaignId) -> Result<Option<Progress>, StoreError>;

    /// Adds one host's answer.
    async fn append(
        &self,
        id: CampaignId,
        answer: Answer,
        now: Timestamp,
    ) -> Result<Appended, StoreError>;

    /// Decides whether a host that checks in gets the query, and records it.
    async fn hand_out(
        &self,
        id: CampaignId,
        host: HostId,
        now: Timestamp,
    ) -> Result<HandOut, StoreError>;

    /// The host's answer could not be taken: its last hand-out does not count. Best effort; never fails.
    async fn take_back(&self, id: CampaignId, host: HostId);

    /// Claims the campaign for this node's viewers, or renews the claim.
    async fn claim(&self, id: CampaignId, node: &str, now: Timestamp) -> Result<Claim, StoreError>;

    /// This node has no viewer of the campaign any more.
    async fn release(&self, id: CampaignId, node: &str, now: Timestamp) -> Result<(), StoreError>;

    /// Ends the campaign; false if it had ended before or is unknown.
    async fn end(&self, id: CampaignId, ending: Ending, now: Timestamp)
    -> Result<bool, StoreError>;

    /// Ends what is due and forgets what is over, exactly once over all nodes. Cheap when nothing is due;
    /// meant to be called at least every half second.
    async fn reap(&self, now: Timestamp) -> Result<Vec<Reaped>, StoreError>;

    /// The campaigns that agents are to be given, kept current in memory: looking costs no store call.
    fn active(&self) -> &Active;

    /// The campaign's log on this node, kept current as long as the handle lives. `None`: no such campaign,
    /// or its results are forgotten.
    async fn follow(&self, id: CampaignId) -> Result<Option<Arc<CampaignLog>>, StoreError>;

    /// Reads the log from the store: records after `after`, at most about `max_bytes` of bodies, at least one
    /// if there is any.
    async fn read(
        &self,
        id: CampaignId,
        after: Seq,
        max_bytes: usize,
    ) -> Result<Vec<Record>, StoreError>;

    // ---- sessions: which node holds a SockJS session. Where there is one node, it is always here.

    /// Records for `ttl` that this node holds the session; renews it if it does already. False: another node does.
    async fn put_session(
        &self,
        _session: &str,
        _node: &str,
        _ttl: Duration,
    ) -> Result<bool, StoreError> {
        Ok(true)
    }

    /// The node that holds the session, as it was put. `None`: no other node than this one.
    async fn session_owner(&self, _session: &str) -> Result<Option<String>, StoreError> {
        Ok(None)
    }

    /// The session is over; forgets it if this node held it. Best effort; never fails.
    async fn drop_session(&self, _session: &str, _node: &str) {}

    /// The secret that all nodes of this store share: the one that was offered first, ever. `None`: there is no other
    /// node.
    async fn node_secret(&self, _offered: &str) -> Result<Option<String>, StoreError> {
        Ok(None)
    }

    /// The names of the nodes that use the store now; none where there can be only one, which holds a lock.
    async fn nodes(&self) -> Result<Vec<String>, StoreError> {
        Ok(Vec::new())
    }

    /// Finishes what is being written; called once, last.
    async fn close(&self);
}

/// All catalog records, each once, by kind and key, and the revision up to which they are complete.
///
/// # Errors
/// See [`Store::load`].
pub async fn load_all(store: &dyn Store) -> Result<(Vec<Stored>, Revision), StoreError> {
    let mut records = BTreeMap::new();
    let mut take = |batch: Vec<Stored>| {
        let named = |record: Stored| ((record.kind.clone(), record.key.clone()), record);
        records.extend(batch.into_iter().map(named));
        Ok(())
    };
    let revision = store.load(&mut take).await?;
    Ok((records.into_values().collect(), revision))
}
