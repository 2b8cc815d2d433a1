//! The server that SockJS conformance suites run against, over the broker's own accept loop.
//!
//! ```text
//! cargo run -p answerback-sockjs-warp --example sockjs_test_server -- --listen 127.0.0.1:8081
//! ```

mod services;

use std::io::Write;
use std::net::SocketAddr;

use answerback_base::clock::Clock;
use answerback_sockjs_warp::MountContext;
use answerback_sockjs_warp::net::{self, Listener};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let address = listen(std::env::args().skip(1))?;
    let settings = net::Settings::default();
    let listener = Listener::bind(address, &settings)?;
    let bound = listener.local_address()?;
    writeln!(std::io::stdout(), "listening on {bound}")?;
    let tasks = TaskTracker::new();
    let around = MountContext {
        tasks: tasks.clone(),
        ..MountContext::new(Clock::System)
    };
    let (mounts, filter) = services::all(&around);
    let stop = CancellationToken::new();
    let service = net::Filtered(warp::service(filter));
    tasks.spawn(net::serve(listener, None, service, settings, stop.clone()));
    tokio::signal::ctrl_c().await?;
    for mount in &mounts {
        mount.close_all(3000, "Go away!").await;
    }
    stop.cancel();
    drop(mounts);
    tasks.close();
    tasks.wait().await;
    Ok(())
}

fn listen(mut arguments: impl Iterator<Item = String>) -> anyhow::Result<SocketAddr> {
    match (arguments.next().as_deref(), arguments.next()) {
        (None, _) => Ok(SocketAddr::from(([127, 0, 0, 1], 8081))),
        (Some("--listen"), Some(address)) => Ok(address.parse()?),
        _ => anyhow::bail!("usage: sockjs_test_server [--listen ADDRESS:PORT]"),
    }
}
