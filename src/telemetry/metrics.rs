//! The metrics by name, and the recorder that renders them as Prometheus text.

use metrics::Unit;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

/// What a metric does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Is observed.
    Histogram,
}

pub use answerback_base::names;

/// One row of [`METRICS`].
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// From [`names`].
    pub name: &'static str,
    /// What it does.
    pub kind: Kind,
    /// What it counts in.
    pub unit: Unit,
    /// What it says, with its labels.
    pub text: &'static str,
}

const fn metric(name: &'static str, kind: Kind, unit: Unit, text: &'static str) -> Metric {
    Metric {
        name,
        kind,
        unit,
        text,
    }
}

/// Every metric there is.
pub const METRICS: [Metric; 22] = {
    use Kind::{Counter, Gauge, Histogram};
    use names as n;
    [
        metric(
            n::CONNECTIONS,
            Gauge,
            Unit::Count,
            "connections alive, upgraded ones included",
        ),
        metric(
            n::CONNECTIONS_DROPPED,
            Counter,
            Unit::Count,
            "connections that ended without a request; reason",
        ),
        metric(
            n::REQUESTS,
            Counter,
            Unit::Count,
            "requests answered; face, status",
        ),
        metric(
            n::REQUEST_SECONDS,
            Histogram,
            Unit::Seconds,
            "time to a response's head; face",
        ),
        metric(
            n::BODIES_REFUSED,
            Counter,
            Unit::Count,
            "request bodies refused; reason",
        ),
        metric(
            n::LIMITED,
            Counter,
            Unit::Count,
            "turned away by a limit; limit",
        ),
        metric(
            n::SESSIONS,
            Gauge,
            Unit::Count,
            "viewers' sessions alive; transport",
        ),
        metric(
            n::SESSIONS_OPENED,
            Counter,
            Unit::Count,
            "viewers' sessions opened; transport",
        ),
        metric(
            n::SESSIONS_CLOSED,
            Counter,
            Unit::Count,
            "viewers' sessions ended; transport, reason",
        ),
        metric(
            n::SESSION_BYTES,
            Counter,
            Unit::Bytes,
            "bytes written to viewers; transport",
        ),
        metric(
            n::SESSION_MESSAGES,
            Counter,
            Unit::Count,
            "messages written to viewers; transport",
        ),
        metric(
            n::RELAYED,
            Counter,
            Unit::Count,
            "requests for sessions of other nodes; outcome",
        ),
        metric(
            n::CAMPAIGNS,
            Gauge,
            Unit::Count,
            "campaigns that are not complete; status",
        ),
        metric(
            n::RESULTS,
            Counter,
            Unit::Count,
            "answers from agents; outcome",
        ),
        metric(
            n::CAMPAIGNS_DAMAGED,
            Counter,
            Unit::Count,
            "campaigns whose record or file was damaged at a start",
        ),
        metric(
            n::ANSWERS_UNREADABLE,
            Counter,
            Unit::Count,
            "answers whose rows could not be read, shown as failed",
        ),
        metric(
            n::AGENT_ITEMS_OMITTED,
            Counter,
            Unit::Count,
            "answers and log lines too large or broken to be taken from a body",
        ),
        metric(
            n::LOG_LINES_DROPPED,
            Counter,
            Unit::Count,
            "lines of osquery's log that could not be read",
        ),
        metric(
            n::APPEND_SECONDS,
            Histogram,
            Unit::Seconds,
            "time the store takes for an answer",
        ),
        metric(
            n::LOG_BYTES,
            Gauge,
            Unit::Bytes,
            "memory that campaign logs hold",
        ),
        metric(
            n::STORE_WRITABLE,
            Gauge,
            Unit::Count,
            "1 while the store takes writes, 0 while it does not",
        ),
        metric(
            n::STORE_ERRORS,
            Counter,
            Unit::Count,
            "errors of the store; operation",
        ),
    ]
};

/// From a tenth of a millisecond to ten seconds.
const SECONDS_BUCKETS: [f64; 16] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];

/// Why metrics could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// The buckets or names were refused.
    #[error("metrics recorder cannot be built")]
    Build(#[source] BuildError),
    /// Another recorder is installed in this process.
    #[error("another metrics recorder is installed already")]
    Taken,
}

/// The installed recorder.
///
/// Its histograms grow between two renders, so the owner calls [`Metrics::upkeep`] every few seconds
/// whether or not anybody scrapes.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

impl Metrics {
    /// Makes the recorder of this process, without a listener of its own.
    ///
    /// # Errors
    /// [`MetricsError::Taken`] the second time.
    pub fn install() -> Result<Self, MetricsError> {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS_BUCKETS)
            .map_err(MetricsError::Build)?
            .build_recorder();
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).map_err(|_| MetricsError::Taken)?;
        for Metric {
            name,
            kind,
            unit,
            text,
        } in METRICS
        {
            match kind {
                Kind::Counter => metrics::describe_counter!(name, unit, text),
                Kind::Gauge => metrics::describe_gauge!(name, unit, text),
                Kind::Histogram => metrics::describe_histogram!(name, unit, text),
            }
        }
        Ok(Self(handle))
    }

    /// What a scrape is answered, `text/plain; version=0.0.4`.
    #[must_use]
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Folds what was observed since the last call into the buckets.
    pub fn upkeep(&self) {
        self.0.run_upkeep();
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Metrics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recorder_renders_described_metrics_and_is_installed_once() {
        let metrics = Metrics::install().unwrap();
        assert!(matches!(Metrics::install(), Err(MetricsError::Taken)));
        metrics::counter!(names::LIMITED, "limit" => "test").increment(3);
        metrics::histogram!(names::APPEND_SECONDS).record(0.002);
        metrics.upkeep();
        let text = metrics.render();
        assert!(text.contains("# HELP answerback_limited_total turned away by a limit; limit"));
        assert!(text.contains("answerback_limited_total{limit=\"test\"} 3"));
        assert!(text.contains("answerback_append_seconds_bucket{le=\"0.0025\"} 1"));
    }

    #[test]
    fn counters_end_in_total_and_every_name_is_ours() {
        for Metric { name, kind, .. } in METRICS {
            assert!(name.starts_with("answerback_"), "{name}");
            assert_eq!(name.ends_with("_total"), kind == Kind::Counter, "{name}");
            assert_eq!(
                name.ends_with("_seconds"),
                kind == Kind::Histogram,
                "{name}"
            );
        }
    }
}
