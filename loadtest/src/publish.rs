//! Sends the answers of the simulated hosts: paced by a clock that waits for nobody, or as fast as it goes.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep, timeout};

use crate::api::said;
use crate::body::{Outcome, answers, key};
use crate::enroll::JSON;
use crate::epoch::now_ns;
use crate::exchange::{Connection, Reply};
use crate::probe::Probe;
use crate::stats::{Counters, Latencies};
use crate::tally::Set;
use crate::target::Target;

/// How long an answer is tried again while the server fails; agents try for ever, a run has to end.
const RETRY_TIME_MAX: Duration = Duration::from_secs(30);
/// The longest wait between two attempts.
const RETRY_WAIT_MAX: Duration = Duration::from_millis(500);

/// Without a delivery for so long the window is no longer kept: viewers that get nothing more
/// would stop the test instead of failing it.
const STUCK_NS: u64 = 3_000_000_000;

/// What is sent, and how.
#[derive(Clone, Debug)]
pub(crate) struct Publishing {
    pub(crate) target: Arc<Target>,
    pub(crate) keys: Arc<Vec<String>>,
    /// Which of the hosts answer.
    pub(crate) hosts: std::ops::Range<usize>,
    pub(crate) campaigns: Vec<u64>,
    pub(crate) run: u32,
    /// Length of the row's value.
    pub(crate) length: usize,
    /// Every how many-th answer is a failure; 0 for none.
    pub(crate) failure_every: usize,
    /// Answers a second; as fast as it goes if none.
    pub(crate) rate: Option<f64>,
    /// How many results the average viewer may be behind before sending waits; 0 for no limit.
    pub(crate) window: u64,
    pub(crate) viewers: u64,
    pub(crate) connections: usize,
    /// Requests sent at once on a connection, when not paced.
    pub(crate) pipeline: usize,
    /// Whether each host reads its queries before it answers.
    pub(crate) read_first: bool,
    /// Results that had been delivered before this began.
    pub(crate) delivered_before: u64,
}

/// What became of the answers.
#[derive(Debug, Default)]
pub(crate) struct Published {
    /// Hosts whose answer the server took.
    pub(crate) accepted: Set,
    /// Answers that the server did not take.
    pub(crate) refused: u64,
    /// Requests that had to be sent again.
    pub(crate) retries: u64,
    pub(crate) first_ns: u64,
    pub(crate) last_ns: u64,
    /// From the intended time to the server's reply.
    pub(crate) post: Latencies,
    pub(crate) complaints: Vec<String>,
}

struct Desk {
    plan: Publishing,
    counters: Arc<Counters>,
    /// How many answers have been taken up.
    next: Cell<usize>,
    published: RefCell<Published>,
    start_ns: u64,
    pace: Option<Arc<Pace>>,
    /// Results delivered when that number last grew, and when that was.
    progress: Cell<(u64, u64)>,
}

/// What became of one attempt to post a batch.
#[derive(Debug, Default)]
struct Attempt {
    /// How many of the batch the server has taken, in order.
    taken: usize,
    /// Whether the server refused for good.
    hopeless: bool,
}

/// How many answers are due by now; moved by a thread of its own, for timers of runtimes are coarse.
#[derive(Debug, Default)]
struct Pace {
    due: AtomicUsize,
    bell: Notify,
    stop: AtomicBool,
}

/// Sends all answers; blocks until they are sent.
pub(crate) fn publish(plan: Publishing, counters: Arc<Counters>) -> anyhow::Result<Published> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let start_ns = now_ns();
    let pace = plan.rate.map(|_| Arc::new(Pace::default()));
    let clock = match (&pace, plan.rate) {
        (Some(pace), Some(rate)) => {
            let (pace, count) = (pace.clone(), plan.hosts.len());
            let builder = std::thread::Builder::new().name("pace".to_owned());
            Some(builder.spawn(move || tick(&pace, rate, count, start_ns))?)
        }
        _ => None,
    };
    let connections = plan.connections.max(1);
    let desk = Rc::new(Desk {
        plan,
        counters,
        next: Cell::new(0),
        published: RefCell::new(Published::default()),
        start_ns,
        pace: pace.clone(),
        progress: Cell::new((0, start_ns)),
    });
    desk.published.borrow_mut().first_ns = start_ns;
    let local = LocalSet::new();
    for _ in 0..connections {
        local.spawn_local(desk.clone().send());
    }
    runtime.block_on(local);
    if let (Some(pace), Some(clock)) = (pace, clock) {
        pace.stop.store(true, Ordering::Relaxed);
        clock
            .join()
            .map_err(|_| anyhow::anyhow!("the pace thread died"))?;
    }
    let mut published = desk.published.take();
    published.last_ns = published.last_ns.max(start_ns);
    Ok(published)
}

/// Moves `due` on at the rate.
fn tick(pace: &Pace, rate: f64, count: usize, start_ns: u64) {
    for done in 0..count {
        let at_ns = intended(start_ns, rate, done);
        loop {
            let now = now_ns();
            if now >= at_ns {
                break;
            }
            if pace.stop.load(Ordering::Relaxed) {
                return;
            }
            std::thread::sleep(Duration::from_nanos((at_ns - now).min(100_000_000)));
        }
        pace.due.store(done + 1, Ordering::Release);
        pace.bell.notify_one();
    }
}

/// When answer number `at` should leave.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a time within the run"
)]
fn intended(start_ns: u64, rate: f64, at: usize) -> u64 {
    start_ns + (at as f64 / rate * 1e9) as u64
}

