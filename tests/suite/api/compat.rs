//! What fleetctl and its kin ask for beside the documented routes.

use http::Method;
use serde_json::json;

use super::server::{EMAIL, NONE, Server, TOKEN};

#[tokio::test]
async fn names_are_translated_to_numbers_as_far_as_they_may_be_seen() {
    let server = Server::start().await;
    let (one, two) = (server.team("One").await, server.team("Two").await);
    let host = server.host("web", Some(one), &[]).await;
    let item = |kind: &str, name: &str| json!({"type": kind, "payload": {"identifier": name}});
    let list = json!({"list": [item("user", EMAIL), item("host", "web"), item("label", "macOS"), item("team", "Two")]});
    let said = server.post("/translate", list).await;
    let ids = said["list"].as_array().unwrap().iter();
    let ids: Vec<_> = ids.map(|each| each["payload"]["id"].clone()).collect();
    assert_eq!(ids[1..], [json!(host), json!(7), json!(two)]);
    let theirs = server.user(None, &[(two, "observer")]).await;
    for (item, status) in [
        (item("team", "Two"), 200),
        (item("team", "One"), 404),
        (item("host", "web"), 404),
        (item("user", EMAIL), 404),
        (item("planet", "Mars"), 422),
    ] {
        let body = json!({"list": [item]});
        server
            .gives_as(&theirs, status, Method::POST, "/translate", body)
            .await;
    }
}

#[tokio::test]
async fn hosts_are_moved_by_filter() {
    let server = Server::start().await;
    let team = server.team("One").await;
    for name in ["web-1", "web-2", "db-1"] {
        server.host(name, None, &[8]).await;
    }
    let path = "/hosts/transfer/filter";
    let body = json!({"team_id": team, "filters": {"query": "web", "status": "", "label_id": 8}});
    server.post(path, body).await;
    assert_eq!(
        server.get(&format!("/hosts/count?team_id={team}")).await["count"],
        2
    );
    server
        .post(path, json!({"team_id": null, "filters": {"team_id": team}}))
        .await;
    assert_eq!(server.get("/hosts/count?team_id=0").await["count"], 3);
    for (body, status) in [
        (json!({"team_id": team}), 400),
        (
            json!({"team_id": team, "filters": {"hostname": "web"}}),
            422,
        ),
        (json!({"team_id": 99, "filters": {}}), 404),
        (json!({"team_id": team, "filters": {"label_id": 99}}), 404),
    ] {
        server.gives(status, Method::POST, path, body).await;
    }
    assert_eq!(server.get("/hosts/count?team_id=0").await["count"], 3);
}

#[tokio::test]
async fn hosts_are_reported_as_csv() {
    let server = Server::start().await;
    let team = server.team("=One").await;
    server.host("web,1", Some(team), &[]).await;
    server.host("db", None, &[]).await;
    let csv = async |query: &str| {
        let bearer = format!("Bearer {TOKEN}");
        let headers = [("authorization", bearer.as_str())];
        let path = format!("/api/latest/fleet/hosts/report{query}");
        let reply = server.send(Method::GET, &path, &headers, "").await;
        (
            reply.status,
            reply.header("content-type").to_owned(),
            reply.text(),
        )
    };
    let (status, kind, text) =
        csv("?format=csv&columns=hostname,team_name&order_key=hostname").await;
    assert_eq!((status, &*kind), (200, "text/csv; charset=utf-8"));
    assert_eq!(text, "hostname,team_name\r\ndb,\r\n\"web,1\",\"'=One\"\r\n");
    let (_, _, all) = csv("").await;
    assert_eq!(all.lines().count(), 3);
    let (_, _, none) = csv("?query=nosuch").await;
    assert_eq!(none.lines().count(), 1);
    assert_eq!(csv("?format=pdf").await.0, 400);
    assert_eq!(csv("?columns=nosuch").await.0, 422);
}

#[tokio::test]
async fn roles_are_set_by_address_and_the_last_admin_stays() {
    let server = Server::start().await;
    let team = server.team("One").await;
    let body = json!({"name": "N", "email": "n@example.com", "password": "a good long password 1", "global_role": "observer"});
    let id = server.post("/users/admin", body).await["user"]["id"].clone();
    let path = "/users/roles/spec";
    let roles = |email: &str, roles| json!({"spec": {"roles": {email: roles}}});
    let to_team = json!({"global_role": null, "teams": [{"name": "One", "role": "maintainer"}]});
    server.post(path, roles("N@example.com", to_team)).await;
    let user = server.get(&format!("/users/{id}")).await["user"].clone();
    assert_eq!(user["global_role"], json!(null));
    assert_eq!(
        (&user["teams"][0]["id"], &user["teams"][0]["role"]),
        (&json!(team), &json!("maintainer"))
    );
    for bad in [
        roles("nobody@example.com", json!({"global_role": "observer"})),
        roles("n@example.com", json!({"global_role": "king"})),
        roles(
            "n@example.com",
            json!({"teams": [{"name": "Two", "role": "observer"}]}),
        ),
        roles(
            "n@example.com",
            json!({"global_role": "admin", "teams": [{"name": "One", "role": "observer"}]}),
        ),
        roles("n@example.com", json!({})),
        roles(EMAIL, json!({"global_role": "observer"})),
    ] {
        server.gives(422, Method::POST, path, bad).await;
    }
}

#[tokio::test]
async fn teams_are_listed_as_specs_and_reports_are_queries() {
    let server = Server::start().await;
    let spec = json!({"name": "One", "secrets": [{"secret": "of the first team"}]});
    server.post("/spec/fleets", json!({"specs": [spec]})).await;
    let said = server.get("/spec/teams").await;
    assert_eq!(
        said["specs"][0]["secrets"],
        json!([{"secret": "of the first team"}])
    );
    let observer = server.user(Some("observer"), &[]).await;
    let said = server
        .gives_as(&observer, 200, Method::GET, "/spec/teams", NONE)
        .await;
    assert_eq!(said["specs"][0].get("secrets"), None);
    let spec = json!({"name": "q", "query": "select 1"});
    server.post("/spec/reports", json!({"specs": [spec]})).await;
    assert_eq!(server.get("/spec/reports/q").await["specs"]["name"], "q");
    assert_eq!(server.get("/spec/reports").await["specs"][0]["name"], "q");
}

#[tokio::test]
async fn what_is_not_there_is_told_in_json_with_what_to_do() {
    let server = Server::start().await;
    for (path, hint) in [
        ("/api/v1/setup", "is set up"),
        ("//api/v1/fleet/me", "/api/v1/fleet/me"),
        ("/api//v1/fleet/me", "/api/v1/fleet/me"),
        ("/api/v1/fleet//me", "/api/v1/fleet/me"),
    ] {
        let reply = server.send(Method::POST, path, &[], "{}").await;
        assert_eq!(reply.status, 404, "{path}");
        let said = reply.json();
        let reason = said["errors"][0]["reason"].as_str().unwrap();
        assert!(reason.contains(hint), "{path}: {reason}");
    }
}
