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
mod masked;
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
mod tokens;
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
use crate::limits::permits::{Permit, Permits};
use crate::limits::rate::{Allowance, Rate};
use crate::limits::{
    API_BODY_BYTES, BODY_TIME, CAMPAIGNS_AT_ONCE, CAMPAIGNS_RATE, RATE_KEYS, RESULTS_BYTES,
    RESULTS_BYTES_EACH, SQL_BYTES,
};
use crate::net::TrustedProxies;
use crate::net::body::Limits;
use crate::results::UserId;
use crate::store::Store;
use crate::telemetry::metrics::names;
use docs::Docs;
use error::{ApiError, Fault};
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
    /// How often one user may start a campaign.
    pub campaigns: Allowance,
    /// Campaigns of one user that may run at once.
    pub campaigns_max: usize,
    /// Bytes of a query.
    pub sql_bytes: usize,
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
            campaigns_max: CAMPAIGNS_AT_ONCE,
            sql_bytes: SQL_BYTES,
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
    /// Campaigns that are being created.
    starting: Permits<UserId>,
    /// Bytes of answers that synchronous requests hold.
    results: Permits<UserId>,
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
            starting: Permits::new(usize::MAX, usize::MAX),
            results: Permits::new(RESULTS_BYTES_EACH, RESULTS_BYTES),
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
            starting: self.starting.clone(),
            results: self.results.clone(),
            is_rehearsal: true,
            rehearsals: Arc::clone(&self.rehearsals),
            table: self.table.clone(),
            docs: Arc::clone(&self.docs),
        })
    }

    /// Counts one more campaign of this user, until it is among the active ones.
    fn count_campaign(&self, user: UserId) -> Result<Permit<UserId>, ApiError> {
        let limited = || metrics::counter!(names::LIMITED, "limit" => "campaigns").increment(1);
        self.campaigns.take(&user).map_err(|wait| {
            limited();
            ApiError::TooMany(wait.0)
        })?;
        let crowded = || {
            limited();
            let max = self.settings.campaigns_max;
            ApiError::Crowded(format!(
                "{max} campaigns of yours are running, and no more may (--campaigns): stop some, or wait for their end"
            ))
        };
        let permit = self.starting.try_enter(user).map_err(|_| crowded())?;
        let active = self.parts.store.active().of_user(user);
        if active + self.starting.held(&user) > self.settings.campaigns_max {
            return Err(crowded());
        }
        Ok(permit)
    }

    /// What is wrong with the length of an SQL text, if anything.
    fn sql_fault(&self, field: &str, sql: &str) -> Option<Fault> {
        let max = self.settings.sql_bytes;
        let reason = format!(
            "must not have more than {max} bytes (--sql-kib), and has {}",
            sql.len()
        );
        (sql.len() > max).then(|| Fault {
            name: field.to_owned(),
            reason,
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
        tokens::ROUTES,
        activities::ROUTES,
        config::ROUTES,
        specs::queries::ROUTES,
        specs::packs::ROUTES,
        specs::labels::ROUTES,
        specs::teams::ROUTES,
        specs::secrets::ROUTES,
    ]
}
