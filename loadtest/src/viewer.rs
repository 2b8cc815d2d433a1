//! One viewer: selects a campaign, accounts for every result, comes back when it has to.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rand::Rng;
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, sleep_until, timeout};

use crate::epoch::{instant, nanos, now_ns};
use crate::exchange::EXCHANGE_TIME_MAX;
use crate::link::{Brought, Link};
use crate::message::{self, Expected, Heard};
use crate::sockjs::Depth;
use crate::stats::{Book, Counters};
use crate::tally::Tally;
use crate::target::Target;
use crate::transport::Transport;

/// Attempts in a row after which a viewer gives up.
const ATTEMPTS_MAX: u32 = 8;

/// How often and how a viewer is disturbed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Disturbance {
    /// Mean time between two disturbances of one viewer.
    pub(crate) every: Duration,
    /// The longest time a viewer stops reading.
    pub(crate) stall_max: Duration,
}

/// What all viewers of a thread share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) target: Arc<Target>,
    pub(crate) token: String,
    pub(crate) run: u32,
    /// Length of the marks, when every message is read in full.
    pub(crate) verify: Option<usize>,
    pub(crate) viewers: u64,
    /// Whether viewers that come back name what they have, or start from the beginning.
    pub(crate) resume: bool,
    pub(crate) disturbance: Option<Disturbance>,
    /// How many may be connecting at a time.
    pub(crate) connecting: Semaphore,
    /// Changes when all viewers are to connect anew; the value is when that was asked.
    pub(crate) rounds: Option<watch::Receiver<u64>>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) book: RefCell<Book>,
}

/// What ends the time between two connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Stall,
    Leave,
    Reset,
}

/// Why a connection is over.
enum Over {
    /// The viewer itself ended it.
    Left,
    /// The server or the network did.
    Ended(String),
    /// It was never made.
    Refused(String),
}

/// One viewer of one campaign.
pub(crate) struct Viewer {
    pub(crate) shared: Rc<Shared>,
    pub(crate) transport: Transport,
    pub(crate) campaign: u64,
    /// Unique among the viewers of this run.
    pub(crate) number: usize,
    pub(crate) tally: Rc<RefCell<Tally>>,
}

/// A connection as its viewer sees it.
struct Session {
    begun_ns: u64,
    /// Answers stamped before this are caught up with, not live.
    live_from_ns: u64,
    heard: bool,
    error: Option<String>,
}

impl Viewer {
    /// Watches until the task is dropped, or the server refuses too often.
    pub(crate) async fn watch(self) {
        let mut rounds = self.shared.rounds.clone();
        let mut begun_ns = now_ns();
        let mut attempts = 0;
        let mut visit = 0_u64;
        let mut counted_round = None;
        while attempts < ATTEMPTS_MAX {
            let round = rounds.as_mut().map(|rounds| *rounds.borrow_and_update());
            let first = counted_round != Some(round);
            let session = Session {
                begun_ns: round.filter(|_| first).unwrap_or(begun_ns),
                live_from_ns: u64::MAX,
                heard: false,
                error: None,
            };
            let (over, heard) = self.visit(visit, session, first, rounds.as_mut()).await;
            if heard {
                attempts = 0;
                counted_round = Some(round);
            }
            visit += 1;
            self.account(&over);
            if !matches!(over, Over::Left) {
                attempts += 1;
                sleep(Duration::from_millis(100) * attempts * attempts).await;
            }
            begun_ns = now_ns();
        }
        self.shared
            .counters
            .given_up
            .fetch_add(1, Ordering::Relaxed);
    }

    fn account(&self, over: &Over) {
        let mut book = self.shared.book.borrow_mut();
        let mut tally = self.tally.borrow_mut();
        match over {
            Over::Left => {}
            Over::Ended(why) => {
                tally.faults.closed += 1;
                book.complain(format!("{}: {why}", self.transport));
            }
            Over::Refused(why) => {
                tally.faults.refused += 1;
                book.complain(format!("{}: {why}", self.transport));
            }
        }
        book.sheet(self.transport).resumed += u64::from(!matches!(over, Over::Refused(_)));
    }

    /// One connection from start to end; also whether the stream said anything.
    async fn visit(
        &self,
        visit: u64,
        mut session: Session,
        first: bool,
        rounds: Option<&mut watch::Receiver<u64>>,
    ) -> (Over, bool) {
        let opening = timeout(EXCHANGE_TIME_MAX, self.open(visit, &mut session, first));
        let mut link = match opening.await {
            Ok(Ok(link)) => link,
            Ok(Err(error)) => return (Over::Refused(format!("{error:#}")), false),
            Err(_) => return (Over::Refused("no first message".to_owned()), false),
        };
        let over = self.listen(&mut link, &mut session, rounds).await;
        (over, session.heard)
    }

    /// Connects, authenticates, selects and waits for the first message.
    async fn open(&self, visit: u64, session: &mut Session, first: bool) -> anyhow::Result<Link> {
        let shared = &self.shared;
        let permit = shared.connecting.acquire().await?;
        if shared.rounds.is_none() {
            // Waiting for a turn is no time of the server's.
            session.begun_ns = now_ns();
        }
        let name = format!("{:x}-{}-{visit}", shared.run, self.number);
        let mut link = Link::open(self.transport, &shared.target, &name).await?;
        let mut said = false;
        while !session.heard {
            let brought = self.pump(&mut link, session).await?;
            if let Some(error) = session.error.take() {
                anyhow::bail!(error);
            }
            if let Some(closed) = brought.closed {
                anyhow::bail!(closed);
            }
            if brought.opened && !said {
                link.say(&shared.target, &self.greeting()).await?;
                said = true;
            }
        }
        drop(permit);
        let now = now_ns();
        session.live_from_ns = now;
        let mut book = shared.book.borrow_mut();
        let setup = &mut book.sheet(self.transport).setup;
        setup.record_ns(now.saturating_sub(session.begun_ns));
        if first {
            shared.counters.ready.fetch_add(1, Ordering::Relaxed);
        }
        Ok(link)
    }

