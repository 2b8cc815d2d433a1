//! Hosts, labels and targets.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::server::{NONE, Server};

fn ids(said: &Value) -> Vec<u64> {
    let hosts = said["hosts"].as_array().unwrap().iter();
    hosts.map(|host| host["id"].as_u64().unwrap()).collect()
}

async fn found(server: &Server, asked: &str) -> Vec<u64> {
    ids(&server.get(&format!("/hosts?{asked}")).await)
}

/// Four hosts, of which the second and the last one are of a team.
async fn four() -> (Server, u32) {
    let server = Server::start().await;
    let team = server.team("T").await;
    let hosts = ["delta", "alpha", "charlie", "bravo"];
    for (name, team) in hosts.iter().zip([None, Some(team), None, Some(team)]) {
        server.host(name, team, &[]).await;
    }
    (server, team)
}

#[tokio::test]
async fn hosts_are_listed_by_page_and_order() {
    let (server, _) = four().await;
    assert_eq!(found(&server, "").await, [1, 2, 3, 4]);
    let page = server
        .get("/hosts?page=1&per_page=2&order_key=hostname")
        .await;
    assert_eq!(ids(&page), [3, 1]);
    let around = |next, before| json!({"has_next_results": next, "has_previous_results": before});
    assert_eq!(page["meta"], around(false, true));
    let page = server
        .get("/hosts?per_page=2&order_key=hostname&order_direction=desc")
        .await;
    assert_eq!(
        (ids(&page), &page["meta"]),
        (vec![1, 3], &around(true, false))
    );
    assert_eq!(
        found(&server, "order_direction=desc&per_page=3").await,
        [4, 3, 2]
    );
    server.clock.advance(Duration::from_secs(70));
    server.check_in(2);
    let last_seen = "order_key=seen_time&order_direction=desc&per_page=1";
    assert_eq!(found(&server, last_seen).await, [2]);
}

#[tokio::test]
async fn hosts_are_filtered_by_text_team_and_presence() {
    let (server, team) = four().await;
    assert_eq!(found(&server, "query=serial-CH").await, [3]);
    assert_eq!(
        found(&server, "query=A&per_page=2&page=1&team_id=0").await,
        Vec::<u64>::new()
    );
    let of_team = format!("team_id={team}&order_key=id&order_direction=desc");
    assert_eq!(found(&server, &of_team).await, [4, 2]);
    assert_eq!(
        server.get("/hosts/count?query=192.0.2.").await,
        json!({"count": 4})
    );
    assert_eq!(
        server.get("/hosts/count?team_id=0").await,
        json!({"count": 2})
    );
    server.clock.advance(Duration::from_secs(70));
    server.check_in(2);
    assert_eq!(found(&server, "status=online").await, [2]);
    assert_eq!(found(&server, "status=offline").await, [1, 3, 4]);
    assert_eq!(found(&server, "status=new").await, Vec::<u64>::new());
    server
        .gives(400, Method::GET, "/hosts?status=dead", NONE)
        .await;
    server
        .gives(404, Method::GET, "/hosts?team_id=77", NONE)
        .await;
    let summary = server.get("/host_summary").await;
    assert_eq!(
        (&summary["totals_hosts_count"], &summary["online_count"]),
        (&json!(4), &json!(1))
    );
}

#[tokio::test]
async fn a_host_is_shown_by_number_and_by_each_of_its_names() {
    let server = Server::start().await;
    let id = server.host("web-1.example", None, &[8]).await;
    let host = server.get(&format!("/hosts/{id}")).await["host"].clone();
    assert_eq!(
        (&host["hostname"], &host["status"]),
        (&json!("web-1.example"), &json!("online"))
    );
    let labels: Vec<&str> = host["labels"]
        .as_array()
        .unwrap()
        .iter()
        .map(|label| label["name"].as_str().unwrap())
        .collect();
    assert_eq!(labels, ["All Hosts", "Ubuntu Linux"]);
    for name in [
        "WEB-1.example",
        "uuid-web-1.EXAMPLE",
        "serial-web-1.example",
        "identifier-web-1.example",
    ] {
        let said = server.get(&format!("/hosts/identifier/{name}")).await;
        assert_eq!(said["host"]["id"], id, "{name}");
    }
    server
        .gives(404, Method::GET, "/hosts/identifier/web", NONE)
        .await;
}

