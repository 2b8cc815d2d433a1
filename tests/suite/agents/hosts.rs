//! Enrolment, configuration, and what hosts tell of themselves.

use std::sync::atomic::Ordering;

use answerback::catalog::builtin;
use answerback::catalog::entity::{
    AppConfig, Entity, Label, Membership, Pack, PackQuery, Query, Team,
};
use answerback::catalog::state::query_name;
use answerback::results::{LabelId, QueryId, TeamId};
use futures_util::future::join_all;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::bed::{Bed, SECRET};

fn team(id: u32, options: Option<Value>) -> Entity {
    Entity::Team(Team {
        id: TeamId(id),
        name: format!("team {id}"),
        description: String::new(),
        agent_options: options.map(|options| RawValue::from_string(options.to_string()).unwrap()),
        created_at: 0,
    })
}

fn label(id: u32, name: &str, platform: &str, hosts: &[&str]) -> Entity {
    Entity::Label(Label {
        id: LabelId(id),
        name: name.to_owned(),
        description: String::new(),
        query: format!("select {id}"),
        platform: platform.to_owned(),
        builtin: false,
        membership: if hosts.is_empty() {
            Membership::Dynamic
        } else {
            Membership::Manual
        },
        hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
    })
}

#[tokio::test]
async fn a_host_keeps_its_number_when_it_enrolls_again_and_its_old_key_dies() {
    let bed = Bed::new().await;
    let first = bed.enroll("web-1", SECRET).await;
    let (id, enrolled_at) = (first.id(), first.host().enrolled_at);
    bed.pass(100);
    let again = bed.enroll("web-1", SECRET).await;
    assert_eq!((again.id(), again.host().enrolled_at), (id, enrolled_at));
    again.read().await;
    let (status, said) = bed
        .post("distributed/read", &json!({ "node_key": first.node_key }))
        .await;
    assert_eq!((status, &said["node_invalid"]), (401, &Value::Bool(true)));
    let other = bed.enroll("web-2", SECRET).await;
    assert_eq!(other.id().0, id.0 + 1);
    assert_eq!(
        other.host().details.os_version,
        "Ubuntu 22.04",
        "told while enrolling"
    );
    assert!(!other.host().node_key_hash.contains(&other.node_key));
}

