//! The numbers a run ends with: their names, units and meaning, and how they come out of the counts.

use std::collections::BTreeMap;

use crate::stats::{Book, Latencies, Sheet};
use crate::units::{bytes, count, duration, show_bytes, show_number, show_seconds};

/// What a metric measures, so that it can be read and shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Seconds,
    Bytes,
    Count,
    PerSecond,
}

impl Unit {
    pub(crate) fn show(self, value: f64) -> String {
        match self {
            Unit::Seconds => show_seconds(value),
            Unit::Bytes => show_bytes(value),
            Unit::Count => show_number(value),
            Unit::PerSecond => format!("{}/s", show_number(value)),
        }
    }

    /// Reads a value of this unit.
    pub(crate) fn read(self, text: &str) -> Result<f64, String> {
        match self {
            Unit::Seconds => duration(text).map(|value| value.as_secs_f64()),
            Unit::Bytes => bytes(text).map(|value| value as f64),
            Unit::PerSecond => {
                let text = text.strip_suffix("/s").unwrap_or(text);
                count(text).map(|value| value as f64)
            }
            Unit::Count => match text.trim().parse() {
                Ok(value) => Ok(value),
                Err(_) => count(text).map(|value| value as f64),
            },
        }
    }
}

/// Every metric there is: name, unit, meaning.
pub(crate) const METRICS: [(&str, Unit, &str); 45] = [
    (
        "deliveries",
        Unit::Count,
        "results received, over all viewers",
    ),
    (
        "deliveries_per_s",
        Unit::PerSecond,
        "deliveries from the first POST to the last receipt",
    ),
    ("results", Unit::Count, "answers that the server took"),
    (
        "results_per_s",
        Unit::PerSecond,
        "answers taken, from the first POST to the last",
    ),
    (
        "bytes_per_delivery",
        Unit::Bytes,
        "message bytes of a delivery",
    ),
    (
        "deliveries_per_read",
        Unit::Count,
        "results one read of a viewer brought",
    ),
    (
        "p50",
        Unit::Seconds,
        "latency from the intended POST to the receipt, median",
    ),
    ("p90", Unit::Seconds, "the same, 90th percentile"),
    ("p99", Unit::Seconds, "the same, 99th percentile"),
    ("p999", Unit::Seconds, "the same, 99.9th percentile"),
    ("max", Unit::Seconds, "the same, maximum"),
    ("mean", Unit::Seconds, "the same, mean"),
    (
        "catch_up_p50",
        Unit::Seconds,
        "latency of what viewers missed while away, median",
    ),
    ("catch_up_p99", Unit::Seconds, "the same, 99th percentile"),
    ("catch_up_max", Unit::Seconds, "the same, maximum"),
    (
        "lost",
        Unit::Count,
        "results taken that a viewer never received",
    ),
    ("duplicates", Unit::Count, "results received again"),
    (
        "misordered",
        Unit::Count,
        "results whose position is not the next",
    ),
    (
        "malformed",
        Unit::Count,
        "messages that are not what was sent",
    ),
    (
        "premature",
        Unit::Count,
        "status messages that claim unsent results",
    ),
    ("errors", Unit::Count, "error messages of the stream"),
    (
        "closed",
        Unit::Count,
        "connections of viewers that the server ended",
    ),
    (
        "refused",
        Unit::Count,
        "attempts of viewers to connect that failed",
    ),
    ("given_up", Unit::Count, "viewers that gave up"),
    ("resumed", Unit::Count, "times a viewer came back"),
    (
        "setup_p50",
        Unit::Seconds,
        "from connecting to the first message, median",
    ),
    ("setup_p99", Unit::Seconds, "the same, 99th percentile"),
    ("setup_max", Unit::Seconds, "the same, maximum"),
    (
        "setups_per_s",
        Unit::PerSecond,
        "viewers that became ready a second",
    ),
    (
        "post_p50",
        Unit::Seconds,
        "from the intended POST to its reply, median",
    ),
    ("post_p99", Unit::Seconds, "the same, 99th percentile"),
    ("post_max", Unit::Seconds, "the same, maximum"),
    (
        "posts_refused",
        Unit::Count,
        "answers that the server did not take",
    ),
    (
        "post_retries",
        Unit::Count,
        "requests with answers that had to be sent again",
    ),
    (
        "cpu_per_delivery",
        Unit::Seconds,
        "CPU time of the server per delivery",
    ),
    (
        "client_cpu_per_delivery",
        Unit::Seconds,
        "CPU time of this program per delivery",
    ),
    (
        "rss_per_viewer",
        Unit::Bytes,
        "resident memory of the server per idle viewer",
    ),
    (
        "rss_growth",
        Unit::Bytes,
        "resident memory of the server, end minus start",
    ),
    ("checkins", Unit::Count, "check-ins of agents"),
    (
        "checkins_per_s",
        Unit::PerSecond,
        "check-ins of agents a second",
    ),
    (
        "checkin_p50",
        Unit::Seconds,
        "from a check-in's due time to its reply, median",
    ),
    ("checkin_p99", Unit::Seconds, "the same, 99th percentile"),
    ("checkin_max", Unit::Seconds, "the same, maximum"),
    ("agent_errors", Unit::Count, "agents' requests that failed"),
    (
        "cpu_per_checkin",
        Unit::Seconds,
        "CPU time of the server per check-in",
    ),
];

