//! Data directories that have lost something: known for what they are, and nothing deleted.

use std::path::Path;

use serde_json::json;
use tempfile::TempDir;

use super::broker::{Broker, answerback};
use super::hosts::Host;

/// A broker that has enrolled hosts and results of a campaign, killed without a goodbye.
async fn lived() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut broker = Broker::start_in(dir.path(), "127.0.0.1:0", &[]).await;
    let hosts = Host::enroll_many(&broker, 4).await;
    broker.run_on_all("select 1").await;
    hosts[3].read(&broker).await;
    broker.crash().await;
    dir
}

fn refused(dir: &Path, args: &[&str]) -> String {
    let dir = dir.display().to_string();
    let base = ["serve", "--listen", "127.0.0.1:0", "--data-dir", &dir];
    let (code, said) = answerback(20, &[&base[..], args].concat());
    assert_eq!(code, Some(1), "{said}");
    said
}

fn files(dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    let names = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    names.collect()
}

#[tokio::test]
async fn a_catalog_that_is_gone_or_emptied_is_no_first_start() {
    for harm in ["gone", "emptied", "wal"] {
        let dir = lived().await;
        let path = dir.path();
        // A result's file that must not be lost with it.
        std::fs::write(path.join("campaigns/77.log"), "a campaign's").unwrap();
        let db = path.join("catalog.db");
        match harm {
            "gone" => std::fs::remove_file(&db).unwrap(),
            "emptied" => std::fs::write(&db, "").unwrap(),
            _ => {}
        }
        for name in ["catalog.db-wal", "catalog.db-shm"] {
            let _ = std::fs::remove_file(path.join(name));
        }
        let said = refused(path, &[]);
        assert!(
            said.contains("catalog") && said.contains("--accept-loss"),
            "{harm}: {said}"
        );
        assert!(path.join("campaigns/77.log").exists(), "{harm}");
        // Asked for, it begins anew, sets aside what it does not know, and gives no number twice.
        let broker = Broker::start_in(path, "127.0.0.1:0", &["--accept-loss"]).await;
        assert!(
            files(&path.join("set-aside")).contains(&"77.log.0".to_owned()),
            "{harm}"
        );
        Host::enroll(&broker, "newcomer").await;
        assert!(broker.run_on_all("select 1").await > 77);
    }
}

#[tokio::test]
async fn commits_that_are_missing_are_counted_and_refused() {
    let dir = lived().await;
    let wal = dir.path().join("catalog.db-wal");
    let mut bytes = std::fs::read(&wal).unwrap();
    // SQLite drops what follows a damaged frame, without a word.
    let at = bytes.len() * 2 / 3;
    bytes[at] ^= 0x40;
    std::fs::write(&wal, &bytes).unwrap();
    let said = refused(dir.path(), &[]);
    assert!(
        said.contains("writes of the catalog") && said.contains("missing"),
        "{said}"
    );
    let broker = Broker::start_in(dir.path(), "127.0.0.1:0", &["--accept-loss"]).await;
    assert_eq!(broker.get("/api/v1/fleet/me").await.0, 200);
    drop(broker);
    // Accepted once is accepted.
    let mut broker = Broker::start_in(dir.path(), "127.0.0.1:0", &[]).await;
    assert!(broker.stop().await);
    // A copy of the catalog from before some commits.
    let old = std::fs::read(dir.path().join("catalog.db")).unwrap();
    let mut broker = Broker::start_in(dir.path(), "127.0.0.1:0", &[]).await;
    let body = json!({"name": "q", "query": "select 1"});
    assert_eq!(broker.post("/api/v1/fleet/queries", body).await.0, 200);
    assert!(broker.stop().await);
    std::fs::write(dir.path().join("catalog.db"), old).unwrap();
    let _ = std::fs::remove_file(dir.path().join("catalog.db-wal"));
    assert!(refused(dir.path(), &[]).contains("missing"));
}

#[tokio::test]
async fn a_power_cut_that_took_writes_is_told_and_survived_unless_the_disk_was_waited_for() {
    let dir = lived().await;
    let witness = dir.path().join("catalog.witness");
    // As if the machine had another boot since, and the catalog had been ahead.
    let text = std::fs::read_to_string(&witness).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let count: u64 = lines[1].parse().unwrap();
    let boot = format!("{:36}", "another boot");
    let text = format!("{}\n{:020}\n{boot}\n{}\n", lines[0], count + 3, lines[3]);
    std::fs::write(&witness, text).unwrap();
    let said = refused(dir.path(), &["--fsync", "always"]);
    assert!(said.contains("the last 3 writes"), "{said}");
    let broker = Broker::start_in(dir.path(), "127.0.0.1:0", &[]).await;
    assert_eq!(broker.get("/api/v1/fleet/me").await.0, 200);
    let (_, said) = broker.get("/api/v1/fleet/hosts").await;
    assert_eq!(said["hosts"].as_array().unwrap().len(), 4);
}

