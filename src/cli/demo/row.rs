//! Rows of simulated tables, and the moment at which they are asked for.

/// One row: column names and what they hold. Columns that are not in it hold NULL.
pub(super) type Row = Vec<(&'static str, String)>;

/// What changes while a host runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    /// Seconds since the Unix epoch.
    pub(super) unix_s: u64,
    /// Seconds since the demo started.
    pub(super) running_s: u64,
}

pub(super) fn row<const N: usize>(cells: [(&'static str, &str); N]) -> Row {
    cells
        .into_iter()
        .map(|(column, value)| (column, value.to_owned()))
        .collect()
}
