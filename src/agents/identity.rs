//! Which host enrolls: a known one again, or one more of those that identify themselves alike.
//!
//! A good secret lies on every laptop, and identifiers are no secrets. So a secret opens only what its own team has:
//! whoever shows another team's secret, or tells of other hardware, becomes a host of its own beside the known one,
//! which keeps its team and its node key.

use std::sync::Arc;

use super::details::Row;
use crate::catalog::State;
use crate::catalog::entity::{Host, HostDetails};
use crate::results::TeamId;

/// Hosts of one team that identify themselves alike. Clones are a few; more are a mistake in `--host_identifier`.
const TWINS_MAX: usize = 64;
/// What firmware says that knows no serial number.
const NO_SERIAL: [&str; 9] = [
    "",
    "-1",
    "0",
    "none",
    "unknown",
    "default string",
    "not specified",
    "system serial number",
    "to be filled by o.e.m.",
];

/// Who wants to enroll.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim<'a> {
    pub(super) identifier: &'a str,
    /// The team of the secret.
    pub(super) team: Option<TeamId>,
    /// What the agent said of its hardware.
    pub(super) hardware: Option<&'a Row>,
}

/// Who that is.
#[derive(Clone, Debug)]
pub(super) enum Recognised {
    /// This host, installed anew.
    Known(Arc<Host>),
    /// A new host.
    New {
        /// See [`Host::twin`].
        twin: u32,
        /// The oldest that identifies itself alike, and why it is not this one.
        beside: Option<(Arc<Host>, &'static str)>,
    },
    /// One too many of those that identify themselves alike.
    TooMany,
}

/// What two descriptions of hardware say of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Likeness {
    Same,
    /// One of them says nothing.
    Unknown,
    Other,
}

impl Claim<'_> {
    pub(super) fn recognise(self, state: &State) -> Recognised {
        let alike: Vec<&Arc<Host>> = state.hosts.by_identifier(self.identifier).collect();
        let own: Vec<&Arc<Host>> = alike
            .iter()
            .copied()
            .filter(|host| host.team == self.team)
            .collect();
        let find = |hosts: &[&Arc<Host>], likeness| {
            let mut hosts = hosts.iter();
            let found = hosts.find(|host| self.likeness(&host.details) == likeness);
            found.map(|host| Arc::clone(host))
        };
        // A host that was transferred may come back by the secret it came with, if it proves to be the same machine.
        let home = Some(self.team.unwrap_or_default());
        let moved: Vec<&Arc<Host>> = alike
            .iter()
            .copied()
            .filter(|host| host.team != self.team && host.home == home)
            .collect();
        let known = find(&own, Likeness::Same)
            .or_else(|| find(&moved, Likeness::Same))
            .or_else(|| find(&own, Likeness::Unknown));
        if let Some(host) = known {
            return Recognised::Known(host);
        }
        if own.len() + moved.len() >= TWINS_MAX {
            return Recognised::TooMany;
        }
        let why = if own.is_empty() {
            "the secret is another team's"
        } else {
            "the hardware is another"
        };
        let twins = alike.iter().map(|host| host.twin + 1);
        Recognised::New {
            twin: twins.max().unwrap_or(0),
            beside: alike.first().map(|host| (Arc::clone(host), why)),
        }
    }

    fn likeness(self, known: &HostDetails) -> Likeness {
        let said = |column| self.hardware.and_then(|row| row.text(column));
        let uuids = (known.uuid.trim(), said("uuid").unwrap_or("").trim());
        let serials = (
            known.hardware_serial.trim(),
            said("hardware_serial").unwrap_or("").trim(),
        );
        let no_serial = |serial: &str| NO_SERIAL.contains(&serial.to_lowercase().as_str());
        // Some boards of one model have one UUID; then the serial number tells them apart.
        let told = !no_serial(serials.0) && !no_serial(serials.1);
        if uuids.0.is_empty() || uuids.1.is_empty() {
            Likeness::Unknown
        } else if !uuids.0.eq_ignore_ascii_case(uuids.1)
            || (told && !serials.0.eq_ignore_ascii_case(serials.1))
        {
            Likeness::Other
        } else {
            Likeness::Same
        }
    }
}
