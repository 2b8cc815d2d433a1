//! Sessions that share a task: a result for all of them is one wake-up, and each goes on where the last one was served.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::thread::available_parallelism;

use tokio::task::coop::has_budget_remaining;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::driver::{Driver, Now};
use crate::bell::{Belfry, Bell};
use crate::clock::Clock;

/// The rows of one application's sessions.
#[derive(Debug)]
pub(super) struct Rows {
    rows: Mutex<Vec<Weak<Row>>>,
    tasks: TaskTracker,
    clock: Clock,
    /// So many are filled side by side, so that few sessions still have all processors.
    side_by_side: usize,
}

#[derive(Default)]
struct Row {
    belfry: Belfry,
    arriving: Mutex<Vec<(Bell, Driver)>>,
}

/// A place in a row, kept for a session that is about to open.
pub(super) struct Seat {
    row: Arc<Row>,
    bell: Bell,
}

impl Rows {
    /// No rows yet; their tasks will belong to `tasks`.
    pub(super) fn new(tasks: TaskTracker, clock: Clock) -> Self {
        Self {
            rows: Mutex::default(),
            tasks,
            clock,
            side_by_side: available_parallelism().map_or(1, usize::from),
        }
    }

    /// A place in the emptiest row.
    pub(super) fn seat(&self) -> Seat {
        let mut rows = lock(&self.rows);
        rows.retain(|row| row.strong_count() > 0);
        if rows.len() >= self.side_by_side {
            let alive = rows.iter().filter_map(Weak::upgrade);
            let emptiest = alive.min_by_key(|row| row.belfry.bells());
            if let Some(seat) = emptiest.and_then(Row::seat) {
                return seat;
            }
        }
        loop {
            let row = Arc::new(Row::default());
            let seat = Row::seat(Arc::clone(&row));
            rows.push(Arc::downgrade(&row));
            self.tasks.spawn(Sessions::of(row, self.clock.clone()));
            if let Some(seat) = seat {
                return seat;
            }
        }
    }
}

impl Row {
    fn seat(self: Arc<Self>) -> Option<Seat> {
        let bell = self.belfry.hang()?;
        Some(Seat { row: self, bell })
    }
}

impl Seat {
    /// Wakes the session that will sit here.
    pub(super) const fn bell(&self) -> &Bell {
        &self.bell
    }

    /// From here on the row's task drives the session.
    pub(super) fn take(self, driver: Driver) {
        lock(&self.row.arriving).push((self.bell.clone(), driver));
        self.bell.ring();
    }
}

/// The task of one row. It is over when the last session is.
struct Sessions {
    row: Arc<Row>,
    clock: Clock,
    /// By the number of their bells.
    seated: Vec<Option<(Waker, Driver)>>,
    /// Whose turn it is, each a bit by its number.
    due: u64,
}

impl Sessions {
    const fn of(row: Arc<Row>, clock: Clock) -> Self {
        Self {
            row,
            clock,
            seated: Vec::new(),
            due: 0,
        }
    }

    fn seat_arrived(&mut self) {
        for (bell, driver) in lock(&self.row.arriving).drain(..) {
            let number = bell.number() as usize;
            if self.seated.len() <= number {
                self.seated.resize_with(number + 1, || None);
            }
            self.seated[number] = Some((Waker::from(Arc::new(bell)), driver));
        }
    }

    /// See [`Driver::look`].
    fn look(&self) {
        for number in numbers(self.due) {
            if let Some(Some((_, driver))) = self.seated.get(number) {
                driver.look();
            }
        }
    }

    /// Gives one session its turn. One that panics ends alone.
    fn drive(&mut self, number: usize, now: Now) {
        let Some(place) = self.seated.get_mut(number) else {
            return;
        };
        let Some((waker, driver)) = place else {
            return;
        };
        let mut context = Context::from_waker(waker);
        let turn = AssertUnwindSafe(|| driver.turn(now, &mut context));
        if !matches!(catch_unwind(turn), Ok(Poll::Pending)) {
            *place = None;
        }
    }
}

impl Future for Sessions {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        this.row.belfry.listen(context);
        this.due |= this.row.belfry.take();
        this.seat_arrived();
        let now = Now {
            timers: Instant::now(),
            clock: this.clock.now(),
        };
        this.look();
        for number in numbers(this.due) {
            if !has_budget_remaining() {
                // The rest come when others have had their turn.
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            this.due &= !(1 << number);
            this.drive(number, now);
        }
        if this.row.belfry.close() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
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

    #[tokio::test]
    async fn seats_are_spread_over_rows_and_an_empty_row_ends() {
        let tasks = TaskTracker::new();
        let mut rows = Rows::new(tasks.clone(), Clock::System);
        rows.side_by_side = 2;
        let mut seats: Vec<Seat> = (0..126).map(|_| rows.seat()).collect();
        assert_eq!(tasks.len(), 2);
        let last = rows.seat();
        assert_eq!((tasks.len(), last.row.belfry.bells()), (3, 1));
        drop(last);
        // The third row is woken, sees that nobody sits there, and is over.
        while tasks.len() > 2 {
            tokio::task::yield_now().await;
        }
        seats.truncate(125);
        assert_eq!(rows.seat().row.belfry.bells(), 63, "a place is free again");
        drop(seats);
        tasks.close();
        tasks.wait().await;
        drop(rows.seat());
        assert_eq!(tasks.len(), 1, "a row that is over is not looked for");
    }
}
