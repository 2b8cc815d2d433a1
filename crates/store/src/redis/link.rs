//! One multiplexed connection to Redis that is made again whenever it breaks, and calls that never wait long.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster_async::ClusterConnection;
use redis::{Cmd, Pipeline, PushInfo, PushKind, RedisError, RedisResult, ServerErrorKind, Value};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::scripts::Script;
use super::url::{RedisEndpoint, TIMEOUT, connection_config};
use crate::StoreError;

/// How long a call waits for a connection that has just broken; a call that finds it broken for longer fails at once.
const PATIENCE: Duration = Duration::from_millis(300);
/// Bounds of the pause between two connection attempts.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// A cluster connection mends itself; if no call has succeeded for this long, it is made again.
const CLUSTER_PATIENCE: Duration = Duration::from_secs(5);

#[derive(Clone)]
enum Wire {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

#[derive(Clone)]
enum State {
    Up(u64, Wire),
    Down(Instant),
}

/// The number of the last connection that was found broken, by a call or by its own task.
#[derive(Default)]
struct Broken {
    number: AtomicU64,
    knock: Notify,
}

impl Broken {
    fn report(&self, number: u64) {
        self.number.fetch_max(number, Ordering::AcqRel);
        self.knock.notify_one();
    }
}

/// The connection. Cloning shares it.
#[derive(Clone)]
pub(super) struct Link(Arc<Shared>);

enum Failure {
    Gone(StoreError),
    Redis(RedisError),
}

impl Failure {
    fn told(self) -> StoreError {
        match self {
            Self::Gone(error) => error,
            Self::Redis(error) => told(&error),
        }
    }
}

struct Shared {
    place: RedisEndpoint,
    state: watch::Sender<State>,
    broken: Arc<Broken>,
    /// When a call last succeeded, in milliseconds since `born`; matters for clusters only.
    succeeded: AtomicU64,
    /// When a call last went without an answer, likewise; 0: never.
    failed: AtomicU64,
    born: Instant,
}

impl Link {
    /// Connects once; fails if that does not succeed in time.
    pub(super) async fn connect(place: RedisEndpoint) -> Result<Self, StoreError> {
        let broken = Arc::default();
        let wire = connect(&place, 0, 1, &broken)
            .await
            .map_err(|error| told(&error))?;
        Ok(Self(Arc::new(Shared {
            place,
            state: watch::Sender::new(State::Up(1, wire)),
            broken,
            succeeded: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            born: Instant::now(),
        })))
    }

    /// Mends the connection whenever it breaks, until `stop`.
    pub(super) async fn keep(self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.mend() => {}
        }
        self.0.state.send_replace(State::Down(self.0.born));
    }

    async fn mend(&self) {
        loop {
            self.0.broken.knock.notified().await;
            let State::Up(number, _) = *self.0.state.borrow() else {
                continue;
            };
            if self.0.broken.number.load(Ordering::Acquire) < number {
                continue;
            }
            tracing::warn!("the connection to Redis broke");
            self.0.state.send_replace(State::Down(Instant::now()));
            let mut pause = PAUSE_MIN;
            let mut attempt = 0;
            let wire = loop {
                match connect(&self.0.place, attempt, number + 1, &self.0.broken).await {
                    Ok(wire) => break wire,
                    Err(error) => tracing::debug!(%error, "cannot connect to Redis"),
                }
                attempt += 1;
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            };
            tracing::info!("connected to Redis again");
            self.succeeded();
            self.0.state.send_replace(State::Up(number + 1, wire));
        }
    }

    /// Which of the connections that there have been is the present one; 0: none.
    pub(super) fn number(&self) -> u64 {
        match &*self.0.state.borrow() {
            State::Up(number, _) => *number,
            State::Down(_) => 0,
        }
    }

    /// Sends one command and awaits its answer.
    pub(super) async fn call(&self, cmd: &Cmd) -> Result<Value, StoreError> {
        self.attempt(cmd).await.map_err(Failure::told)
    }

    /// Runs a script; `cmd` is what [`Script::call`] made. A server that does not know it is told its text.
    pub(super) async fn run(&self, script: &Script, cmd: &Cmd) -> Result<Value, StoreError> {
        match self.attempt(cmd).await {
            Err(Failure::Redis(error)) if is(&error, ServerErrorKind::NoScript) => {
                self.call(&script.with_text(cmd)).await
            }
            other => other.map_err(Failure::told),
        }
    }

    /// Sends several commands whose keys share one slot, together; all or none if it is a transaction.
    pub(super) async fn pipe(&self, pipeline: &Pipeline) -> Result<Vec<Value>, StoreError> {
        let (number, mut wire) = self.wire().await?;
        let replies = async {
            match &mut wire {
                Wire::One(one) => pipeline.query_async(one).await,
                Wire::Cluster(all) => pipeline.query_async(all).await,
            }
        };
        let replies = self.timed(number, replies).await;
        replies.map_err(|error| told(&error))
    }

