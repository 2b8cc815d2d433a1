//! Results that are lost, and directories that are copied: said wherever they are read, and no number means two things.

use std::path::Path;
use std::process::Command;

use http::Method;
use serde_json::{Value, json};

use crate::broker::{Broker, answerback};
use crate::hosts::Host;
use crate::viewer::Viewer;

const ARGS: [&str; 2] = ["--unclaimed-s", "3600"];

/// A campaign that these hosts have answered.
async fn answered(broker: &Broker, hosts: &[Host], sql: &str) -> u64 {
    let campaign = broker.run_on_all(sql).await;
    for host in hosts {
        assert!(host.is_given(broker, campaign).await);
        let rows = json!([{ "a": "1" }]);
        assert_eq!(host.answer(broker, campaign, rows).await, 200);
    }
    campaign
}

async fn stop(broker: &Broker, campaign: u64) {
    let path = format!("/api/v1/fleet/campaigns/{campaign}/stop");
    assert_eq!(broker.call(Method::POST, &path, None).await.0, 200);
}

/// What is told of a campaign: by the API, in an export, and to a viewer, with the number of results that it gets.
async fn told(broker: &Broker, campaign: u64) -> (bool, bool, bool, usize) {
    let path = format!("/api/v1/fleet/campaigns/{campaign}");
    let (status, shown) = broker.get(&path).await;
    assert_eq!(status, 200, "{shown}");
    let (status, export) = broker.get(&format!("{path}/results?format=json")).await;
    assert_eq!(status, 200, "{export}");
    let mut viewer = Viewer::watch(broker, campaign, 0).await;
    let results = export["results"].as_array().unwrap().len();
    let (mut warned, mut stands) = (false, false);
    while !(viewer.finished || stands && viewer.seqs.len() == results) {
        let message = viewer.message().await;
        warned |= message["code"] == "results_incomplete" && message["final"] == false;
        stands |= message["type"] == "status";
    }
    assert_eq!(viewer.seqs.len(), results);
    let is = |value: &Value| value["incomplete"] == true;
    let campaign = shown.get("campaign").unwrap_or(&shown);
    (is(campaign), is(&export), warned, viewer.seqs.len())
}

fn flip(file: &Path) {
    let mut bytes = std::fs::read(file).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    std::fs::write(file, bytes).unwrap();
}

#[tokio::test]
async fn what_a_campaign_has_lost_is_said_wherever_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut broker = Broker::start_in(dir.path(), "127.0.0.1:0", &ARGS).await;
    let hosts = Host::enroll_many(&broker, 9).await;
    for host in &hosts {
        host.read(&broker).await;
    }
    let mut campaigns = Vec::new();
    for at in 0..6 {
        campaigns.push(answered(&broker, &hosts, &format!("select {at}")).await);
    }
    let [flipped, emptied, gone, whole, running, lost] = campaigns[..] else {
        panic!("{campaigns:?}")
    };
    for campaign in [flipped, emptied, gone, whole] {
        stop(&broker, campaign).await;
    }
    broker.crash().await;
    let file = |id: u64| dir.path().join(format!("campaigns/{id}.log"));
    flip(&file(flipped));
    flip(&file(running));
    std::fs::write(file(emptied), "").unwrap();
    std::fs::remove_file(file(gone)).unwrap();
    std::fs::remove_file(file(lost)).unwrap();
    broker.restart().await;
    for again in [false, true] {
        if again {
            broker.crash_and_restart().await;
        }
        assert_eq!(told(&broker, whole).await, (false, false, false, 9));
        assert_eq!(told(&broker, flipped).await, (true, true, true, 8));
        assert_eq!(told(&broker, emptied).await, (true, true, true, 0));
        assert_eq!(told(&broker, gone).await, (true, true, true, 0));
        assert_eq!(told(&broker, running).await, (true, true, true, 8));
        assert_eq!(told(&broker, lost).await, (true, true, true, 0));
        let metrics = broker.get("/metrics").await.1.to_string();
        let counted = metrics.contains("answerback_campaigns_damaged_total 5");
        assert_eq!(counted, !again, "{metrics}");
    }
}

/// Of a campaign of two results that is not in its first epoch.
async fn assert_exports_ask_for_the_epoch(broker: &Broker, campaign: u64) {
    let path = format!("/api/v1/fleet/campaigns/{campaign}");
    let shown = broker.get(&path).await.1;
    let now = shown["campaign"]["epoch"].as_u64().unwrap();
    let export = async |asked: &str| {
        broker
            .get(&format!("{path}/results?format=json&after=1{asked}"))
            .await
    };
    assert_eq!(export("").await.0, 400);
    let nonsense = broker.get(&format!("{path}/results?epoch=AAA")).await;
    assert_eq!(nonsense.0, 400, "{}", nonsense.1);
    let (status, rest) = export(&format!("&epoch={now}")).await;
    assert_eq!(
        (status, rest["results"].as_array().unwrap().len()),
        (200, 1)
    );
}

