//! From a query to what a simulated host says to it: SQLite over tables that are filled for the query.
//!
//! A connection holds the tables of a platform, empty. For a query the tables that it reads are filled with the
//! host's rows, and emptied behind it. The query itself may only read, and has a bound on its time and its answer.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::fallible_iterator::FallibleIterator as _;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::limits::Limit;
use rusqlite::types::ValueRef;
use rusqlite::{Batch, Connection, Statement, params_from_iter};
use serde_json::{Map, Value};

use super::host::{Host, Platform};
use super::row::Moment;
use super::schema;
use super::tables;

/// The rows of one answer as osquery writes them (every value a string), or its error message.
pub(super) type Answer = Result<Vec<Map<String, Value>>, String>;

/// How long a query may run; osquery's watchdog is of this kind.
const QUERY_TIME: Duration = Duration::from_millis(1_000);
/// Instructions of SQLite's machine between two looks at the clock.
const PROGRESS_OPS: i32 = 10_000;
/// Rows of one answer.
const ROWS_MAX: usize = 10_000;
/// Bytes of one answer.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Bytes of one value; functions that make longer ones fail.
const VALUE_BYTES_MAX: i32 = 1 << 20;
/// Bytes of a query.
const SQL_BYTES_MAX: i32 = 64 << 10;
/// Connections that are kept for each platform.
const CONNECTIONS_KEPT: usize = 4;

/// Answers the queries of all hosts. Clones share the connections.
#[derive(Clone, Default)]
pub(super) struct Answers {
    idle: Arc<Mutex<Vec<(Platform, Connection)>>>,
}

impl Answers {
    /// Answers `sql` as `host` would at this moment. Takes up to [`QUERY_TIME`]: not for the event loop's threads.
    pub(super) fn answer(&self, sql: &str, host: &Host, moment: Moment) -> Answer {
        let connection = match self.take(host.platform) {
            Some(connection) => connection,
            None => open(host.platform).map_err(|error| message(&error))?,
        };
        let answer = run(&connection, sql, host, moment);
        self.give_back(host.platform, connection);
        answer
    }

    fn take(&self, platform: Platform) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let at = idle.iter().position(|(of, _)| *of == platform)?;
        Some(idle.swap_remove(at).1)
    }

    fn give_back(&self, platform: Platform, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = idle.iter().filter(|(of, _)| *of == platform).count();
        if kept < CONNECTIONS_KEPT {
            idle.push((platform, connection));
        }
    }
}

fn open(platform: Platform) -> rusqlite::Result<Connection> {
    let connection = Connection::open_in_memory()?;
    connection.execute_batch(&schema::declarations(platform))?;
    for (limit, most) in [
        (Limit::SQLITE_LIMIT_LENGTH, VALUE_BYTES_MAX),
        (Limit::SQLITE_LIMIT_SQL_LENGTH, SQL_BYTES_MAX),
        (Limit::SQLITE_LIMIT_EXPR_DEPTH, 200),
        (Limit::SQLITE_LIMIT_COMPOUND_SELECT, 100),
        (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 1_000),
        (Limit::SQLITE_LIMIT_ATTACHED, 0),
    ] {
        connection.set_limit(limit, most)?;
    }
    Ok(connection)
}

/// SQLite's own words.
fn message(error: &rusqlite::Error) -> String {
    match error {
        rusqlite::Error::SqliteFailure(_, Some(text)) => text.clone(),
        rusqlite::Error::SqliteFailure(failure, None) => failure.to_string(),
        rusqlite::Error::SqlInputError { msg, .. } => msg.clone(),
        other => other.to_string(),
    }
}

