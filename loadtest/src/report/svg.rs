//! Plots drawn as SVG text: a series over time, latency curves, a histogram, bars. No scripts, no files beside.

use std::fmt::Write;

use crate::metrics::Unit;
use crate::stats::Latencies;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 86.0;
const RIGHT: f64 = 34.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 40.0;

/// Colours that are told apart also by the colour-blind (after Okabe and Ito).
const COLOURS: [&str; 7] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f",
];

fn colour(at: usize) -> &'static str {
    COLOURS[at % COLOURS.len()]
}

/// Maps values onto a span of the drawing.
#[derive(Clone, Copy)]
struct Scale {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
    logarithmic: bool,
}

impl Scale {
    fn place(self, value: f64) -> f64 {
        let of = |value: f64| {
            if self.logarithmic {
                value.max(1e-12).ln()
            } else {
                value
            }
        };
        let span = of(self.high) - of(self.low);
        let share = if span > 0.0 {
            (of(value) - of(self.low)) / span
        } else {
            0.0
        };
        self.from + share.clamp(0.0, 1.0) * (self.to - self.from)
    }
}

fn open(out: &mut String, height: f64, title: &str) {
    let title = escaped(title);
    let _ = write!(
        out,
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{title}\"><title>{title}</title>"
    );
}

/// The lines and labels of the left axis.
fn left_axis(out: &mut String, scale: Scale, ticks: &[f64], unit: Unit) {
    for tick in ticks {
        let y = scale.place(*tick);
        let _ = write!(
            out,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text class=\"left\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 8.0,
            y + 4.0,
            escaped(&unit.show(*tick))
        );
    }
}

fn bottom_label(out: &mut String, x: f64, height: f64, text: &str) {
    let y = height - BOTTOM + 18.0;
    let text = escaped(text);
    let _ = write!(
        out,
        "<text class=\"bottom\" x=\"{x:.1}\" y=\"{y:.1}\">{text}</text>"
    );
}

/// Round steps from 0 to at least `high`.
fn even_ticks(high: f64) -> Vec<f64> {
    let rough = (high / 4.0).max(1e-9);
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].map(|factor| factor * power);
    let step = step
        .into_iter()
        .find(|step| *step >= rough)
        .unwrap_or(rough);
    (0..6)
        .map(|at| f64::from(at) * step)
        .take_while(|tick| *tick < high + step)
        .collect()
}

/// Round steps as the unit counts: bytes in powers of two.
fn unit_ticks(high: f64, unit: Unit) -> Vec<f64> {
    let step = match unit {
        Unit::Bytes if high >= 1_048_576.0 => 1_048_576.0,
        Unit::Bytes if high >= 1024.0 => 1024.0,
        Unit::Bytes | Unit::Seconds | Unit::Count | Unit::PerSecond => 1.0,
    };
    let ticks = even_ticks(high / step);
    ticks.into_iter().map(|tick| tick * step).collect()
}

/// Powers of ten that enclose both bounds.
fn log_ticks(low: f64, high: f64) -> Vec<f64> {
    let first = low.max(1e-6).log10().floor();
    let last = high.max(low * 1.01).max(1e-5).log10().ceil();
    let mut ticks = Vec::new();
    let mut power = first;
    while power <= last && ticks.len() < 12 {
        ticks.push(10_f64.powf(power));
        power += 1.0;
    }
    ticks
}

/// A value over time, as a filled line.
pub(super) fn over_time(title: &str, unit: Unit, points: &[(f64, f64)]) -> String {
    let mut out = String::new();
    open(&mut out, HEIGHT, title);
    let highest = points.iter().map(|(_, value)| *value).fold(0.0, f64::max);
    let last = points.last().map_or(1.0, |(at, _)| at.max(1e-3));
    let ticks = unit_ticks(highest.max(1e-9), unit);
    let y = Scale {
        low: 0.0,
        high: ticks.last().copied().unwrap_or(1.0),
        from: HEIGHT - BOTTOM,
        to: TOP,
        logarithmic: false,
    };
    let x = Scale {
        low: 0.0,
        high: last,
        from: LEFT,
        to: WIDTH - RIGHT,
        logarithmic: false,
    };
    left_axis(&mut out, y, &ticks, unit);
    for tick in even_ticks(last).into_iter().filter(|tick| *tick <= last) {
        bottom_label(&mut out, x.place(tick), HEIGHT, &Unit::Seconds.show(tick));
    }
    let mut line = String::new();
    for (at, value) in points {
        let _ = write!(line, " {:.1},{:.1}", x.place(*at), y.place(*value));
    }
    if !points.is_empty() {
        let (base, colour) = (HEIGHT - BOTTOM, colour(0));
        let end = x.place(last);
        let start = x.place(points[0].0);
        let _ = write!(
            out,
            "<polygon points=\"{start:.1},{base}{line} {end:.1},{base}\" fill=\"{colour}\" opacity=\"0.18\"/>\
             <polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.6\"/>",
            line.trim_start()
        );
    }
    out.push_str("</svg>");
    out
}

