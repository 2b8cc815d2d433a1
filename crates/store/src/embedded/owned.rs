//! That a data directory is this process's alone, and stays what was opened.

use std::fs::{File, Metadata, OpenOptions, TryLockError, metadata};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::faults::io_fault;
use super::{CAMPAIGNS, CATALOG, LOCK};
use crate::StoreError;

/// The locks of a directory, held while this lives.
#[derive(Debug)]
pub(super) struct Owned {
    dir: PathBuf,
    _lock: File,
    /// The directory of the campaigns' files. Its lock goes with it wherever it is moved, while a lock's file may be
    /// removed by whoever tidies up.
    campaigns: File,
    catalog: Option<(u64, u64)>,
}

impl Owned {
    /// Locks a directory whose directory of campaigns is made.
    pub(super) fn lock(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(LOCK);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let lock = options.mode(0o600).open(&path);
        let lock = locked(lock, &path)?;
        let path = dir.join(CAMPAIGNS);
        let campaigns = locked(File::open(&path), &path)?;
        Ok(Self {
            dir: dir.to_owned(),
            _lock: lock,
            campaigns,
            catalog: None,
        })
    }

    /// From now on the catalog's file is the one that is there.
    pub(super) fn catalog_is_open(&mut self) -> io::Result<()> {
        self.catalog = Some(identity(&metadata(self.dir.join(CATALOG))?));
        Ok(())
    }

    /// That the files by their names are still those that are written. Blocks.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        let catalog = (self.dir.join(CATALOG), self.catalog);
        let campaigns = self.campaigns.metadata().ok();
        let campaigns = (
            self.dir.join(CAMPAIGNS),
            campaigns.map(|data| identity(&data)),
        );
        for (path, opened) in [catalog, campaigns] {
            let found = metadata(&path).ok().map(|data| identity(&data));
            if opened.is_some() && found != opened {
                return Err(StoreError::Full(format!(
                    "the store takes no writes: {} was removed or replaced while the broker runs: stop it and put the data \
                     directory back",
                    path.display()
                )));
            }
        }
        Ok(())
    }
}

fn identity(data: &Metadata) -> (u64, u64) {
    (data.dev(), data.ino())
}

fn locked(file: io::Result<File>, path: &Path) -> Result<File, StoreError> {
    let told = format!("the lock {}", path.display());
    let file = file.map_err(|error| io_fault(&told, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::Unavailable(format!(
            "{told} is held: another process has this data directory open"
        ))),
        Err(TryLockError::Error(error)) => Err(io_fault(&told, &error)),
    }
}
