//! `answerback query` as people and scripts use it: usage, pipes, full disks, campaigns that end otherwise.

use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::broker::{Broker, TOKEN};
use crate::hosts::Host;

const WITHIN: Duration = Duration::from_secs(60);

fn query(url: &str, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_answerback"));
    command
        .args(["query", "--url", url, "--token", TOKEN])
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Exit code, standard output, standard error.
async fn ended(child: Child) -> (Option<i32>, String, String) {
    let output = tokio::time::timeout(WITHIN, child.wait_with_output());
    let output = output.await.expect("it ends").unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// Hosts that are online and a command that asks them, with its campaign handed out to all.
async fn asked(broker: &Broker, count: usize, args: &[&str]) -> (Vec<Host>, Child, u64) {
    let hosts = Host::enroll_many(broker, count).await;
    for host in &hosts {
        host.read(broker).await;
    }
    let mut all = args.to_vec();
    all.extend(["--labels", "All Hosts", "select 1"]);
    let child = query(&broker.url(""), &all).spawn().unwrap();
    let campaign = async {
        loop {
            let given = hosts[0].read(broker).await;
            let names = given.as_object().unwrap().keys();
            let mut ids = names.filter_map(|name| name.strip_prefix("fleet_distributed_query_"));
            if let Some(id) = ids.next() {
                return id.parse().unwrap();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let campaign = tokio::time::timeout(WITHIN, campaign).await;
    let campaign = campaign.expect("the hosts are asked");
    (hosts, child, campaign)
}

async fn is_running(broker: &Broker, campaign: u64) -> bool {
    let path = format!("/api/latest/fleet/campaigns/{campaign}");
    let (_, said) = broker.get(&path).await;
    said["campaign"]["status"] != 2
}

async fn until_stopped(broker: &Broker, campaign: u64) {
    let stopped = async {
        while is_running(broker, campaign).await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    // Sooner than the grace after which a campaign that nobody watches ends by itself.
    let stopped = tokio::time::timeout(Duration::from_secs(8), stopped).await;
    stopped.expect("the campaign is stopped");
}

#[tokio::test]
async fn what_makes_no_sense_is_wrong_usage_and_says_what_to_type() {
    for (args, hint) in [
        (&["--labels", "All Hosts"][..], "what to ask"),
        (&["--labels", "All Hosts", " "], "what to ask"),
        (&["select 1"], "whom to ask"),
        (&["--hosts", "", "select 1"], "whom to ask"),
    ] {
        let child = query("http://127.0.0.1:1", args).spawn().unwrap();
        let (code, out, err) = ended(child).await;
        assert_eq!((code, &*out), (Some(2), ""), "{args:?} {err}");
        assert!(err.contains(hint), "{args:?} {err}");
    }
    for (url, hint) in [
        ("localhost:8080", "http://localhost:8080"),
        ("ftp://localhost", "http:// or https://"),
    ] {
        let child = query(url, &["--hosts", "a", "select 1"]).spawn().unwrap();
        let (code, _, err) = ended(child).await;
        assert_eq!(code, Some(2), "{err}");
        assert!(err.contains(hint), "{err}");
    }
}

#[tokio::test]
async fn who_speaks_tls_to_a_plain_port_is_told_so() {
    let broker = Broker::start(&[]).await;
    let url = broker.url("").replace("http", "https");
    let child = query(&url, &["--hosts", "a", "select 1"]).spawn().unwrap();
    let (code, _, err) = ended(child).await;
    assert_eq!(code, Some(1));
    assert!(err.contains("try http://"), "{err}");
}

#[tokio::test]
async fn a_name_that_nobody_has_is_said() {
    let broker = Broker::start(&[]).await;
    let host = Host::enroll(&broker, "known host/1").await;
    host.read(&broker).await;
    let args = [
        "--hosts",
        "known host/1,nosuch",
        "--timeout",
        "1s",
        "select 1",
    ];
    let (code, _, err) = ended(query(&broker.url(""), &args).spawn().unwrap()).await;
    assert_eq!(code, Some(3), "{err}");
    assert!(err.contains("no host answers to \"nosuch\""), "{err}");
    assert!(!err.contains("\"known host/1\""), "{err}");
}

#[tokio::test]
async fn an_interrupt_stops_the_campaign_and_says_so() {
    let broker = Broker::start(&[]).await;
    let (hosts, child, campaign) = asked(&broker, 2, &[]).await;
    hosts[0]
        .answer(&broker, campaign, json!([{"a": "1"}]))
        .await;
    let pid = i32::try_from(child.id().unwrap()).unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    let shown = async {
        loop {
            let path = format!("/api/latest/fleet/campaigns/{campaign}");
            let (_, said) = broker.get(&path).await;
            if said["campaign"]["status"] == 1 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    shown.await;
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let (code, _, err) = ended(child).await;
    assert_eq!(code, Some(130), "{err}");
    assert!(
        err.contains(&format!("campaign {campaign} is stopped")),
        "{err}"
    );
    assert!(!is_running(&broker, campaign).await);
}

#[tokio::test]
async fn a_campaign_that_somebody_stops_ends_the_command() {
    let broker = Broker::start(&[]).await;
    let (hosts, child, campaign) = asked(&broker, 2, &[]).await;
    hosts[0]
        .answer(&broker, campaign, json!([{"a": "1"}]))
        .await;
    let mut child = child;
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = tokio::time::timeout(WITHIN, lines.next_line()).await;
    assert!(
        first
            .expect("an answer")
            .unwrap()
            .unwrap()
            .contains("\"a\":\"1\"")
    );
    let path = format!("/api/latest/fleet/campaigns/{campaign}/stop");
    assert_eq!(broker.post(&path, json!({})).await.0, 200);
    let (code, _, err) = ended(child).await;
    assert_eq!(code, Some(1), "{err}");
    assert!(
        err.contains("was stopped by") && err.contains("1 of 2"),
        "{err}"
    );
}

#[tokio::test]
async fn answers_that_cannot_be_written_are_an_error_and_not_a_broken_connection() {
    let broker = Broker::start(&[]).await;
    let hosts = Host::enroll_many(&broker, 1).await;
    hosts[0].read(&broker).await;
    let full = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let args = ["--labels", "All Hosts", "select 1"];
    let child = query(&broker.url(""), &args).stdout(full).spawn().unwrap();
    let campaign = async {
        loop {
            let given = hosts[0].read(&broker).await;
            let names = given.as_object().unwrap().keys();
            let mut ids = names.filter_map(|name| name.strip_prefix("fleet_distributed_query_"));
            if let Some(id) = ids.next() {
                return id.parse::<u64>().unwrap();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let campaign = tokio::time::timeout(WITHIN, campaign).await.expect("asked");
    hosts[0]
        .answer(&broker, campaign, json!([{"a": "1"}]))
        .await;
    let (code, _, err) = ended(child).await;
    assert_eq!(code, Some(1), "{err}");
    assert!(
        err.contains("cannot be written") && err.contains("space"),
        "{err}"
    );
}

#[tokio::test]
async fn a_reader_that_has_enough_ends_it_quietly_and_the_campaign_too() {
    let broker = Broker::start(&[]).await;
    let (hosts, mut child, campaign) = asked(&broker, 3, &["--quiet"]).await;
    drop(child.stdout.take());
    hosts[0]
        .answer(&broker, campaign, json!([{"a": "1"}]))
        .await;
    let (code, _, err) = ended(child).await;
    assert_eq!((code, &*err), (Some(0), ""));
    until_stopped(&broker, campaign).await;
}

#[tokio::test]
async fn progress_in_a_file_is_one_line() {
    let broker = Broker::start(&[]).await;
    let (hosts, child, campaign) = asked(&broker, 20, &["--pretty"]).await;
    for host in &hosts {
        host.answer(&broker, campaign, json!([{"a": "1", "b": "2"}]))
            .await;
    }
    let (code, out, err) = ended(child).await;
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(err, "100% responded (20 of 20, 20 online, 0 failed)\n");
    let heads = out
        .lines()
        .filter(|line| line.starts_with("host  "))
        .count();
    assert_eq!((heads, out.lines().count()), (1, 21), "{out}");
}

#[tokio::test]
async fn a_table_is_shown_while_hosts_are_still_silent() {
    let broker = Broker::start(&[]).await;
    let (hosts, mut child, campaign) = asked(&broker, 2, &["--pretty"]).await;
    let rows = json!([{ "answer": "seen" }]);
    assert_eq!(hosts[0].answer(&broker, campaign, rows).await, 200);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let shown = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.contains("seen") {
                return;
            }
        }
        panic!("the table ends without the answer");
    };
    let shown = tokio::time::timeout(Duration::from_secs(10), shown).await;
    shown.expect("the first answer does not wait for the second");
    assert!(child.try_wait().unwrap().is_none(), "one host is silent");
}

#[tokio::test]
async fn an_output_that_nobody_reads_keeps_neither_a_deadline_nor_an_interrupt() {
    let broker = Broker::start(&[]).await;
    for (flags, expected) in [(vec!["--timeout", "3s"], 3), (Vec::new(), 130)] {
        // Standard output is a pipe that is full and stays so.
        let (hosts, mut child, campaign) = asked(&broker, 2, &flags).await;
        let rows = json!([{ "answer": "x".repeat(1_000_000) }]);
        assert_eq!(hosts[0].answer(&broker, campaign, rows).await, 200);
        tokio::time::sleep(Duration::from_millis(1_000)).await;
        if expected == 130 {
            let pid = child.id().unwrap().to_string();
            let killed = Command::new("kill").args(["-INT", &pid]).status().await;
            assert!(killed.unwrap().success());
        }
        let status = tokio::time::timeout(Duration::from_secs(15), child.wait()).await;
        let status = status.expect("it ends though nobody reads").unwrap();
        assert_eq!(status.code(), Some(expected));
        until_stopped(&broker, campaign).await;
    }
}
