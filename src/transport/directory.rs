//! Which node holds which session: the face that a product shows, and what a mount keeps written in it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::registry::Registry;
use super::relay::Relay;
use super::relay::record::Place;

/// Ended sessions whose records wait to be forgotten; beyond, their time runs out by itself.
const ENDED_MAX: usize = 4096;
/// Records renewed or forgotten at a time.
const AT_ONCE: usize = 64;

/// The directory cannot be asked.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the directory of sessions cannot be asked: {0}")]
pub struct Unasked(pub String);

/// A list, shared by all nodes, of which node holds which session. Sessions and records are short texts without
/// meaning to it. All calls answer within about a second.
#[async_trait]
pub trait Directory: Send + Sync + 'static {
    /// Makes this the session's record, for [`Directory::lifetime`], if it has none; if it is this already, its time
    /// begins anew. False if there is another. Of claims at the same time one wins.
    ///
    /// # Errors
    /// [`Unasked`]: nothing is known of the claim.
    async fn claim(&self, session: &str, record: &str) -> Result<bool, Unasked>;

    /// The session's record.
    ///
    /// # Errors
    /// [`Unasked`].
    async fn look_up(&self, session: &str) -> Result<Option<String>, Unasked>;

    /// Forgets the session's record if it is this one. Best effort: a record that stays runs out.
    async fn forget(&self, session: &str, record: &str);

    /// How long a record lasts that is not renewed. It is renewed three times in it.
    fn lifetime(&self) -> Duration;
}

/// What one mount has in the directory.
pub(super) struct Records {
    relay: Arc<Relay>,
    prefix: Arc<str>,
    /// Sessions that this node is opening. A second request for one waits until it is in the table; bounded by the
    /// connections.
    opening: Mutex<HashMap<Box<str>, watch::Receiver<()>>>,
    ended: mpsc::Sender<Ended>,
    stop: CancellationToken,
}

/// A session that has ended, and its record.
type Ended = (Box<str>, Box<str>);

/// Being the only request of this node that opens a session.
pub(super) struct Turn<'r> {
    records: &'r Records,
    id: &'r str,
    _over: watch::Sender<()>,
}

/// A claim that is taken back unless a session has come of it.
pub(super) struct Claim<'r> {
    records: &'r Records,
    id: &'r str,
    record: Option<Box<str>>,
}

impl Records {
    /// The records of the mount at `prefix`, and the ended ones, to be given to [`keep_while_alive`].
    pub(super) fn new(
        relay: Arc<Relay>,
        prefix: Arc<str>,
        stop: CancellationToken,
    ) -> (Self, mpsc::Receiver<Ended>) {
        let (ended, forgotten) = mpsc::channel(ENDED_MAX);
        let records = Self {
            relay,
            prefix,
            opening: Mutex::default(),
            ended,
            stop,
        };
        (records, forgotten)
    }

    pub(super) fn relay(&self) -> &Arc<Relay> {
        &self.relay
    }

    /// Tells relayed responses to end, when the mount does.
    pub(super) const fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// The session's name in the directory: ids are scoped to the mount.
    pub(super) fn name(&self, id: &str) -> String {
        format!("{}/{id}", self.prefix)
    }

    /// The turn to open a session, or something that changes when another request's turn is over.
    pub(super) fn turn<'r>(&'r self, id: &'r str) -> Result<Turn<'r>, watch::Receiver<()>> {
        let mut opening = self.opening();
        if let Some(over) = opening.get(id) {
            return Err(over.clone());
        }
        let (sender, over) = watch::channel(());
        opening.insert(id.into(), over);
        Ok(Turn {
            records: self,
            id,
            _over: sender,
        })
    }

    /// Waits while this node is opening the session.
    pub(super) async fn opened(&self, id: &str) {
        let over = self.opening().get(id).cloned();
        if let Some(mut over) = over {
            // An error means that the turn is over.
            let _ = over.changed().await;
        }
    }

