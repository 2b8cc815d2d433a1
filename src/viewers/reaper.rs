//! The reaper: ends campaigns that nobody claims, that lost their viewers or ran too long, and forgets old results.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Shared;
use super::ticker::watches;
use crate::store::Reaped;

/// So long after the last look something has stood still.
const GAP: Duration = Duration::from_secs(3);
/// Twice as often as the promise that a due campaign ends within a second.
const PERIOD: Duration = Duration::from_millis(500);

pub(super) async fn run(shared: &Arc<Shared>) {
    let mut periods = tokio::time::interval(PERIOD);
    periods.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut failing = false;
    let mut before = Instant::now();
    let mut seen = shared.clock.now();
    loop {
        periods.tick().await;
        let (now, shown) = (Instant::now(), shared.clock.now());
        if now - before > GAP || shown.since(seen) > GAP {
            // The machine stood still: claims that are alive have run out meanwhile, and come first.
            tracing::warn!(
                gap_s = (now - before).max(shown.since(seen)).as_secs(),
                "time has leapt"
            );
            super::ticker::renew(shared).await;
        }
        (before, seen) = (now, shown);
        match shared.store.reap(shared.clock.now()).await {
            Ok(reaped) => {
                failing = false;
                reaped.into_iter().for_each(|reaped| tell(shared, reaped));
            }
            Err(error) if !failing => {
                failing = true;
                tracing::warn!(%error, "the reaper cannot reach the store");
            }
            Err(_) => {}
        }
    }
}

fn tell(shared: &Shared, reaped: Reaped) {
    match reaped {
        Reaped::Ended(id, ending) => {
            tracing::info!(campaign = %id, ?ending, "campaign ended");
            for watch in watches(shared, |watch| watch.id() == id) {
                let ended = Some(shared.ended(ending));
                watch.look(&shared.catalog, ended, shared.clock.now());
            }
        }
        Reaped::Forgotten(id) => tracing::debug!(campaign = %id, "results forgotten"),
    }
}