/// A cost against a size, both in powers of ten.
pub(crate) fn growth(title: &str, size: Unit, unit: Unit, points: &[(f64, f64)]) -> String {
    let mut out = String::new();
    open(&mut out, HEIGHT, title);
    let bounds = |of: fn(&(f64, f64)) -> f64| {
        let values = points.iter().map(of).filter(|value| *value > 0.0);
        let (low, high) = values.fold((f64::MAX, 0.0_f64), |(low, high), value| {
            (low.min(value), high.max(value))
        });
        if high > 0.0 { (low, high) } else { (1.0, 10.0) }
    };
    let scale = |(low, high): (f64, f64), from, to| {
        // Costs are often some nanoseconds, which is below the smallest tick of a latency.
        let ticks: Vec<f64> = log_ticks(low * 1e9, high * 1e9)
            .iter()
            .map(|tick| tick / 1e9)
            .collect();
        let scale = Scale {
            low: ticks[0],
            high: ticks.last().copied().unwrap_or(1.0),
            from,
            to,
            logarithmic: true,
        };
        (scale, ticks)
    };
    let (y, up) = scale(bounds(|point| point.1), HEIGHT - BOTTOM, TOP);
    let (x, along) = scale(bounds(|point| point.0), LEFT, WIDTH - RIGHT);
    left_axis(&mut out, y, &up, unit);
    for tick in along {
        bottom_label(&mut out, x.place(tick), HEIGHT, &size.show(tick));
    }
    let mut line = String::new();
    for (at, value) in points {
        let _ = write!(line, "{:.1},{:.1} ", x.place(*at), y.place(*value));
    }
    let (line, colour) = (line.trim_end(), colour(0));
    let _ = write!(
        out,
        "<polyline points=\"{line}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.6\"/>"
    );
    for (at, value) in points {
        let (cx, cy) = (x.place(*at), y.place(*value));
        let text = escaped(&format!("{}: {}", size.show(*at), unit.show(*value)));
        let _ = write!(
            out,
            "<circle cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"3.5\" fill=\"{colour}\"><title>{text}</title></circle>"
        );
    }
    out.push_str("</svg>");
    out
}

/// Latency by percentile: the axis grows with the number of nines.
pub(super) fn percentiles(curves: &[(String, Latencies)]) -> String {
    let curves: Vec<_> = curves
        .iter()
        .filter(|(_, curve)| curve.count() > 0)
        .collect();
    let mut out = String::new();
    open(&mut out, HEIGHT + 24.0, "latency by percentile");
    let most = curves
        .iter()
        .map(|(_, curve)| curve.count())
        .max()
        .unwrap_or(1);
    let nines = (most.max(10) as f64).log10().min(6.0);
    let low = curves
        .iter()
        .map(|(_, curve)| curve.quantile(0.0))
        .fold(f64::MAX, f64::min);
    let high = curves
        .iter()
        .map(|(_, curve)| curve.max())
        .fold(0.0, f64::max);
    let low = if curves.is_empty() { 1e-3 } else { low };
    let ticks = log_ticks(low, high);
    let y = Scale {
        low: ticks[0],
        high: ticks.last().copied().unwrap_or(1.0),
        from: HEIGHT - BOTTOM,
        to: TOP,
        logarithmic: true,
    };
    let x = Scale {
        low: 0.0,
        high: nines,
        from: LEFT,
        to: WIDTH - RIGHT,
        logarithmic: false,
    };
    left_axis(&mut out, y, &ticks, Unit::Seconds);
    nines_axis(&mut out, x, nines);
    for (at, (name, curve)) in curves.iter().enumerate() {
        let mut line = String::new();
        for step in 0..=200 {
            let share = 1.0 - 10_f64.powf(-nines * f64::from(step) / 200.0);
            let px = x.place(nines * f64::from(step) / 200.0);
            let _ = write!(line, "{px:.1},{:.1} ", y.place(curve.quantile(share)));
        }
        let _ = write!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"{}\"/>",
            line.trim_end(),
            colour(at),
            if at == 0 { 2.2 } else { 1.4 }
        );
        legend(&mut out, at, name);
    }
    out.push_str("</svg>");
    out
}

