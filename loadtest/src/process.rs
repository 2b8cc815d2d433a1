//! What Linux tells about a process: CPU time of all its threads and children, resident memory, open files.

use std::fs;
use std::time::Duration;

use anyhow::Context;
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

/// A process under observation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process(u32);

impl Process {
    pub(crate) fn new(pid: u32) -> Self {
        Self(pid)
    }

    pub(crate) fn own() -> Self {
        Self(std::process::id())
    }

    /// Nanoseconds of CPU that all threads of it and of its living children have used.
    pub(crate) fn cpu_ns(self) -> anyhow::Result<u64> {
        let own = self.own_cpu_ns()?;
        // A child may end between the listing and the reading.
        let of_children = self.children().filter_map(|child| child.own_cpu_ns().ok());
        Ok(own + of_children.sum::<u64>())
    }

    /// What [`Process::cpu_ns`] has grown by. An error if it has become less: a process that was counted has ended.
    pub(crate) fn cpu_ns_since(self, before: u64) -> anyhow::Result<u64> {
        let grown = self.cpu_ns()?.checked_sub(before);
        grown.context("a process has ended, and its CPU time is not known any more")
    }

    /// The processes that it has started; not those that they have started.
    pub(crate) fn children(self) -> impl Iterator<Item = Process> {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(move |pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
            stat.is_ok_and(|stat| parent(&stat) == Some(self.0))
        })
        .map(Process)
    }

    /// From the process' own clock: the threads' figures in `/proc` lose what a thread has used when it ends.
    fn own_cpu_ns(self) -> anyhow::Result<u64> {
        // 0 would be whoever asks.
        let pid = i32::try_from(self.0).ok().filter(|pid| *pid > 0);
        let used = pid.and_then(|pid| {
            let clock = clock_getcpuclockid(Pid::from_raw(pid)).ok()?;
            clock_gettime(clock).ok()
        });
        let used = used.with_context(|| format!("no process {}", self.0))?;
        Ok(u64::try_from(Duration::from(used).as_nanos())?)
    }

    /// Resident memory in bytes.
    pub(crate) fn resident_bytes(self) -> anyhow::Result<u64> {
        let path = format!("/proc/{}/status", self.0);
        let text = fs::read_to_string(&path).with_context(|| format!("no process {}", self.0))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kibibytes = line.and_then(first_number);
        Ok(kibibytes.context("no VmRSS")? * 1024)
    }

    /// How many files the process may open.
    pub(crate) fn open_files_max(self) -> Option<u64> {
        let text = fs::read_to_string(format!("/proc/{}/limits", self.0)).ok()?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("Max open files"))?;
        first_number(line)
    }
}

/// Fails early, with advice, when so many connections cannot be opened.
pub(crate) fn ensure_files(connections: usize) -> anyhow::Result<()> {
    /// Files beside the connections: the runtimes' own and the standard streams.
    const BESIDE: u64 = 64;
    let Some(max) = Process::own().open_files_max() else {
        return Ok(());
    };
    let wanted = connections as u64 + BESIDE;
    anyhow::ensure!(
        wanted <= max,
        "{connections} connections need {wanted} open files and the limit is {max}: raise it with `ulimit -n {wanted}`"
    );
    Ok(())
}

/// Who started the process of which this is `/proc/PID/stat`. Its name, in parentheses, may hold anything.
fn parent(stat: &str) -> Option<u32> {
    let behind_name = stat.rsplit_once(')')?.1;
    behind_name.split_whitespace().nth(1)?.parse().ok()
}

fn first_number(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_cpu_and_memory() {
        let own = Process::own();
        assert!(own.resident_bytes().unwrap() > 100_000);
        assert!(own.open_files_max().unwrap() > 10);
        let before = own.own_cpu_ns().unwrap();
        let worked = std::thread::spawn(move || {
            let began = own.own_cpu_ns().unwrap();
            while own.own_cpu_ns().unwrap() < began + 20_000_000 {}
        });
        worked.join().unwrap();
        // What the thread used stays used when it has ended.
        assert!(own.own_cpu_ns().unwrap() >= before + 20_000_000);
    }

    #[test]
    fn children_are_found_by_whom_they_name_as_their_parent() {
        assert_eq!(parent("42 (a) b (c) S 7 42 42 0 -1"), Some(7));
        assert_eq!(parent("42"), None);
        let mut command = std::process::Command::new("sleep");
        let mut child = command.arg("60").spawn().unwrap();
        let found = Process::own().children().any(|one| one.0 == child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found);
    }

    #[test]
    fn too_many_connections_are_refused_with_advice() {
        let error = ensure_files(usize::MAX / 2).unwrap_err().to_string();
        assert!(error.contains("ulimit -n"));
        assert!(Process::new(u32::MAX).cpu_ns().is_err());
        assert!(Process::new(0).cpu_ns().is_err());
    }
}
