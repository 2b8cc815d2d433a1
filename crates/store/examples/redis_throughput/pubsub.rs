//! The path that Fleet has: each answer is published, and every viewer's own subscription decodes it, adds two columns
//! to every row and encodes it again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use redis::{Client, PushInfo, PushKind, Value};
use tokio::sync::Notify;

use crate::Failure;

const CHANNEL: &str = "results_1";
/// Answers published and not yet heard by everybody: Redis cuts a subscriber that lags by 32 MB.
const AHEAD: u32 = 2_000;

/// Counts what one viewer has heard.
#[derive(Default)]
struct Heard {
    count: AtomicU32,
    more: Notify,
}

/// Publishes `answers` to `viewers`; returns the time until all have been encoded for each. With `work` off the viewers
/// only count, which is what PUBLISH and SUBSCRIBE alone cost.
pub(crate) async fn run(
    url: &str,
    answers: u32,
    size: usize,
    viewers: usize,
    work: bool,
) -> Result<Duration, Failure> {
    let message = serde_json::json!({
        "distributed_query_execution_id": 1,
        "host": { "id": 1, "hostname": "host-00001", "display_name": "host-00001" },
        "rows": [{ "pad": "x".repeat(size) }],
        "stats": null,
        "error": null,
    })
    .to_string();
    let url3 = format!("{url}/?protocol=resp3");
    let mut all = Vec::new();
    let mut connections = Vec::new();
    for _ in 0..viewers {
        let heard: Arc<Heard> = Arc::default();
        let mine = Arc::clone(&heard);
        let hear = move |push: PushInfo| {
            if let (PushKind::Message, Some(Value::BulkString(text))) =
                (push.kind, push.data.get(1))
            {
                if work {
                    std::hint::black_box(encode(text));
                }
                mine.count.fetch_add(1, Ordering::Release);
                mine.more.notify_one();
            }
            Ok::<(), ()>(())
        };
        let config = redis::AsyncConnectionConfig::new().set_push_sender(hear);
        let mut connection = Client::open(url3.as_str())?
            .get_multiplexed_async_connection_with_config(&config)
            .await?;
        connection.subscribe(CHANNEL).await?;
        connections.push(connection);
        all.push(heard);
    }
    let mut publisher = Client::open(url)?
        .get_multiplexed_async_connection()
        .await?;
    let start = Instant::now();
    for first in (0..answers).step_by(64) {
        let mut pipeline = redis::pipe();
        for _ in first..answers.min(first + 64) {
            pipeline.cmd("PUBLISH").arg(CHANNEL).arg(&message);
        }
        pipeline.query_async::<Vec<Value>>(&mut publisher).await?;
        until(&all, first.saturating_sub(AHEAD)).await;
    }
    until(&all, answers).await;
    Ok(start.elapsed())
}

async fn until(all: &[Arc<Heard>], count: u32) {
    for heard in all {
        while heard.count.load(Ordering::Acquire) < count {
            heard.more.notified().await;
        }
    }
}

fn encode(text: &[u8]) -> Option<String> {
    let mut data: serde_json::Value = serde_json::from_slice(text).ok()?;
    let host = data["host"]["hostname"].clone();
    for row in data["rows"].as_array_mut()? {
        row["host_hostname"] = host.clone();
        row["host_display_name"] = host.clone();
    }
    let message = serde_json::json!({ "type": "result", "data": data });
    serde_json::to_string(&message).ok()
}
