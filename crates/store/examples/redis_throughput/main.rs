//! Measures the Redis store against a bare loop of the same shape, and against publishing to viewers as Fleet does:
//! `redis_throughput URL [ANSWERS] [BYTES]`. Run it with a Redis of its own.
//!
//! The bare loop is what the protocol costs at least: one script call an answer (test the host's bit, `XADD`, count),
//! many in one pipeline, and a reader that walks raw `XREAD` answers. The store is measured from 512 callers of
//! `append` to a follower on another node (its own connections, the same process).

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "an example owns its tasks and its output"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use answerback_base::clock::Clock;
use answerback_broker::{Answer, HostId, QueryId, Question, Read, Seq, UserId};
use answerback_sockjs::Form;
use answerback_store::redis::{RedisStore, Settings};
use answerback_store::{CampaignLog, Store, contract};
use bytes::Bytes;
use redis::Value;
use redis::aio::MultiplexedConnection;

/// Callers of `append` at the same time, as agents' requests are.
const CALLERS: u32 = 512;
/// Script calls of one pipeline of the bare loop, and pipelines under way.
const PIPELINE: u32 = 64;
const PIPELINES: u32 = 8;

const BARE: &str = "if redis.call('HGET', KEYS[1], 'status') ~= 'r' then return 0 end \
    if redis.call('SETBIT', KEYS[2], ARGV[1], 1) == 1 then return 0 end \
    redis.call('XADD', KEYS[3], '*', 'h', ARGV[1], 'b', ARGV[2]) \
    return redis.call('HINCRBY', KEYS[1], 'seq', 1)";

mod pubsub;

/// Viewers of the comparison with Fleet's path, half of them on each of two nodes.
const VIEWERS: usize = 50;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let url = args
        .next()
        .ok_or("usage: redis_throughput URL [ANSWERS] [BYTES]")?;
    let answers: u32 = args.next().map_or(Ok(200_000), |n| n.parse())?;
    let size: usize = args.next().map_or(Ok(1_024), |n| n.parse())?;
    let body = Bytes::from(format!(r#""host":{{"id":1}},"pad":"{}""#, "x".repeat(size)));
    for round in 1..=3 {
        println!("round {round}, {answers} answers of {size} bytes");
        let all = f64::from(answers);
        let (loop_time, _, loop_redis) = spent(&url, bare(&url, answers, &body)).await?;
        let (ours, our_cpu, our_redis) =
            spent(&url, Box::pin(store(&url, answers, &body, 1))).await?;
        println!(
            "  1 viewer: bare loop {:.0}/s, Redis {:.1} us; store {:.0}/s ({:.0} %), Redis {:.1} us, process {:.1} us",
            all / loop_time,
            loop_redis / all,
            all / ours,
            100.0 * loop_time / ours,
            our_redis / all,
            our_cpu / all,
        );
        let plain = pubsub::run(&url, answers, size, 1, false);
        let (plain_time, _, plain_redis) = spent(&url, plain).await?;
        println!(
            "  PUBLISH to 1 SUBSCRIBE: {:.0}/s, Redis {:.1} us: the store's Redis CPU is {:.2} of it",
            all / plain_time,
            plain_redis / all,
            our_redis / plain_redis,
        );
        let few = (answers / 10).max(1);
        let (many, many_cpu, _) =
            spent(&url, Box::pin(store(&url, answers, &body, VIEWERS))).await?;
        let path = pubsub::run(&url, few, size, VIEWERS, true);
        let (fleet, fleet_cpu, _) = spent(&url, path).await?;
        let (many_cpu, fleet_cpu) = (many_cpu / all, fleet_cpu / f64::from(few));
        println!(
            "  {VIEWERS} viewers: store {:.0}/s, process {many_cpu:.1} us; decode and encode for each {:.0}/s, {fleet_cpu:.1} us: 1/{:.0}",
            all / many,
            f64::from(few) / fleet,
            fleet_cpu / many_cpu,
        );
    }
    Ok(())
}

/// Seconds, and the CPU that this process and Redis have spent meanwhile, in microseconds.
async fn spent(
    url: &str,
    work: impl Future<Output = Result<Duration, Failure>>,
) -> Result<(f64, f64, f64), Failure> {
    let before = (process_us()?, redis_us(url).await?);
    let took = work.await?;
    let after = (process_us()?, redis_us(url).await?);
    Ok((took.as_secs_f64(), after.0 - before.0, after.1 - before.1))
}

/// User and system time of this process, from ticks of 10 ms.
fn process_us() -> Result<f64, Failure> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit_once(')').ok_or("/proc/self/stat")?.1;
    let ticks: Result<Vec<f64>, _> = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(str::parse)
        .collect();
    Ok(ticks?.iter().sum::<f64>() * 10_000.0)
}

async fn redis_us(url: &str) -> Result<f64, Failure> {
    let mut connection = redis::Client::open(url)?
        .get_multiplexed_async_connection()
        .await?;
    let info: String = redis::cmd("INFO")
        .arg("cpu")
        .query_async(&mut connection)
        .await?;
    let of = |name: &str| {
        info.lines()
            .find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok())
    };
    let (user, system) = (of("used_cpu_user:"), of("used_cpu_sys:"));
    Ok((user.ok_or("INFO")? + system.ok_or("INFO")?) * 1e6)
}

