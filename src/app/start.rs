//! From settings to parts: the store is opened, the catalog read, and a first start completed.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use tokio_util::task::TaskTracker;

use super::{descriptors, stores};
use crate::agents::log::SinkSettings;
use crate::agents::{self, Agents, LogSink};
use crate::api::{self, Api};
use crate::auth::{self, Auth, FirstStart, Presets, bootstrap};
use crate::catalog::{Catalog, builtin};
use crate::clock::{Clock, Timestamp};
use crate::config::{Logs, Settings, StoreUrl, TlsFiles};
use crate::limits;
use crate::limits::account::Account;
use crate::net::tls::{self, Tls};
use crate::net::{self, TrustedProxies};
use crate::store::Store;
use crate::telemetry::metrics::Metrics;
use crate::text::hex;
use crate::viewers::Viewers;

/// So many full files of osquery's logs there may be of each kind beside the one that is written.
const OSQUERY_LOGS_KEPT: u32 = 4;

/// The self-signed certificate in the data directory.
pub(super) const SELF_SIGNED: &str = "self-signed.pem";
/// The broker's parts.
#[derive(Clone)]
pub(super) struct Parts {
    pub(super) clock: Clock,
    pub(super) store: Arc<dyn Store>,
    pub(super) store_text: String,
    /// Whether no other node shares the store.
    pub(super) is_alone: bool,
    pub(super) node: String,
    pub(super) catalog: Arc<Catalog>,
    pub(super) agents: Arc<Agents>,
    pub(super) api: Arc<Api>,
    pub(super) viewers: Viewers,
    pub(super) metrics: Option<Metrics>,
    /// Owns every session's task.
    pub(super) sessions: TaskTracker,
    /// Owns the writers of osquery's logs; they end when the agents' face is dropped.
    pub(super) sinks: TaskTracker,
    pub(super) proxies: TrustedProxies,
    /// What all requests' bodies take from.
    pub(super) bodies: Account,
    pub(super) first_start: Option<Arc<FirstStart>>,
    pub(super) enroll_secret: String,
    pub(super) made_secret: Option<String>,
}

/// Starts the parts. `announce` is told of the first admin before it is made.
pub(super) async fn start(
    settings: &Settings,
    announce: impl Fn(&FirstStart),
) -> anyhow::Result<Parts> {
    let clock = Clock::System;
    let now = clock.now();
    // A second broker in one process (tests) shares the first one's recorder and does without a page of its own.
    let metrics = Metrics::install().ok();
    let node = match &settings.node.name {
        Some(node) => node.clone(),
        None => made_up_node()?,
    };
    let (store, store_text) = stores::open(settings, &node, now).await?;
    let catalog = read_catalog(&store).await?;
    let first_start = first_admin(&catalog, settings, now, announce).await?;
    let (enroll_secret, made_secret) = first_secret(&catalog, settings, now).await?;
    let auth = auth(settings, &catalog);
    let bodies = Account::default();
    let (sessions, sinks) = (TaskTracker::new(), TaskTracker::new());
    let proxies = TrustedProxies::new(settings.trusted_proxies.iter().copied());
    let shared = (&proxies, &bodies);
    Ok(Parts {
        agents: agents(settings, &catalog, &store, &clock, shared, &sinks)?,
        api: Api::new(
            api::Parts {
                catalog: Arc::clone(&catalog),
                store: Arc::clone(&store),
                auth: Arc::clone(&auth),
                clock: clock.clone(),
                proxies: proxies.clone(),
                tasks: sessions.clone(),
                node: node.clone(),
            },
            api_settings(settings, &bodies),
        ),
        viewers: Viewers::new(
            Arc::clone(&store),
            Arc::clone(&catalog),
            auth,
            clock.clone(),
            node.clone(),
        ),
        is_alone: settings.store == StoreUrl::Embedded,
        sessions,
        sinks,
        clock,
        store,
        store_text,
        node,
        catalog,
        metrics,
        proxies,
        bodies,
        first_start,
        enroll_secret,
        made_secret,
    })
}

fn auth(settings: &Settings, catalog: &Arc<Catalog>) -> Arc<Auth> {
    let auth = auth::Settings {
        watch_creator_only: settings.creator_only,
        ..auth::Settings::default()
    };
    Arc::new(Auth::new(Arc::clone(catalog), auth))
}

fn api_settings(settings: &Settings, bodies: &Account) -> api::Settings {
    let mut api = api::Settings {
        sync_period: settings.live_query_rest_period,
        campaigns_max: settings.queries.at_once,
        sql_bytes: settings.queries.bytes,
        ..api::Settings::default()
    };
    api.body.account = bodies.clone();
    api
}

async fn read_catalog(store: &Arc<dyn Store>) -> anyhow::Result<Arc<Catalog>> {
    let catalog = Catalog::load(Arc::clone(store))
        .await
        .context("cannot read the catalog")?;
    let seen = store
        .seen(Timestamp(0))
        .await
        .context("cannot read the last check-ins")?;
    catalog.presence().merge(&seen);
    Ok(Arc::new(catalog))
}