    async fn attempt(&self, cmd: &Cmd) -> Result<Value, Failure> {
        let (number, mut wire) = self.wire().await.map_err(Failure::Gone)?;
        let reply = async {
            let reply = match &mut wire {
                Wire::One(one) => one.req_packed_command(cmd).await?,
                Wire::Cluster(all) => all.req_packed_command(cmd).await?,
            };
            match reply {
                Value::ServerError(error) => Err(error.into()),
                reply => Ok(reply),
            }
        };
        self.timed(number, reply).await.map_err(Failure::Redis)
    }

    /// The connection, or an error if it has been gone for longer than anybody should wait.
    async fn wire(&self) -> Result<(u64, Wire), StoreError> {
        let gone = || StoreError::Unavailable("Redis cannot be reached".to_owned());
        if let State::Up(number, wire) = &*self.0.state.borrow() {
            return Ok((*number, wire.clone()));
        }
        let mut state = self.0.state.subscribe();
        let State::Down(since) = *state.borrow() else {
            return Err(gone());
        };
        let up = state.wait_for(|state| matches!(state, State::Up(..)));
        match tokio::time::timeout_at(since + PATIENCE, up).await {
            Ok(Ok(state)) => match &*state {
                State::Up(number, wire) => Ok((*number, wire.clone())),
                State::Down(_) => Err(gone()),
            },
            _ => Err(gone()),
        }
    }

    /// Awaits an answer for at most [`TIMEOUT`] and notices when the connection is the cause of a failure.
    async fn timed<T>(
        &self,
        number: u64,
        answer: impl Future<Output = RedisResult<T>>,
    ) -> RedisResult<T> {
        // Some of the second may have gone into waiting for the connection.
        let timeout = TIMEOUT - PATIENCE / 3;
        let answer = tokio::time::timeout(timeout, answer)
            .await
            .unwrap_or_else(|_| {
                let late = std::io::Error::from(std::io::ErrorKind::TimedOut);
                Err(RedisError::from(late))
            });
        match &answer {
            Ok(_) => self.succeeded(),
            Err(error) => {
                if error.is_io_error() || error.is_connection_dropped() {
                    self.0.failed.store(self.age_ms(), Ordering::Relaxed);
                }
                if self.is_broken_by(error) {
                    self.0.broken.report(number);
                }
            }
        }
        answer
    }

    fn is_broken_by(&self, error: &RedisError) -> bool {
        let broken = error.is_unrecoverable_error()
            || error.is_io_error()
            || error.is_connection_dropped()
            || is(error, ServerErrorKind::ReadOnly)
            || is(error, ServerErrorKind::MasterDown);
        if !self.0.place.is_cluster() {
            return broken;
        }
        let succeeded = Duration::from_millis(self.0.succeeded.load(Ordering::Relaxed));
        broken && self.0.born.elapsed().saturating_sub(succeeded) > CLUSTER_PATIENCE
    }

    fn succeeded(&self) {
        if self.0.place.is_cluster() {
            self.0.succeeded.store(self.age_ms(), Ordering::Relaxed);
        }
    }

    fn age_ms(&self) -> u64 {
        u64::try_from(self.0.born.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether a call went without an answer lately.
    pub(super) fn has_failed_within(&self, time: Duration) -> bool {
        let failed = self.0.failed.load(Ordering::Relaxed);
        let within = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        failed > 0 && self.age_ms().saturating_sub(failed) < within
    }
}

async fn connect(
    place: &RedisEndpoint,
    attempt: usize,
    number: u64,
    broken: &Arc<Broken>,
) -> RedisResult<Wire> {
    let broken = Arc::clone(broken);
    // An idle connection that breaks is mended before the next call needs it.
    let heard = move |push: PushInfo| {
        if push.kind == PushKind::Disconnection {
            broken.report(number);
        }
        Ok::<(), ()>(())
    };
    let connecting = async {
        if place.is_cluster() {
            return Ok(Wire::Cluster(
                place.cluster()?.get_async_connection().await?,
            ));
        }
        let server = place.server(attempt).await?;
        let one = server
            .get_multiplexed_async_connection_with_config(
                &connection_config().set_push_sender(heard),
            )
            .await?;
        Ok(Wire::One(one))
    };
    tokio::time::timeout(TIMEOUT, connecting)
        .await
        .unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()))
}

fn is(error: &RedisError, kind: ServerErrorKind) -> bool {
    error.kind() == redis::ErrorKind::Server(kind)
}

/// What a failure means for the store's callers.
pub(super) fn told(error: &RedisError) -> StoreError {
    let text = error.to_string();
    const MEMORY: &str =
        "Redis' memory is full: raise its maxmemory, or let it keep fewer results (--retention-s)";
    const DISK: &str =
        "Redis takes no writes because it cannot save them: make room on its disk, or mend it";
    match error.code() {
        Some("OOM") => StoreError::Full(format!("{MEMORY} ({text})")),
        Some("MISCONF") => StoreError::Full(format!("{DISK} ({text})")),
        Some("WRONGTYPE") => StoreError::Damaged(text),
        _ if text.contains("OOM command not allowed") => {
            StoreError::Full(format!("{MEMORY} ({text})"))
        }
        _ => StoreError::Unavailable(text),
    }
}
