//! Every live HTTP session of a mount: found by id, counted by address, swept when abandoned.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use tokio::sync::Notify;

use super::application::{Application, Opened};
use super::bounds::{Bounds, NotOpened};
use super::handle::Handle;
use super::meters::{AllMeters, Meters};
use super::records::Records;
use crate::clock::{Clock, Timestamp};
use crate::limits::permits::Permit;
use crate::sockjs::{Close, Session, Settings, Transport};
use crate::wake::WakeSlot;

/// The HTTP sessions of one mount. WebSockets are not among them: each is a private session of its
/// connection, and ids on its path mean nothing.
pub(super) struct Registry {
    prefix: Arc<str>,
    settings: Arc<Settings>,
    application: Arc<dyn Application>,
    clock: Clock,
    bounds: Bounds,
    meters: AllMeters,
    /// What other nodes know of the sessions here; without a directory there is no other node.
    records: Option<Records>,
    handles: DashMap<Box<str>, Arc<Handle>>,
    /// Sessions alive; kept beside the table, whose own count locks every shard.
    alive: AtomicUsize,
    stopping: AtomicBool,
    /// Wakes the sweeper when there is something to sweep again.
    populated: Arc<Notify>,
}

impl Registry {
    pub(super) fn new(
        prefix: Arc<str>,
        settings: Arc<Settings>,
        application: Arc<dyn Application>,
        clock: Clock,
        (bounds, records): (Bounds, Option<Records>),
    ) -> Arc<Self> {
        Arc::new(Self {
            prefix,
            settings,
            application,
            clock,
            bounds,
            meters: AllMeters::new(),
            records,
            handles: DashMap::new(),
            alive: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
            populated: Arc::new(Notify::new()),
        })
    }

    /// The mount's settings.
    #[must_use]
    pub(super) fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// The mount's clock.
    #[must_use]
    pub(super) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The process's bounds.
    pub(super) fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    /// The counters of a transport.
    pub(super) fn meters(&self, transport: Transport) -> &Meters {
        self.meters.of(transport)
    }

    /// Sessions alive.
    #[must_use]
    pub(super) fn sessions(&self) -> usize {
        self.alive.load(Ordering::Relaxed)
    }

    /// The session with this id, if this node holds it.
    pub(super) fn find(&self, id: &str) -> Option<Arc<Handle>> {
        self.handles.get(id).map(|entry| Arc::clone(entry.value()))
    }

    /// The session with this id, opened if there is none.
    pub(super) fn find_or_open(
        &self,
        id: &str,
        transport: Transport,
        address: IpAddr,
    ) -> Result<Arc<Handle>, NotOpened> {
        if let Some(found) = self.find(id) {
            return Ok(found);
        }
        let place = self.admit(address)?;
        Ok(self.insert(id, transport, address, place, None))
    }

    /// A place for one more session of a client.
    pub(super) fn admit(&self, address: IpAddr) -> Result<Permit<IpAddr>, NotOpened> {
        if self.stopping.load(Ordering::Relaxed) {
            return Err(NotOpened::Stopping);
        }
        self.bounds.admit(address)
    }

    /// Opens the session unless somebody was quicker.
    pub(super) fn insert(
        &self,
        id: &str,
        transport: Transport,
        address: IpAddr,
        place: Permit<IpAddr>,
        record: Option<Box<str>>,
    ) -> Arc<Handle> {
        match self.handles.entry(id.into()) {
            Entry::Occupied(found) => Arc::clone(found.get()),
            Entry::Vacant(row) => {
                let handle = self.open(id.into(), transport, address, (place, record));
                row.insert(Arc::clone(&handle));
                self.alive.fetch_add(1, Ordering::Relaxed);
                self.populated.notify_one();
                handle
            }
        }
    }

    /// What the mount has in the directory, if it has one.
    pub(super) fn records(&self) -> Option<&Records> {
        self.records.as_ref()
    }

    /// The sessions that the directory knows.
    pub(super) fn recorded(&self) -> Vec<Arc<Handle>> {
        let all = self.handles.iter();
        all.filter(|entry| entry.record().is_some())
            .map(|entry| Arc::clone(entry.value()))
            .collect()
    }

    /// Takes a session that is over out of the table.
    pub(super) fn forget(&self, handle: &Arc<Handle>) {
        let removed = self
            .handles
            .remove_if(handle.id(), |_, found| Arc::ptr_eq(found, handle));
        if removed.is_some() {
            if let (Some(records), Some(record)) = (&self.records, handle.record()) {
                records.ended(handle.id(), record.into());
            }
            self.alive.fetch_sub(1, Ordering::Relaxed);
            self.meters.of(handle.transport()).closed(handle.ending());
        }
    }