async fn first_admin(
    catalog: &Catalog,
    settings: &Settings,
    now: Timestamp,
    announce: impl Fn(&FirstStart),
) -> anyhow::Result<Option<Arc<FirstStart>>> {
    let presets = Presets {
        email: settings.presets.admin_email.clone(),
        password: settings.presets.admin_password.clone(),
        api_token: settings.presets.api_token.clone(),
    };
    let made = bootstrap(catalog, &presets, now, announce).await?;
    Ok(made.map(Arc::new))
}

fn agents(
    settings: &Settings,
    catalog: &Arc<Catalog>,
    store: &Arc<dyn Store>,
    clock: &Clock,
    (proxies, bodies): (&TrustedProxies, &Account),
    tasks: &TaskTracker,
) -> anyhow::Result<Arc<Agents>> {
    let sink = match settings.osquery_logs {
        Logs::File => SinkSettings::Files {
            directory: settings.data_dir.clone(),
            bytes_max: settings.osquery_log_bytes / u64::from(OSQUERY_LOGS_KEPT + 1),
            kept: OSQUERY_LOGS_KEPT,
        },
        Logs::Stdout => SinkSettings::Stdout,
        Logs::None => SinkSettings::Discard,
    };
    std::fs::create_dir_all(&settings.data_dir)?;
    let sink = LogSink::open(&sink, tasks).context("cannot write osquery's logs")?;
    let mut agents = agents::Settings {
        trusted_proxies: proxies.clone(),
        enrolments: limits::enrolments(enroll_rate(settings)),
        hosts_max: settings.hosts.max,
        client_certificates: settings.client_ca.is_some(),
        ..agents::Settings::default()
    };
    agents.body.account = bodies.clone();
    Ok(Arc::new(Agents::new(
        Arc::clone(catalog),
        Arc::clone(store),
        clock.clone(),
        agents,
        sink,
    )))
}

/// The hosts of a demo come all at once, from here.
fn enroll_rate(settings: &Settings) -> u32 {
    let demo = u32::try_from(settings.demo / 50).unwrap_or(u32::MAX);
    settings.hosts.enroll_rate.max(demo)
}

pub(super) fn net_settings(settings: &Settings) -> net::Settings {
    net::Settings {
        connections: descriptors::connections(settings.connections, settings.queries.at_once),
        proxies: TrustedProxies::new(settings.trusted_proxies.iter().copied()),
        ..net::Settings::default()
    }
}

pub(super) fn tls(settings: &Settings) -> anyhow::Result<Option<Tls>> {
    let files = match &settings.tls {
        TlsFiles::None => return Ok(None),
        TlsFiles::Files { cert, key } => tls::Settings {
            certificate: cert.clone(),
            key: key.clone(),
            client_ca: None,
        },
        TlsFiles::SelfSigned(names) => self_signed(&settings.data_dir, names)?,
    };
    let files = tls::Settings {
        client_ca: settings.client_ca.clone(),
        ..files
    };
    Ok(Some(Tls::new(files)?))
}

/// The names that a self-signed certificate is for, beside `localhost` and the loopback's addresses.
pub(super) fn certificate_names(given: &[String]) -> Vec<String> {
    let host = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    let host = host.trim();
    let mut names = given.to_vec();
    if !host.is_empty() && !names.iter().any(|name| name == host) {
        names.push(host.to_owned());
    }
    names
}

/// Kept in the data directory, so that agents that pinned it (`--tls_server_certs`) find it again; made anew when it is to
/// be for other names.
fn self_signed(dir: &Path, given: &[String]) -> anyhow::Result<tls::Settings> {
    let files = tls::Settings {
        certificate: dir.join(SELF_SIGNED),
        key: dir.join("self-signed.key"),
        client_ca: None,
    };
    let (names, kept) = (certificate_names(given), dir.join("self-signed.names"));
    let known = std::fs::read_to_string(&kept).ok();
    let wanted = names.join("\n");
    // A certificate of before names were kept is for the machine's own.
    let fits = match &known {
        Some(known) => *known == wanted,
        None => given.is_empty(),
    };
    if files.certificate.exists() && files.key.exists() {
        if fits {
            return Ok(files);
        }
        tracing::warn!(
            certificate = %files.certificate.display(),
            "a new self-signed certificate is made for other names: agents need the new one"
        );
    }
    std::fs::create_dir_all(dir)?;
    let made = tls::self_signed(&names)?;
    write_private(&files.key, &made.key)?;
    std::fs::write(&files.certificate, made.certificate)?;
    std::fs::write(kept, wanted)?;
    Ok(files)
}

fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())
}

/// The secret that agents may enroll with, and whether it was made up just now. A preset one is made sure of at
/// every start.
async fn first_secret(
    catalog: &Catalog,
    settings: &Settings,
    now: Timestamp,
) -> anyhow::Result<(String, Option<String>)> {
    if let Some(secret) = &settings.presets.enroll_secret {
        builtin::ensure_secret(catalog, secret, now).await?;
    }
    let made = builtin::furnish(catalog, now).await?;
    let known = catalog
        .read()
        .secrets
        .values()
        .find(|secret| secret.team.is_none())
        .map(|known| known.secret.clone());
    Ok((
        settings
            .presets
            .enroll_secret
            .clone()
            .or(known)
            .unwrap_or_default(),
        made,
    ))
}

fn made_up_node() -> anyhow::Result<String> {
    let mut bytes = [0u8; 6];
    getrandom::fill(&mut bytes).context("no randomness")?;
    Ok(hex(bytes))
}
