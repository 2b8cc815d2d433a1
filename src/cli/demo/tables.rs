//! The way from a table's name to its rows.

use super::host::Host;
use super::row::{Moment, Row};
use super::schema::TABLES;
use super::{machine, network, people, processes, software};

/// The rows of `table` on `host`; `None` when the host's osquery has no such table.
pub(super) fn rows(table: &str, host: &Host, moment: Moment) -> Option<Vec<Row>> {
    let (_, on, _) = TABLES.iter().find(|(name, ..)| *name == table)?;
    if !on.has(host.platform) {
        return None;
    }
    let rows = machine::rows(table, host, moment)
        .or_else(|| processes::rows(table, host, moment))
        .or_else(|| people::rows(table, host))
        .or_else(|| network::rows(table, host))
        .or_else(|| software::rows(table, host, moment));
    Some(rows.unwrap_or_default())
}
