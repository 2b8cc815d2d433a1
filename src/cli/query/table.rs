//! Answers of many hosts as one table.

use serde_json::Value;

use crate::text::is_hidden;

/// Gathers rows and lays them out.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// Columns of the head that stands last, with their widths; the host is the first.
    head: Vec<(String, usize)>,
    rows: Vec<Line>,
}

#[derive(Debug)]
struct Line {
    host: String,
    /// Names and values of a row, or why the query failed.
    cells: Result<Vec<(String, String)>, String>,
}

impl Table {
    /// Adds a host's answer.
    pub(super) fn add(&mut self, host: &str, rows: &[Value], error: Option<&str>) {
        let host = printable(host);
        if let Some(error) = error {
            self.rows.push(Line {
                host,
                cells: Err(printable(error)),
            });
            return;
        }
        let cells = rows.iter().filter_map(Value::as_object).map(|row| {
            let cells = row.iter();
            let cells = cells
                .map(|(name, value)| (printable(name), printable(value.as_str().unwrap_or(""))));
            cells.collect()
        });
        let cells: Vec<Vec<(String, String)>> = cells.collect();
        if cells.is_empty() {
            self.rows.push(Line {
                host: host.clone(),
                cells: Err("(no rows)".to_owned()),
            });
        }
        self.rows.extend(cells.into_iter().map(|cells| Line {
            host: host.clone(),
            cells: Ok(cells),
        }));
    }

    /// The text of what has been gathered since the last call. A head stands where the columns change.
    pub(super) fn take(&mut self) -> String {
        let rows = std::mem::take(&mut self.rows);
        let mut text = String::new();
        let mut rest = rows.as_slice();
        while let Some(first) = rest.first() {
            // Failures have no columns, and fit below any head.
            let same = |line: &&Line| match (&first.cells, &line.cells) {
                (Ok(one), Ok(other)) => names(one).eq(names(other)),
                _ => true,
            };
            let count = rest.iter().take_while(same).count();
            let (part, after) = rest.split_at(count);
            self.put(part, &mut text);
            rest = after;
        }
        text
    }

    fn put(&mut self, rows: &[Line], text: &mut String) {
        let columns = rows.iter().find_map(|line| line.cells.as_ref().ok());
        if let Some(columns) = columns
            && !names(columns).eq(self.head.iter().skip(1).map(|(name, _)| name.as_str()))
        {
            let names = ["host"].into_iter().chain(names(columns));
            self.head = names.map(|name| (name.to_owned(), width(name))).collect();
            self.widen(rows);
            let head: Vec<&str> = self.head.iter().map(|(name, _)| name.as_str()).collect();
            self.line(&head, text);
        } else {
            self.widen(rows);
        }
        for line in rows {
            match &line.cells {
                Err(error) => self.line(&[&line.host, error], text),
                Ok(cells) => {
                    let cells = cells.iter().map(|(_, value)| value.as_str());
                    let cells: Vec<&str> = [line.host.as_str()].into_iter().chain(cells).collect();
                    self.line(&cells, text);
                }
            }
        }
    }

    fn widen(&mut self, rows: &[Line]) {
        for line in rows {
            let cells = line.cells.as_ref().map(Vec::as_slice).unwrap_or_default();
            let cells = cells.iter().map(|(_, value)| value.as_str());
            let cells = [line.host.as_str()].into_iter().chain(cells);
            for ((_, widest), cell) in self.head.iter_mut().zip(cells) {
                *widest = width(cell).max(*widest);
            }
        }
    }

    fn line(&self, cells: &[&str], text: &mut String) {
        let widths = self.head.iter().map(|(_, width)| *width);
        let padded = cells.iter().zip(widths.chain(std::iter::repeat(0)));
        let padded: Vec<String> = padded
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        text.push_str(padded.join("  ").trim_end());
        text.push('\n');
    }
}

fn names(cells: &[(String, String)]) -> impl Iterator<Item = &str> {
    cells.iter().map(|(name, _)| name.as_str())
}

fn width(text: &str) -> usize {
    text.chars().count()
}

/// Control characters and marks that turn the writing direction are shown and not obeyed: hosts are not trusted.
fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|at| {
            if is_hidden(at) {
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
    use serde_json::json;

    #[test]
    fn there_is_one_head_until_the_columns_change() {
        let mut table = Table::default();
        table.add(
            "web-1",
            &[
                json!({"name": "a", "n": "1"}),
                json!({"name": "longer", "n": "2"}),
            ],
            None,
        );
        table.add("w", &[], Some("no such table: x"));
        table.add("web-2", &[json!({"name": "b", "n": "3"})], None);
        assert_eq!(
            table.take(),
            "host   n  name\nweb-1  1  a\nweb-1  2  longer\nw      no such table: x\nweb-2  3  b\n"
        );
        table.add("web-3", &[json!({"name": "c", "n": "4"})], None);
        table.add("web-4", &[], None);
        assert_eq!(table.take(), "web-3  4  c\nweb-4  (no rows)\n");
        table.add("web-5", &[json!({"other": "c"})], None);
        assert_eq!(table.take(), "host   other\nweb-5  c\n");
        assert_eq!(table.take(), "");
    }

    #[test]
    fn a_hostile_host_cannot_drive_the_terminal() {
        let mut table = Table::default();
        table.add(
            "\u{1b}]0;x\u{7}",
            &[json!({ "na\nme": "\u{1b}[2J\u{202e}" })],
            None,
        );
        table.add("h", &[], Some("bad\nline"));
        let text = table.take();
        assert!(!text.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{text}");
        assert_eq!(text.lines().count(), 3);
    }
}
