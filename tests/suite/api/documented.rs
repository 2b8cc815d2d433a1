//! The example bodies of the API's document for contributors, sent as they stand there.

use http::Method;
use serde_json::{Value, json};

use super::server::{NONE, Server, TOKEN};

pub const QUERIES: &str = r#"{
  "specs": [
    {
      "name": "new_query",
      "description": "This will be a new query because a query with the name 'new_query' doesn't exist in Fleet.",
      "query": "SELECT * FROM osquery_info"
    },
    {
      "name": "osquery_schedule",
      "description": "This queries description and SQL will be modified because a query with the name 'osquery_schedule' exists in Fleet.",
      "query": "SELECT * FROM osquery_info"
    }
  ]
}"#;

pub const PACKS: &str = r#"{
  "specs": [
    {
      "id": 1,
      "name": "pack_1",
      "description": "Description",
      "disabled": false,
      "targets": {
        "labels": ["All Hosts"]
      },
      "queries": [
        {
          "query": "new_query",
          "name": "new_query",
          "description": "",
          "interval": 456,
          "snapshot": false,
          "removed": true
        },
        {
          "query": "new_title_for_my_query",
          "name": "new_title_for_my_query",
          "description": "",
          "interval": 677,
          "snapshot": true,
          "removed": false
        },
        {
          "query": "osquery_info",
          "name": "osquery_info",
          "description": "",
          "interval": 6667,
          "snapshot": true,
          "removed": false
        },
        {
          "query": "query1",
          "name": "query1",
          "description": "",
          "interval": 7767,
          "snapshot": false,
          "removed": true
        },
        {
          "query": "osquery_events",
          "name": "osquery_events",
          "description": "",
          "interval": 454,
          "snapshot": false,
          "removed": true
        },
        {
          "query": "osquery_events",
          "name": "osquery_events-1",
          "description": "",
          "interval": 120,
          "snapshot": false,
          "removed": true
        }
      ]
    },
    {
      "id": 2,
      "name": "pack_2",
      "disabled": false,
      "targets": {
        "labels": null
      },
      "queries": [
        {
          "query": "new_query",
          "name": "new_query",
          "description": "",
          "interval": 333,
          "snapshot": false,
          "removed": true,
          "platform": "windows"
        }
      ]
    }
  ]
}"#;

pub const TEAMS: &str = r#"{
  "specs": [
    {
      "name": "Client Platform Engineering",
      "agent_options": {
        "spec": {
          "config": {
            "options": {
              "logger_plugin": "tls",
              "pack_delimiter": "/",
              "logger_tls_period": 10,
              "distributed_plugin": "tls",
              "disable_distributed": false,
              "logger_tls_endpoint": "/api/v1/osquery/log",
              "distributed_interval": 10,
              "distributed_tls_max_attempts": 3
            },
            "decorators": {
              "load": [
                "SELECT uuid AS host_uuid FROM system_info;",
                "SELECT hostname AS hostname FROM system_info;"
              ]
            }
          },
          "overrides": {}
        }
      },
      "secrets": [
        {
          "secret": "fTp52/twaxBU6gIi0J6PHp8o5Sm1k1kn"
        },
        {
          "secret": "bhD5kiX2J+KBgZSk118qO61ZIdX/v8On"
        }
      ]
    }
  ]
}"#;

pub const LABELS: &str = r#"{
  "specs": [
    {
      "name": "Ubuntu",
      "description": "Filters ubuntu hosts",
      "query": "select 1 from os_version where platform = 'ubuntu';",
      "label_membership_type": "dynamic"
    },
    {
      "name": "local_machine",
      "description": "Includes only my local machine",
      "label_membership_type": "manual",
      "hosts": ["snacbook-pro.local"]
    }
  ]
}"#;

pub const SECRET: &str = r#"{
  "spec": {
    "secrets": [
      {
        "secret": "fTp52/twaxBU6gIi0J6PHp8o5Sm1k1kn"
      }
    ]
  }
}"#;

async fn post(server: &Server, path: &str, body: &str) -> Value {
    let reply = server.say(TOKEN, Method::POST, path, body).await;
    assert_eq!(reply.status, 200, "{path}: {}", reply.text());
    reply.json()
}

#[tokio::test]
async fn queries_are_applied_and_read_back() {
    let server = Server::start().await;
    assert_eq!(server.get("/spec/queries").await, json!({"specs": []}));
    assert_eq!(post(&server, "/spec/queries", QUERIES).await, json!({}));
    let specs = server.get("/spec/queries").await;
    assert_eq!(specs["specs"].as_array().unwrap().len(), 2);
    let one = server.get("/spec/queries/osquery_schedule").await;
    assert_eq!(one["specs"]["name"], "osquery_schedule");
    assert_eq!(one["specs"]["query"], "SELECT * FROM osquery_info");
}

#[tokio::test]
async fn packs_are_applied_though_their_queries_do_not_exist_and_read_back() {
    let server = Server::start().await;
    assert_eq!(post(&server, "/spec/packs", PACKS).await, json!({}));
    let specs = server.get("/spec/packs").await;
    assert_eq!(specs["specs"][0]["queries"].as_array().unwrap().len(), 6);
    let shown = json!({
        "query": "new_query", "name": "new_query", "description": "", "interval": 456,
        "snapshot": false, "removed": true, "platform": "", "version": "",
    });
    assert_eq!(specs["specs"][0]["queries"][0], shown, "to the letter");
    assert_eq!(
        specs["specs"][0]["targets"],
        json!({"labels": ["All Hosts"]})
    );
    assert_eq!(specs["specs"][1]["targets"], json!({"labels": null}));
    assert_eq!(specs["specs"][1]["queries"][0]["platform"], "windows");
    let one = server.get("/spec/packs/pack_1").await;
    assert_eq!(one["specs"], specs["specs"][0]);
    post(
        &server,
        "/spec/packs",
        &json!({"specs": specs["specs"]}).to_string(),
    )
    .await;
    assert_eq!(server.get("/spec/packs").await, specs);
}

