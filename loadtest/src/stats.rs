//! What is counted while a run is under way: live counters for everyone, sheets of each thread for the end.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use hdrhistogram::Histogram;
use tokio::sync::Notify;

use crate::tally::Faults;
use crate::transport::Transport;

/// Microseconds up to an hour, three digits.
const HIGHEST_US: u64 = 3_600_000_000;

/// A latency histogram in microseconds.
#[derive(Clone, Debug)]
pub(crate) struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1, HIGHEST_US, 3);
        // The bounds are constants that the crate accepts; the other branch is the widest there is.
        Self(histogram.unwrap_or_else(|_| Histogram::new_from(&wide())))
    }
}

/// A histogram that grows as it needs.
fn wide() -> Histogram<u64> {
    let mut digits = 3;
    loop {
        match Histogram::new(digits) {
            Ok(histogram) => return histogram,
            Err(_) => digits = 1,
        }
    }
}

impl Latencies {
    pub(crate) fn record_ns(&mut self, nanos: u64) {
        self.0.saturating_record((nanos / 1000).max(1));
    }

    pub(crate) fn add(&mut self, other: &Self) {
        // Only fails when the other's range is wider; all have the same.
        let _ = self.0.add(&other.0);
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// Seconds below which this share of all lie.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        self.0.value_at_quantile(share) as f64 / 1e6
    }

    /// The largest, in seconds.
    pub(crate) fn max(&self) -> f64 {
        if self.0.is_empty() {
            return 0.0;
        }
        self.0.max() as f64 / 1e6
    }

    /// The mean in seconds.
    pub(crate) fn mean(&self) -> f64 {
        self.0.mean() / 1e6
    }

    /// How many lie between two bounds in seconds.
    pub(crate) fn count_between(&self, low_s: f64, high_s: f64) -> u64 {
        let us = |seconds: f64| (seconds * 1e6).clamp(1.0, HIGHEST_US as f64) as u64;
        self.0
            .count_between(us(low_s), us(high_s).saturating_sub(1))
    }
}

/// What happened on one transport in one thread.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sheet {
    /// From the intended POST to the receipt, where the viewer was listening all the while.
    pub(crate) latency: Latencies,
    /// The same for what a viewer missed while it was away or stalled.
    pub(crate) catch_up: Latencies,
    /// From the start of connecting to the first message of the stream.
    pub(crate) setup: Latencies,
    pub(crate) viewers: u64,
    /// First results of a host, over all viewers.
    pub(crate) deliveries: u64,
    pub(crate) bytes: u64,
    /// Reads that brought at least one result.
    pub(crate) reads: u64,
    pub(crate) faults: Faults,
    pub(crate) lost: u64,
    /// Times a viewer came back.
    pub(crate) resumed: u64,
}

impl Sheet {
    pub(crate) fn add(&mut self, other: &Self) {
        self.latency.add(&other.latency);
        self.catch_up.add(&other.catch_up);
        self.setup.add(&other.setup);
        self.viewers += other.viewers;
        self.deliveries += other.deliveries;
        self.bytes += other.bytes;
        self.reads += other.reads;
        self.faults += other.faults;
        self.lost += other.lost;
        self.resumed += other.resumed;
    }
}

/// One sheet for each transport in use.
#[derive(Clone, Debug, Default)]
pub(crate) struct Book {
    sheets: Vec<(Transport, Sheet)>,
    /// What servers said when they refused, a few of it.
    pub(crate) complaints: Vec<String>,
    /// When the last result came.
    pub(crate) last_ns: u64,
}

/// How many different complaints are kept.
const COMPLAINTS_MAX: usize = 8;

impl Book {
    pub(crate) fn sheet(&mut self, transport: Transport) -> &mut Sheet {
        let at = self
            .sheets
            .iter()
            .position(|(other, _)| *other == transport);
        let at = at.unwrap_or_else(|| {
            self.sheets.push((transport, Sheet::default()));
            self.sheets.len() - 1
        });
        &mut self.sheets[at].1
    }

