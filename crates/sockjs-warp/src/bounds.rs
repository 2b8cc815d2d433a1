//! What the mounts of a process share: places for sessions, how fast they are taken, memory for bodies.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::limits::account::Account;
use crate::limits::permits::{Permit, Permits};
use crate::limits::rate::{Rate, address_key};
use crate::limits::{RATE_KEYS, SESSION_MISSES_RATE, SESSIONS_PER_ADDRESS, SESSIONS_RATE};
use crate::names;

/// Sessions alive at once in all, WebSockets included.
const SESSIONS_MAX: usize = 100_000;

/// The bounds. Clones share them.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Sessions alive at once, by the client's address.
    pub sessions: Permits<IpAddr>,
    /// How fast one address may open them.
    pub openings: Arc<Rate<IpAddr>>,
    /// How often one address may ask for sessions that no node holds.
    pub misses: Arc<Rate<IpAddr>>,
    /// What bodies of sends take from.
    pub bodies: Account,
}

/// Why a session was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotOpened {
    /// The process or the address has as many as it may.
    #[error("too many sessions")]
    Full,
    /// The address opens them too fast; one more is allowed after this.
    #[error("too many new sessions")]
    TooFast(Duration),
    /// The server is about to stop.
    #[error("server is going away")]
    Stopping,
    /// Another node may hold the session, and nobody can say which: opening it here too would make two of it.
    #[error("cannot tell now which node holds this session")]
    DirectoryUnavailable,
    /// Too many requests are on their way to the node that holds the session.
    #[error("too many relayed requests")]
    TooManySessions,
    /// A node has relayed the request here, and the session is somewhere else again.
    #[error("relayed already; nodes must share --node-secret and each --advertise its own address")]
    Relayed,
}

impl Bounds {
    /// The defaults of [`crate::limits`].
    #[must_use]
    pub fn new(clock: &Clock) -> Self {
        Self {
            sessions: Permits::new(SESSIONS_PER_ADDRESS, SESSIONS_MAX),
            openings: Arc::new(Rate::new(SESSIONS_RATE, RATE_KEYS, clock)),
            misses: Arc::new(Rate::new(SESSION_MISSES_RATE, RATE_KEYS, clock)),
            bodies: Account::default(),
        }
    }

    /// Whether the directory may be asked for this client.
    pub(super) fn may_miss(&self, address: IpAddr) -> Result<(), NotOpened> {
        self.misses.look(&address_key(address)).map_err(|wait| {
            metrics::counter!(names::LIMITED, "limit" => "session_misses").increment(1);
            NotOpened::TooFast(wait.0)
        })
    }

    /// The directory knew no session that this client asked for.
    pub(super) fn miss(&self, address: IpAddr) {
        // Whether it may do so again is asked before.
        let _ = self.misses.take(&address_key(address));
    }

    /// A place for one more session of a client.
    pub(super) fn admit(&self, address: IpAddr) -> Result<Permit<IpAddr>, NotOpened> {
        let key = address_key(address);
        if let Err(wait) = self.openings.take(&key) {
            metrics::counter!(names::LIMITED, "limit" => "session_rate").increment(1);
            return Err(NotOpened::TooFast(wait.0));
        }
        self.sessions.try_enter(key).map_err(|_| {
            metrics::counter!(names::LIMITED, "limit" => "sessions").increment(1);
            NotOpened::Full
        })
    }
}