async fn answer(broker: &Broker, host: &Host, campaign: u64) {
    host.read(broker).await;
    assert_eq!(
        host.answer(broker, campaign, json!([{"a": "1"}])).await,
        200
    );
}

async fn lines(broker: &Broker, campaign: u64) -> (bool, String) {
    let url = broker.url(&format!("/api/v1/fleet/campaigns/{campaign}/results"));
    let output = tokio::process::Command::new("curl")
        .args([
            "-sS",
            "-m",
            "10",
            "-H",
            &format!("Authorization: Bearer {}", super::broker::TOKEN),
            &url,
        ])
        .output()
        .await
        .unwrap();
    (
        output.status.success(),
        String::from_utf8(output.stdout).unwrap(),
    )
}

#[tokio::test]
async fn a_damaged_file_costs_what_is_damaged_and_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["--unclaimed-s", "3600"];
    let mut broker = Broker::start_in(dir.path(), "127.0.0.1:0", &args).await;
    let hosts = Host::enroll_many(&broker, 15).await;
    let campaign = broker.run_on_all("select 1").await;
    let other = broker.run_on_all("select 2").await;
    let garbage = broker.run_on_all("select 3").await;
    for host in &hosts {
        for id in [campaign, other, garbage] {
            answer(&broker, host, id).await;
        }
    }
    broker.crash().await;
    let file = |id: u64| dir.path().join(format!("campaigns/{id}.log"));
    let mut bytes = std::fs::read(file(campaign)).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    std::fs::write(file(campaign), bytes).unwrap();
    std::fs::write(file(garbage), vec![b'g'; 10_000]).unwrap();
    broker.restart().await;
    let (whole, said) = lines(&broker, other).await;
    assert!(whole && said.lines().count() == 15, "{said}");
    let (whole, said) = lines(&broker, campaign).await;
    assert!(whole && (13..=14).contains(&said.lines().count()), "{said}");
    assert_eq!(lines(&broker, garbage).await.1.lines().count(), 0);
    let aside = files(&dir.path().join("set-aside"));
    assert_eq!(aside.len(), 2, "{aside:?}");
    let metrics = broker.get("/metrics").await.1.to_string();
    assert!(
        metrics.contains("answerback_campaigns_damaged_total 2"),
        "{metrics}"
    );
    // Whose answer is gone is asked again.
    for host in &hosts {
        answer(&broker, host, campaign).await;
    }
    assert_eq!(lines(&broker, campaign).await.1.lines().count(), 15);
}

#[tokio::test]
async fn a_directory_has_one_broker_even_when_the_locks_file_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start_in(dir.path(), "127.0.0.1:0", &[]).await;
    std::fs::remove_file(dir.path().join("lock")).unwrap();
    let said = refused(dir.path(), &[]);
    assert!(
        said.contains("another process has this data directory open"),
        "{said}"
    );
    // What is written into a file that nobody finds any more is lost at the stop: that is told before.
    let db = dir.path().join("catalog.db");
    let kept = dir.path().join("kept.db");
    std::fs::rename(&db, &kept).unwrap();
    let mut told = (0, serde_json::Value::Null);
    for _ in 0..100 {
        told = broker.get("/readyz").await;
        if told.0 == 503 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert!(
        told.0 == 503 && told.1.to_string().contains("catalog.db was removed"),
        "{told:?}"
    );
    std::fs::rename(&kept, &db).unwrap();
    for _ in 0..100 {
        if broker.get("/readyz").await.0 == 200 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("it is back, and not noticed");
}

/// What version 0.1 has written must be read by every later one. A new version adds its own directory beside it.
#[tokio::test]
async fn data_of_earlier_versions_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/data-0.1");
    std::fs::create_dir(dir.path().join("campaigns")).unwrap();
    for name in [
        "catalog.db",
        "catalog.witness",
        "campaigns/1.log",
        "campaigns/2.log",
    ] {
        std::fs::copy(from.join(name), dir.path().join(name)).unwrap();
    }
    // A hundred years, so that the results are still kept.
    let args = ["--retention-s", "3153600000"];
    let broker = Broker::start_in(dir.path(), "127.0.0.1:0", &args).await;
    let named = |said: &serde_json::Value, of: &str, name: &str| {
        let list = said[of].as_array().unwrap();
        list.iter()
            .map(|each| each[name].as_str().unwrap_or_default().to_owned())
            .collect::<Vec<_>>()
    };
    let (_, said) = broker.get("/api/v1/fleet/hosts?order_key=id").await;
    assert_eq!(
        named(&said, "hosts", "hostname"),
        ["host-0", "host-1", "host-2"]
    );
    assert_eq!(named(&said, "hosts", "team_name"), ["", "", "Ops"]);
    for (path, of, name) in [
        ("queries", "queries", "kernel"),
        ("labels", "labels", "chosen"),
        ("packs", "packs", "p"),
        ("teams", "teams", "Ops"),
    ] {
        let (_, said) = broker.get(&format!("/api/v1/fleet/{path}")).await;
        assert!(
            named(&said, of, "name").contains(&name.to_owned()),
            "{said}"
        );
    }
    // The secret and the keys that were given out still open.
    let body = json!({"enroll_secret": "ops-secret", "host_identifier": "host-2"});
    let (status, said) = broker.post("/api/osquery/enroll", body).await;
    assert_eq!(status, 200, "{said}");
    let known = json!({"node_key": "/1WExDU4x9aHxJsb9Z9FeVCc9wJStdlg"});
    assert_eq!(
        broker.post("/api/osquery/distributed/read", known).await.0,
        200
    );
    for campaign in [1, 2] {
        let (whole, said) = lines(&broker, campaign).await;
        assert!(whole && said.lines().count() == 3, "{campaign}: {said}");
    }
}

