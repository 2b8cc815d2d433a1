//! What a mount has written in the directory: the sessions that it holds, and those that it is opening.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::directory::DirectoryUnavailable;
use super::relay::Relay;
use super::relay::record::NodeAddress;

/// Ended sessions whose records wait to be forgotten; beyond, their time runs out by itself.
const ENDED_MAX: usize = 4096;

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
pub(super) type Ended = (Box<str>, Box<str>);

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
    /// The records of the mount at `prefix`, and the ended ones, to be given to `renewal::keep_while_alive`.
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
    pub(super) async fn claim<'r>(
        &'r self,
        id: &'r str,
    ) -> Result<Option<Claim<'r>>, DirectoryUnavailable> {
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

/// Whether a record was made by this very process.
pub(super) fn is_ours(relay: &Relay, record: &str) -> bool {
    NodeAddress::of(record).is_some_and(|place| place == *relay.place())
}
