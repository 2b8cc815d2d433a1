//! A queue of plain messages for one client, bounded in bytes; overflow is an answer.

use std::collections::VecDeque;

use bytes::Bytes;
use smallvec::SmallVec;

/// Messages of an application's own that wait for a receiver.
#[derive(Debug)]
pub struct Outbox {
    queue: VecDeque<Bytes>,
    bytes: usize,
    bytes_max: usize,
}

/// The client is too slow: the message was not queued. The sensible thing is to close the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl Outbox {
    /// An empty queue that holds at most `bytes_max` bytes. Each message counts
    /// [`Outbox::OVERHEAD`] more than its length, so that empty ones cannot pile up either.
    #[must_use]
    pub const fn new(bytes_max: usize) -> Self {
        Self {
            queue: VecDeque::new(),
            bytes: 0,
            bytes_max,
        }
    }

    /// What a queued message costs besides its text, in bytes.
    pub const OVERHEAD: usize = size_of::<Bytes>();

    /// Queues a message.
    ///
    /// # Errors
    /// [`Full`] if it does not fit.
    pub fn push(&mut self, message: Bytes) -> Result<(), Full> {
        let cost = message.len() + Self::OVERHEAD;
        if self.bytes + cost > self.bytes_max {
            return Err(Full);
        }
        self.bytes += cost;
        self.queue.push_back(message);
        Ok(())
    }

    /// Takes messages in order until their lengths reach `budget` bytes: at least one if there is
    /// any, and the last one may go beyond.
    pub fn take(&mut self, budget: usize) -> SmallVec<[Bytes; 2]> {
        let mut taken = SmallVec::new();
        let mut len = 0;
        while let Some(message) = self.queue.pop_front() {
            len += message.len();
            self.bytes -= message.len() + Self::OVERHEAD;
            taken.push(message);
            if len >= budget {
                break;
            }
        }
        if self.queue.is_empty() {
            // A burst that has passed shall not keep its memory.
            self.queue = VecDeque::new();
        }
        taken
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_leave_in_order_up_to_the_budget() {
        let mut outbox = Outbox::new(1024);
        for text in ["one", "two", "three"] {
            outbox.push(Bytes::from(text)).unwrap();
        }
        assert_eq!(outbox.take(4).as_slice(), ["one", "two"]);
        assert_eq!(outbox.take(0).as_slice(), ["three"]);
        assert!(outbox.take(10).is_empty() && outbox.is_empty());
    }

    #[test]
    fn overflow_is_told_and_loses_nothing_that_was_queued() {
        let mut outbox = Outbox::new(2 * (Outbox::OVERHEAD + 4));
        outbox.push(Bytes::from("1234")).unwrap();
        assert_eq!(outbox.push(Bytes::from("12345")), Err(Full));
        outbox.push(Bytes::from("5678")).unwrap();
        assert_eq!(outbox.push(Bytes::new()), Err(Full));
        assert_eq!(outbox.take(usize::MAX).len(), 2);
        outbox.push(Bytes::from("again")).unwrap();
    }
}
