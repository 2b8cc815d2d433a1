//! Results as a table: a line a row, with the host's names first and why the query failed there last.
//!
//! A column that few rows have takes a comma in every row, and one host can send thousands of them. Beyond a number of
//! columns, those that are nearly empty stand together in one, as JSON: nothing is left out, and a table is not much larger
//! than what is in it.
//!
//! Hosts are not trusted, and spreadsheets take a cell that begins with `=` for a formula: such cells get an
//! apostrophe in front, unless they are numbers.

use std::collections::HashMap;

use bytes::{BufMut, BytesMut};

use super::wire::rows::{ADDED_COLUMNS, Row, Stored, text_of};
use crate::results::Answer;

/// What spreadsheets may take for the beginning of a formula; the last four as keyboards of East Asia write them.
const FORMULA: [char; 11] = ['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠'];
/// Our columns beside those that every row has.
const HOST_ID: &str = "host_id";
const HOST_ERROR: &str = "host_error";
/// Where the cells of columns stand that have none of their own: a JSON object.
const OTHERS: &str = "other_columns";
/// Columns that have one of their own in any case; more than all tables of osquery have.
const COLUMNS_FREE: usize = 64;
/// Columns beyond these have one if at least every so manieth row has it.
const ROWS_TO_A_CELL: u64 = 64;
/// Columns that may have one of their own: as many as a query can have (SQLite's `SQLITE_MAX_COLUMN`).
const COLUMNS_MAX: usize = 2_000;
/// Names of columns that are counted; others are among [`OTHERS`].
const NAMES_MAX: usize = 10_000;
/// Bytes of a piece of a table.
const PIECE_BYTES: usize = 64 * 1024;

/// The columns of all answers, in the order in which they came up.
#[derive(Debug, Default)]
pub(super) struct Columns {
    names: Vec<(String, u64)>,
    known: HashMap<String, usize>,
    rows: u64,
    has_more: bool,
}

impl Columns {
    /// Takes in the columns of one answer.
    pub(super) fn learn(&mut self, answer: &Answer) {
        let text = text_of(answer);
        for row in Stored::read(answer.host, &text).rows() {
            self.rows += 1;
            for (column, _) in row.0 {
                if let Some(at) = self.known.get(&column) {
                    self.names[*at].1 += 1;
                } else if self.names.len() < NAMES_MAX {
                    self.known.insert(column.clone(), self.names.len());
                    self.names.push((column, 1));
                } else {
                    self.has_more = true;
                }
            }
        }
    }

    /// Decides which columns have one of their own.
    pub(super) fn table(self) -> Table {
        let own = |name: &str| [HOST_ID, HOST_ERROR, OTHERS].contains(&name);
        let mut names = Vec::new();
        let mut has_others = self.has_more;
        for (name, count) in self.names {
            let is_added = ADDED_COLUMNS.contains(&name.as_str());
            let is_dense = count.saturating_mul(ROWS_TO_A_CELL) >= self.rows;
            if is_added {
                continue;
            } else if names.len() < COLUMNS_FREE || (is_dense && names.len() < COLUMNS_MAX) {
                names.push(name);
            } else {
                has_others = true;
            }
        }
        let headings = names.iter().map(|name| {
            let mut heading = name.clone();
            while own(&heading) || (heading != *name && self.known.contains_key(&heading)) {
                heading.insert_str(0, "query_");
            }
            heading
        });
        let headings = headings.collect();
        let places = names.into_iter().enumerate();
        Table {
            places: places.map(|(at, name)| (name, at)).collect(),
            headings,
            has_others,
        }
    }
}

/// A table whose columns are known.
#[derive(Debug)]
pub(super) struct Table {
    /// Where each column of the query stands.
    places: HashMap<String, usize>,
    /// How they are headed. One that has the name of a column of ours is told from it.
    headings: Vec<String>,
    has_others: bool,
}

impl Table {
    /// The first line.
    pub(super) fn write_head(&self, out: &mut BytesMut) {
        let columns = self.headings.iter().map(String::as_str);
        let head = [HOST_ID].into_iter().chain(ADDED_COLUMNS);
        let others = self.has_others.then_some(OTHERS);
        write_line(head.chain(columns).chain(others).chain([HOST_ERROR]), out);
    }

    /// The lines of one answer: one a row, or one alone for a host whose query failed. They are written into `out` from
    /// the row `from` on, until the piece is large enough; gives the row to go on from, if there are more.
    pub(super) fn write(
        &self,
        answer: &Stored<'_>,
        from: usize,
        out: &mut BytesMut,
    ) -> Option<usize> {
        let error = answer.error.as_deref().unwrap_or_default();
        if answer.row_count() == 0 && !error.is_empty() {
            self.write_row(answer, Row::default(), error, out);
        }
        for at in from..answer.row_count() {
            if out.len() >= PIECE_BYTES {
                return Some(at);
            }
            self.write_row(answer, answer.row(at), error, out);
        }
        None
    }

