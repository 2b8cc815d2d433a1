//! Queries, teams, settings and the audit trail, one by one.

use http::Method;
use serde_json::{Value, json};

use super::server::{NONE, Server};

fn names(said: &Value) -> Vec<Value> {
    let queries = said["queries"].as_array().unwrap().iter();
    queries.map(|each| each["name"].clone()).collect()
}

#[tokio::test]
async fn queries_are_saved_and_changed() {
    let server = Server::start().await;
    let body = json!({"name": "Q", "description": "d", "query": "select 1", "interval": 60});
    let made = server.post("/queries", body.clone()).await["query"].clone();
    assert_eq!(
        (&made["author_name"], &made["interval"]),
        (&json!("Admin"), &json!(60))
    );
    server.gives(409, Method::POST, "/queries", body).await;
    let path = format!("/queries/{}", made["id"]);
    let change = json!({"name": "R", "query": "select 2", "platform": "linux"});
    let query = server.gives(200, Method::PATCH, &path, change).await["query"].clone();
    assert_eq!(
        (&query["name"], &query["query"]),
        (&json!("R"), &json!("select 2"))
    );
    assert_eq!(
        (&query["description"], &query["interval"]),
        (&json!("d"), &json!(60))
    );
    assert_eq!(query["platform"], "linux");
    server
        .post("/queries", json!({"name": "Q", "query": "select 3"}))
        .await;
    // The name is taken.
    server
        .gives(409, Method::PATCH, &path, json!({"name": "Q"}))
        .await;
    for bad in [json!({"name": ""}), json!({"query": "  "})] {
        server.gives(422, Method::PATCH, &path, bad).await;
    }
    let listed = server
        .get("/reports?order_key=name&order_direction=desc")
        .await;
    assert_eq!(names(&listed), ["R", "Q"]);
}

#[tokio::test]
async fn queries_are_deleted_by_number_by_name_and_many_at_once() {
    let server = Server::start().await;
    let mut made = Vec::new();
    for name in ["A", "B", "C", "D"] {
        let body = json!({"name": name, "query": "select 1"});
        made.push(server.post("/queries", body).await["query"]["id"].clone());
    }
    let path = "/queries/delete";
    server
        .gives(404, Method::POST, path, json!({"ids": [made[0], 999]}))
        .await;
    assert_eq!(names(&server.get("/queries").await).len(), 4, "all or none");
    let twice = json!({"ids": [made[0], made[1], made[0]]});
    assert_eq!(server.post(path, twice).await, json!({"deleted": 2}));
    let path = format!("/queries/id/{}", made[2]);
    server.gives(200, Method::DELETE, &path, NONE).await;
    server.gives(200, Method::DELETE, "/queries/D", NONE).await;
    server.gives(404, Method::DELETE, "/queries/D", NONE).await;
    // The name is free again.
    server
        .post("/queries", json!({"name": "D", "query": "select 1"}))
        .await;
    let many: Vec<u64> = (0..1_001).collect();
    server
        .gives(422, Method::POST, "/queries/delete", json!({"ids": many}))
        .await;
}

#[tokio::test]
async fn teams_are_made_and_changed() {
    let server = Server::start().await;
    let id = server.team("T").await;
    server
        .gives(409, Method::POST, "/teams", json!({"name": "T"}))
        .await;
    server
        .gives(422, Method::POST, "/teams", json!({"name": " "}))
        .await;
    let path = format!("/teams/{id}");
    let change = json!({"name": "U", "description": "d"});
    let said = server.gives(200, Method::PATCH, &path, change).await;
    assert_eq!(said["team"]["name"], "U");
    server.team("T").await;
    server
        .gives(409, Method::PATCH, &path, json!({"name": "T"}))
        .await;
    let options = json!({"config": {"options": {}}});
    let body = json!({"spec": options});
    let said = server.post(&format!("{path}/agent_options"), body).await;
    assert_eq!(said["team"]["agent_options"], options);
    let body = json!({"secrets": [{"secret": "s"}]});
    let said = server
        .gives(200, Method::PATCH, &format!("{path}/secrets"), body)
        .await;
    assert_eq!(said["secrets"][0]["team_id"], id);
}

