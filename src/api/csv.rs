//! Results as a table: a line a row, with the host's names first and why the query failed there last.
//!
//! Hosts are not trusted, and spreadsheets take a cell that begins with `=` for a formula: such cells get an
//! apostrophe in front, unless they are numbers.

use std::collections::HashSet;

use bytes::{BufMut, BytesMut};

use super::wire::rows::{ADDED_COLUMNS, read};
use crate::results::Answer;

/// What spreadsheets may take for the beginning of a formula; the last four as keyboards of East Asia write them.
const FORMULA: [char; 11] = ['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠'];
/// Our columns beside those that every row has.
const HOST_ID: &str = "host_id";
const HOST_ERROR: &str = "host_error";
/// Columns of one table; those beyond are not written.
const COLUMNS_MAX: usize = 4_096;

/// The columns of all answers, in the order in which they came up.
#[derive(Debug, Default)]
pub(super) struct Columns {
    names: Vec<String>,
    known: HashSet<String>,
}

impl Columns {
    /// Takes in the columns of one answer.
    pub(super) fn learn(&mut self, answer: &Answer) {
        let (_, out) = read(answer);
        for (column, _) in out.rows.into_iter().flat_map(|row| row.0) {
            let added = ADDED_COLUMNS.contains(&column.as_str());
            if !added && self.names.len() < COLUMNS_MAX && !self.known.contains(&column) {
                self.known.insert(column.clone());
                self.names.push(column);
            }
        }
    }

    /// The first line.
    pub(super) fn write_head(&self, out: &mut BytesMut) {
        let columns = self.names.iter().map(|name| self.heading(name));
        let columns: Vec<String> = columns.collect();
        let columns = columns.iter().map(String::as_str);
        let head = [HOST_ID].into_iter().chain(ADDED_COLUMNS);
        write_line(head.chain(columns).chain([HOST_ERROR]), out);
    }

    /// How a column of the query's is headed. One that has the name of a column of ours is told from it.
    fn heading(&self, name: &str) -> String {
        let mut heading = name.to_owned();
        let own = |heading: &str| [HOST_ID, HOST_ERROR].contains(&heading);
        while own(&heading) || (heading != name && self.known.contains(&heading)) {
            heading.insert_str(0, "query_");
        }
        heading
    }

    /// The lines of one answer: one a row, or one alone for a host whose query failed.
    pub(super) fn write(&self, answer: &Answer, out: &mut BytesMut) {
        let (host, answer) = read(answer);
        let id = host.to_string();
        let error = answer.error.unwrap_or_default();
        let line = |cell: &dyn Fn(&str) -> String, out: &mut BytesMut| {
            let cells: Vec<String> = self.names.iter().map(|name| cell(name)).collect();
            let head = [&id, &answer.host.hostname, &answer.host.display_name];
            let cells = cells.iter().chain([&error]);
            write_line(head.into_iter().chain(cells).map(String::as_str), out);
        };
        for row in &answer.rows {
            line(&|name| row.value(name).unwrap_or("").to_owned(), out);
        }
        if answer.rows.is_empty() && !error.is_empty() {
            line(&|_| String::new(), out);
        }
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
        let mut columns = Columns::default();
        answers.iter().for_each(|answer| columns.learn(answer));
        let mut out = BytesMut::new();
        columns.write_head(&mut out);
        answers
            .iter()
            .for_each(|answer| columns.write(answer, &mut out));
        let expected = [
            "host_id,host_hostname,host_display_name,a,b,c,host_error",
            r#"1,h1,"H, 1",1,"x,""y""",,"#,
            r#"2,h2,"H, 2",-5,,"'=cmd()","#,
            r#"3,h3,"H, 3",,,,no such table"#,
            "",
        ];
        assert_eq!(
            String::from_utf8(out.to_vec()).unwrap(),
            expected.join("\r\n")
        );
    }

    #[test]
    fn no_column_of_a_query_passes_for_ours() {
        let answers = [answer(
            1,
            r#"[{"host_id":"7","host_error":"x","query_host_id":"8"}]"#,
            "null",
        )];
        let mut columns = Columns::default();
        answers.iter().for_each(|answer| columns.learn(answer));
        let mut out = BytesMut::new();
        columns.write_head(&mut out);
        columns.write(&answers[0], &mut out);
        let expected = [
            "host_id,host_hostname,host_display_name,query_query_host_id,query_host_error,query_host_id,host_error",
            r#"1,h1,"H, 1",7,x,8,"#,
            "",
        ];
        assert_eq!(
            String::from_utf8(out.to_vec()).unwrap(),
            expected.join("\r\n")
        );
    }
}
