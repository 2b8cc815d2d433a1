//! Sessions that share a task: a result for all of them is one wake-up, and each goes on where the last one was served.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use tokio::runtime::Handle;
use tokio::task::coop::has_budget_remaining;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::driver::{Driver, Now};
use crate::clock::Clock;
use crate::wake::{WakeGroup, WakeSlot};

/// So many rows that are not being filled are looked at for places that others have left.
const LOOKED_AT: usize = 4;

/// The rows of one application's sessions.
#[derive(Debug)]
pub(super) struct SessionGroups {
    rows: Mutex<Known>,
    tasks: TaskTracker,
    clock: Clock,
}

#[derive(Debug, Default)]
struct Known {
    /// Those being filled are the last.
    rows: Vec<Weak<SessionGroup>>,
    /// The next to be looked at.
    next: usize,
}

#[derive(Default)]
struct SessionGroup {
    group: WakeGroup,
    arriving: Mutex<Vec<(WakeSlot, Driver)>>,
}

/// A place in a row, kept for a session that is about to open.
pub(super) struct Slot {
    row: Arc<SessionGroup>,
    wake_slot: WakeSlot,
}

impl SessionGroups {
    /// No rows yet; their tasks will belong to `tasks`.
    pub(super) fn new(tasks: TaskTracker, clock: Clock) -> Self {
        Self {
            rows: Mutex::default(),
            tasks,
            clock,
        }
    }

    /// A place in a row that has few sessions. To be called within the runtime.
    pub(super) fn seat(&self) -> Slot {
        // So many are filled side by side, so that few sessions still have all workers.
        let side_by_side = Handle::current().metrics().num_workers();
        let mut known = lock(&self.rows);
        let emptiest = known.emptiest(side_by_side);
        if known.rows.len() >= side_by_side
            && let Some(seat) = emptiest.and_then(SessionGroup::seat)
        {
            return seat;
        }
        let (row, seat) = loop {
            let row = Arc::new(SessionGroup::default());
            // A new row has places.
            if let Some(seat) = SessionGroup::seat(Arc::clone(&row)) {
                break (row, seat);
            }
        };
        known.rows.push(Arc::downgrade(&row));
        self.tasks.spawn(Sessions::of(row, self.clock.clone()));
        seat
    }
}

impl Known {
    /// The emptiest of the last `filled` rows and of some others, each time of other ones: however many there are, a
    /// place is found soon. Forgets those that are over.
    fn emptiest(&mut self, filled: usize) -> Option<Arc<SessionGroup>> {
        let mut emptiest: Option<Arc<SessionGroup>> = None;
        for turn in 0..filled + LOOKED_AT {
            let count = self.rows.len();
            if count == 0 {
                break;
            }
            let at = if turn < filled {
                count.saturating_sub(turn + 1)
            } else {
                self.next = (self.next + 1) % count;
                self.next
            };
            let Some(row) = self.rows[at].upgrade() else {
                self.rows.remove(at);
                continue;
            };
            let fewer =
                |other: &Arc<SessionGroup>| row.group.wake_slots() < other.group.wake_slots();
            if emptiest.as_ref().is_none_or(fewer) {
                emptiest = Some(row);
            }
        }
        emptiest
    }
}

impl SessionGroup {
    fn seat(self: Arc<Self>) -> Option<Slot> {
        let wake_slot = self.group.register()?;
        Some(Slot {
            row: self,
            wake_slot,
        })
    }
}

impl Slot {
    /// Wakes the session that will sit here.
    pub(super) const fn wake_slot(&self) -> &WakeSlot {
        &self.wake_slot
    }

    /// From here on the row's task drives the session.
    pub(super) fn take(self, driver: Driver) {
        lock(&self.row.arriving).push((self.wake_slot.clone(), driver));
        self.wake_slot.notify();
    }
}

/// The task of one row. It is over when the last session is.
struct Sessions {
    row: Arc<SessionGroup>,
    clock: Clock,
    /// By the number of their wake slots.
    seated: Vec<Option<(Waker, Driver)>>,
    /// Whose turn it is, each a bit by its number.
    due: u64,
    /// Whose turn comes first.
    next: usize,
}