#[tokio::test]
async fn a_deleted_team_takes_all_with_it_but_its_hosts() {
    let server = Server::start().await;
    let id = server.team("T").await;
    let path = format!("/teams/{id}");
    let body = json!({"secrets": [{"secret": "s"}]});
    server
        .gives(200, Method::PATCH, &format!("{path}/secrets"), body)
        .await;
    let member = server.user(None, &[(id, "observer")]).await;
    let query = json!({"name": "own", "query": "select 1", "team_id": id});
    server.post("/queries", query).await;
    for at in 0..3 {
        server.host(&format!("h{at}"), Some(id), &[]).await;
    }
    let team = server.get(&path).await["team"].clone();
    assert_eq!(
        (&team["host_count"], &team["user_count"]),
        (&json!(3), &json!(1))
    );
    server.gives(200, Method::DELETE, &path, NONE).await;
    server.gives(404, Method::GET, &path, NONE).await;
    assert_eq!(
        server.get("/hosts/count?team_id=0").await,
        json!({"count": 3})
    );
    server
        .gives_as(&member, 403, Method::GET, "/hosts", NONE)
        .await;
    let state = server.catalog.read();
    assert!(state.secrets.values().all(|secret| secret.team.is_none()));
    assert!(state.queries.is_empty());
}

#[tokio::test]
async fn null_takes_a_teams_options_away() {
    let server = Server::start().await;
    let id = server.team("T").await;
    let path = format!("/teams/{id}/agent_options");
    let options = json!({"config": {"options": {"distributed_interval": 9}}});
    assert_eq!(
        server.post(&path, options.clone()).await["team"]["agent_options"],
        options
    );
    let reply = server
        .say(super::server::TOKEN, Method::POST, &path, "null")
        .await;
    assert_eq!(
        (reply.status, &reply.json()["team"]["agent_options"]),
        (200, &json!(null))
    );
    server.gives(422, Method::POST, &path, json!([1])).await;
}

#[tokio::test]
async fn settings_are_merged_and_given_back() {
    let server = Server::start().await;
    let fresh = server.get("/config").await;
    assert_eq!(
        (
            &fresh["server_settings"]["live_query_disabled"],
            &fresh["agent_options"]
        ),
        (&json!(false), &json!(null))
    );
    let change = json!({
        "org_info": {"org_name": "Org"},
        "server_settings": {"server_url": "https://example.com", "live_query_disabled": true},
        "agent_options": {"config": {"options": {"distributed_interval": 5}}},
        "webhook_settings": {"x": 1},
    });
    let (status, said) = server.call(Method::PATCH, "/config", change).await;
    assert_eq!(status, 200);
    assert_eq!(said, server.get("/config").await);
    assert_eq!(
        said["agent_options"]["config"]["options"]["distributed_interval"],
        5
    );
    let (_, said) = server
        .call(
            Method::PATCH,
            "/config",
            json!({"server_settings": {"live_query_disabled": false}}),
        )
        .await;
    assert_eq!(
        (
            &said["server_settings"]["live_query_disabled"],
            &said["server_settings"]["server_url"]
        ),
        (&json!(false), &json!("https://example.com"))
    );
    assert_eq!(
        (
            &said["org_info"]["org_name"],
            &said["webhook_settings"]["x"]
        ),
        (&json!("Org"), &json!(1))
    );
    let (_, said) = server
        .call(Method::PATCH, "/config", json!({"agent_options": null}))
        .await;
    assert_eq!(said["agent_options"], json!(null));
    for bad in [
        json!({"server_settings": 5}),
        json!({"server_settings": {"live_query_disabled": "yes"}}),
        json!({"server_settings": {"server_url": 5}}),
        json!({"org_info": []}),
        json!({"agent_options": 5}),
        json!({"blob": "x".repeat(300_000)}),
    ] {
        server.gives(422, Method::PATCH, "/config", bad).await;
    }
    server.gives(400, Method::PATCH, "/config", json!([])).await;
}

