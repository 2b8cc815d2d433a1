//! Signals that a service or a terminal sends: none but those that ask for it ends the broker.

use std::time::Duration;

use crate::broker::Broker;
use rustix::process::{Pid, Signal, kill_process};

fn send(broker: &Broker, signal: Signal) {
    let pid = i32::try_from(broker.pid()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

#[tokio::test]
async fn signals_that_ask_nothing_of_a_server_do_not_end_it() {
    let broker = Broker::start(&[]).await;
    for signal in [
        Signal::HUP,
        Signal::USR1,
        Signal::USR2,
        Signal::PIPE,
        Signal::XFSZ,
    ] {
        send(&broker, signal);
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(broker.get("/healthz").await.0, 200, "{signal:?}");
    }
}

#[tokio::test]
async fn quit_stops_it_in_order() {
    let broker = Broker::start(&[]).await;
    send(&broker, Signal::QUIT);
    let gone = async {
        while tokio::net::TcpStream::connect(broker.url("").trim_start_matches("http://"))
            .await
            .is_ok()
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone)
        .await
        .expect("it stops");
}

#[tokio::test]
async fn a_hangup_opens_osquerys_logs_anew_that_were_moved_or_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start_in(dir.path(), "127.0.0.1:0", &[]).await;
    let (results, status) = (
        dir.path().join("osquery_result.log"),
        dir.path().join("osquery_status.log"),
    );
    std::fs::rename(&results, dir.path().join("moved.log")).unwrap();
    std::fs::remove_file(&status).unwrap();
    send(&broker, Signal::HUP);
    for _ in 0..100 {
        if results.exists() && status.exists() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("they are not opened anew");
}

#[tokio::test]
async fn a_campaign_with_a_viewer_outlives_a_standstill_of_the_machine() {
    let broker = Broker::start(&["--resume-grace-s", "0"]).await;
    super::hosts::Host::enroll(&broker, "pc").await;
    let campaign = broker.run_on_all("select 1").await;
    let mut viewer = super::viewer::Viewer::watch(&broker, campaign, 0).await;
    viewer.message().await;
    send(&broker, Signal::STOP);
    // Longer than the claim of its viewer holds.
    tokio::time::sleep(Duration::from_secs(18)).await;
    send(&broker, Signal::CONT);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let path = format!("/api/v1/fleet/campaigns/{campaign}");
    let (_, said) = broker.get(&path).await;
    assert_eq!(said["campaign"]["state"], "running", "{said}");
}

#[tokio::test]
async fn a_stop_says_that_it_is_not_ready_before_the_port_closes() {
    let mut broker = Broker::start(&["--drain-s", "3"]).await;
    let began = std::time::Instant::now();
    send(&broker, Signal::TERM);
    let mut said = 0;
    while began.elapsed() < Duration::from_secs(2) {
        said = broker.get("/readyz").await.0;
        if said == 503 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(said, 503);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(
        broker.get("/readyz").await.0,
        503,
        "the port is open while it drains"
    );
    assert!(broker.stop().await);
    assert!(began.elapsed() < Duration::from_secs(8));
}

#[tokio::test]
async fn viewers_who_do_not_answer_hold_up_no_stop() {
    let mut broker = Broker::start(&[]).await;
    super::hosts::Host::enroll(&broker, "pc").await;
    let campaign = broker.run_on_all("select 1").await;
    // None of them reads from here on.
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(super::viewer::Viewer::watch(&broker, campaign, 0).await);
    }
    let prefix = broker.url("/api/v1/fleet/results/000");
    let mut streams = Vec::new();
    for transport in ["xhr_streaming", "xhr"] {
        let url = format!("{prefix}/session-of-{transport}/{transport}");
        let mut stream = tokio::process::Command::new("curl")
            .args(["-sN", "-X", "POST", &url])
            .stdout(std::process::Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        use tokio::io::AsyncReadExt as _;
        let opened = stream.stdout.as_mut().unwrap().read_u8();
        opened.await.unwrap();
        streams.push(stream);
    }
    let began = std::time::Instant::now();
    assert!(broker.stop().await);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(4), "{took:?}");
}

/// What curl prints.
async fn curl(args: &[&str]) -> String {
    let args = [&["-sS", "-m", "15"], args].concat();
    let output = tokio::process::Command::new("curl")
        .args(&args)
        .output()
        .await
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// A broker whose log and output nobody reads, and its URL.
async fn unread(dir: &std::path::Path) -> (tokio::process::Child, String) {
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let child = tokio::process::Command::new(env!("CARGO_BIN_EXE_answerback"))
        .args([
            "serve",
            "--listen",
            &free.to_string(),
            "--osquery-logs",
            "stdout",
            "--data-dir",
        ])
        .arg(dir)
        .env("ANSWERBACK_ENROLL_SECRET", super::broker::SECRET)
        .env("ANSWERBACK_LOG", "trace")
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let url = format!("http://{free}");
    for _ in 0..200 {
        if curl(&[&format!("{url}/healthz")]).await == "ok\n" {
            return (child, url);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it does not start");
}

#[tokio::test]
async fn whoever_reads_neither_log_nor_output_holds_up_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let (mut child, url) = unread(dir.path()).await;
    let healthz = format!("{url}/healthz");
    let body = format!(
        r#"{{"enroll_secret":"{}","host_identifier":"pc"}}"#,
        super::broker::SECRET
    );
    let said = curl(&["-d", &body, &format!("{url}/api/osquery/enroll")]).await;
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    // More of osquery's log than a pipe holds: the agent is told to keep its lines, and others go on.
    let lines: Vec<_> = (0..2_000)
        .map(|at| serde_json::json!({"name": "x".repeat(100), "at": at}))
        .collect();
    let log =
        serde_json::json!({"node_key": said["node_key"], "log_type": "result", "data": lines});
    let file = dir.path().join("log.json");
    std::fs::write(&file, log.to_string()).unwrap();
    let told = curl(&[
        "-d",
        &format!("@{}", file.display()),
        &format!("{url}/api/osquery/log"),
    ])
    .await;
    assert!(told.contains("error"), "{told}");
    for _ in 0..100 {
        assert_eq!(curl(&[&healthz]).await, "ok\n");
    }
    let pid = i32::try_from(child.id().unwrap()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::TERM).unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(30), child.wait()).await;
    ended.expect("it ends").unwrap();
}
