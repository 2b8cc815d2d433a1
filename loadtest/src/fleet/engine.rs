//! Runs the turns of many agents on a few threads and connections, each at its time.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::LocalSet;
use tokio::time::sleep_until;

use crate::epoch::{instant, nanos, now_ns};
use crate::stats::Latencies;
use crate::tally::Set;
use crate::target::Target;

use super::agent::{Done, Errand, Habits, Memory, Turn, Wire};

/// A turn that begins later than this was held up by this program or its connections.
const LATE: Duration = Duration::from_millis(100);
/// When a host that is busy is asked again.
const BUSY: Duration = Duration::from_millis(5);
/// How many different complaints are kept.
const COMPLAINTS_MAX: usize = 8;

/// Which agents there are.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) target: Arc<Target>,
    pub(crate) secret: String,
    pub(crate) prefix: String,
    pub(crate) hosts: std::ops::Range<u32>,
    pub(crate) connections: usize,
    pub(crate) threads: usize,
    /// Hosts begin spread over this time.
    pub(crate) spread: Duration,
    pub(crate) habits: Habits,
}

/// A number that threads add to.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What all agents did.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    pub(crate) enrolled: Count,
    pub(crate) checkins: Count,
    pub(crate) answers: Count,
    pub(crate) failures: Count,
    pub(crate) repeated: Count,
    pub(crate) restarts: Count,
    pub(crate) errors: Count,
    pub(crate) late: Count,
}

impl Totals {
    /// The figures that are no metrics, in words.
    pub(crate) fn told(&self) -> Vec<(&'static str, String)> {
        let figures = [
            ("enrolments", &self.enrolled),
            ("answers taken", &self.answers),
            ("of these failures", &self.failures),
            ("writes sent twice", &self.repeated),
            ("restarts", &self.restarts),
            ("turns begun late", &self.late),
        ];
        let figures = figures.map(|(name, count)| (name, count.get().to_string()));
        figures.to_vec()
    }
}

/// What threads write into and the outside reads.
#[derive(Debug, Default)]
struct Ledger {
    checkins: Mutex<Latencies>,
    /// Hosts whose answer the server took, by campaign.
    accepted: Mutex<HashMap<u64, Set>>,
    complaints: Mutex<Vec<String>>,
}

/// Agents at work.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) totals: Arc<Totals>,
    ledger: Arc<Ledger>,
    stop: watch::Sender<bool>,
    threads: Vec<JoinHandle<anyhow::Result<()>>>,
}

impl Engine {
    /// Starts all threads.
    pub(crate) fn start(plan: Plan) -> anyhow::Result<Self> {
        let totals = Arc::new(Totals::default());
        let ledger = Arc::new(Ledger::default());
        let (stop, stopped) = watch::channel(false);
        let count = plan.threads.clamp(1, plan.hosts.len());
        let mut threads = Vec::new();
        for thread in 0..count {
            let (plan, totals, ledger) = (plan.clone(), totals.clone(), ledger.clone());
            let stopped = stopped.clone();
            let builder = std::thread::Builder::new().name(format!("agents-{thread}"));
            let place = (thread, count);
            threads.push(builder.spawn(move || work(plan, place, totals, ledger, stopped))?);
        }
        Ok(Self {
            totals,
            ledger,
            stop,
            threads,
        })
    }

    /// The check-ins' times since this was last asked.
    pub(crate) fn take_checkins(&self) -> Latencies {
        let mut checkins = lock(&self.ledger.checkins);
        std::mem::take(&mut *checkins)
    }

    /// Hosts whose answer to this campaign the server has taken.
    pub(crate) fn accepted(&self, campaign: u64) -> Set {
        let accepted = lock(&self.ledger.accepted);
        accepted.get(&campaign).cloned().unwrap_or_default()
    }

