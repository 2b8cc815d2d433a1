//! Where a session is: on this node, on another, or nowhere yet.

use std::net::IpAddr;
use std::sync::Arc;

use super::bounds::NotOpened;
use super::directory::DirectoryUnavailable;
use super::handle::Handle;
use super::records::is_ours;
use super::registry::Registry;
use super::relay::Owner;
use crate::names;
use crate::sockjs::Transport;

/// How often a request looks again when others are quicker each time.
const ROUNDS: usize = 8;

/// The place of a session.
pub(super) enum SessionLocation {
    Here(Arc<Handle>),
    There(Owner),
    Nowhere,
}

impl From<DirectoryUnavailable> for NotOpened {
    fn from(error: DirectoryUnavailable) -> Self {
        metrics::counter!(names::RELAYED, "outcome" => "unasked").increment(1);
        tracing::debug!(%error, "a session cannot be looked for");
        Self::DirectoryUnavailable
    }
}

impl Registry {
    /// The session if this node holds it, or is just opening it.
    pub(super) async fn held(&self, id: &str) -> Option<Arc<Handle>> {
        if let Some(handle) = self.find(id) {
            return Some(handle);
        }
        self.records()?.opened(id).await;
        self.find(id)
    }

    /// Where a session is that somebody sends to.
    pub(super) async fn locate(
        &self,
        id: &str,
        address: IpAddr,
    ) -> Result<SessionLocation, NotOpened> {
        if let Some(handle) = self.held(id).await {
            return Ok(SessionLocation::Here(handle));
        }
        let Some(records) = self.records() else {
            return Ok(SessionLocation::Nowhere);
        };
        // Whoever asks for sessions that nobody has is made to wait before the directory is asked again.
        self.bounds().may_miss(address)?;
        let owner = records.relay().owner(&records.name(id)).await?;
        let elsewhere = owner.filter(|owner| !is_ours(records.relay(), &owner.record));
        if elsewhere.is_none() {
            self.bounds().miss(address);
        }
        Ok(elsewhere.map_or(SessionLocation::Nowhere, SessionLocation::There))
    }

    /// Where a session is that somebody receives from; here and new, if it was nowhere. Its record is made before
    /// anybody can hear of it.
    pub(super) async fn locate_or_open(
        &self,
        id: &str,
        transport: Transport,
        address: IpAddr,
    ) -> Result<SessionLocation, NotOpened> {
        let Some(records) = self.records() else {
            let here = self.find_or_open(id, transport, address);
            return here.map(SessionLocation::Here);
        };
        for _ in 0..ROUNDS {
            if let Some(handle) = self.find(id) {
                return Ok(SessionLocation::Here(handle));
            }
            let _turn = match records.turn(id) {
                Ok(turn) => turn,
                Err(mut over) => {
                    // An error means that the turn is over.
                    let _ = over.changed().await;
                    continue;
                }
            };
            // It may have been opened just before this turn began.
            if let Some(handle) = self.find(id) {
                return Ok(SessionLocation::Here(handle));
            }
            let (relay, name) = (records.relay(), records.name(id));
            match relay.owner(&name).await? {
                // A session of ours that has just ended, or was given up before it began.
                Some(owner) if is_ours(relay, &owner.record) => relay.clear(&name, &owner).await,
                Some(owner) => return Ok(SessionLocation::There(owner)),
                None => {}
            }
            let place = self.admit(address)?;
            if let Some(claim) = records.claim(id).await? {
                let handle = self.insert(id, transport, address, place, claim.take());
                return Ok(SessionLocation::Here(handle));
            }
        }
        Err(NotOpened::DirectoryUnavailable)
    }
}
