//! What is printed: answers on standard output, progress and complaints on standard error.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::table::Table;

/// Rows of a table are gathered for so long before their widths are chosen.
const GATHER: Duration = Duration::from_millis(500);

/// Prints answers and counts them.
pub(super) struct Output {
    table: Option<Table>,
    gathered_since: Option<Instant>,
    progress: bool,
    /// Whether progress is one line that is written over; else only the last state is told.
    is_live: bool,
    total: Option<u64>,
    online: u64,
    responded: u64,
    failed: u64,
}

impl Output {
    pub(super) fn new(pretty: bool, quiet: bool) -> Self {
        Self {
            table: pretty.then(Table::default),
            gathered_since: None,
            progress: !quiet,
            is_live: io::stderr().is_terminal(),
            total: None,
            online: 0,
            responded: 0,
            failed: 0,
        }
    }

    pub(super) fn totals(&mut self, data: &Value) {
        // A broker that does not say how many are asked is one whose campaign never ends by itself.
        self.total = data["count"].as_u64();
        self.online = data["online"].as_u64().unwrap_or(0);
        self.show_progress();
    }

    /// Prints one host's answer and returns its position in the log, if the broker tells it.
    pub(super) async fn result(&mut self, data: &Value) -> io::Result<Option<u64>> {
        let name = |key: &str| data["host"][key].as_str().filter(|name| !name.is_empty());
        let host = name("display_name")
            .or(name("hostname"))
            .unwrap_or_default();
        let rows = data["rows"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let rows: Vec<Value> = rows.iter().map(own_columns).collect();
        self.responded += 1;
        let error = data["error"].as_str();
        self.failed += u64::from(error.is_some());
        if let Some(table) = &mut self.table {
            table.add(host, &rows, error);
            let since = *self.gathered_since.get_or_insert_with(Instant::now);
            if since.elapsed() >= GATHER {
                self.print_table().await?;
            }
        } else {
            let mut line = json!({ "host": host, "rows": rows });
            if let Some(error) = error {
                line["error"] = error.into();
            }
            self.print(format!("{line}\n")).await?;
        }
        self.show_progress();
        Ok(data["seq"].as_u64())
    }

    /// Completes when rows of a table have been gathered for long enough to be printed.
    pub(super) async fn gathered(&self) {
        match self.gathered_since {
            Some(since) => tokio::time::sleep_until((since + GATHER).into()).await,
            None => std::future::pending().await,
        }
    }

    pub(super) async fn print_table(&mut self) -> io::Result<()> {
        self.gathered_since = None;
        match self.table.as_mut().map(Table::take) {
            Some(text) if !text.is_empty() => self.print(text).await,
            _ => Ok(()),
        }
    }

    /// Writes on a thread of its own: whoever reads may have stopped reading, and signals and deadlines go on.
    async fn print(&self, text: String) -> io::Result<()> {
        self.clear_progress();
        let write = move || {
            let mut out = io::stdout().lock();
            out.write_all(text.as_bytes())?;
            out.flush()
        };
        let written = tokio::task::spawn_blocking(write).await;
        written.map_err(io::Error::other)?
    }

    /// Whether all hosts have answered, or with `online` all that are online.
    pub(super) fn is_done(&self, online: bool) -> bool {
        let Some(total) = self.total else {
            return false;
        };
        self.responded >= total || online && self.responded >= self.online
    }

    /// How many have answered, of how many.
    pub(super) fn answered(&self) -> String {
        let total = self
            .total
            .map_or_else(|| "?".to_owned(), |total| total.to_string());
        format!("{} of {total} hosts had answered", self.responded)
    }

    /// Whether hosts have answered and the query failed on each of them.
    pub(super) const fn all_failed(&self) -> bool {
        self.failed > 0 && self.failed == self.responded
    }

    pub(super) fn complain(&self, text: &str) {
        self.clear_progress();
        let _ = writeln!(io::stderr(), "answerback: {text}");
    }

    /// Prints what is still gathered, and how it ended.
    pub(super) async fn finish(&mut self) -> io::Result<()> {
        let printed = self.print_table().await;
        if self.progress && self.total.is_some() {
            self.clear_progress();
            let _ = writeln!(io::stderr(), "{}", self.state());
        }
        printed
    }

    fn clear_progress(&self) {
        if self.progress && self.is_live {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }

    fn state(&self) -> String {
        let total = self.total.unwrap_or(0);
        let percent = (self.responded * 100).checked_div(total).unwrap_or(100);
        format!(
            "{percent}% responded ({} of {total}, {} online, {} failed)",
            self.responded, self.online, self.failed,
        )
    }

    fn show_progress(&self) {
        if self.progress && self.is_live && self.total.is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K{}", self.state());
            let _ = io::stderr().flush();
        }
    }
}

/// The row without the two columns that the broker adds for the console.
fn own_columns(row: &Value) -> Value {
    let mut columns: Map<String, Value> = row.as_object().cloned().unwrap_or_default();
    columns.remove("host_hostname");
    columns.remove("host_display_name");
    Value::Object(columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn done_means_all_hosts_or_with_exit_the_online_ones() {
        let mut output = Output::new(false, true);
        assert!(!output.is_done(true), "nothing is known yet");
        output.totals(&json!({ "count": 3, "online": 2 }));
        output.responded = 2;
        assert!(output.is_done(true) && !output.is_done(false));
        output.responded = 3;
        assert!(output.is_done(false));
        output.failed = 2;
        assert!(!output.all_failed());
        output.failed = 3;
        assert!(output.all_failed());
    }
}
