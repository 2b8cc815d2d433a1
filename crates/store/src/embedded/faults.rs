//! What files and SQLite say when they fail, in the store's words.

use std::io;

use rusqlite::ErrorCode;

use crate::StoreError;

const DISK: &str = "the disk of the data directory is full: make room on it";
const FAULTY: &str =
    "the disk of the data directory fails: look at its room and at the system's log";
const FILE_SIZE: &str = "a limit of the size of files is reached: raise it (LimitFSIZE= in a unit file, `ulimit -f` in a shell)";

const DESCRIPTORS: &str = "no file can be opened any more: raise the limit of file descriptors (LimitNOFILE= in a unit file, \
     `ulimit -Hn` in a shell) or lower --connections";
const FORBIDDEN: &str =
    "the data directory cannot be written: look at its owner, its rights and how it is mounted";

pub(super) fn io_fault(what: &str, error: &io::Error) -> StoreError {
    let told = format!("{what}: {error}");
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            StoreError::Full(format!("{DISK} ({told})"))
        }
        io::ErrorKind::FileTooLarge => StoreError::Full(format!("{FILE_SIZE} ({told})")),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            StoreError::Full(format!("{FORBIDDEN} ({told})"))
        }
        _ if is_out_of_descriptors(error) => StoreError::Full(format!("{DESCRIPTORS} ({told})")),
        _ => StoreError::Unavailable(told),
    }
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let number = error.raw_os_error();
    [Errno::MFILE, Errno::NFILE]
        .iter()
        .any(|errno| number == Some(errno.raw_os_error()))
}

/// What work in a transaction says when it fails at a file, so that the transaction is undone.
pub(super) fn file_fault(error: io::Error) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(Box::new(error))
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        if let rusqlite::Error::ToSqlConversionFailure(inner) = &error
            && let Some(error) = inner.downcast_ref()
        {
            return io_fault("a campaign's file", error);
        }
        let told = format!("the catalog's file: {error}");
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full(format!("{DISK} ({told})")),
            Some(ErrorCode::SystemIoFailure) => Self::Full(format!("{FAULTY} ({told})")),
            Some(ErrorCode::ReadOnly) => Self::Full(format!("{FORBIDDEN} ({told})")),
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
