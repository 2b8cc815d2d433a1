//! Live queries: handed out, answered, and what is done with answers that nobody asked for.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use answerback::results::{CampaignId, Ending, HostId};
use answerback::store::Store as _;
use http::Method;
use serde_json::json;

use super::bed::{Bed, live};

#[tokio::test]
async fn a_query_is_handed_out_once_and_again_only_when_overdue() {
    let bed = Bed::new().await;
    let host = bed.idle_host("web-1").await;
    let other = bed.idle_host("web-2").await;
    let id = bed.campaign("select '\"'", &[host.id()]).await;
    let said = host.read().await;
    assert_eq!(said["queries"], json!({ live(id): "select '\"'" }));
    assert_eq!(said["discovery"], json!({ live(id): "SELECT 1" }));
    assert_eq!(
        said["accelerate"], 300,
        "the next campaign reaches a targeted host sooner"
    );
    assert!(!host.is_given(id).await);
    assert_eq!(
        host.read().await,
        json!({ "queries": {}, "discovery": {}, "accelerate": 300 })
    );
    assert_eq!(
        other.read().await,
        json!({ "queries": {}, "discovery": {} })
    );
    bed.pass(60);
    assert!(host.is_given(id).await, "its answer is overdue");
    bed.pass(60);
    assert!(host.is_given(id).await, "and overdue again");
    bed.pass(600);
    assert!(!host.is_given(id).await, "three times are enough");
}

#[tokio::test]
async fn a_host_that_waits_or_has_answered_costs_the_store_one_call() {
    let bed = Bed::new().await;
    let host = bed.idle_host("web-1").await;
    let id = bed.campaign("select 1", &[host.id()]).await;
    assert!(host.is_given(id).await);
    host.read().await;
    bed.store.hand_outs.take();
    for _ in 0..10 {
        host.read().await;
    }
    assert_eq!(
        bed.store.hand_outs.take(),
        0,
        "the store said until when it is pending"
    );
    host.answer(id, json!([])).await;
    bed.pass(600);
    assert!(!host.is_given(id).await);
    assert_eq!(
        bed.store.hand_outs.take(),
        0,
        "who has answered is never asked again"
    );
}

#[tokio::test]
async fn an_idle_check_in_asks_the_store_nothing() {
    let bed = Bed::new().await;
    let host = bed.idle_host("web-1").await;
    bed.campaign("select 1", &[HostId(999)]).await;
    for tally in [&bed.store.hand_outs, &bed.store.commits, &bed.store.looks] {
        tally.take();
    }
    for _ in 0..5 {
        bed.pass(10);
        assert_eq!(host.read().await, json!({ "queries": {}, "discovery": {} }));
    }
    let asked = (
        bed.store.hand_outs.take(),
        bed.store.commits.take(),
        bed.store.looks.take(),
    );
    assert_eq!(asked, (0, 0, 0));
    assert_eq!(
        bed.catalog.presence().seen(host.id()),
        Some(bed.clock.now()),
        "and yet it was seen"
    );
}

#[tokio::test]
async fn an_answer_is_in_the_log_with_its_hosts_name_on_every_row() {
    let bed = Bed::new().await;
    let host = bed.idle_host("web-1").await;
    let id = bed.campaign("select 1", &[host.id()]).await;
    assert!(host.is_given(id).await);
    let rows = json!([{ "n": 7, "b": true, "x": null, "host_hostname": "somebody else" }, null]);
    let stats =
        json!({ live(id): { "wall_time_ms": 3, "user_time": 2, "system_time": 1, "memory": "9" } });
    let body = json!({ "queries": { live(id): rows }, "statuses": { live(id): "0" }, "messages": {}, "stats": stats });
    assert_eq!(host.write(body).await, (200, json!({})));
    let expected = json!({
        "host": { "id": host.id().0, "hostname": "web-1", "display_name": "web-1" },
        "rows": [{ "n": "7", "b": "true", "x": "", "host_hostname": "web-1", "host_display_name": "web-1" }],
        "stats": { "wall_time_ms": 3, "user_time": 2, "system_time": 1, "memory": 9 },
        "error": null,
    });
    assert_eq!(bed.answers(id).await, [expected]);
}

