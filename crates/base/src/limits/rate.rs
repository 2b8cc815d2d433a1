//! How often one address, account or user may do something, in a table that cannot outgrow its bound.

use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use governor::clock::{Clock as GovernorClock, DefaultClock, Reference};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::{Quota, RateLimiter};

use crate::clock::{Clock, Timestamp};

/// How many at once, and how soon one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// So many at once after a long rest.
    pub burst: NonZeroU32,
    /// One more each time this has passed; not zero.
    pub every: Duration,
}

/// Too many: how long until the next one is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many, wait {} s", .0.as_secs() + 1)]
pub struct Wait(pub Duration);

/// An allowance for each key.
///
/// The table holds at most as many keys as it was given. When it is full even after forgetting those
/// that have rested, keys that are new to it share one allowance: a flood of made-up keys slows down
/// strangers, neither the known nor the process.
#[derive(Debug)]
pub struct Rate<K: Hash + Eq + Clone> {
    spend: RateLimiter<K, Spend<K>, Hands, NoOpMiddleware<Nanos>>,
    look: RateLimiter<K, Look<K>, Hands, NoOpMiddleware<Nanos>>,
    table: Arc<Table<K>>,
    hands: Hands,
    burst: NonZeroU32,
    /// How long a key takes to rest fully.
    rest: Duration,
    swept_at: AtomicU64,
}

impl<K: Hash + Eq + Clone> Rate<K> {
    /// `allowance` for each of at most `keys_max` keys. A manual clock moves it in tests; with the
    /// system's it runs on monotonic time.
    #[must_use]
    pub fn new(allowance: Allowance, keys_max: usize, clock: &Clock) -> Self {
        let hands = Hands::of(clock);
        let table = Arc::new(Table {
            keys: DashMap::new(),
            count: AtomicUsize::new(0),
            keys_max,
            strangers: Mutex::new(None),
        });
        let every = allowance.every.max(Duration::from_nanos(1));
        let quota = Quota::with_period(every)
            .unwrap_or_else(|| Quota::per_second(NonZeroU32::MIN))
            .allow_burst(allowance.burst);
        Self {
            spend: RateLimiter::new(quota, Spend(Arc::clone(&table)), hands.clone()),
            look: RateLimiter::new(quota, Look(Arc::clone(&table)), hands.clone()),
            table,
            hands,
            burst: allowance.burst,
            rest: every.saturating_mul(allowance.burst.get()),
            swept_at: AtomicU64::new(0),
        }
    }

    /// Takes one of `key`'s allowance.
    ///
    /// # Errors
    /// [`Wait`] if it is used up; nothing is taken then.
    pub fn take(&self, key: &K) -> Result<(), Wait> {
        self.take_many(key, 1)
    }

    /// Takes `count` of `key`'s allowance together; more than the whole burst count as the burst.
    ///
    /// # Errors
    /// [`Wait`] if there are not so many left; nothing is taken then.
    pub fn take_many(&self, key: &K, count: u32) -> Result<(), Wait> {
        let Some(count) = NonZeroU32::new(count.min(self.burst.get())) else {
            return Ok(());
        };
        if self.table.count.load(Ordering::Relaxed) >= self.table.keys_max {
            self.sweep();
        }
        match self.spend.check_key_n(key, count) {
            Ok(taken) => taken.map_err(|until| Wait(until.wait_time_from(self.hands.now()))),
            Err(_) => Err(Wait(self.rest)),
        }
    }

    /// Whether [`Rate::take`] would succeed, taking nothing: for limits on failures, which are known
    /// only afterwards.
    ///
    /// # Errors
    /// [`Wait`] if not.
    pub fn look(&self, key: &K) -> Result<(), Wait> {
        self.look
            .check_key(key)
            .map_err(|until| Wait(until.wait_time_from(self.hands.now())))
    }

