//! The report as one page: style, tables and drawings inside, nothing fetched.

use std::fmt::Write;

use crate::metrics::{METRICS, Unit};

use super::svg::{self, escaped};
use super::{Focus, Report};

pub(crate) const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1c2430;--dim:#5b6675;--line:#d9dee6;--page:#fff;--bad:#b3261e;--good:#1a7f43}\
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ee;--dim:#9aa5b4;--line:#333c49;--page:#12161c;--bad:#ff8a80;--good:#6fd69a}}\
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);max-width:920px;margin:2rem auto;padding:0 1rem}\
h1{font-size:1.5rem;margin-bottom:.2rem}h2{font-size:1.1rem;margin-top:2.2rem}\
table{border-collapse:collapse;width:100%;font-size:.92rem}\
td,th{padding:.28rem .6rem;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}\
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}td.dim{color:var(--dim)}\
.held{color:var(--good)}.broken{color:var(--bad);font-weight:600}\
svg{width:100%;height:auto;font:12px system-ui,sans-serif}svg text{fill:var(--ink)}\
svg .left{text-anchor:end}svg .bottom{text-anchor:middle}svg .grid{stroke:var(--line)}";

/// The whole page.
pub(super) fn page(report: &Report) -> String {
    let mut out = String::new();
    let title = escaped(&format!("Load test: {}", report.command));
    let verdict = if report.judged.is_empty() {
        String::new()
    } else if report.held() {
        "<p class=\"held\">Every expectation was held.</p>".to_owned()
    } else {
        "<p class=\"broken\">Not every expectation was held.</p>".to_owned()
    };
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title}</title><style>{STYLE}</style></head>\n<body>\n<h1>{title}</h1>\n{verdict}\n"
    );
    judgements(&mut out, report);
    plots(&mut out, report);
    by_transport(&mut out, report);
    metrics(&mut out, report);
    parameters(&mut out, report);
    if !report.complaints.is_empty() {
        out.push_str("<h2>Heard from the server or the network</h2>\n<ul>\n");
        for complaint in &report.complaints {
            let _ = writeln!(out, "<li>{}</li>", escaped(complaint));
        }
        out.push_str("</ul>\n");
    }
    out.push_str("</body>\n</html>\n");
    out
}

fn judgements(out: &mut String, report: &Report) {
    if report.judged.is_empty() {
        return;
    }
    out.push_str("<table>\n<tr><th>expected</th><th class=\"n\">measured</th><th></th></tr>\n");
    for judged in &report.judged {
        let (class, word) = if judged.held {
            ("held", "held")
        } else {
            ("broken", "not held")
        };
        let _ = writeln!(
            out,
            "<tr><td>{}</td><td class=\"n\">{}</td><td class=\"{class}\">{word}</td></tr>",
            escaped(&judged.expectation.to_string()),
            escaped(&judged.measured())
        );
    }
    out.push_str("</table>\n");
}

fn plots(out: &mut String, report: &Report) {
    for series in &report.series {
        let _ = write!(
            out,
            "<h2>{}</h2>\n{}\n",
            escaped(series.title),
            svg::over_time(series.title, series.unit, &series.points)
        );
    }
    if let Some((_, latencies)) = report.curves.first() {
        let what = match report.focus {
            Focus::Latency => "Latency",
            Focus::Setup => "Time to the first message",
        };
        let _ = write!(
            out,
            "<h2>{what}, by percentile</h2>\n{}\n<h2>{what}, distribution</h2>\n{}\n",
            svg::percentiles(&report.curves),
            svg::histogram(latencies)
        );
    }
}

fn by_transport(out: &mut String, report: &Report) {
    let transports = report.transports();
    if transports.is_empty() {
        return;
    }
    out.push_str("<h2>Transports compared</h2>\n");
    let curves = &report.curves[1..];
    let groups: Vec<_> = curves
        .iter()
        .map(|(name, curve)| {
            (
                name.clone(),
                vec![curve.quantile(0.5), curve.quantile(0.99)],
            )
        })
        .collect();
    out.push_str(&svg::bars(
        "latency of each transport",
        Unit::Seconds,
        &["p50", "p99"],
        &groups,
    ));
    let columns = [
        "deliveries",
        "p50",
        "p99",
        "max",
        "setup_p50",
        "lost",
        "bytes_per_delivery",
    ];
    out.push_str("\n<table>\n<tr><th>transport</th>");
    for column in columns {
        let _ = write!(out, "<th class=\"n\">{column}</th>");
    }
    out.push_str("</tr>\n");
    for transport in transports {
        let _ = write!(out, "<tr><td>{}</td>", escaped(transport));
        for column in columns {
            let _ = write!(
                out,
                "<td class=\"n\">{}</td>",
                escaped(&report.shown(transport, column))
            );
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</table>\n");
}

fn metrics(out: &mut String, report: &Report) {
    out.push_str("<h2>Measured</h2>\n<table>\n");
    for (name, unit, meaning, value) in report.metrics.overall() {
        debug_assert!(METRICS.iter().any(|(known, ..)| *known == name));
        let _ = writeln!(
            out,
            "<tr><td>{name}</td><td class=\"n\">{}</td><td class=\"dim\">{}</td></tr>",
            escaped(&unit.show(value)),
            escaped(meaning)
        );
    }
    out.push_str("</table>\n");
}

fn parameters(out: &mut String, report: &Report) {
    out.push_str("<h2>How it was run</h2>\n<table>\n");
    for (name, value) in &report.parameters {
        let _ = writeln!(
            out,
            "<tr><td>{}</td><td>{}</td></tr>",
            escaped(name),
            escaped(value)
        );
    }
    out.push_str("</table>\n");
}
