//! Keeps a mount's records in the directory: renewed while their sessions live, forgotten when they end.

use std::sync::{Arc, Weak};

use futures_util::{StreamExt, stream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::records::Ended;
use super::registry::Registry;
use super::relay::Relay;

/// Records renewed or forgotten at a time.
const AT_ONCE: usize = 64;

/// Renews and forgets a mount's records for as long as the mount exists or, once it stops, has sessions.
pub(super) async fn keep_while_alive(
    registry: Weak<Registry>,
    relay: Arc<Relay>,
    mut ended: mpsc::Receiver<Ended>,
    stop: CancellationToken,
) {
    let mut renewals = tokio::time::interval(relay.directory().lifetime() / 3);
    renewals.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut batch = Vec::with_capacity(AT_ONCE);
    loop {
        tokio::select! {
            count = ended.recv_many(&mut batch, AT_ONCE) => {
                if count == 0 {
                    return;
                }
                forget(&registry, &relay, &mut batch).await;
            }
            _ = renewals.tick() => renew(&registry, &relay).await,
            () = stop.cancelled(), if !stop.is_cancelled() => {}
        }
        if !stop.is_cancelled() || !ended.is_empty() {
            continue;
        }
        let left = registry.upgrade().map_or(0, |registry| registry.sessions());
        if left == 0 && ended.is_empty() {
            return;
        }
    }
}

async fn forget(registry: &Weak<Registry>, relay: &Relay, batch: &mut Vec<Ended>) {
    let Some(registry) = registry.upgrade() else {
        // The names are gone with the mount; the records run out.
        batch.clear();
        return;
    };
    let Some(records) = registry.records() else {
        return;
    };
    stream::iter(batch.drain(..))
        .for_each_concurrent(AT_ONCE, async |(id, record)| {
            let name = records.name(&id);
            relay.directory().forget(&name, &record).await;
        })
        .await;
}

async fn renew(registry: &Weak<Registry>, relay: &Relay) {
    let Some(registry) = registry.upgrade() else {
        return;
    };
    let held = registry.recorded();
    stream::iter(held)
        .for_each_concurrent(AT_ONCE, async |handle| {
            let (Some(records), Some(record)) = (registry.records(), handle.record()) else {
                return;
            };
            match relay
                .directory()
                .claim(&records.name(handle.id()), record)
                .await
            {
                Ok(true) => {}
                // Its record had run out, and another node has opened the id since: there it goes on.
                Ok(false) => handle.close(crate::sockjs::Close::interrupted()),
                Err(error) => tracing::debug!(%error, "a session's record is not renewed"),
            }
        })
        .await;
}
