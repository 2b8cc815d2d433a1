//! Log lines on their way to standard error, written beside the work: whoever reads them may stop, and nobody else does.
//!
//! Lines wait in two queues, those of the audit trail in one of their own. What does not fit is left out and counted, and
//! the count is the next line that is written.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::Metadata;
use tracing_subscriber::fmt::MakeWriter;

/// Bytes of lines that wait, of each queue.
const WAITING_BYTES: usize = 4 * 1024 * 1024;
/// The target of lines that are evidence.
const AUDIT: &str = "audit";

/// The way to the thread that writes. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Lines(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    queues: Mutex<Queues>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queues {
    audit: Queue,
    others: Queue,
    /// Whether the thread is writing what it has taken.
    is_writing: bool,
}

#[derive(Debug, Default)]
struct Queue {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    left_out: u64,
}

impl Queue {
    fn push(&mut self, line: Vec<u8>) {
        if self.bytes + line.len() > WAITING_BYTES {
            self.left_out += 1;
            return;
        }
        self.bytes += line.len();
        self.lines.push_back(line);
    }

    /// All that waits, and what is to be said of what does not.
    fn take(&mut self, what: &str, out: &mut Vec<u8>) {
        for line in self.lines.drain(..) {
            out.extend_from_slice(&line);
        }
        self.bytes = 0;
        let left_out = std::mem::take(&mut self.left_out);
        if left_out > 0 {
            let told =
                format!("answerback: {left_out} {what} were left out: nobody took them in time\n");
            out.extend_from_slice(told.as_bytes());
        }
    }

    fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.left_out == 0
    }
}

impl Lines {
    /// Starts the thread that writes to `out`.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn start(out: impl Write + Send + 'static) -> io::Result<Self> {
        let lines = Self::default();
        let shared = Arc::clone(&lines.0);
        let thread = std::thread::Builder::new().name("log".to_owned());
        // It ends with the process: whoever reads nothing would hold up whoever waited for it.
        thread.spawn(move || shared.write_all(out))?;
        Ok(lines)
    }

    /// Waits until everything is written, but not for long.
    pub fn flush(&self, patience: Duration) {
        let until = Instant::now() + patience;
        let mut queues = self.0.queues();
        while queues.is_writing || !queues.audit.is_empty() || !queues.others.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.0.changed.wait_timeout(queues, left);
            queues = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Shared {
    /// What is in the queues is whole at all times, so a panic elsewhere does no harm.
    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_all(&self, mut out: impl Write) {
        loop {
            let mut text = Vec::new();
            {
                let mut queues = self.queues();
                queues.is_writing = false;
                self.changed.notify_all();
                while queues.audit.is_empty() && queues.others.is_empty() {
                    let waited = self.changed.wait(queues);
                    queues = waited.unwrap_or_else(PoisonError::into_inner);
                }
                queues.audit.take("lines of the audit trail", &mut text);
                queues.others.take("log lines", &mut text);
                queues.is_writing = true;
            }
            // There is nowhere to tell of a log that cannot be written.
            let _ = out.write_all(&text).and_then(|()| out.flush());
        }
    }
}

/// One line, until it is whole.
#[derive(Debug)]
pub struct Line {
    lines: Lines,
    text: Vec<u8>,
    is_audit: bool,
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let text = std::mem::take(&mut self.text);
        if text.is_empty() {
            return;
        }
        let mut queues = self.lines.0.queues();
        match self.is_audit {
            true => queues.audit.push(text),
            false => queues.others.push(text),
        }
        self.lines.0.changed.notify_all();
    }
}

impl Lines {
    fn line(&self, is_audit: bool) -> Line {
        Line {
            lines: self.clone(),
            text: Vec::new(),
            is_audit,
        }
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        self.line(false)
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Line {
        self.line(metadata.target() == AUDIT)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Somebody who reads when told to.
    struct Pipe {
        begun: mpsc::Sender<()>,
        go_on: mpsc::Receiver<()>,
        taken: mpsc::Sender<String>,
    }

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.begun.send(());
            let _ = self.go_on.recv();
            let _ = self.taken.send(String::from_utf8_lossy(bytes).into_owned());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn say(lines: &Lines, text: &str, is_audit: bool) {
        let mut line = lines.line(is_audit);
        line.write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn a_reader_who_stops_stops_nobody_and_hears_how_much_was_left_out() {
        let (go, go_on) = mpsc::channel();
        let (taken, lines_taken) = mpsc::channel();
        let (begun, writes) = mpsc::channel();
        let lines = Lines::start(Pipe {
            begun,
            go_on,
            taken,
        })
        .unwrap();
        say(&lines, "first\n", false);
        writes.recv().unwrap();
        let line = format!("{}\n", "x".repeat(1023));
        for _ in 0..10_000 {
            say(&lines, &line, false);
        }
        say(&lines, "evidence\n", true);
        lines.flush(Duration::from_millis(50));
        go.send(()).unwrap();
        let first = lines_taken.recv().unwrap();
        assert!(first.starts_with("first\n"));
        for _ in 0..3 {
            go.send(()).unwrap();
        }
        let rest = lines_taken.recv().unwrap();
        assert!(rest.starts_with("evidence\n"), "the trail comes first");
        let bytes = first.len() + rest.len();
        assert!(bytes < 3 * WAITING_BYTES);
        assert!(rest.contains("log lines were left out"));
        lines.flush(Duration::from_secs(5));
    }
}