#[tokio::test]
async fn the_secret_decides_the_team() {
    let bed = Bed::new().await;
    bed.put([team(3, None)]).await;
    bed.add_secret("team-secret", Some(TeamId(3))).await;
    bed.add_secret(SECRET, Some(TeamId(3))).await;
    assert_eq!(
        bed.enroll("a", "team-secret").await.host().team,
        Some(TeamId(3))
    );
    assert_eq!(
        bed.enroll("b", SECRET).await.host().team,
        Some(TeamId(3)),
        "over the global one of the same text"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn many_hosts_enroll_at_once_and_every_one_is_somebody_else() {
    let bed = Bed::new().await;
    let names: Vec<String> = (0..300).map(|number| format!("host-{number}")).collect();
    let agents = join_all(names.iter().map(|name| bed.enroll(name, SECRET))).await;
    let mut ids: Vec<u32> = agents.iter().map(|agent| agent.id().0).collect();
    ids.sort_unstable();
    assert_eq!(ids, (1..=300).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_host_that_enrolled_at_another_node_is_known_at_once() {
    let bed = Bed::new().await;
    let other = bed.second_node().await;
    let enrolled = other.enroll("web-1", SECRET).await;
    let body = json!({ "node_key": enrolled.node_key });
    assert_eq!(bed.post("distributed/read", &body).await.0, 200);
    // Strangers make the node look again, but all of them together once a second.
    bed.store.looks.take();
    let strangers = (0..50).map(|number| json!({ "node_key": format!("made up {number}") }));
    let strangers: Vec<Value> = strangers.collect();
    for (status, said) in join_all(strangers.iter().map(|body| bed.post("config", body))).await {
        assert_eq!((status, &said["node_invalid"]), (401, &Value::Bool(true)));
    }
    let looks = bed.store.looks.take();
    assert!(looks <= 4, "{looks} looks");
}

#[tokio::test]
async fn a_node_that_cannot_look_does_not_send_hosts_away() {
    let bed = Bed::new().await;
    bed.store.commits_fail.store(true, Ordering::SeqCst);
    let (status, said) = bed
        .post("config", &json!({ "node_key": "unknown here" }))
        .await;
    assert_eq!(status, 503, "{said}");
    assert!(said.get("node_invalid").is_none());
    let body = json!({ "enroll_secret": SECRET, "host_identifier": "a" });
    let (status, said) = bed.post("enroll", &body).await;
    assert_eq!(status, 503, "{said}");
    assert!(said.get("node_invalid").is_none());
}

#[tokio::test]
async fn a_new_host_is_asked_about_itself_and_its_labels_and_then_hourly() {
    let bed = Bed::new().await;
    bed.put([
        label(50, "mine", "", &["web-1"]),
        label(51, "mac", "darwin", &[]),
    ])
    .await;
    let body = json!({ "enroll_secret": SECRET, "host_identifier": "bare" });
    let node_key = bed.post("enroll", &body).await.1["node_key"].clone();
    let read = async || {
        bed.post("distributed/read", &json!({ "node_key": node_key }))
            .await
            .1
    };
    let said = read().await;
    let queries = said["queries"].as_object().unwrap();
    assert_eq!(said["accelerate"], 10, "nothing is known of it yet");
    assert!(queries.contains_key("fleet_detail_query_system_info"));
    assert!(
        queries.contains_key("fleet_label_query_51"),
        "its platform is not known yet"
    );
    assert!(
        !queries.contains_key("fleet_label_query_50"),
        "a manual label is not asked for"
    );
    assert_eq!(said["discovery"].as_object().unwrap().len(), queries.len());
    assert_eq!(read().await["queries"], json!({}), "asked once");
    bed.pass(60);
    assert!(
        read().await["queries"].as_object().unwrap().len() > 5,
        "and again when it does not answer"
    );
    let answers = json!({
        "fleet_detail_query_system_info": [{ "hostname": "bare", "computer_name": "Bare" }],
        "fleet_detail_query_os_version": [{ "platform": "ubuntu", "name": "Ubuntu", "version": "24.04" }],
        "fleet_label_query_8": [{ "1": "1" }], "fleet_label_query_12": [{ "1": "1" }], "fleet_label_query_7": [],
    });
    let body = json!({ "node_key": node_key, "queries": answers });
    assert_eq!(bed.post("distributed/write", &body).await, (200, json!({})));
    assert_eq!(read().await, json!({ "queries": {}, "discovery": {} }));
    bed.pass(3540);
    assert_eq!(read().await["queries"], json!({}), "not within the hour");
    bed.pass(60 + 360);
    let said = read().await;
    assert!(said["queries"].get("fleet_detail_query_uptime").is_some());
    assert!(
        said["queries"].get("fleet_label_query_51").is_none(),
        "its platform is known now"
    );
    let state = bed.catalog.read();
    let host = state.hosts.by_identifier("bare").next().unwrap();
    assert_eq!(host.labels, [LabelId(8), LabelId(12)]);
    assert_eq!((host.hostname(), host.display_name()), ("bare", "Bare"));
}

#[tokio::test]
async fn a_failed_label_query_leaves_the_membership_as_it_was() {
    let bed = Bed::new().await;
    let host = bed.idle_host("web-1").await;
    let answer = async |rows: Value, status: u32| {
        let name = "fleet_label_query_8";
        host.write(json!({ "queries": { name: rows }, "statuses": { name: status } }))
            .await;
        host.host().labels.clone()
    };
    assert_eq!(answer(json!([{ "1": "1" }]), 0).await, [LabelId(8)]);
    assert_eq!(answer(json!(""), 1).await, [LabelId(8)], "it failed");
    assert_eq!(answer(json!([null]), 0).await, [], "it found nothing");
    let name = "fleet_label_query_4711";
    host.write(json!({ "queries": { name: [{}] } })).await;
    assert!(host.host().labels.is_empty(), "no such label");
}

#[tokio::test]
async fn answers_that_say_nothing_new_are_written_once_an_hour() {
    let bed = Bed::new().await;
    let host = bed.idle_host("web-1").await;
    bed.store.commits.take();
    let answers = json!({ "queries": {
        "fleet_detail_query_system_info": [{ "hostname": "web-1" }],
        "fleet_detail_query_uptime": [{ "total_seconds": "5" }],
        "fleet_label_query_8": [],
    } });
    for _ in 0..20 {
        bed.pass(10);
        host.write(answers.clone()).await;
    }
    assert_eq!(bed.store.commits.take(), 0);
    bed.pass(3600);
    host.write(answers.clone()).await;
    host.write(answers).await;
    assert_eq!(bed.store.commits.take(), 1);
    assert_eq!(host.host().details.uptime_s, 5);
}

#[tokio::test]
async fn a_changed_label_is_asked_within_a_minute() {
    let bed = Bed::new().await;
    let host = bed.idle_host("web-1").await;
    bed.pass(5);
    host.read().await;
    bed.put([label(60, "new", "", &[])]).await;
    bed.pass(1);
    host.read().await;
    bed.pass(60);
    let said = host.read().await;
    assert!(
        said["queries"].get("fleet_label_query_60").is_some(),
        "{said}"
    );
    host.write(json!({ "queries": { "fleet_label_query_60": [{ "1": "1" }] } }))
        .await;
    assert_eq!(host.host().labels, [LabelId(60)]);
    bed.pass(61);
    assert_eq!(
        host.read().await["queries"],
        json!({}),
        "and then not before the hour"
    );
}

#[tokio::test]
async fn an_unconfigured_fleet_polls_every_ten_seconds() {
    let bed = Bed::new().await;
    let host = bed.idle_host("web-1").await;
    let config = host.config().await;
    assert_eq!(config["options"]["distributed_interval"], 10);
    assert_eq!(config["options"]["disable_distributed"], false);
    assert!(config["decorators"]["load"].is_array());
    assert!(config.get("packs").is_none());
    assert_eq!(host.host().distributed_interval, 10);
    bed.store.commits.take();
    host.config().await;
    assert_eq!(
        bed.store.commits.take(),
        0,
        "a known interval is not written again"
    );
}

#[tokio::test]
async fn a_teams_options_win_over_the_global_ones_and_platforms_over_both() {
    let bed = Bed::new().await;
    let global = json!({ "config": { "options": { "distributed_interval": "20", "config_tls_refresh": 15 } } });
    let app = AppConfig {
        agent_options: Some(RawValue::from_string(global.to_string()).unwrap()),
        ..AppConfig::default()
    };
    let own = json!({ "spec": {
        "config": { "options": { "pack_delimiter": "_" }, "decorators": {} },
        "overrides": { "platforms": { "linux": { "options": { "distributed_interval": 30 } }, "darwin": {} } },
    } });
    let broken = json!({ "config": "none" });
    bed.put([
        Entity::AppConfig(app),
        team(1, Some(own)),
        team(2, Some(broken)),
    ])
    .await;
    bed.add_secret("one", Some(TeamId(1))).await;
    bed.add_secret("two", Some(TeamId(2))).await;
    let host = bed.enroll("global", SECRET).await;
    assert_eq!(
        host.config().await,
        json!({ "options": { "distributed_interval": "20", "config_tls_refresh": 15 } })
    );
    assert_eq!(
        (
            host.host().distributed_interval,
            host.host().config_tls_refresh
        ),
        (20, 15)
    );
    let host = bed.enroll("team", "one").await;
    assert_eq!(
        host.config().await,
        json!({ "options": { "distributed_interval": 30 } }),
        "Linux"
    );
    let mac = json!({ "os_version": { "platform": "windows" } });
    let body = json!({ "enroll_secret": "one", "host_identifier": "pc", "host_details": mac });
    let node_key = bed.post("enroll", &body).await.1["node_key"].clone();
    let config = bed.post("config", &json!({ "node_key": node_key })).await.1;
    assert_eq!(
        config,
        json!({ "options": { "pack_delimiter": "_", "distributed_interval": 10 }, "decorators": {} })
    );
    let host = bed.enroll("broken", "two").await;
    assert_eq!(
        host.config().await["options"]["distributed_interval"],
        "20",
        "options without a config count as none"
    );
}

fn entry(query: &str, name: &str) -> PackQuery {
    PackQuery {
        query: query.to_owned(),
        name: name.to_owned(),
        description: String::new(),
        interval: 60,
        snapshot: Some(true),
        removed: None,
        platform: Some("linux".to_owned()),
        version: None,
        shard: Some(50),
        denylist: Some(false),
    }
}

fn pack(id: u32, labels: &[&str]) -> Pack {
    Pack {
        id,
        name: format!("pack {id}"),
        description: String::new(),
        platform: String::new(),
        disabled: false,
        target_labels: Some(labels.iter().map(|label| (*label).to_owned()).collect()),
        target_teams: None,
        queries: vec![entry("known", "first"), entry("unknown", "second")],
    }
}

#[tokio::test]
async fn packs_reach_the_hosts_of_their_labels_and_teams_with_queries_that_exist() {
    let bed = Bed::new().await;
    let query = Query {
        id: QueryId(9),
        name: "known".to_owned(),
        description: String::new(),
        sql: "select 9".to_owned(),
        observer_can_run: false,
        saved: true,
        team: None,
        author: None,
        created_at: 0,
        updated_at: 0,
        schedule: serde_json::Map::new(),
    };
    let name = Entity::Name(query_name(None, "known"), 9);
    let of_team = Pack {
        target_teams: Some(vec!["team 1".to_owned()]),
        ..pack(4, &[])
    };
    let disabled = Pack {
        disabled: true,
        ..pack(5, &["All Hosts"])
    };
    let windows = Pack {
        platform: "windows".to_owned(),
        ..pack(6, &["All Hosts"])
    };
    let packs = [
        pack(1, &["All Hosts"]),
        pack(2, &["macOS", "no such label"]),
        pack(3, &["mine"]),
        of_team,
        disabled,
        windows,
    ];
    bed.put([
        Entity::Query(query),
        name,
        team(1, None),
        label(50, "mine", "", &["web-1"]),
    ])
    .await;
    bed.put(packs.map(Entity::Pack)).await;
    let host = bed.idle_host("web-1").await;
    let packs = host.config().await["packs"].clone();
    let names: Vec<&String> = packs.as_object().unwrap().keys().collect();
    assert_eq!(names, ["pack 1", "pack 3"]);
    let query = json!({ "query": "select 9", "interval": 60, "snapshot": true, "platform": "linux", "shard": 50, "denylist": false });
    assert_eq!(packs["pack 1"], json!({ "queries": { "first": query } }));
    bed.add_secret("one", Some(TeamId(1))).await;
    let host = bed.enroll("web-2", "one").await;
    let packs = host.config().await["packs"].clone();
    let names: Vec<&String> = packs.as_object().unwrap().keys().collect();
    assert_eq!(names, ["pack 1", "pack 4"]);
}

#[tokio::test]
async fn a_configuration_is_given_even_if_the_intervals_cannot_be_kept() {
    let bed = Bed::new().await;
    let host = bed.idle_host("web-1").await;
    bed.store.commits_fail.store(true, Ordering::SeqCst);
    host.config().await;
    assert_eq!(host.host().distributed_interval, 0);
    bed.store.commits_fail.store(false, Ordering::SeqCst);
    host.config().await;
    assert_eq!(host.host().distributed_interval, 10);
}

#[tokio::test]
async fn logs_are_in_their_files_line_by_line() {
    let bed = Bed::new().await;
    let host = bed.idle_host("web-1").await;
    let log = async |kind: &str, data: Value| {
        bed.post(
            "log",
            &json!({ "node_key": host.node_key, "log_type": kind, "data": data }),
        )
        .await
    };
    assert_eq!(
        log("result", json!([{ "name": "a\nb" }, { "name": "c" }])).await,
        (200, json!({}))
    );
    assert_eq!(
        log("status", json!([{ "line": 1 }])).await,
        (200, json!({}))
    );
    assert_eq!(log("status", json!([])).await, (200, json!({})));
    assert_eq!(
        bed.file("osquery_result.log"),
        "{\"name\":\"a\\nb\",\"answerback_host_id\":1}\n{\"name\":\"c\",\"answerback_host_id\":1}\n"
    );
    assert_eq!(
        bed.file("osquery_status.log"),
        "{\"line\":1,\"answerback_host_id\":1}\n"
    );
    // What no second try would mend is not asked for again.
    assert_eq!(log("carve", json!([])).await, (200, json!({})));
    assert_eq!(log("result", json!({})).await, (200, json!({})));
}

#[tokio::test]
async fn a_catalog_is_furnished_once_however_many_nodes_start_together() {
    let bed = Bed::new().await;
    let other = bed.second_node().await;
    let again = join_all([
        builtin::furnish(&bed.catalog, bed.clock.now()),
        builtin::furnish(&other.catalog, bed.clock.now()),
    ])
    .await;
    assert!(again.into_iter().all(|made| made.unwrap().is_none()));
    let state = bed.catalog.read();
    let labels: Vec<(u32, &str)> = state
        .labels
        .values()
        .map(|(label, _)| (label.id.0, &*label.name))
        .collect();
    let names = [
        "All Hosts",
        "macOS",
        "Ubuntu Linux",
        "CentOS Linux",
        "MS Windows",
        "Red Hat Linux",
        "All Linux",
        "chrome",
    ];
    assert_eq!(labels, (6..).zip(names).collect::<Vec<_>>());
    assert_eq!(state.secrets.len(), 2, "the first one and the test's");
    assert!(
        state
            .secrets
            .values()
            .any(|secret| secret.secret.len() == 32)
    );
}
