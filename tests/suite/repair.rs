//! `answerback repair`: what can be read of a damaged directory is kept, and a broker starts on it.

use std::os::unix::fs::FileExt as _;
use std::path::Path;

use serde_json::json;

use crate::broker::{Broker, answerback};
use crate::hosts::Host;

/// A directory of 300 hosts and three campaigns, of which one has ended, at rest.
async fn lived(dir: &Path) -> (Vec<Host>, u64) {
    let mut broker = Broker::start_in(dir, "127.0.0.1:0", &["--unclaimed-s", "3600"]).await;
    let hosts = Host::enroll_many(&broker, 300).await;
    let mut campaign = 0;
    for at in 0..3 {
        campaign = broker.run_on_all(&format!("select {at}")).await;
        for host in &hosts[..10] {
            assert!(host.is_given(&broker, campaign).await);
            let rows = json!([{ "a": "1" }]);
            assert_eq!(host.answer(&broker, campaign, rows).await, 200);
        }
    }
    let stop = format!("/api/v1/fleet/campaigns/{}/stop", campaign - 1);
    assert_eq!(broker.post(&stop, json!({})).await.0, 200);
    assert!(broker.stop().await);
    (hosts, campaign)
}

fn said(command: &str, dir: &Path) -> (Option<i32>, String) {
    answerback(30, &[command, &dir.display().to_string()])
}

/// Overwrites two leaves of the hosts' records.
fn damage_hosts(catalog: &Path) {
    let bytes = std::fs::read(catalog).unwrap();
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(catalog)
        .unwrap();
    let leaves: Vec<usize> = (1..bytes.len() / 4096)
        .filter(|page| {
            let page = &bytes[page * 4096..][..4096];
            let is_leaf = matches!(page[0], 10 | 13);
            is_leaf
                && page
                    .windows(9)
                    .filter(|found| found == b"uuid-host")
                    .count()
                    > 2
        })
        .collect();
    assert!(leaves.len() > 8, "{leaves:?}");
    for page in [leaves[2], leaves[5]] {
        file.write_all_at(&[0x55; 4096], page as u64 * 4096)
            .unwrap();
    }
}

#[tokio::test]
async fn a_catalog_with_damaged_pages_is_made_anew_of_all_others() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("data");
    let (hosts, campaign) = lived(&dir).await;
    assert_eq!(said("check", &dir).0, Some(0));
    let (code, told) = said("repair", &dir);
    assert!(
        code == Some(0) && told.contains("nothing was changed"),
        "{told}"
    );
    damage_hosts(&dir.join("catalog.db"));
    let log = dir.join(format!("campaigns/{campaign}.log"));
    let mut results = std::fs::read(&log).unwrap();
    let middle = results.len() / 2;
    results[middle] ^= 1;
    std::fs::write(&log, results).unwrap();
    assert_eq!(said("check", &dir).0, Some(1));
    let (code, told) = said("repair", &dir);
    assert_eq!(code, Some(0), "{told}");
    assert!(
        told.contains("made anew") && told.contains("set-aside"),
        "{told}"
    );
    let line = format!("results of campaign {campaign} are missing");
    assert!(told.contains(&line), "{told}");
    assert_eq!(said("check", &dir).0, Some(0));

    let broker = Broker::start_in(&dir, "127.0.0.1:0", &["--unclaimed-s", "3600"]).await;
    assert_eq!(broker.get("/api/v1/fleet/me").await.0, 200);
    let (_, listed) = broker.get("/api/v1/fleet/hosts?per_page=1000").await;
    let kept = listed["hosts"].as_array().unwrap().len();
    assert!((200..300).contains(&kept), "{kept} of 300 hosts");
    let results = format!(
        "/api/v1/fleet/campaigns/{}/results?format=json",
        campaign - 1
    );
    let (_, results) = broker.get(&results).await;
    assert_eq!(results["results"].as_array().unwrap().len(), 10);
    assert!(broker.run_on_all("select 9").await > campaign + 1_000);
    // A host whose record is lost enrolls again.
    Host::enroll(&broker, &hosts[299].name).await;
}

#[tokio::test]
async fn a_start_after_a_crash_finds_damaged_pages_and_names_the_way_on() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("data");
    lived(&dir).await;
    let mut broker = Broker::start_in(&dir, "127.0.0.1:0", &[]).await;
    broker.crash().await;
    damage_hosts(&dir.join("catalog.db"));
    let data = dir.display().to_string();
    let serve = ["serve", "--listen", "127.0.0.1:0", "--data-dir", &data];
    let (code, told) = answerback(30, &serve);
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("answerback repair"), "{told}");
    assert_eq!(said("repair", &dir).0, Some(0));
    Broker::start_in(&dir, "127.0.0.1:0", &[]).await;
}

#[tokio::test]
async fn what_cannot_be_repaired_is_left_as_it_is() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("data");
    let (code, told) = said("repair", &dir);
    assert!(code == Some(1) && told.contains("restore"), "{told}");
    let broker = Broker::start_in(&dir, "127.0.0.1:0", &[]).await;
    let (code, told) = said("repair", &dir);
    assert!(
        code == Some(1) && told.contains("another process"),
        "{told}"
    );
    drop(broker);
    std::fs::write(dir.join("catalog.db"), vec![b'x'; 100_000]).unwrap();
    for name in ["catalog.db-wal", "catalog.db-shm"] {
        let _ = std::fs::remove_file(dir.join(name));
    }
    let (code, told) = said("repair", &dir);
    assert!(code == Some(1) && told.contains("--accept-loss"), "{told}");
    let left = std::fs::read(dir.join("catalog.db")).unwrap();
    assert_eq!(left, vec![b'x'; 100_000]);
}
