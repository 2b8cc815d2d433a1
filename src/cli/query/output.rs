//! What is printed: answers on standard output, progress and complaints on standard error.

use std::io::{IsTerminal, Write};

use anyhow::Context;
use serde_json::{Map, Value, json};

/// Prints answers and counts them.
pub(super) struct Output {
    pretty: bool,
    progress: bool,
    total: Option<u64>,
    online: u64,
    responded: u64,
    failed: u64,
}

impl Output {
    pub(super) fn new(pretty: bool, quiet: bool) -> Self {
        Self {
            pretty,
            progress: !quiet,
            total: None,
            online: 0,
            responded: 0,
            failed: 0,
        }
    }

    pub(super) fn totals(&mut self, data: &Value) -> anyhow::Result<()> {
        self.total = Some(data["count"].as_u64().context("totals without a count")?);
        self.online = data["online"]
            .as_u64()
            .context("totals without online hosts")?;
        self.show_progress();
        Ok(())
    }

    /// Prints one host's answer and returns its position in the log, if the broker tells it.
    pub(super) fn result(&mut self, data: &Value) -> anyhow::Result<Option<u64>> {
        let host = data["host"]["display_name"]
            .as_str()
            .filter(|name| !name.is_empty());
        let host = host
            .or(data["host"]["hostname"].as_str())
            .unwrap_or_default();
        let rows = data["rows"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let rows: Vec<Value> = rows.iter().map(own_columns).collect();
        self.responded += 1;
        let error = data["error"].as_str();
        self.failed += u64::from(error.is_some());
        let mut out = std::io::stdout().lock();
        if self.pretty {
            write!(out, "{}", table(host, &rows, error))?;
        } else {
            let mut line = json!({ "host": host, "rows": rows });
            if let Some(error) = error {
                line["error"] = error.into();
            }
            writeln!(out, "{line}")?;
        }
        out.flush()?;
        self.show_progress();
        Ok(data["seq"].as_u64())
    }

    /// Whether all hosts have answered, or with `online` all that are online.
    pub(super) fn is_done(&self, online: bool) -> bool {
        let Some(total) = self.total else {
            return false;
        };
        self.responded >= total || online && self.responded >= self.online
    }

    pub(super) fn complain(&self, text: &str) {
        let _ = writeln!(std::io::stderr(), "{}answerback: {text}", self.line_end());
    }

    pub(super) fn finish(&self) {
        if self.progress && self.total.is_some() {
            let _ = writeln!(std::io::stderr());
        }
    }

    fn line_end(&self) -> &'static str {
        if self.progress && self.total.is_some() && std::io::stderr().is_terminal() {
            "\n"
        } else {
            ""
        }
    }

    fn show_progress(&self) {
        let Some(total) = self.total.filter(|_| self.progress) else {
            return;
        };
        let percent = (self.responded * 100).checked_div(total).unwrap_or(100);
        let (start, end) = if std::io::stderr().is_terminal() {
            ("\r\x1b[K", "")
        } else {
            ("", "\n")
        };
        let _ = write!(
            std::io::stderr(),
            "{start}{percent}% responded ({} of {total}, {} online, {} failed){end}",
            self.responded,
            self.online,
            self.failed,
        );
        let _ = std::io::stderr().flush();
    }
}

/// The row without the two columns that the broker adds for the console.
fn own_columns(row: &Value) -> Value {
    let mut columns: Map<String, Value> = row.as_object().cloned().unwrap_or_default();
    columns.remove("host_hostname");
    columns.remove("host_display_name");
    Value::Object(columns)
}

/// A small table a host; control characters are shown and not obeyed, since hosts are not trusted.
fn table(host: &str, rows: &[Value], error: Option<&str>) -> String {
    let mut text = format!("== {} ({} rows)\n", printable(host), rows.len());
    if let Some(error) = error {
        text.push_str(&format!("   error: {}\n", printable(error)));
    }
    let names: Vec<&String> = rows
        .first()
        .and_then(Value::as_object)
        .map(|row| row.keys().collect())
        .unwrap_or_default();
    if names.is_empty() {
        return text;
    }
    let cells: Vec<Vec<String>> =
        std::iter::once(names.iter().map(|name| printable(name)).collect())
            .chain(rows.iter().map(|row| {
                names
                    .iter()
                    .map(|name| printable(row[*name].as_str().unwrap_or("")))
                    .collect()
            }))
            .collect();
    let widths: Vec<usize> = (0..names.len())
        .map(|at| {
            cells
                .iter()
                .map(|row| row[at].chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    for row in &cells {
        let line: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        text.push_str(&format!("   {}\n", line.join("  ").trim_end()));
    }
    text
}

fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|at| {
            if at.is_control() {
                at.escape_default().collect()
            } else {
                vec![at]
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn done_means_all_hosts_or_with_exit_the_online_ones() {
        let mut output = Output::new(false, true);
        assert!(!output.is_done(true), "nothing is known yet");
        output.totals(&json!({ "count": 3, "online": 2 })).unwrap();
        output.responded = 2;
        assert!(output.is_done(true) && !output.is_done(false));
        output.responded = 3;
        assert!(output.is_done(false));
    }

    #[test]
    fn a_hostile_host_cannot_drive_the_terminal() {
        let rows = [json!({ "name": "\u{1b}[2J", "host_hostname": "h" })];
        let rows: Vec<Value> = rows.iter().map(own_columns).collect();
        let text = table("\u{1b}]0;x\u{7}", &rows, Some("bad\nline"));
        assert!(
            !text.contains('\u{1b}') && !text.contains('\u{7}') && !text.contains("host_hostname")
        );
        assert_eq!(text.lines().count(), 4);
    }
}
