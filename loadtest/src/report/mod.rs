//! The end of a run: a table for people, JSON for programs, a page for keeping.

pub(crate) mod html;
pub(crate) mod svg;

use std::fmt::Write;

use serde_json::{Map, Value, json};

use crate::expect::{Expectation, Judged, judge};
use crate::metrics::{METRICS, Metrics};
use crate::stats::{Book, Latencies, Sheet};

/// Something that was measured over time.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub(crate) title: &'static str,
    pub(crate) unit: crate::metrics::Unit,
    /// Seconds since the start, and the value.
    pub(crate) points: Vec<(f64, f64)>,
}

/// What a run's distributions are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Focus {
    /// From POST to receipt.
    Latency,
    /// From connecting to the first message.
    Setup,
}

/// A run and what it found.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) command: &'static str,
    pub(crate) focus: Focus,
    pub(crate) parameters: Vec<(&'static str, String)>,
    pub(crate) metrics: Metrics,
    /// Named latency distributions, the most important one first.
    pub(crate) curves: Vec<(String, Latencies)>,
    pub(crate) series: Vec<Series>,
    pub(crate) judged: Vec<Judged>,
    pub(crate) complaints: Vec<String>,
}

impl Report {
    /// A report on viewers: metrics and curves from their book, judged by `expected`.
    pub(crate) fn on_viewers(
        command: &'static str,
        focus: Focus,
        book: &Book,
        mut metrics: Metrics,
        expected: &[Expectation],
    ) -> Self {
        metrics.viewers(book);
        let total = book.total();
        let sheets = book.sheets();
        let latency_of = |sheet: &Sheet| match focus {
            Focus::Latency => sheet.latency.clone(),
            Focus::Setup => sheet.setup.clone(),
        };
        let mut curves = vec![("all".to_owned(), latency_of(&total))];
        if sheets.len() > 1 {
            curves.extend(
                sheets
                    .iter()
                    .map(|(kind, sheet)| (kind.to_string(), latency_of(sheet))),
            );
        }
        let judged = judge(expected, true, &metrics);
        Self {
            command,
            focus,
            parameters: Vec::new(),
            metrics,
            curves,
            series: Vec::new(),
            judged,
            complaints: book.complaints.clone(),
        }
    }

    /// Whether every expectation held.
    pub(crate) fn held(&self) -> bool {
        self.judged.iter().all(|judged| judged.held)
    }

    /// Transports that have metrics of their own, if there is more than one.
    fn transports(&self) -> Vec<&str> {
        let names = self.curves.iter().skip(1).map(|(name, _)| name.as_str());
        names.collect()
    }

