//! Every five seconds each watched campaign is counted anew and its claim renewed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{StreamExt, stream};

use super::Shared;
use super::watch::Watch;
use crate::store::StoreError;

/// The cadence of `totals` and `status` (spec fleet-live-query, 1.8), and of renewing claims.
const TICK: Duration = Duration::from_secs(5);

/// Claims renewed at the same time: one after the other, a store that hangs would cost a second a campaign, and the
/// last ones their leases.
const AT_ONCE: usize = 32;

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
        let renewals = watches.iter().map(|watch| tick(shared, watch));
        stream::iter(renewals)
            .for_each_concurrent(AT_ONCE, |renewal| renewal)
            .await;
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