#[tokio::test]
async fn a_backup_of_a_running_broker_is_whole_and_comes_back_without_giving_numbers_twice() {
    let dir = tempfile::tempdir().unwrap();
    let (data, saved, back) = (
        dir.path().join("data"),
        dir.path().join("saved"),
        dir.path().join("back"),
    );
    let args = ["--unclaimed-s", "3600"];
    let mut broker = Broker::start_in(&data, "127.0.0.1:0", &args).await;
    let hosts = Host::enroll_many(&broker, 20).await;
    let campaign = broker.run_on_all("select 1").await;
    let paths = [&data, &saved, &back].map(|path| path.display().to_string());
    for (at, host) in hosts.iter().enumerate() {
        answer(&broker, host, campaign).await;
        if at == 10 {
            let (code, said) = answerback(20, &["backup", &paths[1], "--data-dir", &paths[0]]);
            assert_eq!(code, Some(0), "{said}");
            let (code, said) = answerback(20, &["backup", &paths[1], "--data-dir", &paths[0]]);
            assert!(code == Some(1) && said.contains("is not empty"), "{said}");
        }
    }
    let later = broker.run_on_all("select 2").await;
    broker.crash().await;
    let (code, said) = answerback(20, &["check", &paths[1]]);
    assert!(code == Some(0) && said.contains("is whole"), "{said}");
    let (code, said) = answerback(20, &["restore", &paths[1], "--data-dir", &paths[2]]);
    assert_eq!(code, Some(0), "{said}");
    let broker = Broker::start_in(&back, "127.0.0.1:0", &args).await;
    let (whole, said) = lines(&broker, campaign).await;
    assert!(whole && (11..=20).contains(&said.lines().count()), "{said}");
    assert!(broker.run_on_all("select 3").await > later);
    for host in &hosts {
        answer(&broker, host, campaign).await;
    }
    assert_eq!(lines(&broker, campaign).await.1.lines().count(), 20);
    drop(broker);
    // A damaged backup is not put back.
    let log = saved.join(format!("campaigns/{campaign}.log"));
    let mut bytes = std::fs::read(&log).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&log, bytes).unwrap();
    let (code, said) = answerback(
        20,
        &[
            "restore",
            &paths[1],
            "--data-dir",
            &dir.path().join("again").display().to_string(),
        ],
    );
    assert!(code == Some(1) && said.contains("is damaged"), "{said}");
}

/// What a first start prints, line by line, until `enough`; then it is killed. The last password and token that were told.
fn first_start(dir: &Path, enough: impl Fn(&str) -> bool) -> (Option<String>, Option<String>) {
    use std::io::{BufRead as _, BufReader};
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_answerback"))
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(dir)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let (mut password, mut token) = (None, None);
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let told = |name: &str| Some(line.trim().strip_prefix(name)?.trim().to_owned());
        password = told("password").or(password);
        token = told("API token").or(token);
        if enough(&line) {
            break;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    (password, token)
}

#[tokio::test]
async fn a_first_start_that_is_killed_anywhere_has_told_the_password() {
    for last in ["Making", "password", "API token", "listening", "store"] {
        let dir = tempfile::tempdir().unwrap();
        let (first, _) = first_start(dir.path(), |line| line.contains(last));
        let (second, _) = first_start(dir.path(), |line| line.contains("Ask all hosts"));
        let told = second.or(first).expect(last);
        let broker = Broker::start_in(dir.path(), "127.0.0.1:0", &[]).await;
        let login = json!({ "email": "admin@localhost", "password": told });
        let (status, said) = broker.post("/api/v1/fleet/login", login).await;
        // A temporary password is known by what it asks for.
        assert!(
            status == 200 || said.to_string().contains("temporary"),
            "{last}: {status} {said}"
        );
    }
}
