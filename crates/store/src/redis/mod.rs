//! The store on Redis or Valkey: streams are the truth, pub/sub only gives notice, and nodes hold caches.
//!
//! Everything that must be atomic is one script on keys of one cluster slot ([`scripts`], [`keys`]); what spans
//! slots is ordered so that a crash in between leaves nothing but a key that expires or a deadline that somebody
//! looks at again.

mod active_sync;
mod again;
mod append;
mod bits;
mod campaigns;
mod catalog;
mod feed_position;
mod follow;
mod hand_outs;
mod health;
mod keys;
mod lifecycle;
mod link;
mod nodes;
mod notices;
mod presence;
mod put_back;
mod reply;
mod scripts;
mod store;
mod url;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::{Cmd, Value};
use roaring::RoaringBitmap;
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use self::keys::Keys;
use self::link::Link;
use self::scripts::Script;
use self::url::RedisEndpoint;
use super::trouble::Trouble;
use super::{Active, Revision, StoreError};
use crate::clock::Timestamp;
use crate::results::{CampaignId, Encode, HostId, Rules};

/// How long keys outlive the moment when somebody should have deleted them.
const SLACK: Duration = Duration::from_secs(3600);
/// The longest time between two looks at what other nodes have done.
const POLL: Duration = Duration::from_secs(1);
/// How often the servers' settings and replicas are looked at again.
const HEALTH_EVERY: Duration = Duration::from_secs(10);

/// Whose clock rules leases and deadlines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StoreClock {
    /// Redis's own: nodes' clocks may differ by seconds. The `now` that callers pass is ignored, except that what is
    /// said of the future ([`crate::results::HandOut::Pending`]) is told in the caller's time.
    #[default]
    Server,
    /// The caller's `now`, for tests with virtual time and one clock. The reaper does not hold back after a pause then.
    Caller,
}

/// How a [`RedisStore`] is to be.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `redis://`, `rediss://`, `redis+cluster://h1,h2`, `redis+sentinel://h1,h2/master`; `valkey` likewise.
    pub url: String,
    /// Certificates that are trusted instead of the machine's, in PEM; for `rediss`.
    pub ca_pem: Option<Vec<u8>>,
    /// What every key begins with, so that deployments can share one Redis; the default is `ab:`.
    pub prefix: String,
    /// This node's name, as other nodes and people see it.
    pub node: String,
    /// The periods that rule campaigns.
    pub rules: Rules,
    /// Whose clock counts.
    pub clock: StoreClock,
    /// Bytes of one campaign's log that this node keeps in memory.
    pub log_bytes_max: usize,
    /// Bytes of all logs together that this node keeps, looked after at each [`crate::Store::reap`].
    pub logs_bytes_max: usize,
    /// How messages become wire forms.
    pub encode: Encode,
    /// How long catalog commits, creations and endings wait for one replica to have them, if there is one; zero:
    /// not at all. Has no effect in a cluster.
    pub replica_wait: Duration,
    /// Whether a server that evicts keys when its memory is full is taken all the same.
    pub accept_eviction: bool,
    /// Whether this is a node that others should know of; commands are not.
    pub is_node: bool,
    /// How many catalog changes are remembered for nodes that lag; a node that lags more loads everything.
    pub changes_kept: usize,
}

impl Settings {
    /// The defaults for a server and an encoder.
    #[must_use]
    pub fn new(url: &str, node: &str, encode: Encode) -> Self {
        Self {
            url: url.to_owned(),
            ca_pem: None,
            prefix: "ab:".to_owned(),
            node: node.to_owned(),
            rules: Rules::default(),
            clock: StoreClock::default(),
            log_bytes_max: 64 << 20,
            logs_bytes_max: 1 << 30,
            encode,
            replica_wait: Duration::from_millis(100),
            accept_eviction: false,
            is_node: true,
            changes_kept: 20_000,
        }
    }
}

/// The store of one node. Dropping it stops its tasks.
pub struct RedisStore {
    core: Arc<Core>,
    _stop: DropGuard,
}