/// The unit of a metric; names may have a transport before them, as in `raw.p99`.
pub(crate) fn unit(name: &str) -> Option<Unit> {
    let bare = match name.split_once('.') {
        Some((transport, bare)) => {
            crate::transport::Transport::named(transport)?;
            bare
        }
        None => name,
    };
    let found = METRICS.iter().find(|(known, ..)| *known == bare);
    found.map(|(_, unit, _)| *unit)
}

/// Measured values by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    pub(crate) fn set(&mut self, name: &str, value: f64) {
        debug_assert!(unit(name).is_some(), "{name}");
        self.0.insert(name.to_owned(), value);
    }

    pub(crate) fn get(&self, name: &str) -> Option<f64> {
        self.0.get(name).copied()
    }

    /// The measured values without a transport's name, in the order of [`METRICS`].
    pub(crate) fn overall(&self) -> Vec<(&'static str, Unit, &'static str, f64)> {
        let known = METRICS.iter();
        known
            .filter_map(|(name, unit, meaning)| {
                self.get(name).map(|value| (*name, *unit, *meaning, value))
            })
            .collect()
    }

    pub(crate) fn all(&self) -> &BTreeMap<String, f64> {
        &self.0
    }

    /// Quantiles under `prefix`: `""` gives `p50`…, `"setup_"` gives `setup_p50`….
    pub(crate) fn latencies(&mut self, prefix: &str, latencies: &Latencies) {
        if latencies.count() == 0 {
            return;
        }
        let quantiles = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999)];
        for (name, share) in quantiles {
            self.set_known(&format!("{prefix}{name}"), latencies.quantile(share));
        }
        self.set_known(&format!("{prefix}max"), latencies.max());
        self.set_known(&format!("{prefix}mean"), latencies.mean());
    }

    /// Sets a value if there is such a metric.
    fn set_known(&mut self, name: &str, value: f64) {
        if unit(name).is_some() {
            self.set(name, value);
        }
    }

    /// All that viewers found: overall, and for each transport.
    pub(crate) fn viewers(&mut self, book: &Book) {
        self.sheet("", &book.total());
        for (transport, sheet) in book.sheets() {
            self.sheet(&format!("{transport}."), sheet);
        }
    }

    fn sheet(&mut self, prefix: &str, sheet: &Sheet) {
        self.latencies(prefix, &sheet.latency);
        self.latencies(&format!("{prefix}catch_up_"), &sheet.catch_up);
        self.latencies(&format!("{prefix}setup_"), &sheet.setup);
        let faults = sheet.faults;
        let counts = [
            ("deliveries", sheet.deliveries),
            ("lost", sheet.lost),
            ("duplicates", faults.duplicates),
            ("misordered", faults.misordered),
            ("malformed", faults.malformed),
            ("premature", faults.premature),
            ("errors", faults.errors),
            ("closed", faults.closed),
            ("refused", faults.refused),
            ("resumed", sheet.resumed),
        ];
        for (name, value) in counts {
            self.set(&format!("{prefix}{name}"), value as f64);
        }
        if sheet.deliveries > 0 {
            let deliveries = sheet.deliveries as f64;
            self.set(
                &format!("{prefix}bytes_per_delivery"),
                sheet.bytes as f64 / deliveries,
            );
            let reads = sheet.reads.max(1) as f64;
            self.set(&format!("{prefix}deliveries_per_read"), deliveries / reads);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::Transport;

    #[test]
    fn metrics_come_overall_and_by_transport() {
        let mut book = Book::default();
        for (transport, millis) in [(Transport::Raw, 1), (Transport::Xhr, 9)] {
            let sheet = book.sheet(transport);
            sheet.latency.record_ns(millis * 1_000_000);
            sheet.deliveries = 1;
            sheet.bytes = 400;
        }
        let mut metrics = Metrics::default();
        metrics.viewers(&book);
        assert_eq!(metrics.get("deliveries"), Some(2.0));
        assert_eq!(metrics.get("bytes_per_delivery"), Some(400.0));
        assert!((metrics.get("xhr.p99").unwrap() - 0.009).abs() < 1e-4);
        assert!((metrics.get("max").unwrap() - 0.009).abs() < 1e-4);
        assert_eq!(metrics.get("catch_up_p99"), None);
        assert_eq!(metrics.overall()[0].0, "deliveries");
    }

    #[test]
    fn every_metric_has_one_name_and_reads_its_unit() {
        let mut names: Vec<_> = METRICS.iter().map(|(name, ..)| *name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), METRICS.len());
        assert_eq!(unit("raw.p99"), Some(Unit::Seconds));
        assert_eq!(unit("shoe.p99"), None);
        assert_eq!(Unit::PerSecond.read("1.5M/s"), Ok(1_500_000.0));
        assert_eq!(Unit::Count.read("1.5"), Ok(1.5));
        assert_eq!(Unit::Seconds.show(0.05), "50 ms");
    }
}
