//! The operators' face: the REST API, from the table of its routes.

mod activities;
mod audit;
mod call;
mod campaigns;
mod compat;
mod config;
mod csv;
mod docs;
mod error;
mod export;
mod finder;
mod hosts;
mod labels;
mod named;
mod openapi;
mod page;
mod patience;
mod queries;
mod renames;
mod reply;
mod route;
mod run;
mod selection;
mod serve;
mod sessions;
mod shape;
mod specs;
mod status;
mod sync;
mod targets;
mod teams;
mod users;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::auth::Auth;
use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::limits::account::Account;
use crate::limits::rate::{Allowance, Rate};
use crate::limits::{API_BODY_BYTES, BODY_TIME, CAMPAIGNS_RATE, RATE_KEYS};
use crate::net::TrustedProxies;
use crate::net::body::Limits;
use crate::results::UserId;
use crate::store::Store;
use crate::telemetry::metrics::names;
use docs::Docs;
use error::ApiError;
use route::Route;
pub use serve::routes;

/// A body, and what is made of its JSON.
const BODY_BECOMES: usize = 4;

/// How the API behaves.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What a request body may be; its length depends on the route.
    pub body: Limits,
    /// How long the synchronous routes wait for hosts.
    pub sync_period: Duration,
    /// Campaigns that one user may start.
    pub campaigns: Allowance,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            body: Limits {
                bytes: API_BODY_BYTES,
                time: BODY_TIME,
                account: Account::default(),
                becomes: BODY_BECOMES,
            },
            sync_period: Duration::from_secs(25),
            campaigns: CAMPAIGNS_RATE,
        }
    }
}

/// What the API is built over.
pub struct Parts {
    /// Users, hosts, labels and the rest.
    pub catalog: Arc<Catalog>,
    /// Campaigns and their logs.
    pub store: Arc<dyn Store>,
    /// Tokens and passwords.
    pub auth: Arc<Auth>,
    /// The time.
    pub clock: Clock,
    /// Whose word on the client's address is taken.
    pub proxies: TrustedProxies,
    /// Owns what outlives a request.
    pub tasks: TaskTracker,
    /// This node's name among the nodes; unique.
    pub node: String,
}

/// The API. Handlers get it whole.
pub struct Api {
    parts: Parts,
    settings: Settings,
    campaigns: Arc<Rate<UserId>>,
    /// Whether nothing that is done counts: the request asks for a dry run.
    is_rehearsal: bool,
    /// Dry runs one at a time: each copies the catalog.
    rehearsals: Arc<Semaphore>,
    table: Vec<&'static [Route]>,
    docs: Arc<Docs>,
}

impl Api {
    /// Over these parts.
    #[must_use]
    pub fn new(parts: Parts, settings: Settings) -> Arc<Self> {
        let campaigns = Rate::new(settings.campaigns, RATE_KEYS, &parts.clock);
        Arc::new(Self {
            parts,
            settings,
            campaigns: Arc::new(campaigns),
            is_rehearsal: false,
            rehearsals: Arc::new(Semaphore::new(1)),
            docs: Arc::new(Docs::of(&table())),
            table: table(),
        })
    }

    /// The same over a copy of the catalog, where everything is done as it would be and nothing is kept.
    fn rehearsal(&self) -> Arc<Self> {
        let (catalog, store) = self.parts.catalog.rehearsal();
        let catalog = Arc::new(catalog);
        let parts = &self.parts;
        let parts = Parts {
            auth: Arc::new(parts.auth.over(Arc::clone(&catalog))),
            catalog,
            store,
            clock: parts.clock.clone(),
            proxies: parts.proxies.clone(),
            tasks: parts.tasks.clone(),
            node: parts.node.clone(),
        };
        Arc::new(Self {
            parts,
            settings: self.settings.clone(),
            campaigns: Arc::clone(&self.campaigns),
            is_rehearsal: true,
            rehearsals: Arc::clone(&self.rehearsals),
            table: self.table.clone(),
            docs: Arc::clone(&self.docs),
        })
    }

    /// Counts one more campaign of this user.
    fn count_campaign(&self, user: UserId) -> Result<(), ApiError> {
        self.campaigns.take(&user).map_err(|wait| {
            metrics::counter!(names::LIMITED, "limit" => "campaigns").increment(1);
            ApiError::TooMany(wait.0)
        })
    }
}

/// Every route below `/api/{version}/fleet`.
fn table() -> Vec<&'static [Route]> {
    vec![
        sessions::ROUTES,
        run::ROUTES,
        sync::ROUTES,
        campaigns::ROUTES,
        status::ROUTES,
        hosts::ROUTES,
        compat::ROUTES,
        targets::ROUTES,
        labels::ROUTES,
        queries::ROUTES,
        teams::ROUTES,
        users::ROUTES,
        activities::ROUTES,
        config::ROUTES,
        specs::queries::ROUTES,
        specs::packs::ROUTES,
        specs::labels::ROUTES,
        specs::teams::ROUTES,
        specs::secrets::ROUTES,
    ]
}