#[tokio::test]
async fn what_is_done_is_on_record_the_newest_first() {
    let server = Server::start().await;
    let host = server.host("h", None, &[]).await;
    server.team("T").await;
    let id = server.campaign(&[host]).await;
    let said = server.get("/activities?per_page=2").await;
    let first = &said["activities"][0];
    assert_eq!(
        (
            &first["type"],
            &first["details"]["campaign_id"],
            &first["actor_email"]
        ),
        (
            &json!("live_query"),
            &json!(id),
            &json!(super::server::EMAIL)
        )
    );
    assert_eq!(first["details"]["query_sql"], "select 1");
    assert_eq!(said["activities"][1]["type"], "created_team");
    let oldest = server
        .get("/activities?order_direction=asc&per_page=1")
        .await;
    assert_eq!(oldest["activities"][0]["type"], "created_team");
    assert_eq!(
        server.get("/activities?query=LIVE").await["activities"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    server
        .gives(400, Method::GET, "/activities?order_direction=up", NONE)
        .await;
}

#[tokio::test]
async fn packs_are_listed_and_deleted() {
    let server = Server::start().await;
    let specs = json!({"specs": [{"name": "A", "queries": []}, {"name": "B", "targets": {"labels": ["x"], "teams": ["y"]}}]});
    server.post("/spec/packs", specs).await;
    let packs = server
        .get("/packs?order_key=name&order_direction=desc")
        .await["packs"]
        .clone();
    assert_eq!(
        (&packs[0]["name"], &packs[0]["targets"]["teams"]),
        (&json!("B"), &json!(["y"]))
    );
    let path = format!("/packs/id/{}", packs[0]["id"]);
    server.gives(200, Method::DELETE, &path, NONE).await;
    server.gives(404, Method::DELETE, &path, NONE).await;
    server.gives(200, Method::DELETE, "/packs/A", NONE).await;
    assert_eq!(
        server.get("/version").await["version"],
        env!("CARGO_PKG_VERSION")
    );
}

#[tokio::test]
async fn a_pack_follows_what_it_names_when_that_is_renamed() {
    let server = Server::start().await;
    let team = server.team("the team").await;
    let made = |path: &'static str, body| server.post(path, body);
    let query = made(
        "/queries",
        json!({"name": "the query", "query": "select 1"}),
    )
    .await;
    let of_team = json!({"name": "the query", "query": "select 2", "team_id": team});
    let of_team = made("/queries", of_team).await;
    let label = made("/labels", json!({"name": "the label", "query": "select 1"})).await;
    let pack = json!({"name": "p",
        "targets": {"labels": ["All Hosts", "the label"], "teams": ["the team"]},
        "queries": [{"query": "the query", "interval": 60}, {"query": "the query", "name": "again", "interval": 60},
            {"query": "not there yet", "interval": 60}]});
    made(
        "/spec/packs",
        json!({"specs": [pack, {"name": "other", "queries": []}]}),
    )
    .await;
    let number = |said: &Value, what: &str| said[what]["id"].as_u64().unwrap();
    for (path, id, name) in [
        ("queries", number(&of_team, "query"), "of the team"),
        ("queries", number(&query, "query"), "a new query"),
        ("labels", number(&label, "label"), "a new label"),
        ("teams", u64::from(team), "a new team"),
    ] {
        let path = format!("/{path}/{id}");
        server
            .gives(200, Method::PATCH, &path, json!({"name": name}))
            .await;
    }
    let spec = server.get("/spec/packs/p").await["specs"].clone();
    assert_eq!(
        spec["targets"]["labels"],
        json!(["All Hosts", "a new label"])
    );
    assert_eq!(spec["targets"]["teams"], json!(["a new team"]));
    let queries = spec["queries"].as_array().unwrap().iter();
    let queries: Vec<_> = queries
        .map(|query| (query["query"].clone(), query["name"].clone()))
        .collect();
    let expected = [
        ("a new query", "the query"),
        ("a new query", "again"),
        ("not there yet", "not there yet"),
    ];
    assert_eq!(
        queries,
        expected.map(|(query, name)| (json!(query), json!(name)))
    );
}
