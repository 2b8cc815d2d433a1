//! Every five seconds each watched campaign is counted anew and its claim renewed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{StreamExt, stream};

use super::Shared;
use super::watch::CampaignWatch;
use crate::results::Ended;
use crate::store::StoreError;

/// The cadence of `totals` and `status` (spec fleet-live-query, 1.8), and of renewing claims.
const TICK: Duration = Duration::from_secs(5);

/// Claims renewed at the same time: one after the other, a store that hangs would cost a second a campaign, and the
/// last ones their leases.
const AT_ONCE: usize = 32;

/// Hosts that are deleted one by one are counted together.
const DEPARTURES_PAUSE: Duration = Duration::from_millis(200);

pub(super) async fn run(shared: &Arc<Shared>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        renew(shared).await;
    }
}

/// Renews the claims of all campaigns that are watched here, and looks at them.
pub(super) async fn renew(shared: &Arc<Shared>) {
    let watches = watches(shared, |_| true);
    let renewals = watches.iter().map(|watch| tick(shared, watch));
    stream::iter(renewals)
        .for_each_concurrent(AT_ONCE, |renewal| renewal)
        .await;
}

/// Those watches of this node for which it is so.
pub(super) fn watches(
    shared: &Shared,
    is_it: impl Fn(&CampaignWatch) -> bool,
) -> Vec<Arc<CampaignWatch>> {
    let all = shared.watches.iter();
    let those = all.filter(|entry| is_it(entry.value()));
    those.map(|entry| Arc::clone(&entry)).collect()
}

async fn tick(shared: &Shared, watch: &CampaignWatch) {
    let ended = match ended(shared, watch).await {
        Ok(ended) => {
            watch.troubled.store(false, Ordering::Relaxed);
            ended
        }
        Err(error) => {
            if !watch.troubled.swap(true, Ordering::Relaxed) {
                tracing::warn!(campaign = %watch.id(), %error, "the claim could not be renewed");
            }
            None
        }
    };
    miss(shared, watch).await;
    watch.look(&shared.catalog, ended, shared.clock.now());
}

/// How the campaign has ended, if that is news.
async fn ended(shared: &Shared, watch: &CampaignWatch) -> Result<Option<Ended>, StoreError> {
    if watch.has_ended() || !watch.is_watched() {
        return Ok(None);
    }
    shared.claim(watch).await
}

/// Looks at once at campaigns that agents are not given any more, so that viewers hear of an end without waiting for
/// a tick.
pub(super) async fn follow_endings(shared: &Arc<Shared>) {
    let active = shared.store.active();
    loop {
        active.removed().await;
        let gone = |watch: &CampaignWatch| !watch.has_ended() && active.get(watch.id()).is_none();
        let watches = watches(shared, gone);
        let looks = watches.iter().map(|watch| tick(shared, watch));
        stream::iter(looks)
            .for_each_concurrent(AT_ONCE, |look| look)
            .await;
    }
}

/// Counts campaigns anew as soon as hosts of theirs are deleted.
pub(super) async fn follow_departures(shared: &Arc<Shared>) {
    let mut departures = shared.catalog.departures();
    while departures.changed().await.is_ok() {
        let watches = watches(shared, |_| true);
        let looks = watches.iter().map(|watch| async {
            if miss(shared, watch).await {
                watch.look(&shared.catalog, None, shared.clock.now());
            }
        });
        stream::iter(looks)
            .for_each_concurrent(AT_ONCE, |look| look)
            .await;
        tokio::time::sleep(DEPARTURES_PAUSE).await;
    }
}

/// Whether hosts of the campaign are gone that were there before. A store that fails is asked again with the next tick.
pub(super) async fn miss(shared: &Shared, watch: &CampaignWatch) -> bool {
    watch.miss(&shared.catalog).await.unwrap_or_else(|error| {
        tracing::debug!(campaign = %watch.id(), %error, "cannot tell which hosts are gone");
        false
    })
}