    /// Forgets the keys that have rested. Called by itself when the table is full, at most once a
    /// second; an owner may call it now and then to give memory back.
    pub fn sweep(&self) {
        const PAUSE: u64 = 1_000_000_000;
        let now = self.hands.now().as_u64();
        let swept_at = self.swept_at.load(Ordering::Relaxed);
        let due = swept_at == 0 || now.saturating_sub(swept_at) >= PAUSE;
        let claim = |to| {
            let order = Ordering::Relaxed;
            self.swept_at
                .compare_exchange(swept_at, to, order, order)
                .is_ok()
        };
        if due && claim(now.max(1)) {
            // A key whose next arrival lies in the past is as good as new; one that has rested for
            // the whole allowance is so whatever rounding there was.
            let rest = u64::try_from(self.rest.as_nanos()).unwrap_or(u64::MAX);
            self.table
                .forget_before(Nanos::new(now.saturating_sub(rest)));
        }
    }

    /// How many keys are remembered.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.table.count.load(Ordering::Relaxed)
    }
}

/// What an address is limited by: itself, or for IPv6 its /64, which is what one customer is given.
#[must_use]
pub fn address_key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            const NETWORK: u128 = !0 << 64;
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & NETWORK))
        }
    }
}

/// Each key's next theoretical arrival, as governor computes it.
#[derive(Debug)]
struct Table<K: Hash + Eq> {
    keys: DashMap<K, Nanos>,
    count: AtomicUsize,
    keys_max: usize,
    strangers: Mutex<Option<Nanos>>,
}