    /// Ends all agents; what was complained about.
    pub(crate) fn stop(self) -> anyhow::Result<Vec<String>> {
        self.stop.send_replace(true);
        for thread in self.threads {
            let ended = thread.join();
            ended.map_err(|_| anyhow::anyhow!("an agents' thread died"))??;
        }
        Ok(lock(&self.ledger.complaints).clone())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // The data are counts: as good after another thread's panic as before.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One thread's agents.
struct Yard {
    plan: Plan,
    totals: Arc<Totals>,
    ledger: Arc<Ledger>,
    /// First host of this thread, and the distance to its next one.
    first: u32,
    step: u32,
    /// None while the host has its turn.
    memories: RefCell<Vec<Option<Memory>>>,
    calendar: RefCell<BinaryHeap<Reverse<(u64, u32, Errand)>>>,
    /// Turns whose time has come.
    ready: RefCell<VecDeque<(u64, u32, Errand)>>,
    bell: Notify,
    changed: Notify,
    earliest_ns: Cell<u64>,
}

fn work(
    plan: Plan,
    place: (usize, usize),
    totals: Arc<Totals>,
    ledger: Arc<Ledger>,
    mut stopped: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (thread, threads) = place;
    let step = u32::try_from(threads)?;
    let first = plan.hosts.start + u32::try_from(thread)?;
    let hosts = (plan.hosts.end - first).div_ceil(step);
    let start = now_ns();
    let spread = nanos(plan.spread);
    let all = plan.hosts.len() as u128;
    let calendar = (0..hosts).map(|place| {
        let host = u128::from(first + place * step - plan.hosts.start);
        let wait = u128::from(spread) * host / all;
        let due = start + u64::try_from(wait).unwrap_or(spread);
        Reverse((due, place, Errand::CheckIn))
    });
    let calendar: BinaryHeap<_> = calendar.collect();
    let connections = (plan.connections / threads).max(1);
    let memories = std::iter::repeat_with(|| Some(Memory::default())).take(hosts as usize);
    let yard = Rc::new(Yard {
        plan,
        totals,
        ledger,
        first,
        step,
        memories: RefCell::new(memories.collect()),
        calendar: RefCell::new(calendar),
        ready: RefCell::default(),
        bell: Notify::new(),
        changed: Notify::new(),
        earliest_ns: Cell::new(u64::MAX),
    });
    let local = LocalSet::new();
    local.spawn_local(yard.clone().dispatch());
    for _ in 0..connections {
        local.spawn_local(yard.clone().serve());
    }
    runtime.block_on(local.run_until(async {
        // The sender only goes away with the engine itself.
        let _ = stopped.wait_for(|stopped| *stopped).await;
    }));
    Ok(())
}

impl Yard {
    /// Moves turns from the calendar to those that are ready, each at its time.
    async fn dispatch(self: Rc<Self>) {
        loop {
            let now = now_ns();
            let next = self.release(now);
            self.earliest_ns.set(next);
            // An hour from now is as good as never.
            let next = next.min(now + 3_600_000_000_000);
            tokio::select! {
                () = sleep_until(instant(next)) => {}
                () = self.changed.notified() => {}
            }
        }
    }

    /// Makes ready what is due by `now`; when the next turn is.
    fn release(&self, now: u64) -> u64 {
        let mut calendar = self.calendar.borrow_mut();
        while let Some(Reverse(turn)) = calendar.peek().copied() {
            if turn.0 > now {
                return turn.0;
            }
            calendar.pop();
            self.ready.borrow_mut().push_back(turn);
            self.bell.notify_one();
        }
        u64::MAX
    }

    fn schedule(&self, turn: (u64, u32, Errand)) {
        self.calendar.borrow_mut().push(Reverse(turn));
        if turn.0 < self.earliest_ns.get() {
            self.changed.notify_one();
        }
    }

    /// One connection: does one turn after the other.
    async fn serve(self: Rc<Self>) {
        let mut wire = Wire::new(&self.plan.target);
        loop {
            let turn = self.ready.borrow_mut().pop_front();
            match turn {
                Some(turn) => self.turn(turn, &mut wire).await,
                None => self.bell.notified().await,
            }
        }
    }

    async fn turn(&self, (due_ns, place, errand): (u64, u32, Errand), wire: &mut Wire<'_>) {
        if now_ns().saturating_sub(due_ns) > nanos(LATE) {
            self.totals.late.add(1);
        }
        let host = self.first + place * self.step;
        let memory = self.memories.borrow_mut()[place as usize].take();
        let Some(mut memory) = memory else {
            // An agent does one thing at a time.
            self.schedule((now_ns() + nanos(BUSY), place, errand));
            return;
        };
        let mut done = Done::default();
        let mut turn = Turn {
            host,
            prefix: &self.plan.prefix,
            secret: &self.plan.secret,
            habits: &self.plan.habits,
            wire,
            memory: &mut memory,
        };
        let outcome = turn.run(errand, due_ns, &mut done).await;
        self.memories.borrow_mut()[place as usize] = Some(memory);
        if let Err(error) = outcome {
            self.totals.errors.add(1);
            self.complain(format!("{error:#}"));
        }
        self.account(host, place, &done);
    }

    fn account(&self, host: u32, place: u32, done: &Done) {
        let totals = &self.totals;
        totals.enrolled.add(u64::from(done.enrolled));
        totals.restarts.add(u64::from(done.restarted));
        totals.answers.add(done.answered.len() as u64);
        totals.failures.add(done.failures);
        totals.repeated.add(done.repeated);
        if let Some(took) = done.checkin_ns {
            totals.checkins.add(1);
            lock(&self.ledger.checkins).record_ns(took);
        }
        if !done.answered.is_empty() {
            let mut accepted = lock(&self.ledger.accepted);
            for campaign in &done.answered {
                accepted.entry(*campaign).or_default().insert(host);
            }
        }
        for (due, errand) in &done.next {
            self.schedule((*due, place, *errand));
        }
    }

    fn complain(&self, text: String) {
        let mut complaints = lock(&self.ledger.complaints);
        if complaints.len() < COMPLAINTS_MAX && !complaints.contains(&text) {
            complaints.push(text);
        }
    }
}