#[tokio::test]
async fn a_copy_of_a_directory_gives_no_number_twice_and_takes_no_viewer_on() {
    let root = tempfile::tempdir().unwrap();
    let (data, copy) = (root.path().join("data"), root.path().join("copy"));
    let mut broker = Broker::start_in(&data, "127.0.0.1:0", &ARGS).await;
    let hosts = Host::enroll_many(&broker, 4).await;
    for host in &hosts {
        host.read(&broker).await;
    }
    let campaign = answered(&broker, &hosts[..2], "select 1").await;
    let epoch = epoch(&broker, campaign).await;
    broker.crash().await;
    let copied = Command::new("cp").arg("-a").args([&data, &copy]).status();
    assert!(copied.unwrap().success());
    broker.restart().await;
    let later = answered(&broker, &hosts, "select 2").await;
    assert_eq!(later, campaign + 1, "the original goes on as it was");
    let taken_on = select(&broker, campaign, 1, epoch).await;
    assert_eq!(taken_on["type"], "totals", "{taken_on}");
    broker.crash().await;

    let broker = Broker::start_in(&copy, "127.0.0.1:0", &ARGS).await;
    let new = answered(&broker, &hosts, "select 3").await;
    assert!(new > later + 1_000, "{new}");
    // Tables are as long as the highest number of a host.
    let newcomer = Host::enroll(&broker, "newcomer").await;
    let path = format!("/api/v1/fleet/hosts/identifier/{}", newcomer.name);
    let number = broker.get(&path).await.1["host"]["id"].as_u64().unwrap();
    assert!((5..1_000_000).contains(&number), "{number}");
    let team = json!({ "name": "first" });
    let (_, team) = broker.post("/api/v1/fleet/teams", team).await;
    assert!(team["team"]["id"].as_u64().unwrap() > 1_000, "{team}");
    // What the host still has to say was asked in another life: it is taken, and stands nowhere.
    let rows = json!([{ "a": "old" }]);
    assert_eq!(hosts[0].answer(&broker, later, rows).await, 200);
    let (_, export) = broker
        .get(&format!(
            "/api/v1/fleet/campaigns/{new}/results?format=json"
        ))
        .await;
    assert!(!export.to_string().contains("old"), "{export}");
    let refused = select(&broker, campaign, 1, epoch).await;
    assert_eq!(refused["code"], "cannot_resume", "{refused}");
    assert_exports_ask_for_the_epoch(&broker, campaign).await;
    let refused = Viewer::watch(&broker, campaign, 1).await.refusal().await;
    assert!(refused.contains("cannot resume"), "{refused}");
    assert_eq!(told(&broker, campaign).await, (false, false, false, 2));
}

#[tokio::test]
async fn a_copy_that_was_repaired_first_is_a_copy_all_the_same() {
    let root = tempfile::tempdir().unwrap();
    let (data, copy) = (root.path().join("data"), root.path().join("copy"));
    let mut broker = Broker::start_in(&data, "127.0.0.1:0", &ARGS).await;
    let hosts = Host::enroll_many(&broker, 1).await;
    hosts[0].read(&broker).await;
    let campaign = answered(&broker, &hosts, "select 1").await;
    assert!(broker.stop().await);
    let copied = Command::new("cp").arg("-a").args([&data, &copy]).status();
    assert!(copied.unwrap().success());
    let (code, said) = answerback(30, &["repair", &copy.display().to_string()]);
    assert_eq!(code, Some(0), "{said}");
    let broker = Broker::start_in(&copy, "127.0.0.1:0", &ARGS).await;
    assert!(answered(&broker, &hosts, "select 2").await > campaign + 1_000);
}

async fn epoch(broker: &Broker, campaign: u64) -> u64 {
    let mut viewer = Viewer::watch(broker, campaign, 0).await;
    viewer.message().await["data"]["epoch"]
        .as_u64()
        .unwrap_or(0)
}

/// The first that a viewer hears who goes on after this place.
async fn select(broker: &Broker, campaign: u64, after: u64, epoch: u64) -> Value {
    let mut viewer = Viewer::connect(broker).await;
    viewer
        .say(&json!({ "type": "auth", "data": { "token": crate::broker::TOKEN } }))
        .await;
    let data = json!({ "campaign_id": campaign, "after": after, "epoch": epoch });
    viewer
        .say(&json!({ "type": "select_campaign", "data": data }))
        .await;
    viewer.message().await
}
