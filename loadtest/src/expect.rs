//! What a run is expected to keep: `p99<50ms`, read from the command line and judged at the end.

use std::fmt;
use std::str::FromStr;

use crate::metrics::{METRICS, Metrics, Unit, unit};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Less,
    AtMost,
    More,
    AtLeast,
    Equal,
}

/// One expectation.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Expectation {
    pub(crate) metric: String,
    comparison: Comparison,
    bound: f64,
    unit: Unit,
}

/// What became of an expectation.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Judged {
    pub(crate) expectation: Expectation,
    /// The value measured; none if the run did not measure it, which is not held.
    pub(crate) actual: Option<f64>,
    pub(crate) held: bool,
}

impl FromStr for Expectation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let signs = [
            ("<=", Comparison::AtMost),
            (">=", Comparison::AtLeast),
            ("==", Comparison::Equal),
            ("<", Comparison::Less),
            (">", Comparison::More),
            ("=", Comparison::Equal),
        ];
        let found = signs
            .iter()
            .find_map(|(sign, comparison)| text.split_once(sign).map(|parts| (parts, *comparison)));
        let ((metric, bound), comparison) =
            found.ok_or_else(|| format!("{text}: write it like p99<50ms or lost=0"))?;
        let metric = metric.trim();
        let unit = unit(metric).ok_or_else(|| {
            let known: Vec<_> = METRICS.iter().map(|(name, ..)| *name).collect();
            format!("{metric}: no such metric (known: {})", known.join(", "))
        })?;
        Ok(Self {
            metric: metric.to_owned(),
            comparison,
            bound: unit.read(bound.trim())?,
            unit,
        })
    }
}

impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.comparison {
            Comparison::Less => "<",
            Comparison::AtMost => "<=",
            Comparison::More => ">",
            Comparison::AtLeast => ">=",
            Comparison::Equal => "=",
        };
        write!(f, "{} {sign} {}", self.metric, self.unit.show(self.bound))
    }
}

impl Expectation {
    fn judge(&self, metrics: &Metrics) -> Judged {
        let actual = metrics.get(&self.metric);
        let held = actual.is_some_and(|actual| match self.comparison {
            Comparison::Less => actual < self.bound,
            Comparison::AtMost => actual <= self.bound,
            Comparison::More => actual > self.bound,
            Comparison::AtLeast => actual >= self.bound,
            Comparison::Equal => (actual - self.bound).abs() < f64::EPSILON,
        });
        Judged {
            expectation: self.clone(),
            actual,
            held,
        }
    }
}

impl Judged {
    /// The measured value in words.
    pub(crate) fn measured(&self) -> String {
        self.actual.map_or_else(
            || "not measured".to_owned(),
            |actual| self.expectation.unit.show(actual),
        )
    }
}

/// What every run with viewers must keep unless told otherwise: each result once, in order, whole.
const ALWAYS: [&str; 6] = [
    "lost",
    "duplicates",
    "misordered",
    "malformed",
    "premature",
    "given_up",
];

/// Judges what was asked, and what goes without saying if `viewers` took part.
pub(crate) fn judge(asked: &[Expectation], viewers: bool, metrics: &Metrics) -> Vec<Judged> {
    let silent = ALWAYS
        .iter()
        .filter(|name| viewers && !asked.iter().any(|expectation| expectation.metric == **name));
    let silent = silent.map(|name| Expectation {
        metric: (*name).to_owned(),
        comparison: Comparison::Equal,
        bound: 0.0,
        unit: Unit::Count,
    });
    let all: Vec<Expectation> = asked.iter().cloned().chain(silent).collect();
    all.iter()
        .map(|expectation| expectation.judge(metrics))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(text: &str, value: f64) -> bool {
        let expectation: Expectation = text.parse().unwrap();
        let mut metrics = Metrics::default();
        metrics.set(&expectation.metric, value);
        expectation.judge(&metrics).held
    }

    #[test]
    fn expectations_are_read_with_their_units() {
        assert!(held("p99<50ms", 0.0499));
        assert!(!held("p99<50ms", 0.05));
        assert!(held("raw.p99 <= 50ms", 0.05));
        assert!(held("deliveries_per_s>1M", 1_000_001.0));
        assert!(held("deliveries_per_s >= 1M/s", 1_000_000.0));
        assert!(held("lost=0", 0.0) && !held("lost==0", 1.0));
        assert!(held("cpu_per_delivery<0.5us", 4e-7));
        assert!(held("rss_per_viewer<4KiB", 4095.0));
        assert_eq!(
            "p99<50ms".parse::<Expectation>().unwrap().to_string(),
            "p99 < 50 ms"
        );
    }

    #[test]
    fn nonsense_is_refused_with_the_reason() {
        let error = |text: &str| text.parse::<Expectation>().unwrap_err();
        assert!(error("p99").contains("like p99<50ms"));
        assert!(error("shoe<1").contains("no such metric"));
        assert!(error("p99<soon").contains("number"));
        assert!(error("p99<5KiB").contains("duration"));
        assert!(error("shoe.p99<5ms").contains("no such metric"));
    }

    #[test]
    fn what_goes_without_saying_can_be_said_otherwise() {
        let mut metrics = Metrics::default();
        for name in ALWAYS {
            metrics.set(name, 0.0);
        }
        metrics.set("lost", 3.0);
        assert!(!judge(&[], true, &metrics).iter().all(|judged| judged.held));
        let asked = ["lost<5".parse().unwrap()];
        let judged = judge(&asked, true, &metrics);
        assert!(judged.iter().all(|judged| judged.held));
        assert_eq!(judged.len(), ALWAYS.len());
        assert!(judge(&[], false, &metrics).is_empty());
    }

    #[test]
    fn what_was_not_measured_is_not_held() {
        let asked = ["cpu_per_delivery<1s".parse().unwrap()];
        let judged = judge(&asked, false, &Metrics::default());
        assert!(!judged[0].held);
        assert_eq!(judged[0].measured(), "not measured");
    }
}
