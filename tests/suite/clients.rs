//! Real clients against the built broker: the document's own script, sockjs-client in Node and in Chromium, a
//! person at the console, and the command line.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::process::Command;

use crate::broker::{Broker, PASSWORD, TOKEN};
use crate::hosts::Host;

/// How long a client may take, a cold browser on a busy machine included.
const CLIENT_WITHIN: Duration = Duration::from_secs(120);

/// The transports that sockjs-client has in Node.
const IN_NODE: [&str; 4] = ["websocket", "xhr-streaming", "xhr-polling", "eventsource"];

/// How many hosts answer where every transport is gone through: 500 in the long run.
fn host_count() -> usize {
    if std::env::var_os("ANSWERBACK_LONG").is_some() {
        500
    } else {
        60
    }
}

fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

/// The user's document beside the checkout, or the copy of its script that the tests keep.
fn document() -> String {
    let beside =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/spec/fleet-api-for-contributors.md");
    let kept = clients().join("example.md");
    let path = if beside.exists() { beside } else { kept };
    path.display().to_string()
}

pub async fn node<const N: usize>(script: &str, args: [&str; N]) -> String {
    let running = Command::new("node")
        .arg(clients().join(script))
        .args(args)
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(CLIENT_WITHIN, running)
        .await
        .expect("the client ends in time")
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{script} {args:?}: {said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    said
}

async fn browser(task: &str, input: Value) -> Value {
    serde_json::from_str(&node("browser.mjs", [task, &input.to_string()]).await).unwrap()
}

/// A broker with hosts that have answered one campaign.
async fn answered(args: &[&str], count: usize) -> (Broker, u64) {
    let broker = Broker::start(args).await;
    let hosts = Host::enroll_many(&broker, count).await;
    let campaign = broker.run_on_all("select 1").await;
    for host in &hosts {
        assert_eq!(
            host.answer(&broker, campaign, json!([{ "v": "<b>&\u{2028}%41" }]))
                .await,
            200
        );
    }
    (broker, campaign)
}

fn types(lines: &str) -> Vec<String> {
    lines
        .lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["type"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect()
}

#[tokio::test]
async fn the_documents_script_works_in_node() {
    let (broker, campaign) = answered(&[], 3).await;
    let said = node(
        "example.mjs",
        [&document(), &broker.url(""), TOKEN, &campaign.to_string()],
    )
    .await;
    assert_eq!(
        types(&said),
        ["totals", "status", "result", "result", "result", "status"]
    );
}

#[tokio::test]
async fn the_documents_script_works_in_node_over_tls() {
    let broker = Broker::start(&["--tls-self-signed", "--demo", "3", "--unclaimed-s", "600"]).await;
    let campaign = started_over_tls(&broker).await;
    let said = node(
        "example.mjs",
        [&document(), &broker.url(""), TOKEN, &campaign.to_string()],
    )
    .await;
    let heard = types(&said);
    assert_eq!(
        heard.iter().filter(|kind| *kind == "result").count(),
        3,
        "{heard:?}"
    );
}

/// Starts campaigns until one reaches all three demo hosts, and returns its number. By the command line, since the
/// tests' own client speaks plain HTTP only.
async fn started_over_tls(broker: &Broker) -> u64 {
    let url = broker.url("");
    let mut campaign = 0;
    let asked = async {
        loop {
            let args = [
                "--url",
                &url,
                "--token",
                TOKEN,
                "--tls-skip-verify",
                "--labels",
                "All Hosts",
                "select * from time",
            ];
            let output = Command::new(env!("CARGO_BIN_EXE_answerback"))
                .arg("query")
                .args(args)
                .output()
                .await
                .unwrap();
            // A refusal (nobody has enrolled yet) makes no campaign.
            campaign += u64::from(output.status.success());
            if String::from_utf8(output.stdout).unwrap().lines().count() == 3 {
                return;
            }
        }
    };
    tokio::time::timeout(CLIENT_WITHIN, asked)
        .await
        .expect("three demo hosts answer");
    campaign
}

#[tokio::test]
async fn the_documents_script_works_in_chromium_plain_and_over_tls() {
    let (broker, campaign) = answered(&[], 3).await;
    let input = json!({ "base": broker.url(""), "document": document(), "token": TOKEN, "campaign": campaign });
    let heard = browser("example", input).await["heard"]
        .as_array()
        .unwrap()
        .len();
    assert_eq!(heard, 6);
    let secure = Broker::start(&["--tls-self-signed", "--demo", "3"]).await;
    let campaign = started_over_tls(&secure).await;
    let input = json!({ "base": secure.url(""), "document": document(), "token": TOKEN, "campaign": campaign });
    let heard = browser("example", input).await["heard"]
        .as_array()
        .unwrap()
        .len();
    assert!(heard >= 6, "{heard}");
}

#[tokio::test]
async fn sockjs_client_in_node_gets_all_over_each_transport_it_has() {
    let count = host_count();
    let (broker, campaign) = answered(&["--sockjs-response-limit", "4096"], count).await;
    for transport in IN_NODE {
        let said = node(
            "sockjs.mjs",
            [&broker.url(""), TOKEN, &campaign.to_string(), transport],
        )
        .await;
        let said: Value = serde_json::from_str(&said).unwrap();
        assert_eq!(said["transport"], transport);
        assert_eq!(
            said["seqs"],
            json!((1..=count).collect::<Vec<_>>()),
            "{transport}"
        );
    }
}

#[tokio::test]
async fn heartbeats_keep_an_idle_client_open() {
    let broker = Broker::start(&["--heartbeat-s", "1"]).await;
    let host = Host::enroll(&broker, "late").await;
    host.read(&broker).await;
    let campaign = broker.run_on_all("select 1").await.to_string();
    let (url, number) = (broker.url(""), campaign.parse().unwrap());
    let idle = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = idle.local_addr().unwrap().port().to_string();
    let watching =
        IN_NODE.map(|transport| node("sockjs.mjs", [&url, TOKEN, &campaign, transport, &port]));
    let answering = async {
        for _ in IN_NODE {
            idle.accept().await.unwrap();
        }
        assert_eq!(host.answer(&broker, number, json!([])).await, 200);
    };
    let watching = futures_util::future::join_all(watching);
    for said in tokio::join!(watching, answering).0 {
        let said: Value = serde_json::from_str(&said).unwrap();
        assert_eq!(said["seqs"], json!([1]), "{said}");
    }
}

#[tokio::test]
async fn sockjs_client_in_chromium_gets_all_over_each_transport() {
    let count = host_count();
    let (broker, campaign) = answered(&["--sockjs-response-limit", "4096"], count).await;
    for (transport, cross) in [
        ("websocket", false),
        ("websocket", true),
        ("xhr-streaming", false),
        ("xhr-streaming", true),
        ("eventsource", false),
        ("htmlfile", false),
        ("xhr-polling", false),
        ("xhr-polling", true),
        ("jsonp-polling", false),
        ("jsonp-polling", true),
    ] {
        let input = json!({
            "base": broker.url(""), "token": TOKEN, "campaign": campaign, "transports": [transport], "cross": cross,
        });
        let said = browser("sockjs", input).await;
        assert_eq!(said["transport"], transport, "{said}");
        assert_eq!(
            said["seqs"],
            json!((1..=count).collect::<Vec<_>>()),
            "{transport}, cross {cross}"
        );
    }
}

#[tokio::test]
async fn a_person_at_the_console_asks_and_filters() {
    let broker = Broker::start(&["--demo", "12"]).await;
    let enrolled = async {
        while broker.get("/api/latest/fleet/hosts/count").await.1["count"] != 12 {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(CLIENT_WITHIN, enrolled)
        .await
        .expect("the demo enrolls");
    let input = json!({
        "base": broker.url(""), "email": "admin@example.com", "password": PASSWORD, "hosts": 12,
        "sql": "select * from os_version", "filter": "ubuntu",
        "screenshot": std::env::var("ANSWERBACK_SCREENSHOT").ok(),
    });
    let seen = browser("console", input).await;
    assert_eq!(seen["shown"], "12 rows", "{seen}");
    assert_ne!(seen["filtered"], "12 rows", "{seen}");
    assert_eq!(seen["faults"], json!([]), "{seen}");
    assert_eq!(seen["leftover"], false, "only what is in use is shown");
}

/// Runs `answerback query`; returns the exit code, standard output and standard error.
async fn query(broker: &Broker, args: &[&str]) -> (Option<i32>, String, String) {
    let command = Command::new(env!("CARGO_BIN_EXE_answerback"))
        .args(["query", "--url", &broker.url(""), "--token", TOKEN])
        .args(args)
        .output();
    let output = tokio::time::timeout(CLIENT_WITHIN, command)
        .await
        .expect("it ends")
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[tokio::test]
async fn the_command_line_prints_a_line_a_host_and_tells_by_its_exit_code() {
    let broker = Broker::start(&["--demo", "5"]).await;
    let all = async {
        loop {
            let said = query(
                &broker,
                &["--labels", "All Hosts", "select * from os_version"],
            )
            .await;
            if said.1.lines().count() == 5 {
                return said;
            }
        }
    };
    let (code, out, err) = tokio::time::timeout(CLIENT_WITHIN, all)
        .await
        .expect("five hosts answer");
    assert_eq!(code, Some(0), "{err}");
    for line in out.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert!(
            line["host"].is_string() && line["rows"].is_array(),
            "{line}"
        );
    }
    assert!(err.contains("100% responded"), "{err}");
    let (code, out, _) = query(
        &broker,
        &[
            "--quiet",
            "--labels",
            "All Hosts",
            "select * from no_such_table",
        ],
    )
    .await;
    assert_eq!(code, Some(4), "it failed on all");
    assert_eq!(
        out.lines()
            .filter(|line| line.contains("\"error\""))
            .count(),
        5,
        "{out}"
    );
    let (code, _, err) = query(&broker, &["--hosts", "nobody", "select 1"]).await;
    assert_eq!(code, Some(1));
    assert!(err.contains("no hosts targeted"), "{err}");
    Host::enroll(&broker, "silent").await;
    let (code, _, err) = query(
        &broker,
        &["--timeout", "2s", "--hosts", "silent", "select 1"],
    )
    .await;
    assert_eq!(code, Some(3), "{err}");
    assert_eq!(
        query(&broker, &["--timeout", "soon", "select 1"]).await.0,
        Some(2)
    );
}

#[tokio::test]
async fn a_blocked_websocket_falls_back_by_itself_and_still_delivers() {
    let count = host_count();
    let (broker, campaign) = answered(&[], count).await;
    let input = json!({ "base": broker.url(""), "token": TOKEN, "campaign": campaign });
    let said = browser("blocked", input).await;
    assert_eq!(said["transport"], "xhr-streaming", "{said}");
    assert_eq!(said["seqs"], json!((1..=count).collect::<Vec<_>>()));
    assert!(
        said["refused"].as_u64().is_some_and(|refused| refused > 0),
        "{said}"
    );
}

#[tokio::test]
async fn iframe_transports_work_from_another_origin_without_a_third_partys_script() {
    let count = host_count();
    let (broker, campaign) = answered(&["--sockjs-response-limit", "4096"], count).await;
    for transport in [
        "iframe-eventsource",
        "iframe-htmlfile",
        "iframe-xhr-polling",
    ] {
        let input = json!({
            "base": broker.url(""), "token": TOKEN, "campaign": campaign, "transports": [transport], "cross": true,
        });
        let said = browser("sockjs", input).await;
        assert_eq!(said["transport"], transport, "{said}");
        let all = json!((1..=count).collect::<Vec<_>>());
        assert_eq!(said["seqs"], all, "{transport}");
    }
}

#[tokio::test]
async fn iframe_transports_work_with_a_library_of_the_operators_choice() {
    let count = host_count();
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let library = format!("http://127.0.0.1:{port}/sockjs.js");
    let (broker, campaign) = answered(
        &["--sockjs-response-limit", "4096", "--sockjs-url", &library],
        count,
    )
    .await;
    for transport in [
        "iframe-eventsource",
        "iframe-htmlfile",
        "iframe-xhr-polling",
    ] {
        let input = json!({
            "base": broker.url(""), "token": TOKEN, "campaign": campaign, "transports": [transport], "cross": true,
            "port": port,
        });
        let said = browser("sockjs", input).await;
        assert_eq!(said["transport"], transport, "{said}");
        assert_eq!(
            said["seqs"],
            json!((1..=count).collect::<Vec<_>>()),
            "{transport}"
        );
    }
}
