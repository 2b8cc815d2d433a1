//! A log file that is set aside when it has grown enough.

use std::fs::{File, OpenOptions, rename};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

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

    /// Appends whole lines. On an error some of them may have been written; they will come again.
    pub(super) fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.bytes >= self.bytes_max {
            self.set_aside()?;
        }
        self.file.write_all(lines)?;
        self.bytes += lines.len() as u64;
        Ok(())
    }

    /// Moves each file one on, over the oldest, and begins a new one.
    fn set_aside(&mut self) -> io::Result<()> {
        for age in (1..self.kept).rev() {
            match rename(self.aged(age), self.aged(age + 1)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if self.kept > 0 {
            rename(&self.path, self.aged(1))?;
        } else {
            self.file.set_len(0)?;
        }
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
    fn a_full_file_is_set_aside_and_the_oldest_is_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.log");
        let mut file = Rotating::open(path.clone(), 4, 2).unwrap();
        for line in ["one\n", "two\n", "three\n", "four\n"] {
            file.write(line.as_bytes()).unwrap();
        }
        let read = |name: &str| std::fs::read_to_string(directory.path().join(name));
        assert_eq!(read("x.log").unwrap(), "four\n");
        assert_eq!(read("x.log.1").unwrap(), "three\n");
        assert_eq!(read("x.log.2").unwrap(), "two\n");
        assert!(read("x.log.3").is_err());
        drop(file);
        let mut again = Rotating::open(path, 100, 2).unwrap();
        again.write(b"five\n").unwrap();
        assert_eq!(read("x.log").unwrap(), "four\nfive\n");
    }
}
