//! `answerback migrate`: a catalog from the embedded store to Redis and back, killed in the midst and taken up again.

use std::path::Path;
use std::process::{Output, Stdio};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::broker::{Broker, PASSWORD};
use crate::hosts::Host;
use crate::redis_server::{RedisServer, is_installed};

const HOSTS: usize = 300;
const QUERIES: usize = 1_500;

fn command(from: &str, to: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_answerback"));
    command.args(["migrate", "--from", from, "--to", to]);
    command.kill_on_drop(true);
    command
}

async fn migrate(from: &str, to: &str) -> Output {
    command(from, to).output().await.unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A catalog with some of everything.
async fn furnish(broker: &Broker) -> Vec<Host> {
    let hosts = Host::enroll_many(broker, HOSTS).await;
    let queries: Vec<_> = (0..QUERIES)
        .map(|at| json!({ "name": format!("query {at}"), "query": "select 1" }))
        .collect();
    let names: Vec<_> = hosts[..200].iter().map(|host| &host.name).collect();
    let label = json!({ "name": "manual", "label_membership_type": "manual", "hosts": names });
    let dynamic = json!({ "name": "dynamic", "query": "select 1" });
    let secrets =
        json!({ "secrets": [{ "secret": crate::broker::SECRET }, { "secret": "another" }] });
    for (path, body) in [
        ("spec/queries", json!({ "specs": queries })),
        ("spec/labels", json!({ "specs": [label, dynamic] })),
        ("spec/enroll_secret", json!({ "spec": secrets })),
        (
            "users/admin",
            json!({ "name": "P", "email": "p@example.com", "password": PASSWORD, "global_role": "observer",
                "admin_forced_password_reset": false }),
        ),
    ] {
        let (status, said) = broker.post(&format!("/api/v1/fleet/{path}"), body).await;
        assert_eq!(status, 200, "{path}: {said}");
    }
    for host in &hosts {
        host.read(broker).await;
    }
    hosts
}

/// What operators see of the catalog, without what depends on the time of day.
async fn seen(broker: &Broker) -> Vec<Value> {
    let mut all = Vec::new();
    for path in ["labels", "queries", "users", "spec/enroll_secret"] {
        let (status, said) = broker.get(&format!("/api/v1/fleet/{path}")).await;
        assert_eq!(status, 200, "{said}");
        all.push(said);
    }
    let (_, said) = broker.get("/api/v1/fleet/hosts?per_page=1000").await;
    let hosts = said["hosts"].as_array().unwrap();
    assert!(hosts.len() >= HOSTS);
    all.extend(hosts.iter().map(|host| {
        json!([
            host["id"],
            host["hostname"],
            host["uuid"],
            host["created_at"],
            host["seen_time"]
        ])
    }));
    all
}

async fn login(broker: &Broker) -> u16 {
    let body = json!({ "email": "p@example.com", "password": PASSWORD });
    broker.post("/api/v1/fleet/login", body).await.0
}

/// Whoever was known is known, and whoever comes gets a number of its own.
async fn goes_on(broker: &Broker, hosts: &[Host], newcomer: &str, campaigns: u64) {
    for host in hosts.iter().step_by(37) {
        host.read(broker).await;
    }
    assert_eq!(login(broker).await, 200);
    let (_, before) = broker.get("/api/v1/fleet/hosts?per_page=2000").await;
    let ids = |said: &Value| -> Vec<u64> {
        let hosts = said["hosts"].as_array().unwrap();
        hosts
            .iter()
            .map(|host| host["id"].as_u64().unwrap())
            .collect()
    };
    let before = ids(&before);
    Host::enroll(broker, newcomer).await;
    let (_, after) = broker.get("/api/v1/fleet/hosts?per_page=2000").await;
    let new: Vec<u64> = ids(&after)
        .into_iter()
        .filter(|id| !before.contains(id))
        .collect();
    assert!(
        new.len() == 1 && new[0] > *before.iter().max().unwrap(),
        "{new:?}"
    );
    let campaign = broker.run_on_all("select 1").await;
    assert!(campaign > campaigns, "{campaign} was given before");
    assert!(hosts[5].is_given(broker, campaign).await);
    // A change expects the record's revision, which is another one here.
    let specs =
        json!({ "specs": [{ "name": "query 7", "query": format!("select '{newcomer}'") }] });
    assert_eq!(
        broker.post("/api/v1/fleet/spec/queries", specs).await.0,
        200
    );
    let (_, query) = broker.get("/api/v1/fleet/spec/queries/query%207").await;
    assert_eq!(query["specs"]["query"], format!("select '{newcomer}'"));
}

/// Runs the command and kills it as soon as it has copied something; true if that was before its end.
async fn interrupt(from: &str, to: &str) -> bool {
    let mut child = command(from, to)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        if line.starts_with("copied ") {
            child.kill().await.unwrap();
            break;
        }
    }
    !child.wait().await.unwrap().success()
}

