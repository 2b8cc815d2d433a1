//! Faults at the level of processes: three brokers, two thousand hosts, twelve viewers, and every answer counted.

pub mod crew;
mod many;
mod proxy;
mod single;
pub mod stream;
mod watcher;

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::sync::OnceCell;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::crew::{Crew, Done};
use self::stream::Transport;
use self::watcher::{Heard, Watcher};
use crate::broker::Broker;
use crate::hosts::Host;
use crate::redis_server::{Files, RedisServer};

const HOSTS: usize = 2_000;
/// The viewers' transports; viewer number n begins at node n modulo 3, so that each kind is at several nodes.
const VIEWERS: [Transport; 12] = [
    Transport::Raw,
    Transport::WebSocket,
    Transport::XhrStreaming,
    Transport::EventSource,
    Transport::Xhr,
    Transport::Raw,
    Transport::WebSocket,
    Transport::XhrStreaming,
    Transport::EventSource,
    Transport::Xhr,
    Transport::Raw,
    Transport::WebSocket,
];
/// However busy the machine is, what does not come in this time does not come.
const PATIENCE: Duration = Duration::from_secs(120);
/// What comes too often comes at once: so long the viewers go on listening when they have everything.
const LINGER: Duration = Duration::from_millis(500);

/// One fault at a time: each wants the machine for itself.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// How often each fault is played: once, and in the long run as often as `ANSWERBACK_FAULT_ROUNDS` says.
fn rounds() -> usize {
    std::env::var("ANSWERBACK_FAULT_ROUNDS").map_or(1, |rounds| rounds.parse().unwrap())
}

/// What viewers may notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// Nothing: positions without gaps, and the same order everywhere.
    Kept,
    /// Redis has forgotten what it had not written: viewers go on by host, and who comes again begins again.
    MayFork,
}

/// The fleet that every test on a single Redis begins with, as Redis's own files: enrolling takes longer than a fault.
struct Fleet {
    hosts: Arc<Vec<Host>>,
    files: Files,
}

static FLEET: OnceCell<Fleet> = OnceCell::const_new();

impl Fleet {
    async fn get() -> &'static Self {
        FLEET
            .get_or_init(async || {
                let mut redis = RedisServer::with(&["--appendonly", "yes"]);
                let mut broker = Broker::start(&["--store", &redis.url()]).await;
                let hosts = Arc::new(Host::enroll_many(&broker, HOSTS).await);
                broker.stop().await;
                // What every write has reached is in the file, whatever has been synced of it.
                redis.kill();
                let files = redis.files();
                Self { hosts, files }
            })
            .await
    }
}

/// Everything that takes part.
struct Field {
    brokers: Vec<Broker>,
    campaign: u64,
    nodes: Arc<Vec<String>>,
    done: Arc<Done>,
    heard: Vec<Arc<Mutex<Heard>>>,
    tasks: JoinSet<()>,
    over: CancellationToken,
    since: Instant,
    _dirs: Vec<TempDir>,
}

impl Field {
    /// Starts a broker for each URL, a campaign, its viewers, and then the hosts.
    async fn begin(urls: &[String], hosts: Option<Arc<Vec<Host>>>) -> Self {
        let (mut brokers, mut dirs) = (Vec::new(), Vec::new());
        for (at, url) in urls.iter().enumerate() {
            let dir = tempfile::tempdir().unwrap();
            brokers.push(broker(dir.path(), url, at).await);
            dirs.push(dir);
        }
        let hosts = match hosts {
            Some(hosts) => hosts,
            None => Arc::new(Host::enroll_many(&brokers[0], HOSTS).await),
        };
        let nodes: Vec<_> = brokers
            .iter()
            .map(|broker| broker.address.clone())
            .collect();
        let mut field = Self {
            campaign: brokers[0].run_on_all("select name from system_info").await,
            brokers,
            nodes: Arc::new(nodes),
            done: Arc::default(),
            heard: Vec::new(),
            tasks: JoinSet::new(),
            over: CancellationToken::new(),
            since: Instant::now(),
            _dirs: dirs,
        };
        for (at, transport) in VIEWERS.into_iter().enumerate() {
            field.watch(transport, at);
        }
        field
            .until("every viewer has been told totals", |field| {
                field.heard.iter().all(|heard| heard.lock().unwrap().told)
            })
            .await;
        let crew = Crew {
            nodes: Arc::clone(&field.nodes),
            hosts,
            campaign: field.campaign,
            done: Arc::clone(&field.done),
        };
        let over = field.over.clone();
        field.tasks.spawn(async move { crew.play(over).await });
        field
    }

