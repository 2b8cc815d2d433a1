//! osquery's own logs: scheduled results and status lines, one JSON line each, to where the operator wants them.
//!
//! An agent deletes what was acknowledged, so the acknowledgement waits for the sink, and a sink that fails or
//! cannot keep up makes the agent keep its lines and try again.

mod file;

use std::collections::VecDeque;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use warp::reply::Response;

use self::file::Rotating;
use super::Agents;
use super::http::{Ready, Refusal};
use super::request::Request;
use super::wire::answer::json;
use super::wire::rows::{RowsFault, write_compact};
use super::wire::{Body, Value};
use crate::clock::Timestamp;
use crate::results::HostId;
use crate::sampled;
use crate::telemetry::metrics::names;

/// Bytes that wait for the sink at once; more than a body may have.
const QUEUE_BYTES: u32 = 64 << 20;
/// What a body counts for beside its lines.
const BATCH_BYTES: u32 = 1 << 10;
/// How long an agent waits for room in the queue before it is told to try again.
const QUEUE_TIME: Duration = Duration::from_secs(1);
/// The member of each line that says which host sent it.
const HOST_ID: &str = "answerback_host_id";
/// How long an agent waits for the sink; osquery gives up on a request after 16 s.
const WRITE_TIME: Duration = Duration::from_secs(10);
/// Batches that are written together.
const WRITE_BATCHES: usize = 256;

/// Where osquery's logs go.
#[derive(Clone, Debug, Default)]
pub enum SinkSettings {
    /// Nowhere; agents are told that they were taken.
    #[default]
    Discard,
    /// The process's standard output, both kinds.
    Stdout,
    /// `osquery_result.log` and `osquery_status.log` in a directory, which must exist.
    Files {
        /// The directory.
        directory: PathBuf,
        /// A file is set aside when it has reached so many bytes.
        bytes_max: u64,
        /// So many set-aside files of each kind there may be, at least one: `.1` is the newest. When there are, and the
        /// file is full as well, agents are told to keep their lines.
        kept: u32,
    },
}

/// The kinds of log that osquery sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Result,
    Status,
}

/// Lines on their way, and who waits for them.
#[derive(Debug)]
struct Batch {
    kind: Kind,
    lines: Bytes,
    /// Its share of the queue's bytes.
    _room: OwnedSemaphorePermit,
    written: oneshot::Sender<Result<(), String>>,
}

/// The way to the writer. A blocking job writes while there is anything to write, and no longer: an owner of its
/// tracker that waits for it knows that everything is written.
#[derive(Clone, Debug)]
pub struct LogSink {
    queue: Option<Arc<Mutex<Queue>>>,
    room: Arc<Semaphore>,
    tasks: TaskTracker,
}

/// What waits, and the writer while it rests.
#[derive(Debug)]
struct Queue {
    waiting: VecDeque<Batch>,
    writer: Rest,
}

#[derive(Debug)]
enum Rest {
    Resting(Writer),
    Writing,
    /// It panicked.
    Gone,
}

impl LogSink {
    /// Opens the sink; `tasks` owns its writing.
    ///
    /// # Errors
    /// When a file cannot be opened.
    pub fn open(settings: &SinkSettings, tasks: &TaskTracker) -> io::Result<Self> {
        let writer = match settings {
            SinkSettings::Discard => None,
            SinkSettings::Stdout => Some(Writer::Stdout),
            SinkSettings::Files {
                directory,
                bytes_max,
                kept,
            } => {
                let open = |name| Rotating::open(directory.join(name), *bytes_max, *kept);
                let files = [open("osquery_result.log")?, open("osquery_status.log")?];
                Some(Writer::Files(Box::new(files)))
            }
        };
        let queue = writer.map(|writer| {
            let (waiting, writer) = (VecDeque::new(), Rest::Resting(writer));
            Arc::new(Mutex::new(Queue { waiting, writer }))
        });
        Ok(Self {
            queue,
            room: Arc::new(Semaphore::new(QUEUE_BYTES as usize)),
            tasks: tasks.clone(),
        })
    }

