//! The table of a comparison, for people and for the README.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, ensure};

use super::{Comparison, Measured};
use crate::measure::Requested;
use crate::units::{show_number, show_seconds};

const BEGIN: &str = "<!-- loadtest compare: begin -->";
const END: &str = "<!-- loadtest compare: end -->";

/// The value in the middle; `None` of nothing.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// The whole comparison in Markdown.
pub(super) fn markdown(comparison: &Comparison) -> String {
    let mut out = String::new();
    let viewers = show_number(comparison.viewers as f64);
    let _ = writeln!(
        out,
        "| {viewers} viewers, 400 bytes | CPU per delivery | to the limit | deliveries/s | paced 50/s: CPU | p99 | p99 beside 500 stalled | 1 viewer, 1 KiB: results/s |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|"
    );
    let fast = |row: &Measured| median(row.fast.iter().map(|fanned| fanned.cpu_ns_per_delivery));
    let limit = comparison.rows.first().and_then(fast);
    for row in &comparison.rows {
        let ratio = fast(row).zip(limit).map(|(own, limit)| own / limit);
        let one = row.one.iter().map(|fanned| fanned.deliveries_per_s);
        let one = one.chain(row.replayed.iter().map(|replayed| replayed.results_per_s));
        let paced = row.paced.iter();
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} | {} | {} |",
            row.name,
            shown(fast(row), microseconds),
            shown(ratio, |ratio| format!("{ratio:.2} x")),
            shown(
                median(row.fast.iter().map(|fanned| fanned.deliveries_per_s)),
                thousands
            ),
            shown(
                median(paced.clone().map(|fanned| fanned.cpu_ns_per_delivery)),
                microseconds
            ),
            shown(
                median(paced.filter_map(|fanned| fanned.p99_s)),
                show_seconds
            ),
            shown(
                median(row.beside_stalled.iter().filter_map(|fanned| fanned.p99_s)),
                show_seconds
            ),
            shown(median(one), thousands),
        );
    }
    requests(&mut out, comparison);
    let lost = comparison.rows.iter().flat_map(|row| {
        let all = row.fast.iter().chain(&row.paced).chain(&row.one);
        all.map(move |fanned| (row.name, fanned.lost))
    });
    for (name, lost) in lost.filter(|(_, lost)| *lost > 0) {
        let _ = writeln!(
            out,
            "\n{name}: {lost} deliveries lacked at the end of a run."
        );
    }
    out
}

fn requests(out: &mut String, comparison: &Comparison) {
    let requests = &comparison.requests;
    let cpu = |all: &[Requested]| median(all.iter().map(|one| one.cpu_ns_per_request));
    let rows = [
        ("idle check-in", &requests.checkin, &requests.bare_checkin),
        ("answer, 400 bytes", &requests.answer, &requests.bare_answer),
    ];
    if requests.checkin.is_empty() {
        return;
    }
    let _ = writeln!(
        out,
        "\n| request of an agent | bare hyper handler: CPU | Answerback: CPU | share of the bare rate | requests/s |\n\
         |---|--:|--:|--:|--:|"
    );
    for (name, own, bare) in rows {
        let share = cpu(own).zip(cpu(bare)).map(|(own, bare)| bare / own);
        let _ = writeln!(
            out,
            "| {name} | {} | {} | {} | {} |",
            shown(cpu(bare), microseconds),
            shown(cpu(own), microseconds),
            shown(share, |share| format!("{:.0} %", share * 100.0)),
            shown(median(own.iter().map(|one| one.requests_per_s)), thousands),
        );
    }
}

fn shown(value: Option<f64>, show: impl Fn(f64) -> String) -> String {
    value.map_or_else(|| "-".to_owned(), show)
}

fn microseconds(nanoseconds: f64) -> String {
    format!("{:.2} µs", nanoseconds / 1e3)
}

/// More digits than three say nothing.
fn thousands(number: f64) -> String {
    show_number((number / 1e3).round() * 1e3)
}

/// Replaces what stands between the markers.
pub(super) fn put_into(file: &Path, table: &str) -> anyhow::Result<()> {
    let name = file.display();
    let text = std::fs::read_to_string(file).with_context(|| format!("{name}"))?;
    std::fs::write(
        file,
        between_markers(&text, table).with_context(|| format!("{name}"))?,
    )?;
    Ok(())
}

fn between_markers(text: &str, table: &str) -> anyhow::Result<String> {
    let begin = text.find(BEGIN).context("no begin marker")? + BEGIN.len();
    let end = text.find(END).context("no end marker")?;
    ensure!(begin <= end, "the markers stand the wrong way round");
    Ok(format!("{}\n{table}{}", &text[..begin], &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_of_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([]), None);
    }

    #[test]
    fn only_what_stands_between_the_markers_is_replaced() {
        let text = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        let replaced = between_markers(&text, "| new |\n").unwrap();
        assert_eq!(replaced, format!("a\n{BEGIN}\n| new |\n{END}\nb\n"));
        assert_eq!(between_markers(&replaced, "| new |\n").unwrap(), replaced);
        assert!(between_markers("nothing", "| new |\n").is_err());
    }
}
