//! The agents' face: what osquery's TLS plugins call, and how their answers reach the store.
//!
//! A check-in with nothing to do costs no store call: the node key is found in the catalog, the campaigns in the
//! store's index of active ones, and what a host was asked lately in memory.

mod answers;
mod config;
mod details;
mod distributed;
mod enroll;
mod handed;
mod http;
mod identity;
mod inventory;
pub mod log;
mod orbit;
mod platform;
mod request;
mod route;
pub mod wire;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::auth::agent;
use crate::catalog::Catalog;
use crate::catalog::entity::Host;
use crate::clock::Clock;
use crate::limits;
use crate::limits::account::Account;
use crate::limits::rate::{Allowance, Rate};
use crate::net::TrustedProxies;
use crate::net::body::Limits;
use crate::results::HostId;
use crate::store::Store;

use answers::Meters;
use handed::HandOutCache;
pub use http::AgentsService;
use http::{Ready, Refusal};
use inventory::Inventory;
pub use log::LogSink;
use request::Request;

/// A body, a copy of its answers for the log, and one for the store.
const BODY_BECOMES: usize = 3;

/// How agents are treated.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What a request body may be.
    pub body: Limits,
    /// Whose word is taken for a client's address.
    pub trusted_proxies: TrustedProxies,
    /// How often a host is asked about itself.
    pub detail_interval: Duration,
    /// How often a host is asked the queries of dynamic labels.
    pub label_interval: Duration,
    /// For how many seconds a host that an active campaign targets is told to check in every 5 s, so that the
    /// next campaign reaches it sooner. 0 for never.
    pub accelerate_s: u32,
    /// How often one address may fail to enroll.
    pub enroll_failures: Allowance,
    /// How often hosts may enroll with one good secret from one address.
    pub enrolments: Allowance,
    /// Hosts in all.
    pub hosts_max: u64,
    /// Whether agents must show a certificate.
    pub client_certificates: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            body: Limits {
                bytes: limits::AGENT_BODY_BYTES,
                time: limits::BODY_TIME,
                account: Account::default(),
                becomes: BODY_BECOMES,
            },
            trusted_proxies: TrustedProxies::default(),
            detail_interval: Duration::from_secs(3600),
            label_interval: Duration::from_secs(3600),
            accelerate_s: 300,
            enroll_failures: limits::FAILED_ENROLMENTS_RATE,
            enrolments: limits::enrolments(limits::ENROLMENTS_PER_SECOND),
            hosts_max: limits::HOSTS as u64,
            client_certificates: false,
        }
    }
}

/// Everything that answering agents takes.
pub struct Agents {
    catalog: Arc<Catalog>,
    store: Arc<dyn Store>,
    clock: Clock,
    settings: Settings,
    /// For requests that say who they are and little more.
    short: Limits,
    sink: LogSink,
    failures: Rate<IpAddr>,
    /// By the beginning of the secret's SHA-256.
    enrolments: Rate<([u8; 8], IpAddr)>,
    /// How often one host may enroll again.
    cooldown: Rate<HostId>,
    /// How many KiB of osquery's log one host may send.
    log_rate: Rate<HostId>,
    /// How many answers to campaigns that this node does not know as running one host may send.
    strange: Rate<HostId>,
    /// How often the trail takes in what agents did, by kind.
    notices: Rate<&'static str>,
    handed: HandOutCache,
    inventory: Inventory,
    ready: Ready,
    meters: Meters,
}

impl Agents {
    /// The face over a catalog and its store. osquery's logs go to `sink`. The recorder of metrics, if there is one,
    /// must be installed before.
    #[must_use]
    pub fn new(
        catalog: Arc<Catalog>,
        store: Arc<dyn Store>,
        clock: Clock,
        settings: Settings,
        sink: LogSink,
    ) -> Self {
        Self {
            failures: Rate::new(settings.enroll_failures, limits::RATE_KEYS, &clock),
            enrolments: Rate::new(settings.enrolments, limits::RATE_KEYS, &clock),
            cooldown: Rate::new(limits::ENROLMENTS_OF_A_HOST, limits::RATE_KEYS, &clock),
            log_rate: Rate::new(limits::LOG_KIB_OF_A_HOST, limits::RATE_KEYS, &clock),
            strange: Rate::new(limits::STRANGE_ANSWERS, limits::RATE_KEYS, &clock),
            notices: Rate::new(limits::AGENTS_ACTS, limits::RATE_KEYS, &clock),
            handed: HandOutCache::default(),
            inventory: Inventory::new(settings.detail_interval, settings.label_interval),
            ready: Ready::new(settings.accelerate_s),
            meters: Meters::default(),
            catalog,
            store,
            clock,
            short: settings
                .body
                .with_bytes(limits::AGENT_SHORT_BODY_BYTES.min(settings.body.bytes)),
            settings,
            sink,
        }
    }

    /// The host that a request comes from: whom its head names, or else its body.
    async fn identify(&self, request: &Request<'_>) -> Result<Arc<Host>, Refusal> {
        if let Some(host) = &request.known {
            return Ok(Arc::clone(host));
        }
        match &request.body.node_key {
            Some(node_key) => self.host(node_key).await,
            None => Err(match request.body.fault {
                Some(fault) => Refusal::Malformed(fault.to_string()),
                None => Refusal::UnknownNode,
            }),
        }
    }

    /// The host that a node key belongs to.
    async fn host(&self, node_key: &str) -> Result<Arc<Host>, Refusal> {
        let hash = agent::hash(node_key).ok_or(Refusal::UnknownNode)?;
        let known = || self.catalog.read().hosts.by_node_key(&hash).cloned();
        if let Some(host) = known() {
            return Ok(host);
        }
        // It may have enrolled at another node a moment ago. In a box: it is seldom, and larger than all the rest.
        Box::pin(self.catalog.look_for_strangers()).await?;
        known().ok_or(Refusal::UnknownNode)
    }
}

impl std::fmt::Debug for Agents {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Agents").finish_non_exhaustive()
    }
}
