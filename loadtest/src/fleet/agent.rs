//! One simulated agent: what it does when its time has come.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use rand::Rng;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::api::said;
use crate::body::{LIVE_PREFIX, enrolment, key, own_answer};
use crate::enroll::{JSON, node_key};
use crate::epoch::{nanos, now_ns};
use crate::exchange::{Connection, Reply};
use crate::probe::{COLUMN, Probe};
use crate::target::Target;

/// Time between check-ins of a host that the server asked to hurry (osquery's own constant).
const HURRY: Duration = Duration::from_secs(5);
/// How long an agent waits before it tries again to enrol.
const ENROL_AGAIN: Duration = Duration::from_secs(5);

/// How agents behave.
#[derive(Clone, Debug)]
pub(crate) struct Habits {
    pub(crate) interval: Duration,
    pub(crate) config_interval: Duration,
    /// Shares: of live queries that are answered, of answers that fail, that are sent twice.
    pub(crate) answering: f64,
    pub(crate) failing: f64,
    pub(crate) repeating: f64,
    /// Share of check-ins before which the host restarts.
    pub(crate) restarting: f64,
    /// Longest time between reading a query and writing its answer.
    pub(crate) work: Duration,
    pub(crate) run: u32,
    /// Length of the value in a live answer's row.
    pub(crate) length: usize,
}

/// What is remembered of a host between its turns.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    node_key: Option<Box<str>>,
    next_config_ns: u64,
    hurry_until_ns: u64,
    /// Queries that are being worked on.
    work: Vec<(String, String)>,
}

/// What a host does when its time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Errand {
    CheckIn,
    Answer,
}

/// What happened in a turn.
#[derive(Debug, Default)]
pub(crate) struct Done {
    pub(crate) enrolled: bool,
    pub(crate) restarted: bool,
    /// How long the check-in took from when it was due, if that is all that was done.
    pub(crate) checkin_ns: Option<u64>,
    /// Campaigns whose answer the server took.
    pub(crate) answered: Vec<u64>,
    pub(crate) failures: u64,
    pub(crate) repeated: u64,
    /// What to do next and when.
    pub(crate) next: Vec<(u64, Errand)>,
}

/// A connection that is opened when it is needed, and again when the server has closed it.
#[derive(Debug)]
pub(crate) struct Wire<'a> {
    target: &'a Target,
    connection: Option<Connection>,
}

impl<'a> Wire<'a> {
    pub(crate) fn new(target: &'a Target) -> Self {
        Self {
            target,
            connection: None,
        }
    }

    async fn post(&mut self, what: &str, body: &[u8]) -> anyhow::Result<Reply> {
        let path = format!("/api/osquery/{what}");
        let request = self.target.request("POST", &path, JSON, body);
        if let Some(mut kept) = self.connection.take()
            && let Ok(reply) = kept.exchange(&request).await
        {
            self.connection = reply.keep_alive.then_some(kept);
            return Ok(reply);
        }
        // New, or a kept one that the server had closed meanwhile: once more from the start.
        let mut fresh = Connection::open(self.target).await?;
        let reply = fresh.exchange(&request).await.with_context(|| path)?;
        self.connection = reply.keep_alive.then_some(fresh);
        Ok(reply)
    }
}

/// What `distributed/read` hands out.
#[derive(Debug, Default, Deserialize)]
struct HandOut {
    #[serde(default)]
    queries: BTreeMap<String, String>,
    #[serde(default)]
    accelerate: u64,
}

/// A host during its turn.
pub(crate) struct Turn<'a, 'b> {
    pub(crate) host: u32,
    pub(crate) prefix: &'a str,
    pub(crate) secret: &'a str,
    pub(crate) habits: &'a Habits,
    pub(crate) wire: &'a mut Wire<'b>,
    pub(crate) memory: &'a mut Memory,
}

impl Turn<'_, '_> {
    /// Does the errand that was due at `due_ns`.
    pub(crate) async fn run(
        &mut self,
        errand: Errand,
        due_ns: u64,
        done: &mut Done,
    ) -> anyhow::Result<()> {
        match errand {
            Errand::Answer => self.answer(done).await,
            Errand::CheckIn => {
                let outcome = self.check_in(due_ns, done).await;
                let wait = match (&outcome, &self.memory.node_key) {
                    (Err(_), None) => ENROL_AGAIN,
                    _ if now_ns() < self.memory.hurry_until_ns => HURRY.min(self.habits.interval),
                    _ => self.habits.interval,
                };
                // From the due time: a slow server does not make the fleet slower.
                let next = (due_ns + nanos(wait)).max(now_ns());
                done.next.push((next, Errand::CheckIn));
                outcome
            }
        }
    }