async fn bare(url: &str, answers: u32, body: &Bytes) -> Result<Duration, Failure> {
    let client = redis::Client::open(url)?;
    let mut writer = client.get_multiplexed_async_connection().await?;
    let reader = client.get_multiplexed_async_connection().await?;
    let keys = ["bare:{1}:m", "bare:{1}:t", "bare:{1}:l"];
    redis::cmd("DEL").arg(&keys).exec_async(&mut writer).await?;
    let mut set = redis::cmd("HSET");
    set.arg(keys[0]).arg("status").arg("r");
    set.exec_async(&mut writer).await?;
    let sha: String = redis::cmd("SCRIPT")
        .arg("LOAD")
        .arg(BARE)
        .query_async(&mut writer)
        .await?;
    let start = Instant::now();
    let reading = tokio::spawn(bare_reader(reader, answers));
    let mut writers = tokio::task::JoinSet::new();
    for writer_at in 0..PIPELINES {
        let (mut writer, sha, body) = (writer.clone(), sha.clone(), body.clone());
        writers.spawn(async move {
            for first in (writer_at * PIPELINE..answers).step_by((PIPELINE * PIPELINES) as usize) {
                let mut pipeline = redis::pipe();
                for host in first..answers.min(first + PIPELINE) {
                    pipeline.cmd("EVALSHA").arg(&sha).arg(3).arg(&keys);
                    pipeline.arg(host).arg(body.as_ref());
                }
                pipeline.query_async::<Vec<Value>>(&mut writer).await?;
            }
            Ok::<_, redis::RedisError>(())
        });
    }
    while let Some(written) = writers.join_next().await {
        written??;
    }
    reading.await??;
    let took = start.elapsed();
    redis::cmd("DEL").arg(&keys).exec_async(&mut writer).await?;
    Ok(took)
}

async fn bare_reader(
    mut reader: MultiplexedConnection,
    answers: u32,
) -> Result<(), redis::RedisError> {
    let (mut last, mut seen) = ("0-0".to_owned(), 0);
    while seen < answers {
        let mut cmd = redis::cmd("XREAD");
        cmd.arg("COUNT")
            .arg(512)
            .arg("STREAMS")
            .arg("bare:{1}:l")
            .arg(&last);
        let Value::Array(streams) = cmd.query_async(&mut reader).await? else {
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        };
        if let Some(Value::Array(stream)) = streams.into_iter().next()
            && let Some(Value::Array(entries)) = stream.into_iter().nth(1)
            && let Some(Value::Array(entry)) = entries.last()
            && let Some(Value::BulkString(id)) = entry.first()
        {
            seen += u32::try_from(entries.len()).unwrap_or(0);
            last = String::from_utf8_lossy(id).into_owned();
        }
    }
    Ok(())
}

fn question(answers: u32) -> Question {
    Question {
        query_id: QueryId(1),
        query_name: None,
        user_id: UserId(1),
        sql: "select 1".to_owned(),
        targets: Arc::new((1..=answers).collect()),
        teams: Vec::new(),
    }
}

/// From 512 callers of `append` to followers: one on another node, or many on this one and the other.
async fn store(url: &str, answers: u32, body: &Bytes, viewers: usize) -> Result<Duration, Failure> {
    let node = |name| {
        let mut settings = Settings::new(url, name, contract::encode);
        settings.log_bytes_max = 4 << 30;
        RedisStore::connect(settings)
    };
    let (writer, other) = (node("writer").await?, node("reader").await?);
    let now = Clock::System.now();
    let id = writer.create(question(answers), now).await?.id;
    let mut reading = tokio::task::JoinSet::new();
    for viewer in 0..viewers {
        let node = if viewer % 2 == 0 { &other } else { &writer };
        let log = node.follow(id).await?.ok_or("no log")?;
        reading.spawn(follower(log, u64::from(answers)));
    }
    let start = Instant::now();
    let mut callers = tokio::task::JoinSet::new();
    for caller in 1..=CALLERS {
        let (writer, body) = (Arc::clone(&writer), body.clone());
        callers.spawn(async move {
            for host in (caller..=answers).step_by(CALLERS as usize) {
                let answer = Answer {
                    host: HostId(host),
                    failed: false,
                    body: body.clone(),
                };
                writer.append(id, answer, now).await?;
            }
            Ok::<_, answerback_store::StoreError>(())
        });
    }
    while let Some(appended) = callers.join_next().await {
        appended??;
    }
    while let Some(read) = reading.join_next().await {
        read?;
    }
    let end_to_end = start.elapsed();
    let keys: Vec<String> = [
        "meta", "claims", "targets", "waiting", "failed", "log", "handed",
    ]
    .iter()
    .map(|key| format!("ab:{{{id}}}:{key}"))
    .collect();
    let mut connection = redis::Client::open(url)?
        .get_multiplexed_async_connection()
        .await?;
    redis::cmd("DEL")
        .arg(&keys)
        .exec_async(&mut connection)
        .await?;
    Ok(end_to_end)
}

async fn follower(log: Arc<CampaignLog>, answers: u64) {
    let wake_slot = answerback_base::wake::WakeSlot::default();
    log.subscribe(&wake_slot);
    let mut cursor = Seq(0);
    while cursor.0 < answers {
        match log.read(cursor, Form::RawFrame, 1 << 16) {
            Read::Slice(_, last) => cursor = last,
            // Nobody restores here: the log is large enough.
            Read::End | Read::Evicted { .. } => wake_slot.notified().await,
        }
    }
}
