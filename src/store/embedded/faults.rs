//! What files and SQLite say when they fail, in the store's words.

use std::io;

use rusqlite::ErrorCode;

use crate::store::StoreError;

const DISK: &str = "the disk of the data directory is full: make room on it";
const FAULTY: &str =
    "the disk of the data directory fails: look at its room and at the system's log";
const FILE_SIZE: &str = "a limit of the size of files is reached: raise it (LimitFSIZE= in a unit file, `ulimit -f` in a shell)";

pub(super) fn io_fault(what: &str, error: &io::Error) -> StoreError {
    let told = format!("{what}: {error}");
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            StoreError::Full(format!("{DISK} ({told})"))
        }
        io::ErrorKind::FileTooLarge => StoreError::Full(format!("{FILE_SIZE} ({told})")),
        _ => StoreError::Unavailable(told),
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        let told = format!("the catalog's file: {error}");
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full(format!("{DISK} ({told})")),
            Some(ErrorCode::SystemIoFailure) => Self::Full(format!("{FAULTY} ({told})")),
            Some(ErrorCode::TooBig) => Self::Full(told),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged(told),
            _ => Self::Unavailable(told),
        }
    }
}

/// SQLite's integers are signed. Nothing that is counted here comes near the difference.
pub(super) fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Back from SQLite; what is negative was not written by us.
pub(super) fn number(int: i64) -> u64 {
    u64::try_from(int).unwrap_or(0)
}

pub(super) fn closed() -> StoreError {
    StoreError::Unavailable("the store is closed".into())
}