    /// The two messages every session begins with.
    fn greeting(&self) -> [String; 2] {
        let mut tally = self.tally.borrow_mut();
        let mut data = serde_json::json!({ "campaign_id": self.campaign });
        if !self.shared.resume {
            tally.restart();
        } else if let Some(after) = tally.resume() {
            data["after"] = after.into();
        }
        let auth = serde_json::json!({ "type": "auth", "data": { "token": self.shared.token } });
        let select = serde_json::json!({ "type": "select_campaign", "data": data });
        [auth.to_string(), select.to_string()]
    }

    async fn listen(
        &self,
        link: &mut Link,
        session: &mut Session,
        mut rounds: Option<&mut watch::Receiver<u64>>,
    ) -> Over {
        loop {
            let (fate, at_ns) = self.fate();
            let interrupted = loop {
                let leaving = async {
                    match (&mut rounds, fate) {
                        (Some(rounds), _) => drop(rounds.changed().await),
                        (None, Some(Fate::Leave | Fate::Reset)) => self.accident(at_ns).await,
                        (None, _) => std::future::pending().await,
                    }
                };
                let heard = tokio::select! {
                    biased;
                    () = leaving => break fate.unwrap_or(Fate::Reset),
                    heard = self.pump(link, session) => heard,
                };
                match (heard.map(|brought| brought.closed), session.error.take()) {
                    (Err(error), _) => return Over::Ended(format!("{error:#}")),
                    (_, Some(error)) => return Over::Ended(error),
                    (Ok(Some(closed)), _) => return Over::Ended(closed),
                    (Ok(None), None) => {}
                }
                if fate == Some(Fate::Stall) && now_ns() >= at_ns && !self.shared.counters.calm() {
                    break Fate::Stall;
                }
            };
            match interrupted {
                Fate::Stall => {
                    let longest = self.shared.disturbance.map(|how| how.stall_max);
                    let share: f64 = rand::rng().random_range(0.2..1.0);
                    sleep(longest.unwrap_or_default().mul_f64(share)).await;
                    session.live_from_ns = now_ns();
                }
                Fate::Reset => {
                    link.reset_on_drop();
                    return Over::Left;
                }
                Fate::Leave => return Over::Left,
            }
        }
    }

    /// Waits until the time of an accident; for ever if there are none any more.
    async fn accident(&self, at_ns: u64) {
        sleep_until(instant(at_ns)).await;
        if self.shared.counters.calm() {
            std::future::pending().await
        }
    }

    /// What is to happen to this viewer next, and when.
    fn fate(&self) -> (Option<Fate>, u64) {
        let Some(how) = self.shared.disturbance else {
            return (None, u64::MAX);
        };
        let mut random = rand::rng();
        let fate = [Fate::Stall, Fate::Leave, Fate::Reset][random.random_range(0..3)];
        // Exponential waiting, as of independent accidents.
        let wait = -random.random_range(1e-9..1.0_f64).ln();
        (
            Some(fate),
            now_ns() + nanos(how.every.mul_f64(wait.min(10.0))),
        )
    }

    /// Reads once and accounts for what came.
    async fn pump(&self, link: &mut Link, session: &mut Session) -> anyhow::Result<Brought> {
        let shared = &self.shared;
        let (mut fresh, mut bytes) = (0, 0);
        let mut read_ns = 0;
        let mut sink = |message: &[u8], depth: Depth| {
            if read_ns == 0 {
                read_ns = now_ns();
            }
            bytes += message.len() as u64;
            fresh += u64::from(self.hear(message, depth, read_ns, session));
        };
        let outcome = link.pump(&shared.target, &mut sink).await;
        if bytes > 0 {
            let mut book = shared.book.borrow_mut();
            if fresh > 0 {
                book.last_ns = book.last_ns.max(read_ns);
                shared.counters.deliver(fresh, shared.viewers);
            }
            let sheet = book.sheet(self.transport);
            sheet.deliveries += fresh;
            sheet.bytes += bytes;
            sheet.reads += u64::from(fresh > 0);
        }
        outcome
    }

    /// Takes one message; whether it is the first result of a host.
    fn hear(&self, message: &[u8], depth: Depth, now: u64, session: &mut Session) -> bool {
        let shared = &self.shared;
        let heard = match shared.verify {
            None => message::scan(message, depth),
            Some(length) => {
                let expected = Expected {
                    campaign: self.campaign,
                    run: shared.run,
                    length,
                };
                message::read(message, depth, expected)
            }
        };
        session.heard = true;
        let mut tally = self.tally.borrow_mut();
        match heard {
            Heard::Result {
                probe: Some(probe),
                seq,
            } if probe.run == shared.run => {
                let fresh = tally.result(probe.host, seq);
                let mut book = shared.book.borrow_mut();
                let sheet = book.sheet(self.transport);
                let waited = now.saturating_sub(probe.stamp_ns);
                if probe.stamp_ns >= session.live_from_ns {
                    sheet.latency.record_ns(waited);
                } else {
                    sheet.catch_up.record_ns(waited);
                }
                return fresh;
            }
            Heard::Result { seq, .. } => tally.foreign(seq),
            Heard::Status { actual, .. } => tally.status(actual),
            Heard::Totals => {}
            Heard::Error(text) => {
                tally.faults.errors += 1;
                session.error = Some(text);
            }
            Heard::Malformed(why) => {
                tally.faults.malformed += 1;
                shared.book.borrow_mut().complain(why);
            }
        }
        false
    }
}