impl<K: Hash + Eq + Clone> Table<K> {
    fn spend<T, F, E>(&self, key: &K, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        if let Some(mut slot) = self.keys.get_mut(key) {
            let (outcome, next) = measure(Some(*slot))?;
            *slot = next;
            return Ok(outcome);
        }
        if self.count.fetch_add(1, Ordering::Relaxed) >= self.keys_max {
            self.count.fetch_sub(1, Ordering::Relaxed);
            let mut slot = self
                .strangers
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let (outcome, next) = measure(*slot)?;
            *slot = Some(next);
            return Ok(outcome);
        }
        let taken = match self.keys.entry(key.clone()) {
            Entry::Occupied(mut slot) => {
                self.count.fetch_sub(1, Ordering::Relaxed);
                let (outcome, next) = measure(Some(*slot.get()))?;
                slot.insert(next);
                return Ok(outcome);
            }
            Entry::Vacant(slot) => measure(None).map(|(outcome, next)| {
                slot.insert(next);
                outcome
            }),
        };
        if taken.is_err() {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
        taken
    }

    fn look<T, F, E>(&self, key: &K, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let known = self.keys.get(key).map(|slot| *slot);
        let full = || self.count.load(Ordering::Relaxed) >= self.keys_max;
        let state = known.or_else(|| {
            let slot = self
                .strangers
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            slot.filter(|_| full())
        });
        measure(state).map(|(outcome, _)| outcome)
    }

    fn forget_before(&self, moment: Nanos) {
        let mut forgotten = 0;
        self.keys.retain(|_, next| {
            let kept = *next > moment;
            forgotten += usize::from(!kept);
            kept
        });
        self.count.fetch_sub(forgotten, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Spend<K: Hash + Eq>(Arc<Table<K>>);

impl<K: Hash + Eq + Clone> StateStore for Spend<K> {
    type Key = K;

    fn measure_and_replace<T, F, E>(&self, key: &K, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        self.0.spend(key, measure)
    }
}

#[derive(Debug)]
struct Look<K: Hash + Eq>(Arc<Table<K>>);

impl<K: Hash + Eq + Clone> StateStore for Look<K> {
    type Key = K;

    fn measure_and_replace<T, F, E>(&self, key: &K, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        self.0.look(key, measure)
    }
}

/// The crate's clock as governor reads one: time since the limit was made.
#[derive(Clone, Debug)]
enum Hands {
    Monotonic {
        clock: DefaultClock,
        start: <DefaultClock as GovernorClock>::Instant,
    },
    Manual {
        clock: Clock,
        start: Timestamp,
    },
}

impl Hands {
    fn of(clock: &Clock) -> Self {
        match clock {
            Clock::System => {
                let clock = DefaultClock::default();
                let start = clock.now();
                Self::Monotonic { clock, start }
            }
            Clock::Manual(_) => Self::Manual {
                clock: clock.clone(),
                start: clock.now(),
            },
        }
    }
}

impl GovernorClock for Hands {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        match self {
            Self::Monotonic { clock, start } => clock.now().duration_since(*start),
            Self::Manual { clock, start } => Nanos::from(clock.now().since(*start)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(burst: u32, every_ms: u64, keys_max: usize) -> (Rate<u32>, Clock) {
        let clock = Clock::manual(Timestamp::from_secs(1000));
        let allowance = Allowance {
            burst: NonZeroU32::new(burst).unwrap(),
            every: Duration::from_millis(every_ms),
        };
        (Rate::new(allowance, keys_max, &clock), clock)
    }

    #[test]
    fn a_burst_is_taken_and_grows_back_one_by_one() {
        let (rate, clock) = rate(3, 500, 10);
        for _ in 0..3 {
            assert_eq!(rate.take(&1), Ok(()));
        }
        assert_eq!(rate.take(&1), Err(Wait(Duration::from_millis(500))));
        assert_eq!(rate.take(&2), Ok(()));
        clock.advance(Duration::from_millis(500));
        assert_eq!(rate.take(&1), Ok(()));
        assert!(rate.take(&1).is_err());
    }

    #[test]
    fn many_are_taken_together_or_not_at_all() {
        let (rate, clock) = rate(10, 500, 10);
        assert_eq!(
            (rate.take_many(&1, 0), rate.take_many(&1, 7)),
            (Ok(()), Ok(()))
        );
        assert_eq!(rate.take_many(&1, 5), Err(Wait(Duration::from_secs(1))));
        assert_eq!(rate.take_many(&1, 3), Ok(()));
        clock.advance(Duration::from_secs(5));
        assert_eq!(
            rate.take_many(&1, u32::MAX),
            Ok(()),
            "as many as there ever are"
        );
    }

    #[test]
    fn looking_takes_nothing() {
        let (rate, _) = rate(2, 500, 10);
        for _ in 0..5 {
            assert_eq!(rate.look(&1), Ok(()));
        }
        assert_eq!((rate.take(&1), rate.take(&1)), (Ok(()), Ok(())));
        assert!(rate.look(&1).is_err());
        assert_eq!(rate.keys(), 1);
    }

    #[test]
    fn a_full_table_makes_strangers_share_and_forgets_the_rested() {
        let (rate, clock) = rate(2, 1000, 3);
        for key in 0..3 {
            assert_eq!(rate.take(&key), Ok(()));
        }
        assert_eq!((rate.take(&10), rate.take(&11)), (Ok(()), Ok(())));
        assert!(rate.take(&12).is_err(), "strangers share one allowance");
        assert!(rate.look(&13).is_err());
        assert_eq!(rate.take(&0), Ok(()), "the known keep their own");
        assert_eq!(rate.keys(), 3);
        clock.advance(Duration::from_secs(10));
        assert_eq!(rate.take(&12), Ok(()));
        assert_eq!(rate.keys(), 1, "the rested are forgotten");
    }

    #[test]
    fn a_million_keys_do_not_grow_the_table() {
        let (rate, _) = rate(1, 1000, 1000);
        for key in 0..1_000_000 {
            let _ = rate.take(&key);
        }
        assert_eq!(rate.keys(), 1000);
        assert_eq!(rate.table.keys.len(), 1000);
    }

    #[test]
    fn ipv6_is_limited_by_the_network() {
        let key = |address: &str| address_key(address.parse().unwrap()).to_string();
        assert_eq!(key("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(key("::ffff:192.0.2.1"), "192.0.2.1");
        assert_eq!(key("192.0.2.1"), "192.0.2.1");
    }

    #[test]
    fn the_systems_clock_counts_from_the_start() {
        let allowance = Allowance {
            burst: NonZeroU32::MIN,
            every: Duration::from_secs(3600),
        };
        let rate = Rate::new(allowance, 10, &Clock::System);
        assert_eq!(rate.take(&"a"), Ok(()));
        assert!(rate.take(&"a").is_err());
    }
}
