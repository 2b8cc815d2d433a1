//! Enrolment: a secret becomes a node key, and a stranger a host.

use std::net::IpAddr;

use warp::reply::Response;

use super::Agents;
use super::details::{self, Row};
use super::http::{Refusal, reply};
use super::wire::answer::json;
use super::wire::{Body, Value};
use crate::auth::agent;
use crate::catalog::entity::{Entity, Host, HostDetails};
use crate::catalog::record::kind;
use crate::catalog::state::host_name;
use crate::catalog::{CommitError, Edit, State};
use crate::clock::Timestamp;
use crate::limits::rate::address_key;
use crate::results::{HostId, TeamId};
use crate::sampled;
use crate::store::StoreError;

/// Bytes of a host identifier; osquery sends a UUID or a hostname, and a hostname has at most 255.
const IDENTIFIER_BYTES_MAX: usize = 255;
/// How often a new host's number is reserved: once, unless the host was deleted in between.
const ROUNDS: usize = 3;

/// An agent that showed a good secret.
struct Applicant {
    identifier: String,
    team: Option<TeamId>,
    node_key_hash: String,
    details: Vec<(String, Row)>,
}

/// The plan needs a number for a new host.
struct NeedsNumber;

impl Agents {
    pub(super) async fn enroll(
        &self,
        text: &str,
        address: IpAddr,
        now: Timestamp,
    ) -> Result<Response, Refusal> {
        let body = Body::parse(text);
        if let Some(fault) = body.fault {
            return Err(fault.into());
        }
        let team = self.admit(&body, address)?;
        let identifier = body.text("host_identifier").unwrap_or_default();
        let identifier = identifier.trim();
        if identifier.is_empty() {
            return Err(Refusal::Enroll("host_identifier is missing"));
        }
        if identifier.len() > IDENTIFIER_BYTES_MAX {
            return Err(Refusal::Enroll("host_identifier is too long"));
        }
        let node_key = agent::new_key().map_err(|_| Refusal::Entropy)?;
        let hash = agent::hash(&node_key).ok_or(Refusal::Entropy)?;
        let applicant = Applicant {
            identifier: identifier.to_owned(),
            team,
            node_key_hash: agent::hex(&hash),
            details: host_details(&body),
        };
        let host = self.register(&applicant, now).await?;
        self.inventory.forget(host);
        self.catalog.presence().touch(host, now);
        tracing::debug!(host = host.0, "host enrolled");
        Ok(reply(format!(r#"{{"node_key":{}}}"#, json(&node_key))))
    }

    /// The team of the body's secret. A good secret is never limited: fleets sit behind one address.
    pub(super) fn admit(
        &self,
        body: &Body<'_>,
        address: IpAddr,
    ) -> Result<Option<TeamId>, Refusal> {
        let offered = body.text("enroll_secret").unwrap_or_default();
        let team = {
            let state = self.catalog.read();
            agent::team_of_secret(state.secrets.values(), &offered)
        };
        match team {
            Some(team) => Ok(team),
            None => {
                self.failures.take(&address_key(address))?;
                sampled!(info, %address, "enrolment with an unknown secret refused");
                Err(Refusal::Enroll("no matching secret found"))
            }
        }
    }

    async fn register(&self, applicant: &Applicant, now: Timestamp) -> Result<HostId, Refusal> {
        let known = |state: &State| state.hosts.by_identifier(&applicant.identifier).is_some();
        let mut number = None;
        for _ in 0..ROUNDS {
            if number.is_none() && !known(&self.catalog.read()) {
                number = Some(self.reserve_number().await?);
            }
            let plan = |state: &State| plan(state, applicant, number, now);
            match self.catalog.commit(plan).await {
                Ok(host) => return Ok(host),
                Err(CommitError::Refused(NeedsNumber)) => {}
                Err(CommitError::Store(error)) => return Err(error.into()),
                Err(CommitError::Contended) => return Err(Refusal::Busy),
            }
        }
        Err(Refusal::Busy)
    }

    async fn reserve_number(&self) -> Result<HostId, StoreError> {
        let number = self.catalog.reserve(kind::HOST, 1).await?;
        let damaged = |_| StoreError::Damaged(format!("host number {number}"));
        u32::try_from(number).map(HostId).map_err(damaged)
    }
}

/// A host that is known keeps its number, and its old node key dies.
fn plan(
    state: &State,
    applicant: &Applicant,
    number: Option<HostId>,
    now: Timestamp,
) -> Result<(Vec<Edit>, HostId), NeedsNumber> {
    let known = state.hosts.by_identifier(&applicant.identifier);
    let mut host = match (known, number) {
        (Some(known), _) => Host::clone(known),
        (None, Some(id)) => newcomer(id, &applicant.identifier, now),
        (None, None) => return Err(NeedsNumber),
    };
    let id = host.id;
    host.node_key_hash.clone_from(&applicant.node_key_hash);
    host.team = applicant.team;
    // It is asked about itself at its next check-in: it may have been installed anew.
    host.detailed_at = 0;
    host.labelled_at = 0;
    for (table, row) in &applicant.details {
        details::apply(table, std::slice::from_ref(row), &mut host);
    }
    let mut edits = vec![Edit::Put(Entity::Host(Box::new(host)))];
    if known.is_none() {
        let name = host_name(&applicant.identifier);
        edits.push(Edit::Create(Entity::Name(name, u64::from(id.0))));
    }
    Ok((edits, id))
}

fn newcomer(id: HostId, identifier: &str, now: Timestamp) -> Host {
    Host {
        id,
        identifier: identifier.to_owned(),
        node_key_hash: String::new(),
        team: None,
        enrolled_at: now.secs(),
        detailed_at: 0,
        labelled_at: 0,
        distributed_interval: 0,
        config_tls_refresh: 0,
        details: HostDetails::default(),
        labels: Vec::new(),
    }
}

/// The rows that osquery sends along, by table; a host without them is asked later.
fn host_details(body: &Body<'_>) -> Vec<(String, Row)> {
    let tables = body.member("host_details").and_then(Value::members);
    let tables = tables.into_iter().flatten().flatten();
    tables
        .map(|(table, row)| (table.into_owned(), Row::read(row)))
        .collect()
}