    /// Refuses new sessions and tells every live one to close, evenly over
    /// [`Settings::goodbye_spread`]. Returns when all have been told; their streams end by themselves.
    pub(super) async fn close_all(&self, close: &Close) {
        /// Pauses shorter than this cost more than they ease.
        const STEP: Duration = Duration::from_millis(10);
        self.stopping.store(true, Ordering::Relaxed);
        self.populated.notify_one();
        let all = self.handles.iter();
        let handles: Vec<Arc<Handle>> = all.map(|entry| Arc::clone(entry.value())).collect();
        let spread = self.settings.goodbye_spread;
        let steps = (spread.as_millis() / STEP.as_millis()).max(1);
        let at_once = handles.len().div_ceil(usize::try_from(steps).unwrap_or(1));
        for (turn, some) in handles.chunks(at_once.max(1)).enumerate() {
            if turn > 0 {
                tokio::time::sleep(STEP).await;
            }
            for handle in some {
                handle.say_goodbye(close.clone());
            }
        }
    }

    /// Forgets all sessions, whether or not their clients have heard of the close: nobody can ask for it any more.
    pub(super) fn forget_all(&self) {
        let all = self.handles.iter();
        let handles: Vec<Arc<Handle>> = all.map(|entry| Arc::clone(entry.value())).collect();
        for handle in &handles {
            self.forget(handle);
        }
    }

    fn open(
        &self,
        id: Box<str>,
        transport: Transport,
        address: IpAddr,
        place: (Permit<IpAddr>, Option<Box<str>>),
    ) -> Arc<Handle> {
        let now = self.clock.now();
        let opened = Opened {
            transport,
            address,
            prefix: Arc::clone(&self.prefix),
            wake_slot: WakeSlot::default(),
        };
        let wake_slot = opened.wake_slot.clone();
        let conversation = self.application.open(opened, now);
        let session = Session::new(self.settings.timing, now);
        self.meters.of(transport).opened();
        Arc::new(Handle::new(
            id,
            transport,
            place,
            wake_slot,
            session,
            conversation,
        ))
    }

    /// Ends the sessions whose timers have run out.
    fn sweep(&self, now: Timestamp) {
        let due: Vec<Arc<Handle>> = {
            let all = self.handles.iter();
            all.filter(|entry| entry.is_due(now))
                .map(|entry| Arc::clone(entry.value()))
                .collect()
        };
        for handle in &due {
            if handle.handle_timeout(now) {
                self.forget(handle);
            }
        }
        /// Below this a table is not worth shrinking.
        const ROOM_MIN: usize = 1024;
        if self.handles.capacity() > ROOM_MIN.max(8 * self.sessions()) {
            self.handles.shrink_to_fit();
        }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // The sweeper waits for sessions that will never come.
        self.populated.notify_one();
    }
}

/// Sweeps a registry for as long as it exists: one task for all its sessions. Walking the table costs
/// 0.1 us a session, which is less than keeping ten thousand timers in order as receivers come and go.
pub(super) async fn sweep_while_alive(registry: Weak<Registry>) {
    loop {
        let Some(strong) = registry.upgrade() else {
            return;
        };
        let period = period(strong.settings.timing.disconnect);
        let populated = Arc::clone(&strong.populated);
        if strong.sessions() == 0 {
            if strong.stopping.load(Ordering::Relaxed) {
                return;
            }
            drop(strong);
            populated.notified().await;
        } else {
            strong.sweep(strong.clock.now());
            drop(strong);
        }
        tokio::time::sleep(period).await;
    }
}

