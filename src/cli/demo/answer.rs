//! From a query to what a simulated host says to it.

use serde_json::{Map, Value};

use super::host::Host;
use super::sql::{self, Column, Select};
use super::tables::{self, Moment, Row};

/// The rows of one answer as osquery writes them (every value a string), or its error message.
pub(super) type Answer = Result<Vec<Map<String, Value>>, String>;

/// The most rows one table gives; simulated tables are far smaller.
const ROWS_MAX: usize = 1_000;

/// Answers `sql` as `host` would at this moment.
pub(super) fn answer(sql: &str, host: &Host, moment: Moment) -> Answer {
    let select = sql::read(sql)?;
    let rows = joined(&select, host, moment)?;
    if let (Some(row), false) = (rows.first(), select.nested) {
        knows_columns(&select, row)?;
    }
    let kept: Vec<&Row> = rows.iter().filter(|row| holds(&select, row)).collect();
    let counts = |column: &Column| matches!(column, Column::Count { .. });
    if select.columns.iter().any(counts) {
        let first = kept.first().copied().cloned().unwrap_or_default();
        return Ok(vec![project(&select, &first, kept.len())]);
    }
    let limit = select.limit.unwrap_or(ROWS_MAX).min(ROWS_MAX);
    let shown = kept.iter().take(limit);
    Ok(shown.map(|row| project(&select, row, kept.len())).collect())
}

/// The rows of the first table, each with the first rows of the others beside it.
fn joined(select: &Select, host: &Host, moment: Moment) -> Result<Vec<Row>, String> {
    let mut tables = Vec::with_capacity(select.tables.len());
    for name in &select.tables {
        let rows = tables::rows(name, host, moment);
        tables.push(rows.ok_or_else(|| format!("no such table: {name}"))?);
    }
    let mut tables = tables.into_iter();
    let Some(mut rows) = tables.next() else {
        return Ok(vec![Row::new()]);
    };
    for other in tables {
        let Some(beside) = other.first() else {
            continue;
        };
        for row in &mut rows {
            let new = beside.iter().filter(|(name, _)| cell(row, name).is_none());
            let new: Row = new.cloned().collect();
            row.extend(new);
        }
    }
    Ok(rows)
}

fn knows_columns(select: &Select, row: &Row) -> Result<(), String> {
    for column in &select.columns {
        if let Column::Named { source, .. } = column
            && cell(row, source).is_none()
        {
            return Err(format!("no such column: {source}"));
        }
    }
    Ok(())
}

fn cell<'a>(row: &'a Row, column: &str) -> Option<&'a str> {
    let found = row.iter().find(|(name, _)| *name == column);
    found.map(|(_, value)| value.as_str())
}

fn holds(select: &Select, row: &Row) -> bool {
    select.filter.is_empty()
        || select.filter.iter().any(|all| {
            all.iter().all(|condition| {
                // What is not a column of ours (an expression) is not judged.
                cell(row, &condition.column).is_none_or(|cell| condition.holds(cell))
            })
        })
}

fn project(select: &Select, row: &Row, count: usize) -> Map<String, Value> {
    let mut shown = Map::new();
    for column in &select.columns {
        let (name, value) = match column {
            Column::All => {
                let cells = row.iter();
                shown
                    .extend(cells.map(|(name, value)| ((*name).to_owned(), value.as_str().into())));
                continue;
            }
            Column::Literal { name, value } => (name, value.clone()),
            Column::Named { name, source } => {
                (name, cell(row, source).unwrap_or_default().to_owned())
            }
            Column::Count { name } => (name, count.to_string()),
            Column::Computed { name, words } => {
                let found = words.iter().find_map(|word| cell(row, word));
                (name, found.unwrap_or_default().to_owned())
            }
        };
        shown.insert(name.clone(), value.into());
    }
    shown
}