#[tokio::test]
async fn a_failure_carries_its_message_and_counts_as_failed() {
    let bed = Bed::new().await;
    let host = bed.idle_host("web-1").await;
    let id = bed.campaign("select nope", &[host.id()]).await;
    let body = json!({ "queries": { live(id): "" }, "statuses": { live(id): 1 }, "messages": { live(id): "no such column: nope" } });
    assert_eq!(host.write(body).await.0, 200);
    let answers = bed.answers(id).await;
    assert_eq!(answers[0]["error"], "no such column: nope");
    assert_eq!(answers[0]["rows"], json!([]));
    let progress = bed.store.progress(id).await.unwrap().unwrap();
    assert!(progress.failed.contains(host.id().0));
}

#[tokio::test]
async fn answers_that_nobody_asked_for_change_nothing_and_are_taken_with_thanks() {
    let bed = Bed::new().await;
    let host = bed.idle_host("web-1").await;
    let other = bed.idle_host("web-2").await;
    let id = bed.campaign("select 1", &[host.id()]).await;
    let spoofed = other.answer(id, json!([{ "a": "spoofed" }])).await;
    assert_eq!(spoofed, (200, json!({})), "not targeted");
    assert_eq!(
        host.answer(id, json!([{ "a": "1" }])).await,
        (200, json!({}))
    );
    assert_eq!(
        host.answer(id, json!([{ "a": "2" }])).await,
        (200, json!({})),
        "a second answer"
    );
    assert_eq!(
        host.answer(CampaignId(4711), json!([])).await,
        (200, json!({})),
        "no such campaign"
    );
    let over = bed.campaign("select 2", &[host.id()]).await;
    assert!(host.is_given(over).await);
    bed.store
        .end(over, Ending::Stopped, bed.clock.now())
        .await
        .unwrap();
    assert_eq!(
        host.answer(over, json!([{ "late": "yes" }])).await,
        (200, json!({})),
        "it is over"
    );
    assert!(!host.is_given(over).await);
    let odd = json!({ "queries": { "fleet_policy_query_1": [], "": [], "fleet_distributed_query_x": [] } });
    assert_eq!(
        host.write(odd).await,
        (200, json!({})),
        "names that were never given out"
    );
    let answers = bed.answers(id).await;
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0]["rows"][0]["a"], "1");
    assert!(bed.answers(over).await.is_empty());
}

