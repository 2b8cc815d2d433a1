//! The viewers of a run on their threads: started together, counted while they watch, added up at the end.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::Context;
use tokio::sync::{Semaphore, watch};
use tokio::task::LocalSet;

use crate::stats::{Book, Counters};
use crate::tally::{Set, Tally};
use crate::target::Target;
use crate::transport::{Mix, Transport};
use crate::viewer::{Disturbance, Shared, Viewer};

/// How many viewers of a thread connect at a time, unless all are to at once.
const CONNECTING: usize = 64;

/// Which viewers there are and how they behave.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) target: Arc<Target>,
    pub(crate) token: String,
    pub(crate) run: u32,
    /// Campaigns, watched in turn: viewer 0 the first, viewer 1 the second and so on.
    pub(crate) campaigns: Vec<u64>,
    pub(crate) viewers: usize,
    pub(crate) mix: Mix,
    pub(crate) threads: usize,
    /// Length of the marks, when every message is read in full.
    pub(crate) verify: Option<usize>,
    pub(crate) resume: bool,
    pub(crate) disturbance: Option<Disturbance>,
    /// All connect at once, and again whenever the value changes.
    pub(crate) rounds: Option<watch::Receiver<u64>>,
}

/// Viewers at work.
#[derive(Debug)]
pub(crate) struct Crew {
    pub(crate) counters: Arc<Counters>,
    stop: watch::Sender<bool>,
    threads: Vec<JoinHandle<anyhow::Result<Outcome>>>,
}

/// What the viewers found.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) book: Book,
    /// The account of every viewer with its transport and the place of its campaign in the plan.
    tallies: Vec<(Transport, usize, Tally)>,
}

impl Outcome {
    /// Adds up the accounts against what the server took: one set for each campaign.
    pub(crate) fn settle(mut self, accepted: &[Set]) -> Book {
        for (transport, campaign, tally) in &self.tallies {
            let sheet = self.book.sheet(*transport);
            sheet.viewers += 1;
            sheet.faults += tally.faults;
            sheet.lost += accepted.get(*campaign).map_or(0, |set| tally.lost(set));
        }
        self.book
    }
}

impl Crew {
    /// Starts the threads; the viewers begin to connect at once.
    pub(crate) fn start(plan: &Plan) -> anyhow::Result<Self> {
        let counters = Arc::new(Counters::default());
        let (stop, stopped) = watch::channel(false);
        let transports = plan.mix.deal(plan.viewers);
        let mut threads = Vec::new();
        let count = plan.threads.clamp(1, plan.viewers.max(1));
        for thread in 0..count {
            let share: Vec<(usize, Transport)> = transports
                .iter()
                .copied()
                .enumerate()
                .filter(|(number, _)| number % count == thread)
                .collect();
            let (plan, counters) = (plan.clone(), counters.clone());
            let stopped = stopped.clone();
            let builder = std::thread::Builder::new().name(format!("viewers-{thread}"));
            let handle = builder.spawn(move || work(&plan, share, counters, stopped))?;
            threads.push(handle);
        }
        Ok(Self {
            counters,
            stop,
            threads,
        })
    }

    /// Ends all viewers and collects what they found.
    pub(crate) fn stop(self) -> anyhow::Result<Outcome> {
        self.stop.send_replace(true);
        let mut all = Outcome::default();
        for thread in self.threads {
            let outcome = thread
                .join()
                .map_err(|_| anyhow::anyhow!("a viewers' thread died"))?;
            let outcome = outcome?;
            all.book.add(&outcome.book);
            all.tallies.extend(outcome.tallies);
        }
        Ok(all)
    }
}

/// The life of one thread.
fn work(
    plan: &Plan,
    share: Vec<(usize, Transport)>,
    counters: Arc<Counters>,
    mut stopped: watch::Receiver<bool>,
) -> anyhow::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let connecting = if plan.rounds.is_some() {
        share.len().max(1)
    } else {
        CONNECTING
    };
    let shared = Rc::new(Shared {
        target: plan.target.clone(),
        token: plan.token.clone(),
        run: plan.run,
        verify: plan.verify,
        viewers: plan.viewers as u64,
        resume: plan.resume,
        disturbance: plan.disturbance,
        connecting: Semaphore::new(connecting),
        rounds: plan.rounds.clone(),
        counters,
        book: RefCell::new(Book::default()),
    });
    let local = LocalSet::new();
    let mut tallies = Vec::with_capacity(share.len());
    for (number, transport) in share {
        let place = number % plan.campaigns.len();
        let tally = Rc::new(RefCell::new(Tally::default()));
        tallies.push((transport, place, tally.clone()));
        let viewer = Viewer {
            shared: shared.clone(),
            transport,
            campaign: plan.campaigns[place],
            number,
            tally,
        };
        local.spawn_local(viewer.watch());
    }
    runtime.block_on(local.run_until(async {
        // The sender only goes away with the crew itself.
        let _ = stopped.wait_for(|stopped| *stopped).await;
    }));
    drop(local);
    let tallies = tallies.into_iter().map(|(transport, place, tally)| {
        (transport, place, std::mem::take(&mut *tally.borrow_mut()))
    });
    let tallies = tallies.collect();
    let shared = Rc::into_inner(shared).context("a viewer outlived its thread")?;
    Ok(Outcome {
        book: shared.book.into_inner(),
        tallies,
    })
}
