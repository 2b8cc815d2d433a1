//! The scripts of README.md, run as they stand there: curl, Node and Python against the built broker.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::broker::{Broker, TOKEN};

/// How long a script may take, a first installation of its packages included.
const SCRIPT_WITHIN: Duration = Duration::from_secs(180);
/// Hosts of the demo that the scripts ask.
const HOSTS: usize = 5;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// The first script of a language in the README's section on scripts.
fn script(language: &str) -> String {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let section = readme
        .split("\n## Running a query from a script\n")
        .nth(1)
        .expect("the section is there");
    let section = section.split("\n## ").next().unwrap();
    let fence = format!("```{language}\n");
    let script = section.split(&fence).nth(1).expect("a script is there");
    script.split("```").next().unwrap().to_owned()
}

/// A broker whose demo hosts have all checked in.
async fn demo() -> Broker {
    let broker = Broker::start(&["--demo", &HOSTS.to_string()]).await;
    for _ in 0..300 {
        let (_, said) = broker
            .get("/api/latest/fleet/hosts/count?status=online")
            .await;
        if said["count"] == HOSTS {
            return broker;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the demo's hosts do not come");
}

/// Runs a script from standard input; what it prints.
async fn run(mut command: Command, broker: &Broker, script: &str) -> String {
    let mut child = command
        .env("ANSWERBACK_URL", broker.url(""))
        .env("ANSWERBACK_API_TOKEN", TOKEN)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(script.as_bytes()).await.unwrap();
    drop(stdin);
    let output = tokio::time::timeout(SCRIPT_WITHIN, child.wait_with_output())
        .await
        .expect("the script ends in time")
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let faults = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{faults}");
    said
}

/// A line a host, each with rows.
fn assert_all_answered(said: &str) {
    let hosts: std::collections::BTreeSet<String> = said
        .lines()
        .map(|line| {
            let line: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
            assert!(line["rows"].is_array(), "{line}");
            line["host"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(hosts.len(), HOSTS, "{said}");
}

#[tokio::test]
async fn the_curl_lines_run_as_they_stand() {
    let broker = demo().await;
    let (_, said) = broker.get("/api/latest/fleet/hosts?per_page=1").await;
    let host = said["hosts"][0]["hostname"].as_str().unwrap().to_owned();
    let mut bash = Command::new("bash");
    bash.args(["-euo", "pipefail", "-s"]).env("HOST", &host);
    let said = run(bash, &broker, &script("sh")).await;
    let mut documents = serde_json::Deserializer::from_str(&said).into_iter::<Value>();
    let started = documents.next().unwrap().unwrap();
    assert_eq!(
        started["campaign"]["Metrics"]["TotalHosts"], HOSTS,
        "{said}"
    );
    let answered = documents.next().unwrap().unwrap();
    assert_eq!(answered["status"], "online", "{said}");
    assert!(answered["rows"][0].is_object(), "{said}");
}

#[tokio::test]
async fn the_node_script_runs_as_it_stands() {
    let broker = demo().await;
    let mut node = Command::new("node");
    node.args(["--input-type=module", "-"])
        .current_dir(root().join("tests/clients"));
    assert_all_answered(&run(node, &broker, &script("js")).await);
}

#[tokio::test]
async fn the_python_script_runs_as_it_stands() {
    let broker = demo().await;
    let made = Command::new("bash")
        .arg(root().join("tests/schema/venv"))
        .output()
        .await
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let python = String::from_utf8(made.stdout).unwrap();
    let mut python = Command::new(python.trim());
    python.arg("-");
    assert_all_answered(&run(python, &broker, &script("python")).await);
}