    /// Opens files anew that were moved or deleted, without waiting for a line. Gives the fault for people.
    async fn reopen(&self) -> Result<(), String> {
        for kind in [Kind::Result, Kind::Status] {
            let opened = self.put(kind, Bytes::new()).await;
            opened.map_err(|refusal| refusal.to_string())?;
        }
        Ok(())
    }

    /// Completes when the lines are with the operating system.
    async fn write(&self, kind: Kind, lines: Bytes) -> Result<(), Refusal> {
        if lines.is_empty() {
            return Ok(());
        }
        self.put(kind, lines).await
    }

    async fn put(&self, kind: Kind, lines: Bytes) -> Result<(), Refusal> {
        let Some(queue) = &self.queue else {
            return Ok(());
        };
        let size = u32::try_from(lines.len()).unwrap_or(u32::MAX);
        let size = size.saturating_add(BATCH_BYTES);
        if size > QUEUE_BYTES {
            return Err(Refusal::LogTooLarge);
        }
        let room = Arc::clone(&self.room).acquire_many_owned(size);
        let room = timeout(QUEUE_TIME, room).await;
        let room = room.map_err(|_| Refusal::Busy)?;
        let (written, outcome) = oneshot::channel();
        let batch = Batch {
            kind,
            lines,
            _room: room.map_err(|_| Refusal::Busy)?,
            written,
        };
        if let Some(writer) = lock(queue).take_in(batch) {
            let queue = Arc::clone(queue);
            self.tasks.spawn_blocking(move || write_all(writer, queue));
        }
        // The lines may be written later, and come again: the agent keeps what was not acknowledged.
        let outcome = timeout(WRITE_TIME, outcome)
            .await
            .map_err(|_| Refusal::Busy)?;
        let outcome = outcome.unwrap_or_else(|_| Err("the writer has ended".to_owned()));
        outcome.map_err(Refusal::Log)
    }
}

impl Queue {
    /// Adds a batch; the writer if it was resting and is to be set to work.
    fn take_in(&mut self, batch: Batch) -> Option<Writer> {
        match std::mem::replace(&mut self.writer, Rest::Writing) {
            Rest::Resting(writer) => {
                self.waiting.push_back(batch);
                return Some(writer);
            }
            Rest::Writing => self.waiting.push_back(batch),
            // Dropping the batch tells whoever waits for it.
            Rest::Gone => self.writer = Rest::Gone,
        }
        None
    }
}

