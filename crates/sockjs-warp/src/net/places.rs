//! ConnectionPermits for connections: shared out by address, and taken back from those that do not use them.
//!
//! An address may take places as long as it has fewer than some times what is free. So one alone may have most of them,
//! many have less each, and there is always room for one that has none.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use crate::limits::permits::may_take;
use crate::limits::rate::address_key;
use crate::names;

/// A seat whose connection is being served.
const BUSY: u32 = u32::MAX;
/// Those that have not sent a request may have so many of all places: one of four.
const UNSPOKEN_SHARE: usize = 4;
/// At most so many connections give way at once: to look for them means to look at all.
const GIVING_WAY_MAX: usize = 256;
/// After a look that has found too few.
const LOOK_PAUSE: Duration = Duration::from_millis(50);
/// While all places are taken by connections that are busy.
const FULL_PAUSE: Duration = Duration::from_millis(250);

/// The places of a listener. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct ConnectionPermits(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    total: usize,
    epoch: Instant,
    unspoken: AtomicUsize,
    table: Mutex<Table>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct Table {
    seats: HashMap<u64, Arc<Slot>>,
    by_address: HashMap<IpAddr, usize>,
    next: u64,
    looked: Option<Instant>,
}

/// What is known of a connection.
#[derive(Debug)]
struct Slot {
    number: u64,
    /// None for proxies: what is behind one is not one client.
    address: Option<IpAddr>,
    /// Milliseconds since the epoch of the places, or [`BUSY`].
    idle_since: AtomicU32,
    spoken: AtomicBool,
    gone: AtomicBool,
    waker: AtomicWaker,
}

/// A connection's place; dropping it gives it back.
#[derive(Debug)]
pub(super) struct ConnectionPermit {
    seat: Arc<Slot>,
    places: Arc<Inner>,
}

impl ConnectionPermits {
    pub(super) fn new(total: usize) -> Self {
        Self(Arc::new(Inner {
            total: total.max(1),
            epoch: Instant::now(),
            unspoken: AtomicUsize::new(0),
            table: Mutex::default(),
            freed: Notify::new(),
        }))
    }

    /// Waits until there is a place; who is idle gives way.
    pub(super) async fn free(&self) {
        loop {
            {
                let mut table = self.0.table();
                if table.seats.len() < self.0.total {
                    return;
                }
                self.0.give_way(&mut table, |_| true);
            }
            let _ = timeout(FULL_PAUSE, self.0.freed.notified()).await;
        }
    }

    /// A place for a connection from this address, unless it has more than its share; none for `address` means that it
    /// is a proxy's.
    pub(super) fn take(&self, address: Option<IpAddr>) -> Option<ConnectionPermit> {
        let address = address.map(address_key);
        let inner = &self.0;
        let mut table = inner.table();
        if let Some(address) = address {
            let has = table.by_address.get(&address).copied().unwrap_or(0);
            let free = inner.total.saturating_sub(table.seats.len());
            if !may_take(has, free) {
                inner.give_way(&mut table, |seat| seat.address == Some(address));
                metrics::counter!(names::LIMITED, "limit" => "connections").increment(1);
                return None;
            }
            *table.by_address.entry(address).or_default() += 1;
        }
        if inner.unspoken.fetch_add(1, Ordering::Relaxed) >= inner.total.div_ceil(UNSPOKEN_SHARE) {
            inner.give_way(&mut table, |seat| !seat.spoken.load(Ordering::Relaxed));
        }
        let seat = Arc::new(Slot {
            number: table.next,
            address,
            idle_since: AtomicU32::new(inner.now()),
            spoken: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        });
        table.next += 1;
        table.seats.insert(seat.number, Arc::clone(&seat));
        drop(table);
        metrics::gauge!(names::CONNECTIONS).increment(1);
        Some(ConnectionPermit {
            seat,
            places: Arc::clone(inner),
        })
    }
}

