//! What is left of a campaign's file in whose middle something is damaged: every whole entry, before and behind.
//!
//! A torn end is what a crash leaves of the last write: there is nothing whole behind it, and it was never acknowledged. If
//! there is, the file was written whole and damaged later.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::entry::{self, Entry, Parsed};

/// Of a longer rest of a file nothing is looked for.
const REST_BYTES_MAX: u64 = 512 << 20;
/// So much is looked through for whole entries, in bytes, what is looked at more than once counted each time.
const LOOKED_AT_MAX: usize = 1 << 30;

/// The entries that stand whole behind `from`, where something else is. Empty if that is a torn end.
pub(super) fn behind(file: &File, from: u64, end: u64) -> io::Result<Vec<Entry>> {
    let rest = end.saturating_sub(from);
    if rest > REST_BYTES_MAX {
        return Ok(Vec::new());
    }
    let mut bytes = vec![0; usize::try_from(rest).unwrap_or(0)];
    file.read_exact_at(&mut bytes, from)?;
    let mut rest = Bytes::from(bytes);
    let mut found = Vec::new();
    let mut left = LOOKED_AT_MAX;
    while !rest.is_empty() && left > 0 {
        let step = match entry::begins(&rest) {
            Some(length) => {
                left = left.saturating_sub(length);
                match entry::parse(&rest) {
                    Parsed::Whole(entry, bytes) => {
                        found.push(entry);
                        bytes
                    }
                    Parsed::Short(_) | Parsed::Damaged => 1,
                }
            }
            None => 1,
        };
        rest = rest.slice(step..);
    }
    Ok(found)
}

/// Where a file is made anew before it takes another's place.
pub(super) fn beside(path: &Path) -> PathBuf {
    path.with_extension("mended")
}

/// Moves a file to where nothing is deleted.
pub(super) fn set_aside(path: &Path, aside: &Path) -> io::Result<PathBuf> {
    let to = place_aside(path, aside)?;
    std::fs::rename(path, &to)?;
    Ok(to)
}

/// Keeps a file where nothing is deleted, and where it is, until another takes its place there.
pub(super) fn keep_aside(path: &Path, aside: &Path) -> io::Result<PathBuf> {
    let to = place_aside(path, aside)?;
    // Not every file system has links.
    std::fs::hard_link(path, &to).or_else(|_| std::fs::copy(path, &to).map(|_| ()))?;
    Ok(to)
}

/// Copies a file to where nothing is deleted.
pub(super) fn keep_copy(path: &Path, aside: &Path) -> io::Result<()> {
    let to = place_aside(path, aside)?;
    std::fs::copy(path, &to).map(|_| ())
}

fn place_aside(path: &Path, aside: &Path) -> io::Result<PathBuf> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(aside)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut to = aside.join(format!("{name}.0"));
    let mut number = 0;
    while to.exists() {
        number += 1;
        to = aside.join(format!("{name}.{number}"));
    }
    Ok(to)
}