    fn write_row(&self, answer: &Stored<'_>, row: Row, error: &str, out: &mut BytesMut) {
        let mut cells = vec![""; self.headings.len()];
        let mut others = serde_json::Map::new();
        for (column, value) in &row.0 {
            match self.places.get(column) {
                Some(at) if cells[*at].is_empty() => cells[*at] = value,
                None if !ADDED_COLUMNS.contains(&column.as_str()) => {
                    others.insert(column.clone(), value.as_str().into());
                }
                _ => {}
            }
        }
        let others = match others.is_empty() {
            true => String::new(),
            false => serde_json::Value::Object(others).to_string(),
        };
        let id = answer.id.to_string();
        let head = [&id, &answer.host.hostname, &answer.host.display_name].map(String::as_str);
        let others = self.has_others.then_some(others.as_str());
        let cells = cells.into_iter().chain(others).chain([error]);
        write_line(head.into_iter().chain(cells), out);
    }
}

/// One line of cells.
pub(super) fn write_line<'a>(cells: impl Iterator<Item = &'a str>, out: &mut BytesMut) {
    for (at, cell) in cells.enumerate() {
        if at > 0 {
            out.put_u8(b',');
        }
        write_cell(cell, out);
    }
    out.put_slice(b"\r\n");
}

/// RFC 4180: quoted where it must be.
fn write_cell(cell: &str, out: &mut BytesMut) {
    let formula = cell.starts_with(FORMULA) && cell.parse::<f64>().is_err();
    let quoted = formula || cell.contains([',', '"', '\n', '\r']);
    if !quoted {
        out.put_slice(cell.as_bytes());
        return;
    }
    out.put_u8(b'"');
    if formula {
        out.put_u8(b'\'');
    }
    out.put_slice(cell.replace('"', "\"\"").as_bytes());
    out.put_u8(b'"');
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::results::HostId;

    fn answer(host: u32, rows: &str, error: &str) -> Answer {
        let body = format!(
            r#""host":{{"id":{host},"hostname":"h{host}","display_name":"H, {host}"}},"rows":{rows},"stats":null,"error":{error}"#
        );
        Answer {
            host: HostId(host),
            failed: error != "null",
            body: Bytes::from(body),
        }
    }

    fn table(answers: &[Answer]) -> String {
        let mut columns = Columns::default();
        answers.iter().for_each(|answer| columns.learn(answer));
        let table = columns.table();
        let mut written = String::new();
        let mut out = BytesMut::new();
        table.write_head(&mut out);
        for answer in answers {
            let text = text_of(answer);
            let answer = Stored::read(answer.host, &text);
            let mut from = Some(0);
            while let Some(at) = from {
                from = table.write(&answer, at, &mut out);
                assert!(out.len() < 2 * PIECE_BYTES, "a piece of {}", out.len());
                written.push_str(std::str::from_utf8(&out.split()).unwrap());
            }
        }
        written
    }

    #[test]
    fn one_host_cannot_widen_the_table_of_all_nor_push_out_their_columns() {
        let wide: Vec<String> = (0..4_000).map(|at| format!(r#""x{at}":"{at}""#)).collect();
        let wide = format!("[{{{}}}{}]", wide.join(","), r#",{"z":"1"}"#.repeat(50_000));
        let mut answers = vec![answer(1, &wide, "null")];
        answers
            .extend((2..202).map(|host| answer(host, r#"[{"name":"n","version":"2"}]"#, "null")));
        let table = table(&answers);
        let sent = answers
            .iter()
            .map(|answer| answer.body.len())
            .sum::<usize>();
        assert!(table.len() < 10 * sent, "{} of {sent}", table.len());
        let mut lines = table.lines();
        let head: Vec<&str> = lines.next().unwrap().split(',').collect();
        assert_eq!(head.len(), 3 + COLUMNS_FREE + 1 + 2, "z is in most rows");
        let first = lines.next().unwrap();
        assert!(
            first.contains(r#"""x3999"":""3999"""#),
            "nothing is left out"
        );
        let last = lines.next_back().unwrap();
        assert!(
            last.ends_with(r#""{""name"":""n"",""version"":""2""}","#),
            "{last}"
        );
    }

    #[test]
    fn a_table_has_every_column_of_every_host_and_says_who_failed() {
        let answers = [
            answer(
                1,
                r#"[{"a":"1","b":"x,\"y\"","host_hostname":"h1"}]"#,
                "null",
            ),
            answer(2, r#"[{"c":"=cmd()","a":"-5"}]"#, "null"),
            answer(3, "[]", "\"no such table\""),
            answer(4, "[]", "null"),
        ];
        let table = table(&answers);
        let expected = [
            "host_id,host_hostname,host_display_name,a,b,c,host_error",
            r#"1,h1,"H, 1",1,"x,""y""",,"#,
            r#"2,h2,"H, 2",-5,,"'=cmd()","#,
            r#"3,h3,"H, 3",,,,no such table"#,
            "",
        ];
        assert_eq!(table, expected.join("\r\n"));
    }

    #[test]
    fn no_column_of_a_query_passes_for_ours() {
        let answers = [answer(
            1,
            r#"[{"host_id":"7","host_error":"x","query_host_id":"8"}]"#,
            "null",
        )];
        let table = table(&answers);
        let expected = [
            "host_id,host_hostname,host_display_name,query_query_host_id,query_host_error,query_host_id,host_error",
            r#"1,h1,"H, 1",7,x,8,"#,
            "",
        ];
        assert_eq!(table, expected.join("\r\n"));
    }
}
