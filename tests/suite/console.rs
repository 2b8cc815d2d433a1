//! The console in real Chromium: odd columns, failures, sessions that end, stops, and networks that block WebSockets.

use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::broker::{Broker, PASSWORD};
use crate::hosts::Host;
use crate::redis_server::{RedisServer, is_installed};

/// A cold browser on a busy machine included.
const WITHIN: Duration = Duration::from_secs(120);
const CLIENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients");
const QUIET: fn(&str) = |_| {};

/// Runs a task of `console.mjs`; what it says on the way goes to `hear`.
async fn console(broker: &Broker, task: &str, more: Value, hear: impl Fn(&str)) -> Value {
    let mut input = json!({
        "base": broker.url(""), "email": "admin@example.com", "password": PASSWORD, "sql": "select 1", "hosts": 1,
        "screenshot": std::env::var("ANSWERBACK_SCREENSHOT").ok().map(|dir| format!("{dir}/{task}.png")),
    });
    for (name, value) in more.as_object().unwrap() {
        input[name] = value.clone();
    }
    let mut child = Command::new("node")
        .current_dir(CLIENTS)
        .args(["console.mjs", task, &input.to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut on_the_way = BufReader::new(child.stderr.take().unwrap()).lines();
    let ending = async {
        let mut complaints = String::new();
        while let Some(line) = on_the_way.next_line().await.unwrap() {
            hear(&line);
            complaints.push_str(&line);
            complaints.push('\n');
        }
        (child.wait_with_output().await.unwrap(), complaints)
    };
    let (done, complaints) = tokio::time::timeout(WITHIN, ending)
        .await
        .expect("it ends in time");
    assert!(done.status.success(), "{task}: {complaints}");
    let said: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(said["faults"], json!([]), "{task}");
    said
}

/// Hosts that check in and answer every question alike; one with a message fails.
async fn play(broker: &Broker, hosts: &[Host], rows: &Value, error: Option<&str>) {
    loop {
        for host in hosts {
            for name in host.read(broker).await.as_object().unwrap().keys() {
                let Some(id) = name.strip_prefix("fleet_distributed_query_") else {
                    continue;
                };
                let id = id.parse().unwrap();
                match error {
                    None => host.answer(broker, id, rows.clone()).await,
                    Some(error) => host.fail(broker, id, error).await,
                };
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A task while hosts play.
async fn played(
    broker: &Broker,
    (hosts, rows, error): (&[Host], Value, Option<&str>),
    task: &str,
    more: Value,
) -> Value {
    tokio::select! {
        said = console(broker, task, more, QUIET) => said,
        () = play(broker, hosts, &rows, error) => unreachable!(),
    }
}

#[tokio::test]
async fn columns_of_any_name_are_shown_and_logging_out_leaves_nothing() {
    let broker = Broker::start(&[]).await;
    let hosts = Host::enroll_many(&broker, 1).await;
    let body = json!({
        "name": "Other", "email": "other@example.com", "password": PASSWORD, "global_role": "maintainer",
        "admin_forced_password_reset": false,
    });
    let (status, made) = broker.post("/api/v1/fleet/users/admin", body).await;
    assert_eq!(status, 200, "{made}");
    let rows = json!([
        { "host": "h-secret", "__proto__": "p-secret", "constructor": "c-secret", "toString": "t-secret" },
        { "host": "second", "plain": "x" },
    ]);
    let more = json!({
        "other": "other@example.com", "sql": "select 'q-secret'", "filter": "c-secret",
    });
    let seen = played(&broker, (&hosts, rows, None), "columns", more).await;
    let head: Vec<&str> = seen["head"]
        .as_array()
        .unwrap()
        .iter()
        .map(|name| name.as_str().unwrap())
        .collect();
    assert_eq!(head[0], "host", "{seen}");
    assert_eq!(head.iter().filter(|each| **each == "host").count(), 2);
    for name in ["__proto__", "constructor", "toString", "plain"] {
        assert_eq!(
            head.iter().filter(|each| **each == name).count(),
            1,
            "{name}"
        );
    }
    let cell = |row: usize, name: &str| {
        let at = head.iter().rposition(|each| *each == name).unwrap();
        seen["rows"][row][at].as_str().unwrap().to_owned()
    };
    let first = ["host", "__proto__", "constructor", "toString", "plain"].map(|name| cell(0, name));
    assert_eq!(first, ["h-secret", "p-secret", "c-secret", "t-secret", ""]);
    let second =
        ["host", "__proto__", "constructor", "toString", "plain"].map(|name| cell(1, name));
    assert_eq!(second, ["second", "", "", "", "x"]);
    assert_eq!(seen["rows"][0][0], "host-00000");
    let csv = seen["csv"].as_str().unwrap();
    assert!(csv.starts_with("host_display_name,"), "{csv}");
    assert!(
        csv.contains("h-secret") && csv.contains("p-secret"),
        "{csv}"
    );
    for when in ["left", "next"] {
        let text = seen[when].as_str().unwrap();
        for trace in ["secret", "host-00000", "admin@example.com", "of 1"] {
            assert!(!text.contains(trace), "{when}: {trace} in {text}");
        }
    }
    assert!(!seen["left"].as_str().unwrap().contains("abk_"));
}

#[tokio::test]
async fn failures_look_like_failures_and_an_unknown_host_leaves_no_numbers() {
    let broker = Broker::start(&[]).await;
    let hosts = Host::enroll_many(&broker, 3).await;
    let answers = (&hosts[..], json!([]), Some("no such table"));
    let seen = played(&broker, answers, "failures", json!({ "hosts": 3 })).await;
    assert_eq!(seen["failed"]["shares"], json!(["0%", "100%"]), "{seen}");
    let counts = seen["failed"]["counts"].as_str().unwrap();
    assert!(counts.contains("3 failed"), "{counts}");
    assert_eq!(seen["unknown"]["shares"], json!(["0%", "0%"]), "{seen}");
    assert_eq!(seen["unknown"]["counts"], "No query is running.");
    assert_ne!(seen["unknown"]["error"], "");
}

#[tokio::test]
async fn a_session_that_ends_is_said_to_have_ended() {
    let broker = Broker::start(&[]).await;
    Host::enroll_many(&broker, 1).await;
    let seen = console(&broker, "expiry", json!({}), QUIET).await;
    let said = "Your session has ended. Log in again.";
    assert_eq!(
        (&seen["idle"], &seen["streaming"]),
        (&json!(said), &json!(said))
    );
}

#[tokio::test]
async fn stop_stops_the_campaign() {
    let broker = Broker::start(&[]).await;
    let hosts = Host::enroll_many(&broker, 2).await;
    let answers = (&hosts[..1], json!([{ "a": "1" }]), None);
    let seen = played(&broker, answers, "stop", json!({})).await;
    assert_eq!(seen["ending"], "stopped by admin@example.com", "{seen}");
    assert_eq!(seen["disabled"], true);
    let (_, said) = broker.get("/api/v1/fleet/campaigns").await;
    assert_eq!(said["campaigns"][0]["ending"], "stopped", "{said}");
    let id = said["campaigns"][0]["id"].as_u64().unwrap();
    assert!(!hosts[1].is_given(&broker, id).await);
}

#[tokio::test]
async fn where_websockets_are_blocked_answers_come_over_http() {
    let broker = Broker::start(&["--sockjs-response-limit", "4096"]).await;
    let hosts = Host::enroll_many(&broker, 40).await;
    for (blocked, way) in [
        ("refused", "live over HTTP streaming"),
        ("cut", "live over HTTP streaming"),
        ("silent", "live over HTTP streaming"),
        ("buffered", "live over HTTP polling"),
    ] {
        let rows = json!([{ "a": "x".repeat(300) }]);
        let more = json!({ "blocked": blocked, "hosts": 40 });
        let seen = played(&broker, (&hosts, rows, None), "blocked", more).await;
        assert_eq!(seen["connection"], way, "{blocked}: {seen}");
        assert_eq!(seen["shown"], "40 rows", "{blocked}: {seen}");
    }
}

#[tokio::test]
async fn a_broken_stream_is_resumed_where_it_was_with_the_epoch_of_that_place() {
    let broker = Broker::start(&[]).await;
    let hosts = Host::enroll_many(&broker, 30).await;
    let answers = (&hosts[..], json!([{ "a": "1" }]), None);
    let seen = played(&broker, answers, "resume", json!({ "hosts": 30 })).await;
    let selects = seen["selects"].as_array().unwrap();
    assert!(selects.len() >= 2, "{seen}");
    assert_eq!(selects[0]["after"], 0, "{seen}");
    assert!(selects[1]["after"].as_u64() >= Some(1), "{seen}");
    assert_eq!(selects[1]["epoch"], 0, "{seen}");
    assert_eq!(seen["shown"], "30 rows", "none twice and none lost");
}

#[tokio::test]
async fn a_jsonp_answer_is_no_script_of_the_console() {
    let broker = Broker::start(&[]).await;
    let seen = console(&broker, "scripts", json!({}), QUIET).await;
    assert_eq!(
        (&seen["outcome"], &seen["called"]),
        (&json!("refused"), &json!([]))
    );
}

#[tokio::test]
async fn the_console_waits_for_a_store_that_hangs() {
    if !is_installed() {
        return;
    }
    let redis = RedisServer::start();
    let broker = Broker::start(&["--store", &redis.url(), "--node", "a"]).await;
    let hosts = Host::enroll_many(&broker, 1).await;
    let frozen = async {
        loop {
            let (_, said) = broker.get("/api/v1/fleet/campaigns").await;
            if said["campaigns"][0]["state"] == "running" {
                redis.freeze();
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let thaw = |line: &str| {
        if line == "warned" {
            redis.thaw();
        }
    };
    let rows = json!([{ "a": "1" }]);
    let playing = async {
        frozen.await;
        play(&broker, &hosts, &rows, None).await;
    };
    let seen = tokio::select! {
        seen = console(&broker, "patience", json!({}), thaw) => seen,
        () = playing => unreachable!(),
    };
    assert!(
        seen["counts"].as_str().unwrap().starts_with("1 of 1"),
        "{seen}"
    );
}
