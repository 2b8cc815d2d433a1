//! Enrolment: a secret becomes a node key, and a stranger a host.

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::json;
use sha2::{Digest as _, Sha256};
use warp::reply::Response;

use super::Agents;
use super::details::{self, Row};
use super::http::{Refusal, reply};
use super::identity::{Claim, Recognised};
use super::wire::answer::json as quoted;
use super::wire::{Body, Value};
use crate::auth::agent;
use crate::catalog::entity::{Entity, Host, HostDetails};
use crate::catalog::record::kind;
use crate::catalog::state::host_name;
use crate::catalog::trail::Act;
use crate::catalog::{Edit, State};
use crate::clock::Timestamp;
use crate::limits::rate::address_key;
use crate::results::{HostId, TeamId};
use crate::sampled;
use crate::store::StoreError;
use crate::text::{hex, is_hidden};

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

/// Why a plan comes to nothing.
enum Unplanned {
    /// A new host needs a number.
    NeedsNumber,
    Refused(Refusal),
}

impl From<Refusal> for Unplanned {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<StoreError> for Unplanned {
    fn from(error: StoreError) -> Self {
        Self::Refused(error.into())
    }
}

/// What enrolling came to.
struct Enrolled {
    host: HostId,
    /// The known host that it is, as it was before.
    again: Option<Arc<Host>>,
    /// Another that identifies itself alike, and why it is not this one.
    beside: Option<(Arc<Host>, &'static str)>,
}

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
        let secret = Sha256::digest(body.text("enroll_secret").unwrap_or_default().as_bytes());
        let secret: [u8; 8] = std::array::from_fn(|at| secret[at]);
        if let Err(wait) = self.enrolments.take(&(secret, address_key(address))) {
            sampled!(warn, %address, "more enrolments with one secret from one address than --enroll-rate allows");
            return Err(wait.into());
        }
        let identifier = body.text("host_identifier").unwrap_or_default();
        let node_key = agent::new_key().map_err(|_| Refusal::Entropy)?;
        let hash = agent::hash(&node_key).ok_or(Refusal::Entropy)?;
        let applicant = Applicant {
            identifier: checked(&identifier)?.to_owned(),
            team,
            node_key_hash: hex(hash),
            details: host_details(&body),
        };
        let enrolled = self.register(&applicant, now).await?;
        let host = enrolled.host;
        self.notice(&enrolled, address, now).await;
        self.inventory.forget(host);
        self.catalog.presence().touch(host, now);
        tracing::debug!(host = host.0, "host enrolled");
        Ok(reply(format!(r#"{{"node_key":{}}}"#, quoted(&node_key))))
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

    async fn register(&self, applicant: &Applicant, now: Timestamp) -> Result<Enrolled, Refusal> {
        let recognised = applicant.claim().recognise(&self.catalog.read());
        let mut number = None;
        match recognised {
            Recognised::Known(host) => {
                let wait = self.cooldown.take(&host.id);
                wait.inspect_err(|_| {
                    sampled!(
                        warn,
                        host = host.id.0,
                        "a host enrolls again and again: do two machines share its identifier?"
                    );
                })?;
            }
            Recognised::New { .. } => number = Some(self.reserve_number().await?),
            Recognised::TooMany => {}
        }
        for _ in 0..ROUNDS {
            let plan = |state: &State| self.plan(state, applicant, number, now);
            match self.catalog.commit(plan).await {
                Ok(enrolled) => return Ok(enrolled),
                Err(error) => match error.or_contended(|| Refusal::Busy.into()) {
                    Unplanned::NeedsNumber => number = Some(self.reserve_number().await?),
                    Unplanned::Refused(refusal) => return Err(refusal),
                },
            }
        }
        Err(Refusal::Busy)
    }

    /// A host that is known keeps its number and its team, and its old node key dies.
    fn plan(
        &self,
        state: &State,
        applicant: &Applicant,
        number: Option<HostId>,
        now: Timestamp,
    ) -> Result<(Vec<Edit>, Enrolled), Unplanned> {
        let (mut host, again, beside) = match applicant.claim().recognise(state) {
            Recognised::Known(known) => (Host::clone(&known), Some(known), None),
            Recognised::New { twin, beside } => {
                let id = number.ok_or(Unplanned::NeedsNumber)?;
                if state.hosts.all().len() >= self.settings.hosts_max {
                    let refusal = Refusal::Full(self.settings.hosts_max);
                    sampled!(error, "{refusal}");
                    return Err(refusal.into());
                }
                (newcomer(id, twin, applicant, now), None, beside)
            }
            Recognised::TooMany => {
                let reason = "too many hosts have this host_identifier: give each its own (osquery: \
                              --host_identifier=uuid)";
                sampled!(warn, identifier = applicant.identifier, "{reason}");
                return Err(Refusal::Enroll(reason).into());
            }
        };
        let id = host.id;
        host.node_key_hash.clone_from(&applicant.node_key_hash);
        // It is asked about itself at its next check-in: it may have been installed anew.
        host.detailed_at = 0;
        host.labelled_at = 0;
        for (table, row) in &applicant.details {
            details::apply(table, std::slice::from_ref(row), &mut host);
        }
        let name = host_name(&host);
        let mut edits = vec![Edit::Put(Entity::Host(Box::new(host)))];
        if again.is_none() {
            edits.push(Edit::Create(Entity::Name(name, u64::from(id.0))));
        }
        let enrolled = Enrolled {
            host: id,
            again,
            beside,
        };
        Ok((edits, enrolled))
    }

    /// Keeps in the trail what may be a theft, or two machines that take each other's place.
    async fn notice(&self, enrolled: &Enrolled, address: IpAddr, now: Timestamp) {
        let (kind, known, reason) = match enrolled {
            Enrolled {
                again: Some(known), ..
            } if self.catalog.presence().is_online(known.id, now) => {
                ("reenrolled_host", known, "the host was online")
            }
            Enrolled {
                beside: Some((known, why)),
                ..
            } => ("enrolled_host_of_known_identifier", known, *why),
            _ => return,
        };
        tracing::debug!(host = enrolled.host.0, known = known.id.0, reason, "{kind}");
        if self.notices.take(&kind).is_err() {
            return;
        }
        let act = Act::new(
            None,
            "Answerback",
            kind,
            json!({
                "host_id": enrolled.host,
                "known_host_id": known.id,
                "host_display_name": known.display_name(),
                "host_identifier": known.identifier,
                "address": address,
                "reason": reason,
            }),
        );
        if let Err(error) = self.catalog.keep_act(act, now).await {
            tracing::warn!(%error, activity = kind, "an activity could not be kept");
        }
    }

    async fn reserve_number(&self) -> Result<HostId, StoreError> {
        let number = self.catalog.reserve(kind::HOST, 1).await?;
        let damaged = |_| StoreError::Damaged(format!("host number {number}"));
        u32::try_from(number).map(HostId).map_err(damaged)
    }
}

impl Applicant {
    fn claim(&self) -> Claim<'_> {
        let mut details = self.details.iter();
        Claim {
            identifier: &self.identifier,
            team: self.team,
            hardware: details
                .find(|(table, _)| table == "system_info")
                .map(|(_, row)| row),
        }
    }
}

/// An identifier that is one.
fn checked(identifier: &str) -> Result<&str, Refusal> {
    let identifier = identifier.trim();
    let reason = if identifier.is_empty() {
        "host_identifier is missing"
    } else if identifier.len() > IDENTIFIER_BYTES_MAX {
        "host_identifier is too long"
    } else if identifier.chars().any(is_hidden) {
        "host_identifier holds control characters or characters that do not show"
    } else {
        return Ok(identifier);
    };
    Err(Refusal::Enroll(reason))
}

fn newcomer(id: HostId, twin: u32, applicant: &Applicant, now: Timestamp) -> Host {
    Host {
        id,
        identifier: applicant.identifier.clone(),
        twin,
        node_key_hash: String::new(),
        team: applicant.team,
        home: Some(applicant.team.unwrap_or_default()),
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