/// The labels of an axis that grows with the number of nines.
fn nines_axis(out: &mut String, x: Scale, nines: f64) {
    for (label, share) in [
        ("0%", 0.0),
        ("50%", 0.5),
        ("90%", 0.9),
        ("99%", 0.99),
        ("99.9%", 0.999),
        ("99.99%", 0.9999),
        ("99.999%", 0.99999),
    ] {
        let at = -(1.0_f64 - share).log10();
        if at <= nines {
            bottom_label(out, x.place(at), HEIGHT, label);
        }
    }
}

fn legend(out: &mut String, at: usize, name: &str) {
    let x = LEFT + at as f64 * 112.0;
    let y = HEIGHT + 8.0;
    let _ = write!(
        out,
        "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"12\" height=\"12\" fill=\"{}\"/>\
         <text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
        y - 10.0,
        colour(at),
        x + 17.0,
        y,
        escaped(name)
    );
}

/// How many lie in each span of time; the spans grow.
pub(super) fn histogram(latencies: &Latencies) -> String {
    let mut out = String::new();
    open(&mut out, HEIGHT, "latency distribution");
    let low = latencies.quantile(0.0).max(1e-6);
    let ticks = log_ticks(low, latencies.max());
    let x = Scale {
        low: ticks[0],
        high: ticks.last().copied().unwrap_or(1.0),
        from: LEFT,
        to: WIDTH - RIGHT,
        logarithmic: true,
    };
    let ratio = x.high / x.low;
    let bound = |at: u32| x.low * ratio.powf(f64::from(at) / 80.0);
    let counts: Vec<f64> = (0..80)
        .map(|at| latencies.count_between(bound(at), bound(at + 1)) as f64)
        .collect();
    let highest = counts.iter().copied().fold(1.0, f64::max);
    let up = even_ticks(highest);
    let y = Scale {
        low: 0.0,
        high: up.last().copied().unwrap_or(1.0),
        from: HEIGHT - BOTTOM,
        to: TOP,
        logarithmic: false,
    };
    left_axis(&mut out, y, &up, Unit::Count);
    for tick in &ticks {
        bottom_label(&mut out, x.place(*tick), HEIGHT, &Unit::Seconds.show(*tick));
    }
    for (at, count) in (0_u32..).zip(&counts) {
        let (left, right) = (x.place(bound(at)), x.place(bound(at + 1)));
        let top = y.place(*count);
        let _ = write!(
            out,
            "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{}\"><title>{} to {}: {count}</title></rect>",
            (right - left - 0.6).max(0.4),
            HEIGHT - BOTTOM - top,
            colour(0),
            Unit::Seconds.show(bound(at)),
            Unit::Seconds.show(bound(at + 1)),
        );
    }
    out.push_str("</svg>");
    out
}

/// Horizontal bars: for each name a group of values.
pub(super) fn bars(
    title: &str,
    unit: Unit,
    kinds: &[&str],
    groups: &[(String, Vec<f64>)],
) -> String {
    let bar = 15.0;
    let group = bar * kinds.len() as f64 + 12.0;
    let height = TOP + group * groups.len() as f64 + 26.0;
    let mut out = String::new();
    open(&mut out, height, title);
    let values = groups.iter().flat_map(|(_, values)| values);
    let highest = values.copied().fold(1e-9, f64::max);
    let x = Scale {
        low: 0.0,
        high: highest,
        from: LEFT + 40.0,
        to: WIDTH - RIGHT - 110.0,
        logarithmic: false,
    };
    for (row, (name, values)) in groups.iter().enumerate() {
        let top = TOP + group * row as f64;
        let middle = top + bar * kinds.len() as f64 / 2.0 + 4.0;
        let name = escaped(name);
        let at = LEFT + 32.0;
        let _ = write!(
            out,
            "<text class=\"left\" x=\"{at}\" y=\"{middle:.1}\">{name}</text>"
        );
        for (kind, value) in values.iter().enumerate() {
            let y = top + bar * kind as f64;
            let end = x.place(*value).max(x.from + 1.0);
            let _ = write!(
                out,
                "<rect x=\"{:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                x.from,
                end - x.from,
                bar - 3.0,
                colour(kind),
                end + 6.0,
                y + 10.5,
                escaped(&format!("{} {}", kinds[kind], unit.show(*value)))
            );
        }
    }
    out.push_str("</svg>");
    out
}

/// Text as HTML shows it.
pub(crate) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}
