//! Builds the broker out of its parts, runs it, and owns the order in which it stops.

mod banner;
mod descriptors;
mod housekeeping;
mod memory;
mod nodes;
mod routes;
mod start;
mod stores;
pub mod trial;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures_util::FutureExt as _;
use futures_util::future::join;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::agents::AgentsService;
use crate::cli::demo;
use crate::config::{MetricsFor, Settings, TlsFiles};
use crate::net::{self, Listener};
use crate::ops::{Audience, Ops};
use crate::shutdown::{Deadline, Shutdown, Signals};
use start::Parts;

/// How long a stop waits for viewers to answer the close: those that do are a round trip away.
const HANDSHAKES: Duration = Duration::from_secs(1);
/// How often a simulated host checks in: osquery's recommended `distributed_interval`.
const DEMO_INTERVAL: Duration = Duration::from_secs(10);

/// Runs the broker until it is asked to stop and everything is written.
///
/// # Errors
/// When it cannot start; the error says which part could not and why.
pub async fn run(settings: Settings, shutdown: Shutdown) -> anyhow::Result<()> {
    // Before anything that takes time: until then a hangup ends the process.
    let (heard, hangups) = (Signals::new()?, signal(SignalKind::hangup())?);
    let parts = start::start(&settings, banner::announce).boxed().await?;
    let net_settings = start::net_settings(&settings);
    let listener = Listener::bind(settings.listen, &net_settings)
        .with_context(|| format!("cannot listen on {}", settings.listen))?;
    let address = listener.local_address()?;
    let tls = start::tls(&settings)?;
    let ops = Arc::new(Ops::new(Arc::clone(&parts.store), parts.metrics.clone()));
    let relay = nodes::relay(&parts, &settings, address, tls.as_ref()).await?;
    let results = routes::mounts(&parts, &settings, relay);
    // The busiest first.
    let rest = routes::rest(&parts, Arc::clone(&ops), audience(&settings));
    let rest = net::Filtered(warp::service(rest));
    let service = AgentsService::new(Arc::clone(&parts.agents), results.in_front_of(rest));

    let (tasks, over) = (TaskTracker::new(), CancellationToken::new());
    housekeeping::spawn(
        &parts,
        &settings.data_dir,
        (tls.clone(), hangups),
        &tasks,
        &over,
    );
    if let MetricsFor::At(address) = settings.metrics {
        serve_machinery(address, &ops, &net_settings, &tasks, &over)?;
    }
    tasks.spawn(net::serve(
        listener,
        tls,
        service,
        net_settings,
        over.child_token(),
    ));
    let url = banner::url(address, settings.tls != TlsFiles::None);
    banner::print(&url, &settings, &parts);
    if settings.demo > 0 {
        let play = demo::DemoSettings {
            url,
            hosts: settings.demo,
            enroll_secret: parts.enroll_secret.clone(),
            interval: DEMO_INTERVAL,
        };
        tasks.spawn(play_demo(play, over.clone()));
    }
    let signals = shutdown.clone();
    let until = over.clone();
    tasks.spawn(async move {
        if let Some(Err(error)) = until.run_until_cancelled(signals.obey(heard)).await {
            tracing::error!(%error, "signals cannot be heard");
        }
    });
    shutdown.token().cancelled().await;
    tracing::info!("stopping");
    ops.drain();
    let drain = settings.drain;
    shut_down(&shutdown.begin(), parts, (&results, drain), &tasks, &over).await;
    Ok(())
}

/// Serves metrics where nobody else comes.
fn serve_machinery(
    address: SocketAddr,
    ops: &Arc<Ops>,
    settings: &net::Settings,
    tasks: &TaskTracker,
    over: &CancellationToken,
) -> anyhow::Result<()> {
    let listener = Listener::bind(address, settings)
        .with_context(|| format!("cannot listen on {address} for metrics"))?;
    let service = net::Filtered(warp::service(routes::machinery(Arc::clone(ops))));
    tasks.spawn(net::serve(
        listener,
        None,
        service,
        settings.clone(),
        over.child_token(),
    ));
    Ok(())
}

async fn play_demo(play: demo::DemoSettings, over: CancellationToken) {
    if let Err(error) = demo::run(play, over).await {
        tracing::error!(%error, "the demo cannot be played");
    }
}

const fn audience(settings: &Settings) -> Audience {
    match settings.metrics {
        MetricsFor::Machine => Audience::Strangers,
        MetricsFor::Everybody => Audience::Everybody,
        MetricsFor::At(_) => Audience::Nobody,
    }
}

/// Sessions first: neither their sockets nor their streaming responses end by themselves, and HTTP would wait for
/// them. Then requests in flight, then claims, then the store. A step that takes too long has been logged.
async fn shut_down(
    deadline: &Deadline,
    parts: Parts,
    (results, drain): (&routes::Mounts, Duration),
    tasks: &TaskTracker,
    over: &CancellationToken,
) {
    // Whoever balances asks `/readyz` now and then, and hears 503 from an open port before it closes.
    let goodbyes = join(results.close_all(), tokio::time::sleep(drain));
    let _ = deadline.wait("goodbyes", goodbyes).await;
    over.cancel();
    tasks.close();
    let _ = deadline.wait("requests in flight", tasks.wait()).await;
    results.forget_all();
    parts.sessions.close();
    let handshakes = tokio::time::timeout(HANDSHAKES, parts.sessions.wait());
    if let Ok(Err(_)) = deadline.wait("closing handshakes", handshakes).await {
        tracing::info!("some viewers did not answer the close");
    }
    let _ = deadline.wait("claims", parts.viewers.stop()).await;
    housekeeping::write_seen(&parts).await;
    let Parts {
        agents,
        sinks,
        store,
        ..
    } = parts;
    drop(agents);
    sinks.close();
    let _ = deadline.wait("osquery's logs", sinks.wait()).await;
    let _ = deadline.wait("the store", store.close()).await;
}
