//! Disks that hang and catalogs that another program has locked: nobody waits without end, all else goes on, nothing that
//! was acknowledged is lost.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use rusqlite::Connection;
use serde_json::json;
use tempfile::TempDir;

use crate::broker::Broker;
use crate::hosts::Host;
use crate::viewer::Viewer;

/// Nothing takes longer while a disk hangs; a slow machine that tests is counted in.
const BOUND: Duration = Duration::from_secs(6);

/// A data directory on a disk that can be made to hang.
struct Disk {
    root: TempDir,
    library: PathBuf,
}

impl Disk {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let library = root.path().join("hang.so");
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-D_LARGEFILE64_SOURCE", "-o"])
            .arg(&library)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/faults/hang.c"))
            .arg("-ldl")
            .status();
        assert!(built.unwrap().success());
        Self { root, library }
    }

    async fn broker(&self, args: &[&str]) -> Broker {
        let (dir, switch) = (self.data(), self.switch());
        let env = [
            ("LD_PRELOAD", self.library.as_path()),
            ("HANG_DIR", dir.as_path()),
            ("HANG_SWITCH", switch.as_path()),
        ];
        Broker::start_with(&dir, args, &env).await
    }

    fn data(&self) -> PathBuf {
        self.root.path().join("data")
    }

    fn switch(&self) -> PathBuf {
        self.root.path().join("hangs")
    }

    fn hang(&self) {
        std::fs::write(self.switch(), "").unwrap();
    }

    fn go_on(&self) {
        std::fs::remove_file(self.switch()).unwrap();
    }
}

/// What this gives, which must not take long.
async fn soon<T>(what: &str, asked: impl Future<Output = T>) -> T {
    let told = tokio::time::timeout(BOUND, asked).await;
    told.unwrap_or_else(|_| panic!("{what} takes longer than {BOUND:?}"))
}

async fn status(broker: &Broker, path: &str) -> (u16, String) {
    let asked = broker.send(Method::GET, path, &[], Bytes::new());
    let (status, said) = soon(path, asked).await;
    (status, said.to_string())
}

async fn until_ready(broker: &Broker) {
    let give_up = Instant::now() + Duration::from_secs(20);
    while status(broker, "/readyz").await.0 != 200 {
        assert!(Instant::now() < give_up, "it is not ready again");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_disk_that_hangs_holds_up_nothing_but_what_it_has_to_take() {
    let disk = Disk::new();
    let broker = disk
        .broker(&["--resume-grace-s", "1", "--heartbeat-s", "1"])
        .await;
    let hosts = Host::enroll_many(&broker, 12).await;
    for host in &hosts {
        host.read(&broker).await;
    }
    let campaign = broker.run_on_all("select 1").await;
    let mut viewer = Viewer::watch(&broker, campaign, 0).await;
    for host in &hosts {
        assert!(host.is_given(&broker, campaign).await);
    }
    let rows = json!([{ "a": "1" }]);
    assert_eq!(hosts[0].answer(&broker, campaign, rows.clone()).await, 200);
    viewer.until_results(1).await;

    disk.hang();
    // All at once: the first waits for the disk, the others for it or not at all.
    let refused = futures_util::future::join_all(hosts[1..11].iter().map(|host| {
        let answered = host.answer(&broker, campaign, rows.clone());
        soon("an answer", answered)
    }));
    assert_eq!(refused.await, [503; 10]);
    let (code, said) = status(&broker, "/readyz").await;
    assert!(code == 503 && said.contains("does not answer"), "{said}");
    assert_eq!(status(&broker, "/healthz").await.0, 200);
    let given = soon("a check-in", hosts[11].is_given(&broker, campaign)).await;
    assert!(!given, "it has been given the query");
    let at_once = Instant::now();
    assert_eq!(hosts[11].answer(&broker, campaign, rows.clone()).await, 503);
    assert!(at_once.elapsed() < Duration::from_secs(1));
    let (code, said) = soon("the list", broker.get("/api/v1/fleet/hosts")).await;
    assert_eq!(code, 200, "{said}");
    let run = json!({ "query": "select 2", "selected": { "hosts": [1] } });
    let made = broker.post("/api/v1/fleet/queries/run", run);
    assert_eq!(soon("a campaign", made).await.0, 503);
    // Longer than a campaign stays without viewers.
    tokio::time::sleep(Duration::from_secs(4)).await;
    disk.go_on();

    until_ready(&broker).await;
    for host in &hosts[1..] {
        assert_eq!(host.answer(&broker, campaign, rows.clone()).await, 200);
    }
    viewer.until_finished().await;
    viewer.hosts.sort();
    let mut names: Vec<_> = hosts.iter().map(|host| host.name.clone()).collect();
    names.sort();
    assert_eq!(viewer.hosts, names, "each once");
}

#[tokio::test]
async fn a_broker_whose_disk_hangs_stops_and_has_what_it_acknowledged() {
    let disk = Disk::new();
    let mut broker = disk.broker(&["--fsync", "always"]).await;
    let hosts = Host::enroll_many(&broker, 2).await;
    for host in &hosts {
        host.read(&broker).await;
    }
    let campaign = broker.run_on_all("select 1").await;
    for host in &hosts {
        assert!(host.is_given(&broker, campaign).await);
    }
    let rows = json!([{ "a": "1" }]);
    assert_eq!(hosts[0].answer(&broker, campaign, rows.clone()).await, 200);
    disk.hang();
    assert_eq!(hosts[1].answer(&broker, campaign, rows.clone()).await, 503);
    let stopping = Instant::now();
    broker.stop().await;
    assert!(stopping.elapsed() < Duration::from_secs(15));
    disk.go_on();
    let broker = disk.broker(&[]).await;
    let mut viewer = Viewer::watch(&broker, campaign, 0).await;
    viewer.until_results(1).await;
    assert!(viewer.hosts.contains(&hosts[0].name), "{:?}", viewer.hosts);
}

#[tokio::test]
async fn a_catalog_that_another_program_holds_locked_is_said_soon_and_answers_are_taken() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start_in(dir.path(), "127.0.0.1:0", &[]).await;
    let host = Host::enroll(&broker, "asked").await;
    host.read(&broker).await;
    let campaign = broker.run_on_all("select 1").await;
    let _viewer = Viewer::watch(&broker, campaign, 0).await;
    assert!(host.is_given(&broker, campaign).await);
    let lock = lock(&dir.path().join("catalog.db"));
    let (code, said) = status(&broker, "/readyz").await;
    assert!(code == 503 && said.contains("locked"), "{said}");
    let label = json!({ "specs": [{ "name": "one", "query": "select 1" }] });
    let made = broker.post("/api/v1/fleet/spec/labels", label.clone());
    assert_eq!(soon("a label", made).await.0, 503);
    let answered = host.answer(&broker, campaign, json!([{ "a": "1" }]));
    assert_eq!(soon("an answer", answered).await, 200);
    drop(lock);
    until_ready(&broker).await;
    assert_eq!(broker.post("/api/v1/fleet/spec/labels", label).await.0, 200);
}

fn lock(catalog: &Path) -> Connection {
    let db = Connection::open(catalog).unwrap();
    db.execute_batch("BEGIN IMMEDIATE").unwrap();
    db
}
