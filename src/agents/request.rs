//! What an agent has sent: who it is, its body cut into members, and what of the body could not be taken.

use std::sync::Arc;

use bytes::Bytes;

use super::wire::sieve::{Items, Omitted, Reason, Sieve, Sieved};
use super::wire::{Body, Fault};
use crate::catalog::entity::Host;
use crate::limits::account;
use crate::net::aside;
use crate::net::body::{BodyError, Reduce, Taken};
use crate::telemetry::metrics::names;

/// A request, ready to be answered.
#[derive(Debug)]
pub(super) struct Request<'a> {
    /// The host, if it named itself before the body.
    pub(super) known: Option<Arc<Host>>,
    /// The members of the body.
    pub(super) body: Body<'a>,
    /// Items that were left out of the body, see [`Items`].
    pub(super) omitted: &'a [Omitted],
}

impl<'a> Request<'a> {
    /// Of a body that was taken whole.
    pub(super) fn new(known: Option<Arc<Host>>, text: &'a str) -> Self {
        Self {
            known,
            body: aside(text.len(), || Body::parse(text)),
            omitted: &[],
        }
    }
}

impl Reduce for Sieve {
    fn push(&mut self, bytes: &[u8]) {
        Self::push(self, bytes);
    }

    fn held(&self) -> usize {
        Self::held(self)
    }
}

/// A body of which as much is kept as can be.
#[derive(Debug, Default)]
pub(super) struct Received {
    /// Well formed where anything was left out of it.
    pub(super) body: Bytes,
    pub(super) omitted: Vec<Omitted>,
    /// Why nothing behind the body could be read.
    pub(super) fault: Option<BodyError>,
    /// What it takes of the account of bodies, if it was reduced.
    _share: Option<account::Taken>,
}

impl Received {
    /// What was taken of a body whose items take at most `room` bytes.
    pub(super) fn new(taken: Taken<Sieve>, items: Items, room: usize) -> Self {
        let received = match taken.reduced {
            Some(sieve) => sieve.finish().into(),
            None if taken.fault.is_some() => Self::sieved(&taken.body, items, room),
            None => Self {
                body: taken.body,
                ..Self::default()
            },
        };
        Self {
            fault: taken.fault,
            _share: taken.share,
            ..received
        }
    }

    /// What can be kept of a body that is no JSON.
    pub(super) fn sieved(body: &[u8], items: Items, room: usize) -> Self {
        let mut sieve = Sieve::new(items, room);
        sieve.push(body);
        sieve.finish().into()
    }
}

impl From<Sieved> for Received {
    fn from(sieved: Sieved) -> Self {
        let count = sieved.omitted.len() as u64 + sieved.more;
        metrics::counter!(names::AGENT_ITEMS_OMITTED).increment(count);
        Self {
            body: sieved.body.into(),
            omitted: sieved.omitted,
            fault: None,
            _share: None,
        }
    }
}

/// The host's error for a query whose answer was left out of a body that may have `limit` bytes.
pub(super) fn refusal(omitted: &Omitted, limit: usize) -> String {
    const MIB: f64 = (1 << 20) as f64;
    #[expect(clippy::cast_precision_loss, reason = "a size for people")]
    match omitted.reason {
        Reason::TooLarge(bytes) => format!(
            "answer too large: {:.1} MiB, the limit is {:.0} MiB for all answers of one check-in; ask for fewer columns or rows",
            bytes as f64 / MIB,
            limit as f64 / MIB
        ),
        Reason::TooDeep => format!("unreadable answer: {}", Fault::TooDeep),
        Reason::Cut => "unreadable answer: the host's message broke off or is not JSON".to_owned(),
    }
}