async fn broker_on(dir: &Path, url: &str) -> Broker {
    Broker::start_in(dir, "127.0.0.1:0", &["--store", url]).await
}

/// Leaves the target with a part of the source's records, on which no broker starts.
async fn leave_half(from: &str, redis: &RedisServer, dir: &Path) {
    let mut tries = 0;
    while !interrupt(from, &redis.url()).await {
        tries += 1;
        assert!(tries < 20, "the command was never interrupted");
        redis.cli(&["flushall"]);
    }
    let early = Command::new(env!("CARGO_BIN_EXE_answerback"))
        .args(["serve", "--listen", "127.0.0.1:0", "--store", &redis.url()])
        .arg("--data-dir")
        .arg(dir.join("early"))
        .output()
        .await
        .unwrap();
    assert!(
        !early.status.success(),
        "no broker starts on half a catalog"
    );
    assert!(text(&early.stderr).contains("is not finished"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_catalog_goes_to_redis_and_back() {
    if !is_installed() {
        return;
    }
    let (redis, dir) = (RedisServer::start(), tempfile::tempdir().unwrap());
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    let (first_url, second_url) = (
        format!("embedded:{}", first.display()),
        second.display().to_string(),
    );
    let mut broker = Broker::start_in(&first, "127.0.0.1:0", &[]).await;
    let hosts = furnish(&broker).await;
    let campaign = broker.run_on_all("select 1").await;
    let refused = migrate(&first_url, &redis.url()).await;
    assert_eq!(refused.status.code(), Some(1), "a broker has it open");
    assert!(text(&refused.stderr).contains("another process has this data directory open"));
    assert!(broker.stop().await);
    // The check-ins of the last seconds are in the store now.
    let mut broker = Broker::start_in(&first, "127.0.0.1:0", &[]).await;
    let before = seen(&broker).await;
    assert!(broker.stop().await);

    leave_half(&first_url, &redis, dir.path()).await;
    let done = migrate(&first_url, &redis.url()).await;
    let told = text(&done.stderr);
    assert!(done.status.success() && told.contains("going on"), "{told}");
    let report = text(&done.stdout);
    assert!(report.contains("records compared and equal"), "{report}");
    assert!(report.contains(&format!("host{:>20}", HOSTS)), "{report}");

    let mut broker = broker_on(&dir.path().join("a"), &redis.url()).await;
    assert_eq!(seen(&broker).await, before);
    goes_on(&broker, &hosts, "newcomer", campaign).await;
    let before = seen(&broker).await;
    assert!(broker.stop().await);

    let back = migrate(&redis.url(), &second_url).await;
    assert!(back.status.success(), "{}", text(&back.stderr));
    let again = migrate(&redis.url(), &second_url).await;
    assert!(text(&again.stderr).contains("holds the same records already"));
    let mut broker = Broker::start_in(&second, "127.0.0.1:0", &[]).await;
    assert_eq!(seen(&broker).await.len(), before.len());
    goes_on(&broker, &hosts, "another newcomer", campaign + 1).await;
    assert!(broker.stop().await);

    // By now the two have gone different ways.
    let unrelated = migrate(&second_url, &redis.url()).await;
    assert_eq!(unrelated.status.code(), Some(1));
    assert!(text(&unrelated.stderr).contains("it is not empty"));
}

#[tokio::test]
async fn what_cannot_be_migrated_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().display().to_string();
    for (from, to, code, told) in [
        ("embedded", "redis://127.0.0.1:1", 2, "names no directory"),
        ("mysql://a", place.as_str(), 2, "neither"),
        (&place, &format!("embedded:{place}"), 2, "the same store"),
        (&place, "redis://127.0.0.1:1", 1, "no data directory"),
        ("redis://127.0.0.1:1", &place, 1, "cannot open redis://"),
    ] {
        let said = migrate(from, to).await;
        let text = text(&said.stderr);
        assert_eq!(said.status.code(), Some(code), "{text}");
        assert!(text.contains(told), "{text}");
    }
    assert!(!dir.path().join("catalog.db").exists());
}
