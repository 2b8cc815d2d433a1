//! Which store, and with which settings.

use std::sync::Arc;

use anyhow::Context as _;
use futures_util::FutureExt as _;

use super::memory;
use crate::catalog::record::SEQUENCES;
use crate::clock::Timestamp;
use crate::config::{Settings, StoreUrl, without_secrets};
use crate::sockjs::payload;
use crate::store::embedded::{self, EmbeddedStore};
use crate::store::redis::{self, RedisStore};
use crate::store::{Store, numbers};

/// Of the memory there is, what all campaigns' logs together may keep.
const LOGS_SHARE: u64 = 4;
/// The same where nobody knows how much memory there is.
const LOGS_BYTES: usize = 1 << 30;

/// Opens the store; the text says which, without its secrets.
pub(super) async fn open(
    settings: &Settings,
    node: &str,
    now: Timestamp,
) -> anyhow::Result<(Arc<dyn Store>, String)> {
    match &settings.store {
        StoreUrl::Embedded => {
            let fsync = if settings.fsync {
                embedded::Fsync::Always
            } else {
                embedded::Fsync::Never
            };
            let embedded = embedded::Settings {
                dir: settings.data_dir.clone(),
                rules: settings.rules,
                accept_loss: settings.accept_loss,
                log_bytes_max: settings.log_bytes_max,
                logs_bytes_max: settings.logs_bytes_max.unwrap_or_else(logs_bytes),
                fsync,
                encode: payload::encode,
            };
            let text = format!("embedded, in {}", settings.data_dir.display());
            let store = EmbeddedStore::open(embedded, now).boxed().await;
            let place = settings.data_dir.display();
            let store = store
                .with_context(|| format!("cannot open the data directory (--data-dir {place})"))?;
            Ok((store, text))
        }
        StoreUrl::Redis(url) => {
            let store = connect(settings, url, Some(node)).await?;
            if settings.accept_loss {
                tracing::warn!(
                    "--accept-loss: new campaigns, hosts and users get numbers that were never given"
                );
                let skipped = numbers::skip(&*store, &SEQUENCES, now);
                skipped.await.context("the store's sequences")?;
            }
            Ok((store, without_secrets(url)))
        }
    }
}

fn logs_bytes() -> usize {
    let share = memory::limit().map(|bytes| bytes / LOGS_SHARE);
    share.map_or(LOGS_BYTES, |bytes| {
        usize::try_from(bytes).unwrap_or(LOGS_BYTES)
    })
}

/// Without a name it is no node.
async fn connect(
    settings: &Settings,
    url: &str,
    node: Option<&str>,
) -> anyhow::Result<Arc<RedisStore>> {
    let redis = redis::Settings {
        rules: settings.rules,
        log_bytes_max: settings.log_bytes_max,
        logs_bytes_max: settings.logs_bytes_max.unwrap_or_else(logs_bytes),
        accept_eviction: settings.accept_eviction,
        is_node: node.is_some(),
        ..redis::Settings::new(url, node.unwrap_or("command"), payload::encode)
    };
    let store = RedisStore::connect(redis).boxed().await;
    store.with_context(|| format!("cannot use the store (--store {})", without_secrets(url)))
}

/// Connects to the Redis of the settings and leaves it again.
pub(super) async fn try_out(settings: &Settings) -> anyhow::Result<()> {
    if let StoreUrl::Redis(url) = &settings.store {
        connect(settings, url, None).await?.close().await;
    }
    Ok(())
}