#[tokio::test]
async fn what_is_not_unicode_or_not_strict_json_does_not_lose_the_answer() {
    let bed = Bed::new().await;
    let host = bed.idle_host("web-1").await;
    let ids = [
        bed.campaign("a", &[host.id()]).await,
        bed.campaign("b", &[host.id()]).await,
    ];
    let key = &host.node_key;
    let mut body = format!(
        r#"{{ "queries" : {{ "{}":[{{"a":"x\ud83d"}}], "{}":[{{"b":""#,
        live(ids[0]),
        live(ids[1])
    )
    .into_bytes();
    body.extend_from_slice(b"\xff\xfe\n");
    body.extend_from_slice(format!(r#""}}]}},"node_key":"{key}"}}"#).as_bytes());
    let sent = bed
        .send(Method::POST, "/api/v1/osquery/distributed/write", &[], body)
        .await;
    assert_eq!(sent, (200, json!({})));
    assert_eq!(bed.answers(ids[0]).await[0]["rows"][0]["a"], "x\u{fffd}");
    assert_eq!(
        bed.answers(ids[1]).await[0]["rows"][0]["b"],
        "\u{fffd}\u{fffd}\n"
    );
}

#[tokio::test]
async fn unreadable_rows_are_shown_as_a_failure_and_the_rest_is_taken() {
    let bed = Bed::new().await;
    let host = bed.idle_host("web-1").await;
    let ids = [
        bed.campaign("a", &[host.id()]).await,
        bed.campaign("b", &[host.id()]).await,
    ];
    let body = json!({ "queries": { live(ids[0]): [[1]], live(ids[1]): [{ "a": "1" }] } });
    assert_eq!(host.write(body).await.0, 200);
    let broken = &bed.answers(ids[0]).await[0];
    assert_eq!(broken["rows"], json!([]));
    assert_eq!(
        broken["error"],
        "unreadable answer: the rows are not a list of objects"
    );
    assert!(bed.answers(ids[1]).await[0]["error"].is_null());
}

#[tokio::test]
async fn a_store_that_is_down_costs_neither_the_answer_nor_a_hand_out() {
    let bed = Bed::new().await;
    let host = bed.idle_host("web-1").await;
    let id = bed.campaign("select 1", &[host.id()]).await;
    bed.pass(4000);
    bed.store.appends_fail.store(true, Ordering::SeqCst);
    for _ in 0..5 {
        bed.pass(60);
        assert!(
            host.is_given(id).await,
            "hand-outs that came to nothing do not count"
        );
        let began = Instant::now();
        let body = json!({ "queries": { live(id): [{ "a": "1" }], "fleet_detail_query_uptime": [{ "total_seconds": "77" }] } });
        let (status, said) = host.write(body).await;
        assert_eq!(status, 503, "{said}");
        assert!(said["error"].is_string() && said.get("node_invalid").is_none());
        assert!(began.elapsed() < Duration::from_secs(1));
        assert_eq!(bed.store.take_backs.take(), 1);
    }
    assert_eq!(
        host.host().details.uptime_s,
        77,
        "the rest of the body was taken"
    );
    bed.store.appends_fail.store(false, Ordering::SeqCst);
    assert_eq!(
        host.answer(id, json!([{ "a": "1" }])).await.0,
        200,
        "osquery sends it again"
    );
    assert_eq!(bed.answers(id).await.len(), 1);
}

#[tokio::test]
async fn a_store_that_cannot_hand_out_leaves_the_other_queries() {
    let bed = Bed::new().await;
    let host = bed.idle_host("web-1").await;
    let id = bed.campaign("select 1", &[host.id()]).await;
    bed.pass(4000);
    bed.store.hand_outs_fail.store(true, Ordering::SeqCst);
    let said = host.read().await;
    let names: Vec<&String> = said["queries"].as_object().unwrap().keys().collect();
    assert!(
        names
            .iter()
            .any(|name| name.starts_with("fleet_detail_query_"))
    );
    assert!(!names.contains(&&live(id)));
    bed.store.hand_outs_fail.store(false, Ordering::SeqCst);
    assert!(host.is_given(id).await);
}

#[tokio::test]
async fn a_host_that_checks_in_quickly_by_itself_is_not_slowed_down() {
    let bed = Bed::new().await;
    let host = bed.idle_host("web-1").await;
    let flags = json!([{ "name": "distributed_interval", "value": "3" }]);
    host.write(json!({ "queries": { "fleet_detail_query_osquery_flags": flags } }))
        .await;
    let id = bed.campaign("select 1", &[host.id()]).await;
    let said = host.read().await;
    assert!(said["queries"].get(live(id)).is_some());
    assert!(said.get("accelerate").is_none());
}

#[tokio::test]
async fn a_check_in_hands_out_so_many_queries_and_the_next_one_the_others() {
    let bed = Bed::new().await;
    let host = bed.idle_host("web-1").await;
    let sql = format!("select '{}'", "x".repeat(60 * 1024));
    for _ in 0..10 {
        bed.campaign(&sql, &[host.id()]).await;
    }
    for _ in 0..40 {
        bed.campaign("select 1", &[host.id()]).await;
    }
    let mut handed = Vec::new();
    loop {
        let queries = host.read().await["queries"].as_object().unwrap().clone();
        if queries.is_empty() {
            break;
        }
        let bytes: usize = queries
            .values()
            .map(|sql| sql.as_str().unwrap().len())
            .sum();
        assert!(
            queries.len() <= 32 && bytes <= 256 * 1024,
            "{} of {bytes} bytes",
            queries.len()
        );
        handed.push(queries.len());
    }
    assert_eq!(handed.iter().sum::<usize>(), 50, "{handed:?}");
}
