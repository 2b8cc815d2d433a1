//! The growth curves as one page, and as a few lines of text.

use std::fmt::Write;

use super::Curve;
use crate::report::html::STYLE;
use crate::report::svg;
use crate::report::svg::escaped;

/// One line a curve.
pub(super) fn text(curves: &[Curve]) -> String {
    let mut out = String::new();
    for curve in curves {
        let points = curve.points.iter().map(|(size, cost)| {
            format!(
                "{} at {}",
                curve.unit.show(*cost),
                curve.size_unit.show(*size)
            )
        });
        let points: Vec<_> = points.collect();
        let _ = writeln!(
            out,
            "{}: {} ({})",
            curve.title,
            verdict(curve),
            points.join(", ")
        );
    }
    out
}

fn verdict(curve: &Curve) -> String {
    let word = if curve.holds() {
        "linear or better"
    } else {
        "WORSE THAN LINEAR"
    };
    format!("{word}, power {:.2}", curve.power())
}

/// The whole page; it fetches nothing.
pub(super) fn page(curves: &[Curve]) -> String {
    let mut out = String::new();
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <title>Growth</title><style>{STYLE}</style></head>\n<body>\n<h1>Growth</h1>\n\
         <p>A total may grow with the size (power 1), a cost of each may not (power 0).</p>\n"
    );
    for curve in curves {
        let class = if curve.holds() { "held" } else { "broken" };
        let _ = write!(
            out,
            "<h2>{}</h2>\n<p class=\"{class}\">{}</p>\n{}\n<table>\n<tr><th class=\"n\">{}</th><th class=\"n\">cost</th></tr>\n",
            escaped(curve.title),
            escaped(&verdict(curve)),
            svg::growth(curve.title, curve.size_unit, curve.unit, &curve.points),
            escaped(curve.size)
        );
        for (size, cost) in &curve.points {
            let _ = writeln!(
                out,
                "<tr><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
                escaped(&curve.size_unit.show(*size)),
                escaped(&curve.unit.show(*cost))
            );
        }
        out.push_str("</table>\n");
    }
    out.push_str("</body>\n</html>\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Unit;

    fn curve(power_max: f64, points: &[(f64, f64)]) -> Curve {
        Curve {
            title: "memory of <hosts>",
            size: "hosts",
            size_unit: Unit::Count,
            unit: Unit::Bytes,
            power_max,
            points: points.to_vec(),
        }
    }

    #[test]
    fn a_curve_is_judged_by_the_power_of_its_growth() {
        let squares = curve(1.0, &[(1.0, 1.0), (10.0, 100.0)]);
        assert!((squares.power() - 2.0).abs() < 1e-9 && !squares.holds());
        assert!(curve(1.0, &[(1.0, 7.0), (10.0, 70.0)]).holds());
        assert!(!curve(0.0, &[(1.0, 7.0), (10.0, 70.0)]).holds());
        assert!(curve(0.0, &[(10.0, 7.0)]).holds());
    }

    #[test]
    fn the_page_fetches_nothing_and_escapes_what_it_shows() {
        let page = page(&[curve(1.0, &[(10.0, 7.0), (100.0, 80.0)])]);
        assert!(page.contains("memory of &lt;hosts&gt;") && page.contains("<svg"));
        assert!(!page.contains("http") && !page.contains("<script"));
    }
}
