//! Which store, and with which settings.

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::config::{Settings, StoreUrl, without_secrets};
use crate::sockjs::payload;
use crate::store::Store;
use crate::store::embedded::{self, EmbeddedStore};
use crate::store::redis::{self, RedisStore};

/// Bytes that all campaigns' logs together may keep in memory with the embedded store.
const LOGS_BYTES_MAX: usize = 1 << 30;

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
                log_bytes_max: settings.log_bytes_max,
                logs_bytes_max: LOGS_BYTES_MAX,
                fsync,
                encode: payload::encode,
            };
            let text = format!("embedded, in {}", settings.data_dir.display());
            Ok((EmbeddedStore::open(embedded, now).await?, text))
        }
        StoreUrl::Redis(url) => {
            let redis = redis::Settings {
                rules: settings.rules,
                log_bytes_max: settings.log_bytes_max,
                accept_eviction: settings.accept_eviction,
                ..redis::Settings::new(url, node, payload::encode)
            };
            Ok((RedisStore::connect(redis).await?, without_secrets(url)))
        }
    }
}