    async fn check_in(&mut self, due_ns: u64, done: &mut Done) -> anyhow::Result<()> {
        let chance: f64 = rand::rng().random_range(0.0..1.0);
        if chance < self.habits.restarting {
            done.restarted = true;
            self.memory.next_config_ns = 0;
            if chance < self.habits.restarting / 2.0 {
                self.memory.node_key = None;
            }
        }
        let mut alone = true;
        if self.memory.node_key.is_none() {
            let body = enrolment(self.secret, self.prefix, self.host);
            let reply = self.wire.post("enroll", body.as_bytes()).await?;
            let key = node_key(&said("enroll", &reply)?)?;
            self.memory.node_key = Some(key.into());
            done.enrolled = true;
            alone = false;
        }
        let body = key(self.memory.node_key.as_deref().unwrap_or_default());
        if now_ns() >= self.memory.next_config_ns {
            let reply = self.wire.post("config", body.as_bytes()).await?;
            self.checked("config", &reply)?;
            self.memory.next_config_ns = now_ns() + nanos(self.habits.config_interval);
            alone = false;
        }
        let begun_ns = if alone { due_ns } else { now_ns() };
        let reply = self.wire.post("distributed/read", body.as_bytes()).await?;
        self.checked("distributed/read", &reply)?;
        done.checkin_ns = Some(now_ns().saturating_sub(begun_ns));
        self.take(&reply.body, done).await
    }

    /// Forgets the node key when the server no longer knows it.
    fn checked(&mut self, what: &str, reply: &Reply) -> anyhow::Result<()> {
        if reply.status == 401 {
            self.memory.node_key = None;
        }
        if reply.status != 200 {
            said(what, reply)?;
        }
        Ok(())
    }

    /// Takes what was handed out, and answers now or later.
    async fn take(&mut self, body: &[u8], done: &mut Done) -> anyhow::Result<()> {
        // Nearly every check-in is idle: do not read what says nothing.
        let idle = memchr::memmem::find(body, b"_query_").is_none()
            && memchr::memmem::find(body, b"accelerate").is_none();
        if idle {
            return Ok(());
        }
        let handed: HandOut = serde_json::from_slice(body).context("distributed/read")?;
        if handed.accelerate > 0 {
            let hurry = Duration::from_secs(handed.accelerate.min(3600));
            self.memory.hurry_until_ns = now_ns() + nanos(hurry);
        }
        if handed.queries.is_empty() {
            return Ok(());
        }
        let waiting = !self.memory.work.is_empty();
        for (name, sql) in handed.queries {
            if !self.memory.work.iter().any(|(other, _)| *other == name) {
                self.memory.work.push((name, sql));
            }
        }
        if self.habits.work.is_zero() {
            return self.answer(done).await;
        }
        if !waiting {
            let share: f64 = rand::rng().random_range(0.0..1.0);
            let wait = self.habits.work.mul_f64(share);
            done.next.push((now_ns() + nanos(wait), Errand::Answer));
        }
        Ok(())
    }

    /// Writes the answers to everything that was worked on.
    async fn answer(&mut self, done: &mut Done) -> anyhow::Result<()> {
        let work = std::mem::take(&mut self.memory.work);
        let Some(node_key) = self.memory.node_key.clone() else {
            return Ok(());
        };
        let (body, campaigns, failures) = self.answers(&node_key, &work);
        let Some(body) = body else {
            return Ok(());
        };
        let twice: f64 = rand::rng().random_range(0.0..1.0);
        let reply = match self.wire.post("distributed/write", &body).await {
            Ok(reply) if reply.status < 500 => reply,
            outcome => {
                // Agents keep their answers until they are taken.
                self.memory.work = work;
                done.next
                    .push((now_ns() + nanos(ENROL_AGAIN), Errand::Answer));
                return outcome.and_then(|reply| self.checked("distributed/write", &reply));
            }
        };
        self.checked("distributed/write", &reply)?;
        done.answered.extend(campaigns);
        done.failures += failures;
        if twice < self.habits.repeating {
            done.repeated += 1;
            let reply = self.wire.post("distributed/write", &body).await?;
            self.checked("distributed/write", &reply)?;
        }
        Ok(())
    }

    /// The body with all answers, the campaigns in it, and how many of these failed.
    fn answers(
        &self,
        node_key: &str,
        work: &[(String, String)],
    ) -> (Option<Vec<u8>>, Vec<u64>, u64) {
        let (mut rows, mut statuses, mut messages) = (Map::new(), Map::new(), Map::new());
        let (mut campaigns, mut failures) = (Vec::new(), 0);
        let mut random = rand::rng();
        for (name, sql) in work {
            let mut answer = own_answer(name, sql, self.prefix, self.host);
            let (mut status, mut message) = (0, String::new());
            if let Some(id) = name.strip_prefix(LIVE_PREFIX) {
                if random.random_range(0.0..1.0) >= self.habits.answering {
                    continue;
                }
                campaigns.extend(id.parse::<u64>());
                let mark = self.mark();
                answer = json!([{ COLUMN: mark }]);
                if random.random_range(0.0..1.0) < self.habits.failing {
                    failures += 1;
                    (answer, status) = ("".into(), 1);
                    message = format!("{COLUMN} {mark}");
                }
            }
            rows.insert(name.clone(), answer);
            statuses.insert(name.clone(), status.into());
            messages.insert(name.clone(), message.into());
        }
        if rows.is_empty() {
            return (None, campaigns, failures);
        }
        let body = json!({
            "node_key": node_key, "queries": rows, "statuses": statuses, "messages": messages,
        });
        (
            Some(Value::to_string(&body).into_bytes()),
            campaigns,
            failures,
        )
    }

    fn mark(&self) -> String {
        let mut mark = Vec::new();
        let probe = Probe {
            run: self.habits.run,
            host: self.host,
            stamp_ns: now_ns(),
        };
        probe.write(self.habits.length, &mut mark);
        String::from_utf8(mark).unwrap_or_default()
    }
}
