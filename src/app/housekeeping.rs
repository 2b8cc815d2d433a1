//! What goes on by itself: ticks and the reaper, other nodes' news, check-ins to the store, metrics, certificates.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::start::Parts;
use crate::agents::Agents;
use crate::control::Control;
use crate::net::tls::Tls;
use crate::store::Store;
use crate::telemetry::metrics::names;

/// Check-ins reach the store, and other nodes' come back, this often: a host that speaks to another node counts
/// as online here before two ticks have passed.
const SEEN_EVERY: Duration = Duration::from_secs(5);
/// How often the store is asked whether it takes writes.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Histograms are folded this often.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);
/// How far back other nodes' check-ins are read: what is older was read before.
const SEEN_SINCE: Duration = Duration::from_secs(60);

/// Starts everything; it ends when `over` is cancelled.
pub(super) fn spawn(
    parts: &Parts,
    data_dir: &Path,
    (tls, hangups): (Option<Tls>, Signal),
    tasks: &TaskTracker,
    over: &CancellationToken,
) {
    let until = |future| {
        let over = over.clone();
        tasks.spawn(async move { over.run_until_cancelled_owned(future).await });
    };
    let viewers = parts.viewers.clone();
    until(boxed(async move { viewers.run().await }));
    let catalog = Arc::clone(&parts.catalog);
    until(boxed(async move { catalog.follow().await }));
    let seen = parts.clone();
    until(boxed(async move { exchange_seen(&seen).await }));
    if let Some(metrics) = parts.metrics.clone() {
        until(boxed(async move {
            loop {
                tokio::time::sleep(UPKEEP_EVERY).await;
                metrics.upkeep();
            }
        }));
    }
    let agents = Arc::clone(&parts.agents);
    until(boxed(async move {
        reload_on_hangup(&agents, tls, hangups).await;
    }));
    let store = Arc::clone(&parts.store);
    until(boxed(async move { watch_store(&*store).await }));
    if parts.is_alone {
        match Control::listen(data_dir) {
            Ok(control) => {
                let (catalog, clock) = (Arc::clone(&parts.catalog), parts.clock.clone());
                until(boxed(control.serve(catalog, clock)));
            }
            Err(error) => tracing::warn!(
                %error, "`answerback user` works only while this broker is stopped: no socket in the data directory"
            ),
        }
    }
}

/// Writes this node's check-ins to the store; those that it does not take are kept for the next time.
pub(super) async fn write_seen(parts: &Parts) {
    let presence = parts.catalog.presence();
    let dirty = presence.take_dirty();
    if dirty.is_empty() {
        return;
    }
    if let Err(error) = parts.store.put_seen(&dirty).await {
        tracing::warn!(%error, hosts = dirty.len(), "check-ins could not be written");
        presence.give_back(&dirty);
    }
}

async fn exchange_seen(parts: &Parts) {
    loop {
        tokio::time::sleep(SEEN_EVERY).await;
        write_seen(parts).await;
        if parts.is_alone {
            continue;
        }
        let now = parts.clock.now().0;
        let since = crate::clock::Timestamp(now.saturating_sub(SEEN_SINCE.as_millis() as u64));
        match parts.store.seen(since).await {
            Ok(seen) => parts.catalog.presence().merge(&seen),
            Err(error) => tracing::debug!(%error, "other nodes' check-ins could not be read"),
        }
    }
}

/// Reloads what can be reloaded whenever SIGHUP comes, and says what was. A service manager sends it to every service,
/// and a terminal when it closes.
async fn reload_on_hangup(agents: &Agents, tls: Option<Tls>, mut hangups: Signal) {
    while hangups.recv().await.is_some() {
        match agents.reopen_logs().await {
            Ok(()) => tracing::info!("SIGHUP: osquery's log files are open under their names"),
            Err(error) => {
                tracing::error!(error, "SIGHUP: osquery's log files could not be opened");
            }
        }
        match tls.as_ref().map(Tls::reload) {
            None => tracing::info!(
                "SIGHUP: there is no certificate to reload; other settings need a restart"
            ),
            Some(Ok(())) => tracing::info!("the certificate was read anew"),
            Some(Err(error)) => {
                tracing::error!(%error, "the certificate could not be read; the old one is kept");
            }
        }
    }
}

fn boxed(
    future: impl Future<Output = ()> + Send + 'static,
) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(future)
}

/// Says when the store stops taking writes and why, and when it takes them again.
async fn watch_store(store: &dyn Store) {
    let mut known: Option<String> = None;
    loop {
        let trouble = store.ping().await.err().map(|error| error.to_string());
        metrics::gauge!(names::STORE_WRITABLE).set(if trouble.is_none() { 1.0 } else { 0.0 });
        match (&known, &trouble) {
            (None, Some(trouble)) => tracing::error!("{trouble}"),
            (Some(_), None) => tracing::info!("the store takes writes again"),
            _ => {}
        }
        known = trouble;
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