impl Desk {
    /// One connection's work.
    async fn send(self: Rc<Self>) {
        let mut connection = None;
        let mut requests = Vec::new();
        loop {
            let batch = self.take().await;
            if batch.is_empty() {
                return;
            }
            let mut left: Vec<(usize, u64)> = batch;
            let deadline = Instant::now() + RETRY_TIME_MAX;
            // The first retry is at once: the server may just have closed an idle connection.
            let mut wait = Duration::ZERO;
            loop {
                let attempt = self.post(&mut connection, &left, &mut requests).await;
                left.drain(..attempt.taken);
                if left.is_empty() || attempt.hopeless || Instant::now() > deadline {
                    break;
                }
                self.published.borrow_mut().retries += 1;
                sleep(wait).await;
                wait = (wait * 2 + Duration::from_millis(20)).min(RETRY_WAIT_MAX);
            }
            self.published.borrow_mut().refused += left.len() as u64;
        }
    }

    /// The next answers: place and intended time. None when all are sent.
    async fn take(&self) -> Vec<(usize, u64)> {
        let count = self.plan.hosts.len();
        loop {
            let next = self.next.get();
            if next >= count {
                return Vec::new();
            }
            if let (Some(pace), Some(rate)) = (&self.pace, self.plan.rate) {
                if next < pace.due.load(Ordering::Acquire) {
                    self.next.set(next + 1);
                    return vec![(next, intended(self.start_ns, rate, next))];
                }
                // The bell can be heard by another that is busy: look again now and then.
                let _ = timeout(Duration::from_millis(20), pace.bell.notified()).await;
                continue;
            }
            let room = self.room(next as u64);
            if room == 0 {
                let progress = self.counters.progress.notified();
                let _ = timeout(Duration::from_millis(20), progress).await;
                continue;
            }
            let take = self.plan.pipeline.clamp(1, 1024).min(count - next);
            let take = usize::try_from(room).map_or(take, |room| take.min(room));
            self.next.set(next + take);
            let now = now_ns();
            return (next..next + take).map(|at| (at, now)).collect();
        }
    }

    /// How many answers may be sent before the viewers have to catch up.
    fn room(&self, sent: u64) -> u64 {
        if self.plan.window == 0 || self.plan.viewers == 0 {
            return u64::MAX;
        }
        let delivered = self.counters.delivered();
        let (before, since_ns) = self.progress.get();
        if delivered > before {
            self.progress.set((delivered, now_ns()));
        } else if now_ns().saturating_sub(since_ns) > STUCK_NS {
            return u64::MAX;
        }
        let received = (delivered - self.plan.delivered_before) / self.plan.viewers;
        (received + self.plan.window).saturating_sub(sent)
    }

    /// Posts these answers on the connection.
    async fn post(
        &self,
        connection: &mut Option<Connection>,
        batch: &[(usize, u64)],
        requests: &mut Vec<u8>,
    ) -> Attempt {
        let target = &self.plan.target;
        requests.clear();
        let mut body = Vec::new();
        for (at, stamp_ns) in batch {
            let host = self.plan.hosts.start + at;
            let node_key = &self.plan.keys[host];
            if self.plan.read_first {
                let key = key(node_key);
                let path = "/api/osquery/distributed/read";
                target.write_request("POST", path, JSON, key.as_bytes(), requests);
            }
            body.clear();
            self.answer(host, *stamp_ns, node_key, &mut body);
            let path = "/api/osquery/distributed/write";
            target.write_request("POST", path, JSON, &body, requests);
        }
        let mut attempt = Attempt::default();
        let outcome = self.exchange(connection, batch, requests, &mut attempt);
        if let Err(error) = outcome.await {
            *connection = None;
            self.complain(format!("distributed/write: {error:#}"));
        }
        attempt
    }

    fn answer(&self, host: usize, stamp_ns: u64, node_key: &str, body: &mut Vec<u8>) {
        let every = self.plan.failure_every;
        let outcome = if every > 0 && host % every == every - 1 {
            Outcome::Failure
        } else {
            Outcome::Row
        };
        let probe = Probe {
            run: self.plan.run,
            host: u32::try_from(host).unwrap_or(u32::MAX),
            stamp_ns,
        };
        let campaigns = &self.plan.campaigns;
        answers(node_key, campaigns, outcome, probe, self.plan.length, body);
    }

    async fn exchange(
        &self,
        connection: &mut Option<Connection>,
        batch: &[(usize, u64)],
        requests: &[u8],
        attempt: &mut Attempt,
    ) -> anyhow::Result<()> {
        let connection = match connection {
            Some(connection) => connection,
            None => connection.insert(Connection::open(&self.plan.target).await?),
        };
        let each = if self.plan.read_first { 2 } else { 1 };
        let mut replies = 0;
        let mut refusal = None;
        let hear = |reply: Reply| {
            replies += 1;
            if replies % each != 0 || refusal.is_some() {
                return;
            }
            if reply.status == 200 {
                self.accept(batch[attempt.taken]);
                attempt.taken += 1;
            } else {
                attempt.hopeless = reply.status < 500;
                refusal = Some(said("distributed/write", &reply));
            }
        };
        connection
            .pipeline(requests, batch.len() * each, hear)
            .await?;
        match refusal {
            None => Ok(()),
            Some(refusal) => refusal.map(|_| ()),
        }
    }

    fn accept(&self, (at, stamp_ns): (usize, u64)) {
        let now = now_ns();
        let mut published = self.published.borrow_mut();
        published.last_ns = now;
        published.post.record_ns(now.saturating_sub(stamp_ns));
        let host = self.plan.hosts.start + at;
        published
            .accepted
            .insert(u32::try_from(host).unwrap_or(u32::MAX));
    }

    fn complain(&self, text: String) {
        let mut published = self.published.borrow_mut();
        if published.complaints.len() < 8 && !published.complaints.contains(&text) {
            published.complaints.push(text);
        }
    }
}
