//! A store as it is typed: a data directory or a Redis URL.

use std::fmt::{Display, Formatter};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::clock::Clock;
use crate::config::{StoreUrl, store_url, without_secrets};
use crate::results::Rules;
use crate::sockjs::payload;
use crate::store::embedded::{self, EmbeddedStore};
use crate::store::redis::{self, RedisStore};
use crate::store::{Store, StoreError};

/// The file that makes a directory a data directory.
const CATALOG: &str = "catalog.db";
/// Nobody reads results here; the least that the stores take.
const LOG_BYTES: usize = 1 << 20;

/// Where a store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) enum CatalogLocation {
    Directory(PathBuf),
    Redis(String),
}

impl CatalogLocation {
    /// `embedded:DIR`, a directory, or a Redis URL.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if let Some(dir) = text.strip_prefix("embedded:") {
            let dir = dir.strip_prefix("//").unwrap_or(dir);
            return Ok(Self::Directory(normal(Path::new(dir))));
        }
        if text.contains("://") {
            return match store_url(text)? {
                StoreUrl::Redis(url) => Ok(Self::Redis(url)),
                StoreUrl::Embedded => Err(format!("`{text}` names no directory")),
            };
        }
        if text.is_empty() || text == "embedded" {
            return Err(format!(
                "`{text}` names no directory: write embedded:DIR, e.g. embedded:answerback-data"
            ));
        }
        Ok(Self::Directory(normal(Path::new(text))))
    }

    /// Opens what is to be copied; nothing is made.
    pub(in crate::cli) async fn open_source(&self) -> Result<Arc<dyn Store>, StoreError> {
        if let Self::Directory(dir) = self
            && !dir.join(CATALOG).exists()
        {
            let why = "there is no catalog in it: it is no data directory";
            return Err(StoreError::Unavailable(why.to_owned()));
        }
        self.open_target().await
    }

    /// Opens what is to be filled; a directory is made.
    pub(super) async fn open_target(&self) -> Result<Arc<dyn Store>, StoreError> {
        match self {
            Self::Directory(dir) => {
                let settings = embedded::Settings {
                    dir: dir.clone(),
                    rules: Rules::default(),
                    log_bytes_max: LOG_BYTES,
                    accept_loss: false,
                    logs_bytes_max: LOG_BYTES,
                    fsync: embedded::Fsync::Always,
                    encode: payload::encode,
                };
                Ok(EmbeddedStore::open(settings, Clock::System.now()).await?)
            }
            Self::Redis(url) => {
                let settings = redis::Settings {
                    log_bytes_max: LOG_BYTES,
                    // The broker that runs there has its own say.
                    accept_eviction: true,
                    is_node: false,
                    ..redis::Settings::new(url, "command", payload::encode)
                };
                Ok(RedisStore::connect(settings).await?)
            }
        }
    }
}

impl Display for CatalogLocation {
    fn fmt(&self, out: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Directory(dir) => write!(out, "embedded:{}", dir.display()),
            Self::Redis(url) => out.write_str(&without_secrets(url)),
        }
    }
}

/// The same directory is the same place however it is typed.
fn normal(dir: &Path) -> PathBuf {
    let full = std::fs::canonicalize(dir).or_else(|_| std::path::absolute(dir));
    full.unwrap_or_else(|_| dir.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_and_redis_urls_are_told_apart() {
        let place = |text| CatalogLocation::parse(text).unwrap();
        assert_eq!(place("embedded:/a/b"), place("/a/b"));
        assert_eq!(place("embedded:///a/b"), place("/a/b"));
        assert!(matches!(place("data"), CatalogLocation::Directory(dir) if dir.is_absolute()));
        let redis = place("redis+cluster://u:secret@a,b");
        assert_eq!(redis.to_string(), "redis+cluster://a,b");
        for text in ["", "embedded", "mysql://a", "redis+x://a"] {
            assert!(CatalogLocation::parse(text).is_err(), "{text}");
        }
    }
}