    pub(crate) fn complain(&mut self, text: String) {
        if self.complaints.len() < COMPLAINTS_MAX && !self.complaints.contains(&text) {
            self.complaints.push(text);
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (transport, sheet) in &other.sheets {
            self.sheet(*transport).add(sheet);
        }
        for complaint in &other.complaints {
            self.complain(complaint.clone());
        }
        self.last_ns = self.last_ns.max(other.last_ns);
    }

    /// The sheets in the order of the transports.
    pub(crate) fn sheets(&self) -> Vec<(Transport, &Sheet)> {
        let mut sheets: Vec<_> = self
            .sheets
            .iter()
            .map(|(kind, sheet)| (*kind, sheet))
            .collect();
        sheets.sort_by_key(|(kind, _)| *kind);
        sheets
    }

    pub(crate) fn total(&self) -> Sheet {
        let mut total = Sheet::default();
        for (_, sheet) in &self.sheets {
            total.add(sheet);
        }
        total
    }
}

/// What all threads see while the run is under way.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Viewers that heard their stream's first message, each round anew.
    pub(crate) ready: AtomicU64,
    /// Viewers that gave up.
    pub(crate) given_up: AtomicU64,
    /// First results of a host, over all viewers.
    pub(crate) delivered: AtomicU64,
    /// Viewers are no longer disturbed.
    pub(crate) calm: AtomicBool,
    /// Rings when the average viewer has got one result more.
    pub(crate) progress: Notify,
}

impl Counters {
    pub(crate) fn calm(&self) -> bool {
        self.calm.load(Ordering::Relaxed)
    }

    pub(crate) fn ready(&self) -> u64 {
        self.ready.load(Ordering::Relaxed)
    }

    pub(crate) fn given_up(&self) -> u64 {
        self.given_up.load(Ordering::Relaxed)
    }

    pub(crate) fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    /// Counts deliveries, and rings if they complete a result for the average of `viewers`.
    pub(crate) fn deliver(&self, count: u64, viewers: u64) {
        let before = self.delivered.fetch_add(count, Ordering::Relaxed);
        let viewers = viewers.max(1);
        if before / viewers != (before + count) / viewers {
            self.progress.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_come_back_in_seconds() {
        let mut latencies = Latencies::default();
        for millis in 1..=1000_u64 {
            latencies.record_ns(millis * 1_000_000);
        }
        assert!((latencies.quantile(0.5) - 0.5).abs() < 0.002);
        assert!((latencies.quantile(0.99) - 0.99).abs() < 0.002);
        assert!((latencies.max() - 1.0).abs() < 0.002);
        assert!((latencies.mean() - 0.5).abs() < 0.002);
        assert_eq!(latencies.count_between(0.0005, 0.1005), 100);
        assert_eq!(Latencies::default().max(), 0.0);
    }

    #[test]
    fn books_add_up_by_transport() {
        let mut one = Book::default();
        one.sheet(Transport::Xhr).deliveries = 3;
        let mut two = Book::default();
        two.sheet(Transport::Xhr).deliveries = 4;
        two.sheet(Transport::Raw).lost = 1;
        two.complain("no".to_owned());
        one.add(&two);
        one.add(&two);
        assert_eq!(one.total().deliveries, 11);
        assert_eq!(one.total().lost, 2);
        assert_eq!(one.complaints, ["no"]);
        assert_eq!(one.sheets()[0].0, Transport::Raw);
    }

    #[test]
    fn the_bell_rings_once_a_result_on_average() {
        let counters = Counters::default();
        counters.deliver(3, 4);
        let mut waiting = std::pin::pin!(counters.progress.notified());
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(std::future::Future::poll(waiting.as_mut(), &mut cx).is_pending());
        counters.deliver(1, 4);
        assert!(std::future::Future::poll(waiting.as_mut(), &mut cx).is_ready());
    }
}