impl Sessions {
    const fn of(row: Arc<SessionGroup>, clock: Clock) -> Self {
        Self {
            row,
            clock,
            seated: Vec::new(),
            due: 0,
            next: 0,
        }
    }

    fn seat_arrived(&mut self) {
        for (wake_slot, driver) in lock(&self.row.arriving).drain(..) {
            let number = wake_slot.number() as usize;
            if self.seated.len() <= number {
                self.seated.resize_with(number + 1, || None);
            }
            self.seated[number] = Some((Waker::from(Arc::new(wake_slot)), driver));
        }
    }

    /// See [`Driver::look`].
    fn look(&mut self) {
        for number in numbers(self.due) {
            self.attend(number, |driver, _| {
                driver.look();
                Poll::Pending
            });
        }
    }

    /// Does something with one session, until it is over. One whose application panics ends alone.
    fn attend(
        &mut self,
        number: usize,
        act: impl FnOnce(&mut Driver, &mut Context<'_>) -> Poll<()>,
    ) {
        let Some(place) = self.seated.get_mut(number) else {
            return;
        };
        let Some((waker, driver)) = place else {
            return;
        };
        let mut context = Context::from_waker(waker);
        let outcome = catch_unwind(AssertUnwindSafe(|| act(driver, &mut context)));
        if !matches!(outcome, Ok(Poll::Pending)) {
            let gone = place.take();
            // The application is told now, and may panic at that too.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(gone)));
        }
    }
}

impl Future for Sessions {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        this.row.group.listen(context);
        this.due |= this.row.group.take();
        this.seat_arrived();
        let now = Now {
            timers: Instant::now(),
            clock: this.clock.now(),
        };
        this.look();
        for number in numbers_from(this.next, this.due) {
            if !has_budget_remaining() {
                // The rest come when others have had their turn, before those that have just had theirs.
                this.next = number;
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            this.due &= !(1 << number);
            this.attend(number, |driver, context| driver.turn(now, context));
        }
        if this.row.group.close() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

/// The numbers of the bits that are set, from this one on and then up to it.
fn numbers_from(first: usize, bits: u64) -> impl Iterator<Item = usize> {
    let before = bits & ((1 << first) - 1);
    numbers(bits & !before).chain(numbers(before))
}

/// The numbers of the bits that are set.
fn numbers(mut bits: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let number = bits.trailing_zeros();
        bits &= bits.checked_sub(1)?;
        Some(number as usize)
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_go_round() {
        let order = |first, bits| numbers_from(first, bits).collect::<Vec<_>>();
        assert_eq!(order(0, 1 << 62 | 0b1011), [0, 1, 3, 62]);
        assert_eq!(order(2, 1 << 62 | 0b1011), [3, 62, 0, 1]);
        assert_eq!(order(62, 0b1011), [0, 1, 3]);
        assert!(order(5, 0).is_empty());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn seats_are_spread_over_rows_and_an_empty_row_ends() {
        let tasks = TaskTracker::new();
        let rows = SessionGroups::new(tasks.clone(), Clock::System);
        let mut seats: Vec<Slot> = (0..126).map(|_| rows.seat()).collect();
        assert_eq!(tasks.len(), 2);
        let last = rows.seat();
        assert_eq!((tasks.len(), last.row.group.wake_slots()), (3, 1));
        drop(last);
        // The third row is woken, sees that nobody sits there, and is over.
        while tasks.len() > 2 {
            tokio::task::yield_now().await;
        }
        seats.truncate(125);
        assert_eq!(
            rows.seat().row.group.wake_slots(),
            63,
            "a place is free again"
        );
        let more: Vec<Slot> = (0..63 * 10).map(|_| rows.seat()).collect();
        let full = tasks.len();
        seats.truncate(100);
        // However many rows there are, the places in the first two are found.
        let found: Vec<Slot> = (0..20).map(|_| rows.seat()).collect();
        assert!(
            full <= 12 && tasks.len() <= full + 1,
            "{full} {}",
            tasks.len()
        );
        drop((more, found));
        drop(seats);
        tasks.close();
        tasks.wait().await;
        let _seat = rows.seat();
        assert_eq!(tasks.len(), 1, "a row that is over is not looked for");
    }
}
