//! How much memory the machine, or the container, gives to this process.

use std::path::{Path, PathBuf};

/// The limits of all control groups that this process is in, and the machine's memory: the least of them, in bytes. None
/// where nothing can be read.
pub(super) fn limit() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = limit_files(&groups, Path::new("/sys/fs/cgroup"));
    let limits = limits.iter().filter_map(|file| number(file));
    limits.chain(machine()).min()
}

/// The files that may hold a limit: of version 2 from the process's group up to the root, and of version 1.
fn limit_files(groups: &str, root: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (parts.next(), parts.next()) else {
            continue;
        };
        let (base, name) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            _ if controllers.split(',').any(|each| each == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let group = Path::new(group.trim_start_matches('/'));
        let groups = group.ancestors().map(|group| base.join(group).join(name));
        files.extend(groups);
    }
    files
}

/// "max" is no limit.
fn number(file: &Path) -> Option<u64> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

fn machine() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_groups_limit_and_those_above_it_count() {
        let root = Path::new("/g");
        let files = |groups| limit_files(groups, root);
        let expected = ["a/b/memory.max", "a/memory.max", "memory.max"];
        assert_eq!(files("0::/a/b\n"), expected.map(|file| root.join(file)));
        let expected = [
            "memory/x/memory.limit_in_bytes",
            "memory/memory.limit_in_bytes",
        ];
        assert_eq!(
            files("4:cpu:/x\n3:hugetlb,memory:/x\n"),
            expected.map(|file| root.join(file))
        );
    }

    #[test]
    fn this_machine_has_memory() {
        assert!(limit().is_some_and(|bytes| bytes > 1 << 20));
    }
}
