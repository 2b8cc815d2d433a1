//! Every five seconds each watched campaign is counted anew and its claim renewed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Shared;
use super::watch::Watch;
use crate::store::StoreError;

/// The cadence of `totals` and `status` (spec fleet-live-query, 1.8), and of renewing claims.
const TICK: Duration = Duration::from_secs(5);

pub(super) async fn run(shared: &Arc<Shared>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let watches: Vec<Arc<Watch>> = shared
            .watches
            .iter()
            .map(|entry| Arc::clone(&entry))
            .collect();
        // Together: one that waits for a store in trouble must not keep the others' viewers waiting.
        let ticks = watches.iter().map(|watch| tick(shared, watch));
        futures_util::future::join_all(ticks).await;
    }
}

async fn tick(shared: &Shared, watch: &Watch) {
    let ended = match ended(shared, watch).await {
        Ok(ended) => {
            watch.troubled.store(false, Ordering::Relaxed);
            ended
        }
        Err(error) => {
            if !watch.troubled.swap(true, Ordering::Relaxed) {
                tracing::warn!(campaign = %watch.id(), %error, "the claim could not be renewed");
            }
            false
        }
    };
    watch.look(&shared.catalog, ended, shared.clock.now());
}

async fn ended(shared: &Shared, watch: &Watch) -> Result<bool, StoreError> {
    if watch.tick().ended || !watch.is_watched() {
        return Ok(watch.tick().ended);
    }
    shared.claim(watch).await
}
