//! Simulated osquery hosts for `serve --demo N`: they enrol over real HTTP and answer like a small, mixed fleet.

mod agent;
mod answer;
mod host;
mod machine;
mod network;
mod packages;
mod people;
mod processes;
mod row;
mod schema;
mod software;
mod tables;

use std::time::Duration;

use anyhow::Context;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use agent::{Agent, Endpoint};
use answer::Answers;
use host::Host;

/// The most hosts one demo simulates. A demo is a show; the load tester is for more.
pub const HOSTS_MAX: usize = 10_000;

/// What the demo plays, and against which server.
#[derive(Clone, Debug)]
pub struct DemoSettings {
    /// `http://ADDR` or `https://ADDR` of the server; any certificate is accepted.
    pub url: String,
    /// How many hosts to play, at most [`HOSTS_MAX`].
    pub hosts: usize,
    /// The secret the hosts enrol with.
    pub enroll_secret: String,
    /// Time between two check-ins of one host (osquery's `distributed_interval`).
    pub interval: Duration,
}

/// Plays the hosts until `cancel` is called; then waits for their requests in flight.
///
/// A server that is not up yet, or goes away, is no error: the hosts keep trying, as agents do.
///
/// # Errors
/// When the URL is not an http or https one, the number of hosts is out of range, or the TLS
/// client cannot be built.
pub async fn run(settings: DemoSettings, cancel: CancellationToken) -> anyhow::Result<()> {
    anyhow::ensure!(
        settings.hosts <= HOSTS_MAX,
        "a demo has at most {HOSTS_MAX} hosts"
    );
    let answers = Answers::default();
    let endpoint = Endpoint::new(&settings.url).context("demo hosts cannot reach the server")?;
    let tracker = TaskTracker::new();
    for index in 0..settings.hosts {
        let agent = Agent::new(
            Host::new(index),
            endpoint.clone(),
            answers.clone(),
            settings.enroll_secret.clone(),
            settings.interval,
            arrival(index, settings.hosts, settings.interval),
        );
        let cancel = cancel.clone();
        tracker.spawn(async move {
            // Dropping the future in mid-request is safe: the server sees a client hang up.
            cancel.run_until_cancelled_owned(agent.live()).await;
        });
    }
    tracker.close();
    cancel.cancelled().await;
    tracker.wait().await;
    Ok(())
}

/// When host `index` starts: spread over one interval, but everyone is there within three seconds.
fn arrival(index: usize, hosts: usize, interval: Duration) -> Duration {
    let span = interval.min(Duration::from_secs(3));
    let part = index as f64 / hosts.max(1) as f64;
    span.mul_f64(part)
}

#[cfg(test)]
mod tests;