fn run(connection: &Connection, sql: &str, host: &Host, moment: Moment) -> Answer {
    let fails = |error: rusqlite::Error| message(&error);
    connection.execute_batch("BEGIN").map_err(fails)?;
    let answer = run_in_transaction(connection, sql, host, moment);
    connection
        .progress_handler(0, None::<fn() -> bool>)
        .and_then(|()| connection.authorizer(None::<fn(AuthContext<'_>) -> Authorization>))
        .and_then(|()| connection.execute_batch("ROLLBACK"))
        .map_err(fails)?;
    answer
}

fn run_in_transaction(connection: &Connection, sql: &str, host: &Host, moment: Moment) -> Answer {
    let fails = |error: rusqlite::Error| message(&error);
    let read = Arc::new(Mutex::new(BTreeSet::new()));
    let seen = Arc::clone(&read);
    connection
        .authorizer(Some(move |context: AuthContext<'_>| judge(&context, &seen)))
        .map_err(fails)?;
    let mut batch = Batch::new(connection, sql);
    let Some(mut statement) = batch.next().map_err(fails)? else {
        // What SQLite calls a query without a statement.
        return Err("not an error".to_owned());
    };
    connection
        .authorizer(None::<fn(AuthContext<'_>) -> Authorization>)
        .map_err(fails)?;
    for table in read.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        fill(connection, table, host, moment).map_err(fails)?;
    }
    let deadline = Instant::now() + QUERY_TIME;
    connection
        .progress_handler(PROGRESS_OPS, Some(move || Instant::now() > deadline))
        .map_err(fails)?;
    collect(&mut statement)
}

/// A query may read, and ask which columns a table has.
fn judge(context: &AuthContext<'_>, read: &Mutex<BTreeSet<String>>) -> Authorization {
    match context.action {
        AuthAction::Select | AuthAction::Recursive => Authorization::Allow,
        AuthAction::Read { table_name, .. } => {
            let mut read = read.lock().unwrap_or_else(PoisonError::into_inner);
            read.insert(table_name.to_owned());
            Authorization::Allow
        }
        AuthAction::Function { function_name } if function_name != "load_extension" => {
            Authorization::Allow
        }
        AuthAction::Pragma { pragma_name, .. }
            if pragma_name.eq_ignore_ascii_case("table_info")
                || pragma_name.eq_ignore_ascii_case("table_xinfo") =>
        {
            Authorization::Allow
        }
        _ => Authorization::Deny,
    }
}

/// Puts the host's rows into a table; SQLite's own tables have none of ours.
fn fill(connection: &Connection, table: &str, host: &Host, moment: Moment) -> rusqlite::Result<()> {
    for row in tables::rows(table, host, moment).unwrap_or_default() {
        let columns: Vec<String> = row.iter().map(|(name, _)| format!("`{name}`")).collect();
        let places = vec!["?"; row.len()].join(",");
        let sql = format!(
            "INSERT INTO `{table}` ({}) VALUES ({places})",
            columns.join(",")
        );
        let mut insert = connection.prepare_cached(&sql)?;
        insert.execute(params_from_iter(row.iter().map(|(_, value)| value)))?;
    }
    Ok(())
}

fn collect(statement: &mut Statement<'_>) -> Answer {
    let fails = |error: rusqlite::Error| message(&error);
    let names: Vec<String> = statement
        .column_names()
        .into_iter()
        .map(str::to_owned)
        .collect();
    let mut rows = statement.raw_query();
    let (mut answer, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next().map_err(fails)? {
        let mut shown = Map::new();
        for (at, name) in names.iter().enumerate() {
            let value = text(row.get_ref(at).map_err(fails)?);
            bytes += name.len() + value.len();
            // Columns of one name are one, the last.
            shown.insert(name.clone(), value.into());
        }
        answer.push(shown);
        if answer.len() > ROWS_MAX || bytes > ANSWER_BYTES_MAX {
            return Err(format!(
                "a simulated host answers with at most {ROWS_MAX} rows and {} MiB",
                ANSWER_BYTES_MAX >> 20
            ));
        }
    }
    Ok(answer)
}

/// A value as osquery sends it: a string, and an empty one for NULL.
fn text(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => String::new(),
        ValueRef::Integer(number) => number.to_string(),
        // Fifteen digits, as SQLite shows them.
        ValueRef::Real(number) => {
            let short: f64 = format!("{number:.14e}").parse().unwrap_or(number);
            format!("{short:?}")
        }
        ValueRef::Text(text) | ValueRef::Blob(text) => String::from_utf8_lossy(text).into_owned(),
    }
}