    /// The table for a terminal.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let rule = "─".repeat(78);
        let _ = writeln!(text, "{}\n{rule}", self.command);
        for (name, value) in &self.parameters {
            let _ = writeln!(text, "{name:<26} {value}");
        }
        let _ = writeln!(text, "{rule}");
        for (name, unit, meaning, value) in self.metrics.overall() {
            let _ = writeln!(text, "{name:<24} {:>14}  {meaning}", unit.show(value));
        }
        self.text_by_transport(&mut text, &rule);
        if !self.complaints.is_empty() {
            let _ = writeln!(text, "{rule}\nHeard from the server or the network:");
            for complaint in &self.complaints {
                let _ = writeln!(text, "  {complaint}");
            }
        }
        if !self.judged.is_empty() {
            let _ = writeln!(text, "{rule}");
            for judged in &self.judged {
                let verdict = if judged.held { "held    " } else { "NOT HELD" };
                let expectation = judged.expectation.to_string();
                let measured = match judged.actual {
                    Some(_) => format!("measured {}", judged.measured()),
                    None => judged.measured(),
                };
                let _ = writeln!(text, "{verdict}  {expectation:<34} {measured}");
            }
        }
        text
    }

    fn text_by_transport(&self, text: &mut String, rule: &str) {
        let transports = self.transports();
        if transports.is_empty() {
            return;
        }
        let columns = [
            "deliveries",
            "p50",
            "p99",
            "max",
            "setup_p99",
            "lost",
            "bytes_per_delivery",
        ];
        let _ = write!(text, "{rule}\n{:<14}", "transport");
        for column in columns {
            let _ = write!(text, " {:>11}", column.trim_end_matches("_per_delivery"));
        }
        let _ = writeln!(text);
        for transport in transports {
            let _ = write!(text, "{transport:<14}");
            for column in columns {
                let shown = self.shown(transport, column);
                let _ = write!(text, " {shown:>11}");
            }
            let _ = writeln!(text);
        }
    }

    /// A transport's metric in words.
    fn shown(&self, transport: &str, metric: &str) -> String {
        let known = METRICS.iter().find(|(name, ..)| *name == metric);
        let value = self.metrics.get(&format!("{transport}.{metric}"));
        match (known, value) {
            (Some((_, unit, _)), Some(value)) => unit.show(value),
            _ => "–".to_owned(),
        }
    }

    /// The report as one JSON object. Durations are seconds, sizes bytes.
    pub(crate) fn json(&self) -> Value {
        let parameters: Map<String, Value> = self
            .parameters
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone().into()))
            .collect();
        let expectations: Vec<Value> = self
            .judged
            .iter()
            .map(|judged| {
                json!({
                    "expectation": judged.expectation.to_string(),
                    "metric": judged.expectation.metric,
                    "actual": judged.actual,
                    "held": judged.held,
                })
            })
            .collect();
        let series: Vec<Value> = self
            .series
            .iter()
            .map(|series| json!({ "title": series.title, "points": series.points }))
            .collect();
        json!({
            "command": self.command,
            "parameters": parameters,
            "metrics": self.metrics.all(),
            "expectations": expectations,
            "held": self.held(),
            "series": series,
            "complaints": self.complaints,
        })
    }

    /// The report as a page that needs nothing else.
    pub(crate) fn html(&self) -> String {
        html::page(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Unit;
    use crate::transport::Transport;

    fn report() -> Report {
        let mut book = Book::default();
        for (transport, factor) in [(Transport::Raw, 1), (Transport::Xhr, 4)] {
            let sheet = book.sheet(transport);
            for at in 1..=2000_u64 {
                sheet.latency.record_ns(at * factor * 10_000);
                sheet.deliveries += 1;
            }
        }
        book.sheet(Transport::Xhr).lost = 2;
        book.complain("close <1000> \"bye\" & all".to_owned());
        let expected = [
            "p99<1s".parse().unwrap(),
            "cpu_per_delivery<1us".parse().unwrap(),
        ];
        let mut metrics = Metrics::default();
        metrics.set("given_up", 0.0);
        let mut report = Report::on_viewers("fanout", Focus::Latency, &book, metrics, &expected);
        report.parameters.push(("viewers", "2 <script>".to_owned()));
        report.series.push(Series {
            title: "deliveries a second",
            unit: Unit::PerSecond,
            points: (0..50)
                .map(|at| (f64::from(at) / 10.0, f64::from(at * 1000)))
                .collect(),
        });
        report
    }

    #[test]
    fn the_table_tells_metrics_transports_and_the_verdict() {
        let report = report();
        let text = report.text();
        assert!(text.contains("deliveries                        4,000"));
        assert!(text.contains("held      p99 < 1 s"));
        assert!(text.contains("NOT HELD  lost = 0"));
        assert!(text.contains("NOT HELD  cpu_per_delivery < 1 µs"));
        assert!(text.lines().any(|line| line.starts_with("xhr ")));
        assert!(!report.held());
    }

    #[test]
    fn json_holds_every_metric_and_judgement() {
        let json = report().json();
        assert_eq!(json["metrics"]["xhr.lost"], 2.0);
        assert_eq!(json["held"], false);
        assert_eq!(json["expectations"][0]["metric"], "p99");
        assert_eq!(json["series"][0]["points"].as_array().unwrap().len(), 50);
    }

    #[test]
    fn the_page_is_whole_offline_and_escapes_what_it_shows() {
        let page = report().html();
        assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
        assert!(page.matches("<svg").count() >= 4);
        assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
        assert!(!page.contains("http://") && !page.contains("https://"));
        assert!(!page.contains("<script"));
        assert!(page.contains("close &lt;1000&gt; &quot;bye&quot; &amp; all"));
        assert!(!page.contains("NaN") && !page.contains("inf"));
    }

    #[test]
    fn an_empty_run_still_gives_a_page() {
        let report = Report::on_viewers(
            "fanout",
            Focus::Latency,
            &Book::default(),
            Metrics::default(),
            &[],
        );
        let page = report.html();
        assert!(!page.contains("NaN") && !page.contains("inf\""));
        assert!(report.text().contains("NOT HELD"));
    }
}
