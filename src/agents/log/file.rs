//! A log file that is set aside when it has grown enough, and takes no more when enough files have been.

use std::fs::{File, OpenOptions, metadata, rename};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// What is to be done when no more is taken.
const FULL: &str = "the files of osquery's logs take as much as they may: move away those that were set aside (.1, .2, \
                    ...), or raise --osquery-log-mib";

/// An append-only file, and its set-aside predecessors `.1` (the newest), `.2`, ...
#[derive(Debug)]
pub(super) struct Rotating {
    path: PathBuf,
    file: File,
    bytes: u64,
    bytes_max: u64,
    kept: u32,
}

impl Rotating {
    pub(super) fn open(path: PathBuf, bytes_max: u64, kept: u32) -> io::Result<Self> {
        let file = append_to(&path)?;
        let bytes = file.metadata()?.len();
        Ok(Self {
            path,
            file,
            bytes,
            bytes_max,
            kept,
        })
    }

    /// Appends whole lines; none only see to it that the file is there. On an error some of them may have been written; they will come again.
    pub(super) fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        self.follow_name()?;
        if lines.is_empty() {
            return Ok(());
        }
        if self.bytes >= self.bytes_max {
            if self.is_full()? {
                return Err(io::Error::new(ErrorKind::StorageFull, FULL));
            }
            self.set_aside()?;
        }
        self.file.write_all(lines)?;
        self.bytes += lines.len() as u64;
        Ok(())
    }

    /// Opens the file anew if its name does not lead to it any more: somebody has moved or deleted it, as logrotate does,
    /// and what is written into it would be found by nobody.
    fn follow_name(&mut self) -> io::Result<()> {
        let own = self.file.metadata()?;
        let is_same = match metadata(&self.path) {
            Ok(named) => (named.dev(), named.ino()) == (own.dev(), own.ino()),
            Err(error) if error.kind() == ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        if is_same {
            // It may have been cut short.
            self.bytes = own.len();
        } else {
            self.file = append_to(&self.path)?;
            self.bytes = self.file.metadata()?.len();
        }
        Ok(())
    }

    /// Whether there are as many set-aside files as there may be. What was acknowledged is not deleted: whoever has
    /// use for it moves it away.
    fn is_full(&self) -> io::Result<bool> {
        for age in 1..=self.kept {
            if !self.aged(age).try_exists()? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Moves each file one on, up to the first that is missing, and begins a new one.
    fn set_aside(&mut self) -> io::Result<()> {
        let mut free = 1;
        while free < self.kept && self.aged(free).try_exists()? {
            free += 1;
        }
        for age in (1..free).rev() {
            rename(self.aged(age), self.aged(age + 1))?;
        }
        rename(&self.path, self.aged(1))?;
        self.file = append_to(&self.path)?;
        self.bytes = 0;
        Ok(())
    }

    fn aged(&self, age: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{age}"));
        name.into()
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_moved_deleted_or_cut_is_begun_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.log");
        let moved = directory.path().join("moved.log");
        let mut file = Rotating::open(path.clone(), 100, 2).unwrap();
        file.write(b"one\n").unwrap();
        rename(&path, &moved).unwrap();
        file.write(b"two\n").unwrap();
        assert_eq!(std::fs::read_to_string(&moved).unwrap(), "one\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two\n");
        std::fs::remove_file(&path).unwrap();
        file.write(b"").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
        file.write(b"three\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "three\n");
        // As logrotate's copytruncate does.
        OpenOptions::new()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(0)
            .unwrap();
        file.write(b"four\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "four\n");
        // Somebody else has made the next one already.
        rename(&path, &moved).unwrap();
        std::fs::write(&path, "theirs\n").unwrap();
        file.write(b"five\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "theirs\nfive\n");
    }

    #[test]
    fn a_full_file_is_set_aside_and_nothing_is_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.log");
        let mut file = Rotating::open(path.clone(), 4, 2).unwrap();
        for line in ["one\n", "two\n", "three\n"] {
            file.write(line.as_bytes()).unwrap();
        }
        let error = file.write(b"four\n").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StorageFull);
        let read = |name: &str| std::fs::read_to_string(directory.path().join(name));
        assert_eq!(read("x.log").unwrap(), "three\n");
        assert_eq!(read("x.log.1").unwrap(), "two\n");
        assert_eq!(read("x.log.2").unwrap(), "one\n");
        // Somebody has taken one away: there is room again.
        std::fs::remove_file(directory.path().join("x.log.1")).unwrap();
        file.write(b"four\n").unwrap();
        assert_eq!(read("x.log").unwrap(), "four\n");
        assert_eq!(read("x.log.1").unwrap(), "three\n");
        assert_eq!(read("x.log.2").unwrap(), "one\n");
        assert!(read("x.log.3").is_err());
        drop(file);
        let mut again = Rotating::open(path, 100, 2).unwrap();
        again.write(b"five\n").unwrap();
        assert_eq!(read("x.log").unwrap(), "four\nfive\n");
    }
}