    /// Claims the session for this node. None: another node was quicker.
    pub(super) async fn claim<'r>(&'r self, id: &'r str) -> Result<Option<Claim<'r>>, Unasked> {
        let record = self.relay.place().record(self.relay.number());
        // Before the call: it may be cancelled, or fail after it has been carried out.
        let mut claim = Claim {
            records: self,
            id,
            record: Some(record.clone().into()),
        };
        let name = self.name(id);
        if self.relay.directory().claim(&name, &record).await? {
            return Ok(Some(claim));
        }
        claim.record = None;
        Ok(None)
    }

    /// The session is over: its record is forgotten soon.
    pub(super) fn ended(&self, id: &str, record: Box<str>) {
        if self.ended.try_send((id.into(), record)).is_err() {
            tracing::debug!("a session's record is left to run out");
        }
    }

    fn opening(&self) -> MutexGuard<'_, HashMap<Box<str>, watch::Receiver<()>>> {
        self.opening.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.records.opening().remove(self.id);
    }
}

impl Claim<'_> {
    /// The record, for the session that has been opened.
    pub(super) fn take(mut self) -> Option<Box<str>> {
        self.record.take()
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if let Some(record) = self.record.take() {
            self.records.ended(self.id, record);
        }
    }
}

/// Numbers that make every record of a process another one.
#[derive(Debug, Default)]
pub(super) struct Numbers(AtomicU64);

impl Numbers {
    pub(super) fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// Whether a record was made by this very process.
pub(super) fn is_ours(relay: &Relay, record: &str) -> bool {
    Place::of(record).is_some_and(|place| place == *relay.place())
}

/// Renews and forgets a mount's records for as long as the mount exists or, once it stops, has sessions.
pub(super) async fn keep_while_alive(
    registry: Weak<Registry>,
    relay: Arc<Relay>,
    mut ended: mpsc::Receiver<Ended>,
    stop: CancellationToken,
) {
    let mut renewals = tokio::time::interval(relay.directory().lifetime() / 3);
    renewals.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut batch = Vec::with_capacity(AT_ONCE);
    loop {
        tokio::select! {
            count = ended.recv_many(&mut batch, AT_ONCE) => {
                if count == 0 {
                    return;
                }
                forget(&registry, &relay, &mut batch).await;
            }
            _ = renewals.tick() => renew(&registry, &relay).await,
            () = stop.cancelled(), if !stop.is_cancelled() => {}
        }
        if !stop.is_cancelled() || !ended.is_empty() {
            continue;
        }
        let left = registry.upgrade().map_or(0, |registry| registry.sessions());
        if left == 0 && ended.is_empty() {
            return;
        }
    }
}

async fn forget(registry: &Weak<Registry>, relay: &Relay, batch: &mut Vec<Ended>) {
    let Some(registry) = registry.upgrade() else {
        // The names are gone with the mount; the records run out.
        batch.clear();
        return;
    };
    let Some(records) = registry.records() else {
        return;
    };
    stream::iter(batch.drain(..))
        .for_each_concurrent(AT_ONCE, async |(id, record)| {
            let name = records.name(&id);
            relay.directory().forget(&name, &record).await;
        })
        .await;
}

async fn renew(registry: &Weak<Registry>, relay: &Relay) {
    let Some(registry) = registry.upgrade() else {
        return;
    };
    let held = registry.recorded();
    stream::iter(held)
        .for_each_concurrent(AT_ONCE, async |handle| {
            let (Some(records), Some(record)) = (registry.records(), handle.record()) else {
                return;
            };
            match relay
                .directory()
                .claim(&records.name(handle.id()), record)
                .await
            {
                Ok(true) => {}
                // Its record had run out, and another node has opened the id since: there it goes on.
                Ok(false) => handle.close(crate::sockjs::Close::interrupted()),
                Err(error) => tracing::debug!(%error, "a session's record is not renewed"),
            }
        })
        .await;
}
