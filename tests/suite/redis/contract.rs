//! The contract of all stores, on two nodes of a real server.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use answerback::clock::Timestamp;
use answerback::store::Store;
use answerback::store::contract::{self, Fixture};
use answerback::store::redis::{RedisStore, Settings, StoreClock};
use async_trait::async_trait;

use crate::redis_server::RedisServer;

/// A server; each fresh store has a prefix of its own there.
struct Servers {
    server: RedisServer,
    stores: AtomicU32,
    log_bytes_max: usize,
}

impl Servers {
    fn start(log_bytes_max: usize) -> Self {
        Self {
            server: RedisServer::start(),
            stores: AtomicU32::new(0),
            log_bytes_max,
        }
    }

    async fn node(&self) -> Arc<dyn Store> {
        let mut settings = Settings::new(&self.server.url(), "node", contract::encode);
        settings.prefix = format!("ab{}:", self.stores.load(Ordering::SeqCst));
        settings.clock = StoreClock::Caller;
        settings.log_bytes_max = self.log_bytes_max;
        RedisStore::connect(settings).await.unwrap()
    }
}

#[async_trait]
impl Fixture for Servers {
    async fn fresh(&self) -> Arc<dyn Store> {
        self.stores.fetch_add(1, Ordering::SeqCst);
        self.node().await
    }

    async fn reopen(&self, store: Arc<dyn Store>, _: Timestamp) -> Arc<dyn Store> {
        store.close().await;
        drop(store);
        self.node().await
    }

    async fn second_node(&self, _: &Arc<dyn Store>) -> Option<Arc<dyn Store>> {
        Some(self.node().await)
    }
}

mod as_it_comes {
    use super::*;
    answerback::store_contract!(Servers::start(64 << 20));
}

mod with_little_memory {
    use super::*;
    answerback::store_contract!(Servers::start(100_000));
}