impl Inner {
    fn table(&self) -> MutexGuard<'_, Table> {
        // The table is whole between any two statements that could panic.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u32 {
        let since = self.epoch.elapsed().as_millis() % u128::from(BUSY);
        u32::try_from(since).unwrap_or(0)
    }

    /// Tells some idle connections to end: first those whose address has the most, of these those that have never sent a
    /// request, and of these the longest idle.
    fn give_way(&self, table: &mut Table, who: impl Fn(&Slot) -> bool) {
        let now = Instant::now();
        let looked = table.looked;
        if looked.is_some_and(|at| now.saturating_duration_since(at) < LOOK_PAUSE) {
            return;
        }
        let this_moment = self.now();
        let rank = |seat: &Slot| {
            let idle_since = seat.idle_since.load(Ordering::Relaxed);
            let idle = idle_since != BUSY && !seat.gone.load(Ordering::Relaxed);
            idle.then(|| {
                let has = seat
                    .address
                    .and_then(|address| table.by_address.get(&address));
                let spoken = seat.spoken.load(Ordering::Relaxed);
                let idle = this_moment.wrapping_sub(idle_since);
                (Reverse(has.copied().unwrap_or(0)), spoken, Reverse(idle))
            })
        };
        let seats = table.seats.values().filter(|seat| who(seat));
        let mut idle: Vec<_> = seats.filter_map(|seat| Some((rank(seat)?, seat))).collect();
        let count = (self.total / 100).clamp(1, GIVING_WAY_MAX);
        // To look at all is worth it if a hundredth of them is found.
        let found_few = idle.len() < count;
        if idle.len() > count {
            idle.select_nth_unstable_by_key(count - 1, |(rank, _)| *rank);
        }
        for (_, seat) in idle.into_iter().take(count) {
            seat.gone.store(true, Ordering::Release);
            seat.waker.wake();
            metrics::counter!(names::CONNECTIONS_DROPPED, "reason" => "gave_way").increment(1);
        }
        table.looked = found_few.then_some(now);
    }
}

impl ConnectionPermit {
    /// A request has come, or somebody has taken the connection over.
    pub(super) fn busy(&self) {
        self.seat.idle_since.store(BUSY, Ordering::Relaxed);
        if !self.seat.spoken.load(Ordering::Relaxed)
            && !self.seat.spoken.swap(true, Ordering::Relaxed)
        {
            self.places.unspoken.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// The request is answered.
    pub(super) fn idle(&self) {
        let now = self.places.now();
        self.seat.idle_since.store(now, Ordering::Relaxed);
    }

    /// Completes when the connection is to give way. The future must always be polled by the same task, whose waker is
    /// registered once.
    pub(super) async fn gives_way(&self) {
        let mut listens = false;
        poll_fn(|cx| {
            if !std::mem::replace(&mut listens, true) {
                self.seat.waker.register(cx.waker());
            }
            match self.seat.gone.load(Ordering::Acquire) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut table = self.places.table();
        table.seats.remove(&self.seat.number);
        if let Some(address) = self.seat.address
            && let Some(count) = table.by_address.get_mut(&address)
        {
            *count -= 1;
            if *count == 0 {
                table.by_address.remove(&address);
            }
        }
        drop(table);
        if !self.seat.spoken.load(Ordering::Relaxed) {
            self.places.unspoken.fetch_sub(1, Ordering::Relaxed);
        }
        self.places.freed.notify_one();
        metrics::gauge!(names::CONNECTIONS).decrement(1);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn from(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([192, 0, 2, last]))
    }

    fn is_told(place: &ConnectionPermit) -> bool {
        place.gives_way().now_or_never().is_some()
    }

    #[tokio::test(start_paused = true)]
    async fn one_address_leaves_room_for_others_and_proxies_are_no_address() {
        let places = ConnectionPermits::new(100);
        let many: Vec<_> = (0..1000).map_while(|_| places.take(from(1))).collect();
        assert!(many.len() <= 80, "{}", many.len());
        assert!(many.iter().any(is_told), "its own make room for it");
        assert!(places.take(from(2)).is_some());
        let proxied: Vec<_> = (0..15).map_while(|_| places.take(None)).collect();
        assert_eq!(proxied.len(), 15);
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_most_and_is_idle_longest_gives_way() {
        let places = ConnectionPermits::new(12);
        let busy: Vec<_> = (0..9)
            .map(|_| {
                let place = places.take(None).unwrap();
                place.busy();
                place
            })
            .collect();
        let longest = places.take(from(2)).unwrap();
        longest.busy();
        longest.idle();
        let crowd = [places.take(from(1)).unwrap(), places.take(from(1)).unwrap()];
        tokio::time::advance(Duration::from_secs(1)).await;
        crowd[0].busy();
        crowd[0].idle();
        assert!(places.free().now_or_never().is_none());
        let told = [&busy[0], &longest, &crowd[0], &crowd[1]].map(is_told);
        assert_eq!(told, [false, false, false, true]);
        drop(crowd);
        places.free().await;
        assert!(places.take(from(3)).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_say_nothing_have_a_part_of_the_places() {
        let places = ConnectionPermits::new(40);
        let silent: Vec<_> = (0..10).map(|n| places.take(from(n)).unwrap()).collect();
        assert!(!silent.iter().any(is_told));
        let next = places.take(from(99)).unwrap();
        assert_eq!(silent.iter().filter(|place| is_told(place)).count(), 1);
        next.busy();
        assert_eq!(places.0.unspoken.load(Ordering::Relaxed), 10);
        drop((silent, next));
        assert_eq!(places.0.unspoken.load(Ordering::Relaxed), 0);
        assert!(places.0.table().by_address.is_empty());
    }
}