fn lock(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes batches in the order of their arrival, as many at once as wait, until none waits.
fn write_all(mut writer: Writer, queue: Arc<Mutex<Queue>>) {
    let mut end = End {
        queue,
        rests: false,
    };
    loop {
        let batches: Vec<Batch> = {
            let mut queue = lock(&end.queue);
            if queue.waiting.is_empty() {
                end.rests = true;
                queue.writer = Rest::Resting(writer);
                return;
            }
            let count = queue.waiting.len().min(WRITE_BATCHES);
            queue.waiting.drain(..count).collect()
        };
        let outcomes = writer.write(&batches);
        for (batch, outcome) in batches.into_iter().zip(outcomes) {
            // Nobody waits if the agent has gone; its lines are written none the less.
            let _ = batch.written.send(outcome);
        }
    }
}

/// Notices that the writer ended without going back to rest.
struct End {
    queue: Arc<Mutex<Queue>>,
    rests: bool,
}

impl Drop for End {
    fn drop(&mut self) {
        if !self.rests {
            let mut queue = lock(&self.queue);
            tracing::error!("the writer of osquery's logs has ended");
            queue.writer = Rest::Gone;
            queue.waiting.clear();
        }
    }
}

#[derive(Debug)]
enum Writer {
    Stdout,
    /// Results, status.
    Files(Box<[Rotating; 2]>),
}

impl Writer {
    /// Writes each kind's batches together; all of a kind share their fate.
    fn write(&mut self, batches: &[Batch]) -> Vec<Result<(), String>> {
        let mut one = |kind| {
            let lines = batches.iter().filter(|batch| batch.kind == kind);
            let lines: Vec<&[u8]> = lines.map(|batch| &*batch.lines).collect();
            let is_asked = !lines.is_empty();
            let lines = lines.concat();
            let written = match self {
                _ if !is_asked => Ok(()),
                Self::Stdout => {
                    let mut out = io::stdout().lock();
                    out.write_all(&lines).and_then(|()| out.flush())
                }
                Self::Files(files) => files[kind as usize].write(&lines),
            };
            written.map_err(|error| {
                sampled!(error, %error, ?kind, "osquery's log could not be written");
                error.to_string()
            })
        };
        let (results, status) = (one(Kind::Result), one(Kind::Status));
        let outcome = |batch: &Batch| match batch.kind {
            Kind::Result => results.clone(),
            Kind::Status => status.clone(),
        };
        batches.iter().map(outcome).collect()
    }
}

impl Agents {
    /// Opens osquery's log files anew that were moved or deleted.
    ///
    /// # Errors
    /// Why one could not be opened, for people.
    pub async fn reopen_logs(&self) -> Result<(), String> {
        self.sink.reopen().await
    }

    /// A body that is not what it should be is taken as far as it is: the agent would send it again with all later lines.
    pub(super) async fn log(
        &self,
        request: &Request<'_>,
        now: Timestamp,
    ) -> Result<Response, Refusal> {
        let host = self.identify(request).await?;
        self.catalog.presence().touch(host.id, now);
        let body = &request.body;
        let kind = match body.text("log_type").as_deref() {
            Some("result") => Kind::Result,
            Some("status") => Kind::Status,
            _ => {
                sampled!(warn, host = host.id.0, "a log of unknown type was dropped");
                return Ok(Ready::done());
            }
        };
        let (lines, unreadable) = lines(body, host.id);
        let kib = u32::try_from(lines.len().div_ceil(1024)).unwrap_or(u32::MAX);
        if let Err(wait) = self.log_rate.take_many(&host.id, kib) {
            sampled!(
                warn,
                host = host.id.0,
                "a host sends more lines of osquery's log than it may"
            );
            return Err(Refusal::LogRate(wait));
        }
        let dropped = unreadable + request.omitted.len();
        if dropped > 0 {
            metrics::counter!(names::LOG_LINES_DROPPED).increment(dropped as u64);
            sampled!(
                warn,
                host = host.id.0,
                dropped,
                "lines of osquery's log could not be read"
            );
        }
        self.sink.write(kind, lines).await?;
        Ok(Ready::done())
    }
}

/// Each element of `data` as one line that says which host it is from, and how many of them are not JSON.
fn lines(body: &Body<'_>, host: HostId) -> (Bytes, usize) {
    let Some(data) = body.member("data") else {
        return (Bytes::new(), 0);
    };
    let Some(elements) = data.elements() else {
        return (Bytes::new(), 1);
    };
    let (mut out, mut unreadable) = (Vec::with_capacity(data.raw().len()), 0);
    for element in elements {
        let start = out.len();
        match element.map(|element| write_line(element, host, &mut out)) {
            Ok(Ok(())) => out.push(b'\n'),
            Ok(Err(_)) | Err(_) => {
                out.truncate(start);
                unreadable += 1;
            }
        }
    }
    (out.into(), unreadable)
}

/// One line. Agents may write what they like into it, and so whom it is from is the broker's word, at its end.
fn write_line(line: Value<'_>, host: HostId, out: &mut Vec<u8>) -> Result<(), RowsFault> {
    match line.members() {
        Some(members) => {
            out.push(b'{');
            for member in members {
                let (name, value) = member.map_err(|_| RowsFault::Syntax)?;
                if name != HOST_ID {
                    out.extend_from_slice(json(&name).as_bytes());
                    out.push(b':');
                    write_compact(value, out)?;
                    out.push(b',');
                }
            }
        }
        None => {
            out.extend_from_slice(b"{\"line\":");
            write_compact(line, out)?;
            out.push(b',');
        }
    }
    out.extend_from_slice(format!("\"{HOST_ID}\":{host}}}").as_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(
        sink: &LogSink,
        kind: Kind,
        lines: &'static str,
    ) -> impl Future<Output = Result<(), Refusal>> {
        let sink = sink.clone();
        async move { sink.write(kind, Bytes::from_static(lines.as_bytes())).await }
    }

    #[tokio::test]
    async fn lines_are_in_their_file_when_the_agent_hears_that_they_were_taken() {
        let directory = tempfile::tempdir().unwrap();
        let settings = SinkSettings::Files {
            directory: directory.path().to_owned(),
            bytes_max: 1 << 20,
            kept: 1,
        };
        let tasks = TaskTracker::new();
        let sink = LogSink::open(&settings, &tasks).unwrap();
        taken(&sink, Kind::Result, "{\"a\":1}\n").await.unwrap();
        taken(&sink, Kind::Status, "{\"s\":1}\n").await.unwrap();
        taken(&sink, Kind::Result, "{\"a\":2}\n").await.unwrap();
        let read = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap();
        assert_eq!(read("osquery_result.log"), "{\"a\":1}\n{\"a\":2}\n");
        assert_eq!(read("osquery_status.log"), "{\"s\":1}\n");
        // A stop may wait for the tracker while the sink lives.
        tasks.close();
        tasks.wait().await;
        taken(&sink, Kind::Status, "{\"s\":2}\n").await.unwrap();
        assert_eq!(read("osquery_status.log"), "{\"s\":1}\n{\"s\":2}\n");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn batches_that_come_together_are_all_written_once() {
        let directory = tempfile::tempdir().unwrap();
        let settings = SinkSettings::Files {
            directory: directory.path().to_owned(),
            bytes_max: 1 << 20,
            kept: 1,
        };
        let sink = LogSink::open(&settings, &TaskTracker::new()).unwrap();
        let writes = (0..2_000).map(|_| taken(&sink, Kind::Result, "line\n"));
        for written in futures_util::future::join_all(writes).await {
            written.unwrap();
        }
        let text = std::fs::read_to_string(directory.path().join("osquery_result.log")).unwrap();
        assert_eq!(text, "line\n".repeat(2_000));
    }

    #[tokio::test]
    async fn a_sink_that_fails_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let settings = SinkSettings::Files {
            directory: directory.path().to_owned(),
            bytes_max: 1,
            kept: 1,
        };
        let sink = LogSink::open(&settings, &TaskTracker::new()).unwrap();
        taken(&sink, Kind::Result, "one\n").await.unwrap();
        // The next line needs the file set aside, and its directory is gone.
        directory.close().unwrap();
        let refusal = taken(&sink, Kind::Result, "two\n").await.unwrap_err();
        assert!(matches!(refusal, Refusal::Log(_)), "{refusal}");
    }

    #[test]
    fn every_element_is_one_line() {
        let body = Body::parse("{\"data\":[ {\"a\" : \"x\ny\"},\n {\"b\":[1, 2]} ]}");
        let (lines, unreadable) = lines(&body, HostId(7));
        let expected = "{\"a\":\"x\\u000ay\",\"answerback_host_id\":7}\n{\"b\":[1,2],\"answerback_host_id\":7}\n";
        assert_eq!(lines, expected);
        assert_eq!(unreadable, 0);
        let read = |text| super::lines(&Body::parse(text), HostId(7));
        let (lines, unreadable) = read(r#"{"data":[{"a" 1},{"b":2}]}"#);
        assert_eq!(
            (&lines[..], unreadable),
            (&b"{\"b\":2,\"answerback_host_id\":7}\n"[..], 1)
        );
        let (lines, _) =
            read(r#"{"data":[{"answerback_host_id":1,"answerback\u005fhost_id":2},{},"x"]}"#);
        let own = "{\"answerback_host_id\":7}\n";
        assert_eq!(
            lines,
            format!("{own}{own}{{\"line\":\"x\",\"answerback_host_id\":7}}\n")
        );
        assert_eq!(read(r#"{"data":{}}"#), (Bytes::new(), 1));
        assert_eq!(read("{}"), (Bytes::new(), 0));
    }
}