/// What calls and tasks share.
struct Core {
    settings: Settings,
    keys: Keys,
    /// Answers, hand-outs and reading: what must be quick.
    data: Link,
    /// Catalog and lifecycle: what may wait for a replica.
    control: Link,
    place: RedisEndpoint,
    /// Tells this process from all others, also from an earlier one of the same node.
    origin: String,
    nonces: AtomicU64,
    has_replica: AtomicBool,
    active: Active,
    /// Campaigns that this node began or ended while it compares with the store; see [`active_sync`].
    touched: Mutex<Option<Vec<CampaignId>>>,
    /// Hand-outs that do not count, for when Redis is back.
    take_backs: Mutex<Vec<(CampaignId, HostId)>>,
    lost: Mutex<hand_outs::Lost>,
    targets: Mutex<HashMap<(CampaignId, Timestamp), Arc<RoaringBitmap>>>,
    /// The last revision that this node has seen, and its nonce.
    seen_commit: Mutex<(Revision, String)>,
    /// The highest revision that this node has ever heard of.
    highest: AtomicU64,
    committed: Notify,
    resync: Notify,
    notices: notices::Notices,
    lanes: append::AppendQueues,
    lately: again::RecentAppends,
    feeds: follow::Feeds,
    trouble: Trouble,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl RedisStore {
    /// Connects, looks at the server's settings, and starts to follow what other nodes do.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the URL is unusable or the server does not answer within a second.
    pub async fn connect(settings: Settings) -> Result<Arc<Self>, StoreError> {
        let place = RedisEndpoint::parse(&settings.url, settings.ca_pem.clone())?;
        let (data, control) =
            tokio::try_join!(Link::connect(place.clone()), Link::connect(place.clone()))?;
        let stop = CancellationToken::new();
        let core = Arc::new(Core {
            keys: Keys::new(&settings.prefix),
            data,
            control,
            place,
            origin: origin()?,
            nonces: AtomicU64::new(0),
            has_replica: AtomicBool::new(false),
            active: Active::default(),
            touched: Mutex::default(),
            take_backs: Mutex::default(),
            lost: Mutex::default(),
            targets: Mutex::default(),
            seen_commit: Mutex::default(),
            highest: AtomicU64::new(0),
            committed: Notify::new(),
            resync: Notify::new(),
            notices: notices::Notices::default(),
            lanes: append::AppendQueues::default(),
            lately: again::RecentAppends::default(),
            feeds: follow::Feeds::default(),
            trouble: Trouble::default(),
            tasks: TaskTracker::new(),
            stop: stop.clone(),
            settings,
        });
        for warning in core.health().await? {
            let text = warning.text;
            if warning.is_eviction && !core.settings.accept_eviction {
                let way =
                    "set `maxmemory-policy noeviction`, or accept the loss with --accept-eviction";
                return Err(StoreError::Unavailable(format!("{text}: {way}")));
            }
            tracing::warn!("{text}");
        }
        core.sync_active().await?;
        core.start();
        Ok(Arc::new(Self {
            core,
            _stop: stop.drop_guard(),
        }))
    }
}

impl Core {
    fn start(self: &Arc<Self>) {
        let tasks = &self.tasks;
        tasks.spawn(self.data.clone().keep(self.stop.clone()));
        tasks.spawn(self.control.clone().keep(self.stop.clone()));
        tasks.spawn(until(self.stop.clone(), Arc::clone(self).listen()));
        tasks.spawn(until(self.stop.clone(), Arc::clone(self).notify()));
        tasks.spawn(until(self.stop.clone(), Arc::clone(self).keep_active()));
        tasks.spawn(until(self.stop.clone(), Arc::clone(self).watch_health()));
        if self.settings.is_node {
            tasks.spawn(until(self.stop.clone(), Arc::clone(self).keep_saying()));
        }
    }

    /// Runs a script on the quick connection.
    async fn run(&self, script: &Script, cmd: &Cmd) -> Result<Value, StoreError> {
        self.data.run(script, cmd).await
    }

    /// Runs a script on the connection for what must not be lost, and waits for a replica if there is one.
    async fn run_safely(&self, script: &Script, cmd: &Cmd) -> Result<Value, StoreError> {
        let reply = self.control.run(script, cmd).await?;
        self.await_replica().await;
        Ok(reply)
    }

    async fn await_replica(&self) {
        let wait = self.settings.replica_wait;
        if wait.is_zero() || self.place.is_cluster() || !self.has_replica.load(Ordering::Relaxed) {
            return;
        }
        let mut cmd = redis::cmd("WAIT");
        cmd.arg(1).arg(u64::try_from(wait.as_millis()).unwrap_or(0));
        match self.control.call(&cmd).await {
            Ok(Value::Int(1..)) => {}
            Ok(_) => tracing::warn!("no replica has confirmed a write in time"),
            Err(error) => tracing::warn!(%error, "cannot tell whether a replica has a write"),
        }
    }

    /// The time as scripts take it: the caller's, or -1 for Redis's own.
    fn time(&self, now: Timestamp) -> i64 {
        match self.settings.clock {
            StoreClock::Server => -1,
            StoreClock::Caller => i64::try_from(now.0).unwrap_or(i64::MAX),
        }
    }

    /// How long a campaign's keys live if nobody ends or forgets it.
    fn lifetime_ms(&self) -> u64 {
        let rules = &self.settings.rules;
        millis(rules.longest + rules.retention + SLACK)
    }

    /// How long they live after the end if nobody forgets it.
    fn kept_ms(&self) -> u64 {
        millis(self.settings.rules.retention + SLACK)
    }

    /// Lets answers that are on their way arrive, then stops everything.
    async fn close(&self) {
        let arrived = async {
            while !self.lanes.is_idle() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let _ = tokio::time::timeout(POLL, arrived).await;
        if self.settings.is_node {
            self.say_goodbye().await;
        }
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(POLL, self.tasks.wait()).await.is_err() {
            tracing::warn!("tasks of the store did not end in time");
        }
    }

    /// A text that nobody else makes.
    fn nonce(&self) -> String {
        let count = self.nonces.fetch_add(1, Ordering::Relaxed);
        format!("{}{count:x}", self.origin)
    }
}

async fn until(stop: CancellationToken, task: impl Future<Output = ()>) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = task => {}
    }
}

fn origin() -> Result<String, StoreError> {
    let random = getrandom::u64()
        .map_err(|error| StoreError::Unavailable(format!("no randomness: {error}")))?;
    Ok(format!("{random:016x}."))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A poisoned lock means a panic elsewhere while nothing was half done: the data are whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