#[tokio::test]
async fn hosts_are_searched_moved_and_deleted() {
    let server = Server::start().await;
    let team = server.team("T").await;
    for at in 1..=12 {
        server.host(&format!("h{at:02}"), None, &[]).await;
    }
    let found = server.post("/hosts/search", json!({"query": "H"})).await;
    assert_eq!(
        ids(&found),
        (1..=10).collect::<Vec<u64>>(),
        "ten are enough"
    );
    let found = server
        .post(
            "/hosts/search",
            json!({"query": "h0", "excluded_host_ids": [1, 2]}),
        )
        .await;
    assert_eq!(ids(&found), (3..=9).collect::<Vec<u64>>());
    server
        .post(
            "/hosts/transfer",
            json!({"team_id": team, "hosts": [3, 4, 99]}),
        )
        .await;
    assert_eq!(
        server.get(&format!("/hosts/count?team_id={team}")).await,
        json!({"count": 2})
    );
    server
        .post("/hosts/transfer", json!({"team_id": null, "hosts": [3]}))
        .await;
    assert_eq!(
        server.get(&format!("/hosts?team_id={team}")).await["hosts"][0]["id"],
        4
    );
    let (status, _) = server
        .call(
            Method::POST,
            "/hosts/transfer",
            json!({"team_id": 9, "hosts": [3]}),
        )
        .await;
    assert_eq!(status, 404);
    assert_eq!(
        server.call(Method::DELETE, "/hosts/4", NONE).await,
        (200, json!({}))
    );
    server.gives(404, Method::DELETE, "/hosts/4", NONE).await;
    assert_eq!(server.get("/hosts/count").await, json!({"count": 11}));
}

#[tokio::test]
async fn labels_are_counted() {
    let server = Server::start().await;
    server.host("a", None, &[8]).await;
    server.host("b", None, &[]).await;
    let labels = server.get("/labels").await["labels"].clone();
    assert_eq!(
        (&labels[0]["name"], &labels[0]["count"]),
        (&json!("All Hosts"), &json!(2))
    );
    assert_eq!(labels[2]["count"], 1);
    let summary = server.get("/labels/summary").await["labels"].clone();
    assert_eq!(
        summary.as_array().unwrap().len(),
        labels.as_array().unwrap().len()
    );
}

#[tokio::test]
async fn labels_are_made_changed_and_deleted_but_not_the_builtin_ones() {
    let server = Server::start().await;
    server.host("a", None, &[8]).await;
    server.host("b", None, &[]).await;
    let manual = json!({"name": "Mine/\"🐙\"", "hosts": ["b"]});
    let made = server.post("/labels", manual).await["label"].clone();
    let id = made["id"].as_u64().unwrap();
    assert_eq!(
        (&made["count"], &made["label_membership_type"]),
        (&json!(1), &json!("manual"))
    );
    assert_eq!(ids(&server.get(&format!("/labels/{id}/hosts")).await), [2]);
    assert_eq!(found(&server, "label=Mine%2F%22%F0%9F%90%99%22").await, [2]);
    let again = json!({"name": "Mine/\"🐙\"", "query": "select 1"});
    server.gives(409, Method::POST, "/labels", again).await;
    server
        .gives(422, Method::POST, "/labels", json!({"name": "No query"}))
        .await;
    let path = format!("/labels/{id}");
    let change = json!({"name": "Ours", "hosts": ["a", "b"]});
    let said = server.gives(200, Method::PATCH, &path, change).await;
    assert_eq!(said["label"]["count"], 2);
    assert_eq!(server.get("/spec/labels/Ours").await["specs"]["id"], id);
    server
        .gives(422, Method::PATCH, "/labels/6", json!({"name": "x"}))
        .await;
    server
        .gives(422, Method::DELETE, "/labels/All%20Hosts", NONE)
        .await;
    server
        .gives(422, Method::DELETE, "/labels/id/6", NONE)
        .await;
    server
        .gives(200, Method::DELETE, "/labels/Ours", NONE)
        .await;
    server
        .gives(404, Method::DELETE, &format!("/labels/id/{id}"), NONE)
        .await;
    server
        .post("/labels", json!({"name": "Ours", "query": "select 1"}))
        .await;
}

#[tokio::test]
async fn targets_are_searched_and_counted() {
    let server = Server::start().await;
    let team = server.team("Ubuntu folk").await;
    server.host("ubuntu-1", Some(team), &[8]).await;
    server.host("ubuntu-2", None, &[8]).await;
    server.host("mac-1", Some(team), &[7]).await;
    let selected = json!({"labels": [8], "teams": [team]});
    let counts = server
        .post("/targets/count", json!({"selected": selected}))
        .await;
    assert_eq!(
        counts,
        json!({"targets_count": 1, "targets_online": 1, "targets_offline": 0, "targets_missing_in_action": 0})
    );
    let body = json!({"query": "ubuntu", "selected": {"hosts": [1], "labels": [7, 8]}});
    let said = server.post("/targets", body).await;
    assert_eq!(said["targets"]["hosts"][0]["id"], 2);
    assert_eq!(
        said["targets"]["labels"],
        json!([]),
        "the one that fits is selected already"
    );
    assert_eq!(said["targets"]["teams"][0]["count"], 2);
    assert_eq!(said["targets_count"], 3);
    let said = server.post("/targets", json!({})).await;
    assert_eq!(
        (
            said["targets_count"].as_u64(),
            said["targets"]["hosts"].as_array().unwrap().len()
        ),
        (Some(0), 3)
    );
    server
        .gives(404, Method::POST, "/targets/count", json!({"query_id": 77}))
        .await;
}