#[tokio::test]
async fn teams_are_applied_with_their_options_and_secrets() {
    let server = Server::start().await;
    let said = post(&server, "/spec/teams", TEAMS).await;
    let id = said["team_ids_by_name"]["Client Platform Engineering"]
        .as_u64()
        .unwrap();
    let team = server.get(&format!("/teams/{id}")).await;
    let options = &team["team"]["agent_options"];
    assert_eq!(options["config"]["options"]["logger_tls_period"], 10);
    assert_eq!(options["overrides"], json!({}));
    assert_eq!(team["team"]["secrets"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn labels_are_applied_beside_the_builtin_ones() {
    let server = Server::start().await;
    let before = server.get("/spec/labels").await;
    assert_eq!(before["specs"][0]["name"], "All Hosts");
    assert_eq!(before["specs"][0]["label_type"], "builtin");
    assert_eq!(post(&server, "/spec/labels", LABELS).await, json!({}));
    let one = server.get("/spec/labels/local_machine").await;
    assert_eq!(one["specs"]["label_membership_type"], "manual");
    assert_eq!(one["specs"]["hosts"], json!(["snacbook-pro.local"]));
    assert_eq!(one["specs"]["query"], "");
    let host = server.host("snacbook-pro.local", None, &[]).await;
    let id = one["specs"]["id"].as_u64().unwrap();
    let members = server.get(&format!("/labels/{id}/hosts")).await;
    assert_eq!(members["hosts"][0]["id"], host);
}

#[tokio::test]
async fn the_enroll_secret_is_replaced_and_read_back() {
    let server = Server::start().await;
    assert_eq!(
        post(&server, "/spec/enroll_secret", SECRET).await,
        json!({})
    );
    let said = server.get("/spec/enroll_secret").await;
    let secret =
        json!({"secret": "fTp52/twaxBU6gIi0J6PHp8o5Sm1k1kn", "created_at": "2023-11-14T22:13:20Z"});
    assert_eq!(said, json!({"spec": {"secrets": [secret]}}));
}

#[tokio::test]
async fn both_health_checks_say_nothing_when_all_is_well() {
    let server = Server::start().await;
    for path in ["/status/live_query", "/status/result_store"] {
        assert_eq!(server.get(path).await, json!({}));
    }
    let off = json!({"server_settings": {"live_query_disabled": true}});
    let (status, _) = server.call(Method::PATCH, "/config", off).await;
    assert_eq!(status, 200);
    let (status, said) = server.call(Method::GET, "/status/live_query", NONE).await;
    assert_eq!(status, 403, "{said}");
    assert_eq!(server.get("/status/result_store").await, json!({}));
}

#[tokio::test]
async fn a_host_by_number_and_by_name_is_asked() {
    let server = Server::start().await;
    server.catalog.reserve("host", 170).await.unwrap();
    assert_eq!(server.host("macbook-pro.local", None, &[]).await, 171);
    let by_id = r#"{
  "query": "select instance_id from system_info",
  "selected": {
    "hosts": [171]
  }
}"#;
    let reply = server.say(TOKEN, Method::POST, "/queries/run", by_id).await;
    let expected = r#"{
  "campaign": {
    "created_at": "0001-01-01T00:00:00Z",
    "updated_at": "0001-01-01T00:00:00Z",
    "Metrics": {
      "TotalHosts": 1,
      "OnlineHosts": 1,
      "OfflineHosts": 0,
      "MissingInActionHosts": 0,
      "NewHosts": 0
    },
    "id": 1,
    "query_id": 1,
    "status": 0,
    "user_id": 1
  }
}
"#;
    let text = reply.text();
    assert_eq!(sorted(&text), sorted(expected));
    assert!(
        text.starts_with("{\n  \"campaign\": {\n    \""),
        "indented by two: {text}"
    );
    post(&server, "/spec/queries", QUERIES).await;
    let id = server.get("/queries").await["queries"][0]["id"].clone();
    let by_name = format!(
        r#"{{
  "query_id": {id},
  "selected": {{
    "hosts": ["macbook-pro.local"]
  }}
}}"#
    );
    let said = post(&server, "/queries/run_by_names", &by_name).await;
    assert_eq!(said["campaign"]["query_id"], id);
    assert_eq!(said["campaign"]["Metrics"]["TotalHosts"], 1);
}

fn sorted(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[tokio::test]
async fn labels_by_number_and_by_name_are_asked() {
    let server = Server::start().await;
    server.host("a", None, &[7]).await;
    server.host("b", None, &[]).await;
    let by_id = r#"{
  "query": "select instance_id from system_info;",
  "selected": {
    "labels": [7]
  }
}"#;
    let said = post(&server, "/queries/run", by_id).await;
    assert_eq!(said["campaign"]["Metrics"]["TotalHosts"], 1);
    let by_name = r#"{
  "query": "select instance_id from system_info",
  "selected": {
    "labels": ["All Hosts"]
  }
}"#;
    for path in [
        "/queries/run_by_names",
        "/queries/run_by_identifiers",
        "/reports/run_by_names",
    ] {
        let said = post(&server, path, by_name).await;
        assert_eq!(said["campaign"]["Metrics"]["TotalHosts"], 2, "{path}");
    }
}
