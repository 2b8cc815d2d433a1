//! The document for contributors from end to end: what operators apply there reaches hosts, and what hosts run by
//! schedule reaches the operator's logs.

use http::Method;
use serde_json::{Value, json};

use crate::api::documented::{LABELS, PACKS, QUERIES, SECRET, TEAMS};
use crate::broker::{Broker, TOKEN};

/// The secret that the document gives to a team and to all.
const SHARED: &str = "fTp52/twaxBU6gIi0J6PHp8o5Sm1k1kn";

async fn apply(broker: &Broker, path: &str, body: &str) {
    let bearer = format!("Bearer {TOKEN}");
    let headers = [("authorization", bearer.as_str())];
    let path = format!("/api/v1/fleet{path}");
    let sent = broker.send(Method::POST, &path, &headers, body.to_owned().into());
    let (status, said) = sent.await;
    assert_eq!(status, 200, "{path}: {said}");
}

/// POST to an agents' route under the alias that the document's agent options name.
async fn agent(broker: &Broker, route: &str, body: Value) -> Value {
    let path = format!("/api/v1/osquery/{route}");
    let sent = broker.send(Method::POST, &path, &[], body.to_string().into());
    let (status, said) = sent.await;
    assert_eq!(status, 200, "{path}: {said}");
    said
}

async fn enroll(broker: &Broker, name: &str, secret: &str) -> Value {
    let details = json!({
        "os_version": { "platform": "windows" },
        "system_info": { "hostname": name, "uuid": format!("uuid-{name}") },
    });
    let body = json!({ "enroll_secret": secret, "host_identifier": name, "host_details": details });
    agent(broker, "enroll", body).await["node_key"].clone()
}

/// A broker with the document's examples applied, as they stand.
async fn furnished(args: &[&str]) -> Broker {
    let broker = Broker::start(args).await;
    for (path, body) in [
        ("/spec/packs", PACKS),
        ("/spec/queries", QUERIES),
        ("/spec/teams", TEAMS),
        ("/spec/labels", LABELS),
        ("/spec/enroll_secret", SECRET),
    ] {
        apply(&broker, path, body).await;
    }
    broker
}

#[tokio::test]
async fn a_secret_that_is_a_teams_and_global_enrolls_into_the_team() {
    let broker = furnished(&[]).await;
    let node_key = enroll(&broker, "pc", SHARED).await;
    let (_, said) = broker.get("/api/v1/fleet/hosts/identifier/pc").await;
    assert_eq!(said["host"]["team_name"], "Client Platform Engineering");
    let config = agent(&broker, "config", json!({ "node_key": node_key })).await;
    assert_eq!(
        config["options"]["logger_tls_endpoint"],
        "/api/v1/osquery/log"
    );
    assert!(config["decorators"]["load"].is_array());
}

#[tokio::test]
async fn packs_and_schedules_reach_hosts_and_give_results() {
    let broker = furnished(&[]).await;
    let node_key = enroll(&broker, "pc", SHARED).await;
    let config = || agent(&broker, "config", json!({ "node_key": node_key }));
    // The pack names six queries, of which one exists; the second pack has no targets.
    let query = json!({
        "query": "SELECT * FROM osquery_info", "interval": 456, "snapshot": false, "removed": true,
    });
    let packs = json!({ "pack_1": { "queries": { "new_query": query } } });
    assert_eq!(config().await["packs"], packs);
    let specs = json!({ "specs": [
        { "name": "osquery_info", "query": "select 5" },
        { "name": "global", "query": "select 6", "interval": 60, "automations_enabled": true, "logging": "differential" },
        { "name": "off", "query": "select 7", "interval": 60 },
        { "name": "own", "query": "select 8", "team": "Client Platform Engineering", "interval": 90,
          "automations_enabled": true, "platform": "windows", "min_osquery_version": "5.0.0" },
    ] });
    apply(&broker, "/spec/queries", &specs.to_string()).await;
    let packs = config().await["packs"].clone();
    assert_eq!(packs["pack_1"]["queries"]["osquery_info"]["snapshot"], true);
    let global = json!({ "query": "select 6", "interval": 60, "snapshot": false, "removed": true });
    assert_eq!(packs["Global"], json!({ "queries": { "global": global } }));
    let (_, teams) = broker.get("/api/v1/fleet/teams").await;
    let team = format!("team-{}", teams["teams"][0]["id"]);
    let own = json!({
        "query": "select 8", "interval": 90, "snapshot": true, "removed": false,
        "platform": "windows", "version": "5.0.0",
    });
    assert_eq!(packs[team], json!({ "queries": { "own": own } }));
    // Entries whose query goes are silent again.
    let path = "/api/v1/fleet/queries/osquery_info";
    let (status, _) = broker.call(Method::DELETE, path, None).await;
    assert_eq!(status, 200);
    assert!(config().await["packs"]["pack_1"]["queries"]["osquery_info"].is_null());
}

/// What an osquery logs, a result and a status line.
async fn log(broker: &Broker, node_key: &Value) {
    let result =
        json!({ "name": "pack/pack_1/new_query", "action": "added", "columns": { "pid": "1" } });
    let status = json!({ "severity": "0", "message": "Executing scheduled query" });
    for (kind, data) in [("result", result), ("status", status)] {
        let body = json!({ "node_key": node_key, "log_type": kind, "data": [data] });
        assert_eq!(agent(broker, "log", body).await, json!({}));
    }
}

#[tokio::test]
async fn results_and_status_lines_stand_in_the_operators_logs_before_they_are_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start_in(dir.path(), "127.0.0.1:0", &[]).await;
    apply(&broker, "/spec/teams", TEAMS).await;
    let node_key = enroll(&broker, "pc", SHARED).await;
    log(&broker, &node_key).await;
    let lines = |name: &str| -> Vec<Value> {
        let text = std::fs::read_to_string(dir.path().join(name)).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    let results = lines("osquery_result.log");
    assert_eq!(results.len(), 1);
    assert_eq!(results[0]["columns"]["pid"], "1");
    assert_eq!(lines("osquery_status.log")[0]["severity"], "0");
}

#[tokio::test]
async fn logs_may_go_to_standard_output() {
    let (broker, mut lines) = Broker::start_and_listen(&["--osquery-logs", "stdout"]).await;
    apply(&broker, "/spec/teams", TEAMS).await;
    let node_key = enroll(&broker, "pc", SHARED).await;
    log(&broker, &node_key).await;
    let logged = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.starts_with('{') && line.contains("pack/pack_1/new_query") {
                return;
            }
        }
        panic!("the broker has ended");
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), logged)
        .await
        .expect("the line comes");
}