    fn watch(&mut self, transport: Transport, at: usize) {
        let watcher = Watcher {
            transport,
            nodes: Arc::clone(&self.nodes),
            at: at % self.nodes.len(),
            name: format!("viewer{at}"),
            campaign: self.campaign,
            heard: Arc::default(),
        };
        self.heard.push(Arc::clone(&watcher.heard));
        let over = self.over.clone();
        self.tasks.spawn(async move { watcher.watch(over).await });
    }

    /// Waits until something is so; a viewer or host that has found a fault ends the wait.
    async fn until(&mut self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let give_up = Instant::now() + PATIENCE;
        while !is_so(self) {
            if let Some(ended) = self.tasks.try_join_next() {
                ended.unwrap();
            }
            if Instant::now() > give_up {
                panic!("it never came that {what}: {}", self.state());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn until_acknowledged(&mut self, count: usize) {
        let what = format!("{count} answers are acknowledged");
        self.until(&what, |field| field.done.count() >= count).await;
    }

    fn state(&self) -> String {
        let mut state = format!("{} acknowledged", self.done.count());
        for (at, heard) in self.heard.iter().enumerate() {
            let heard = heard.lock().unwrap_or_else(|heard| heard.into_inner());
            state.push_str(&format!(
                "; viewer {at} has {}, of connections {}, restarts {}, refusals {:?}",
                heard.hosts.len(),
                heard.warnings.len(),
                heard.restarts,
                heard.refusals,
            ));
        }
        state
    }

    /// Waits for the end, adds a viewer that comes late, and counts.
    async fn end(mut self, name: &str, order: Order) {
        self.until_acknowledged(HOSTS).await;
        self.watch(Transport::Raw, 1);
        self.until("every viewer has every answer", |field| {
            let all = |heard: &Arc<Mutex<Heard>>| heard.lock().unwrap().hosts.len() >= HOSTS;
            field.heard.iter().all(all)
        })
        .await;
        tokio::time::sleep(LINGER).await;
        self.over.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        let acknowledged = self.done.acknowledged.lock().unwrap().clone();
        let first = self.heard[0].lock().unwrap().hosts.clone();
        for heard in &self.heard {
            let heard = heard.lock().unwrap();
            // That no host came twice was checked as they came.
            assert!(heard.hosts.iter().all(|host| acknowledged.contains(host)));
            assert_eq!(heard.hosts.len(), HOSTS);
            if order == Order::Kept {
                assert!(heard.seqs.iter().copied().eq(1..=HOSTS as u64));
                assert_eq!((heard.epoch, heard.restarts), (0, 0));
                assert_eq!(heard.hosts, first);
            }
        }
        self.print(name);
    }

    fn print(&self, name: &str) {
        let sum = |of: fn(&Heard) -> usize| -> usize {
            self.heard
                .iter()
                .map(|heard| of(&heard.lock().unwrap()))
                .sum()
        };
        let epoch = self
            .heard
            .iter()
            .map(|heard| heard.lock().unwrap().epoch)
            .max();
        let number = |of: &std::sync::atomic::AtomicUsize| of.load(Ordering::Relaxed);
        eprintln!(
            "{name}: {HOSTS} answers acknowledged and heard once by each of {} viewers in {:.1} s; \
             {} POSTs refused (the slowest after {} ms), {} hosts asked again, {} connections, \
             {} refusals to viewers, {} viewers began again, epochs up to {}",
            self.heard.len(),
            self.since.elapsed().as_secs_f64(),
            number(&self.done.refused),
            number(&self.done.slowest_refusal_ms),
            number(&self.done.asked_again),
            sum(|heard| heard.warnings.len()),
            sum(|heard| heard.refusals.len()),
            sum(|heard| usize::from(heard.restarts > 0)),
            epoch.unwrap_or(0),
        );
    }
}

async fn broker(dir: &Path, url: &str, at: usize) -> Broker {
    let node = format!("node-{at}");
    let args = ["--store", url, "--node", &node, "--overdue-s", "2"];
    let quiet = ["--osquery-logs", "none", "--log", "error"];
    Broker::start_in(dir, "127.0.0.1:0", &[&args[..], &quiet].concat()).await
}