/// How late a session may end: a tenth of its time, within reason.
fn period(disconnect: Duration) -> Duration {
    (disconnect / 10).clamp(Duration::from_millis(10), Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use tokio_util::task::TaskTracker;

    use super::super::application::{Conversation, Next};
    use super::*;
    use crate::limits::permits::Permits;
    use crate::limits::rate::{Allowance, Rate};
    use crate::sockjs::Form;

    /// Counts its open conversations.
    struct Counter(Arc<AtomicUsize>);
    struct Counted(Arc<AtomicUsize>);

    impl Application for Counter {
        fn open(&self, _opened: Opened, _now: Timestamp) -> Box<dyn Conversation> {
            self.0.fetch_add(1, Ordering::SeqCst);
            Box::new(Counted(Arc::clone(&self.0)))
        }
    }

    impl Conversation for Counted {
        fn message(&mut self, _text: &str, _now: Timestamp) {}
        fn next(&mut self, _form: Form, _budget: usize, _now: Timestamp) -> Next {
            Next::Wait
        }
        fn deadline(&self) -> Option<Timestamp> {
            None
        }
        fn closed(&mut self, _now: Timestamp) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn registry(settings: Settings) -> (Arc<Registry>, Arc<AtomicUsize>, Clock) {
        bounded(settings, 20_000, 20_000)
    }

    fn bounded(
        settings: Settings,
        per_address: usize,
        total: usize,
    ) -> (Arc<Registry>, Arc<AtomicUsize>, Clock) {
        let open = Arc::new(AtomicUsize::new(0));
        let clock = Clock::manual(Timestamp::from_secs(1_000));
        let allowance = Allowance {
            burst: 20_000.try_into().unwrap(),
            every: Duration::from_secs(1),
        };
        let bounds = Bounds {
            sessions: Permits::new(per_address, total),
            openings: Arc::new(Rate::new(allowance, 100, &clock)),
            ..Bounds::new(&clock)
        };
        let application = Arc::new(Counter(Arc::clone(&open)));
        let registry = Registry::new(
            "/x".into(),
            settings.into(),
            application,
            clock.clone(),
            (bounds, None),
        );
        (registry, open, clock)
    }

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn ten_thousand_abandoned_sessions_are_gone_after_five_seconds() {
        let (registry, open, clock) = registry(Settings::default());
        for number in 0..10_000 {
            let id = format!("s{number}");
            registry.find_or_open(&id, Transport::Xhr, HERE).unwrap();
        }
        clock.advance(Duration::from_millis(4999));
        registry.sweep(clock.now());
        assert_eq!(
            (registry.sessions(), open.load(Ordering::SeqCst)),
            (10_000, 10_000)
        );
        assert!(registry.handles.capacity() >= 10_000);
        clock.advance(Duration::from_millis(1));
        registry.sweep(clock.now());
        assert_eq!((registry.sessions(), open.load(Ordering::SeqCst)), (0, 0));
        assert!(registry.find("s1").is_none());
        assert_eq!(registry.bounds.sessions.taken(), 0);
        assert!(
            registry.handles.capacity() < 1_000,
            "{}",
            registry.handles.capacity()
        );
    }

    #[test]
    fn an_address_and_the_mount_have_only_so_many_sessions() {
        let (registry, open, clock) = bounded(Settings::default(), 2, 3);
        let there = IpAddr::V6(std::net::Ipv6Addr::LOCALHOST);
        let try_open = |id, address| registry.find_or_open(id, Transport::Xhr, address).err();
        assert_eq!(try_open("a", HERE), None);
        assert_eq!(try_open("b", HERE), None);
        assert_eq!(try_open("c", HERE), Some(NotOpened::Full));
        assert_eq!(try_open("a", HERE), None);
        assert_eq!(try_open("d", there), None);
        assert_eq!(try_open("e", there), Some(NotOpened::Full));
        assert_eq!(open.load(Ordering::SeqCst), 3);
        clock.advance(Duration::from_secs(5));
        registry.sweep(clock.now());
        assert_eq!(try_open("e", there), None);
        assert_eq!(try_open("c", HERE), None);
    }

    #[test]
    fn a_successor_under_the_same_id_is_not_forgotten_with_its_predecessor() {
        let (registry, _, clock) = registry(Settings::default());
        let first = registry.find_or_open("a", Transport::Xhr, HERE).unwrap();
        clock.advance(Duration::from_secs(5));
        registry.sweep(clock.now());
        let second = registry.find_or_open("a", Transport::Xhr, HERE).unwrap();
        registry.forget(&first);
        assert!(
            registry
                .find("a")
                .is_some_and(|found| Arc::ptr_eq(&found, &second))
        );
        assert_eq!(registry.sessions(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn closing_all_refuses_new_sessions_and_spreads_the_news() {
        let (registry, ..) = registry(Settings {
            goodbye_spread: Duration::from_secs(1),
            ..Settings::default()
        });
        for number in 0..100 {
            registry
                .find_or_open(&number.to_string(), Transport::Xhr, HERE)
                .unwrap();
        }
        let started = tokio::time::Instant::now();
        registry.close_all(&Close::go_away()).await;
        let took = started.elapsed();
        assert!(
            took > Duration::from_millis(400) && took <= Duration::from_secs(1),
            "{took:?}"
        );
        let refused = registry.find_or_open("new", Transport::Xhr, HERE).err();
        assert_eq!(refused, Some(NotOpened::Stopping));
    }

    #[tokio::test(start_paused = true)]
    async fn the_sweeper_ends_with_its_registry() {
        let (registry, ..) = registry(Settings::default());
        let sweeper = TaskTracker::new().spawn(sweep_while_alive(Arc::downgrade(&registry)));
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert!(!sweeper.is_finished());
        drop(registry);
        sweeper.await.unwrap();
    }
}
