//! Every route of the document for contributors at every version's path, and under the names of later versions.

use http::Method;
use serde_json::{Value, json};

use super::server::{Server, TOKEN};

/// The versions, and the name that clients of 2020 use.
const PREFIXES: [&str; 4] = [
    "/api/v1/fleet",
    "/api/2022-04/fleet",
    "/api/latest/fleet",
    "/api/v1/kolide",
];

/// A method, a path, and a body or none.
type Sent = (&'static str, &'static str, Option<Value>);

/// The specs' routes, in an order in which each finds what it needs.
fn specs() -> Vec<Sent> {
    let post = |path, spec| ("POST", path, Some(json!({ "specs": [spec] })));
    let get = |path| ("GET", path, None);
    let label = json!({ "name": "local", "label_membership_type": "manual", "hosts": ["h"] });
    let secrets = json!({ "spec": { "secrets": [{ "secret": "s" }] } });
    vec![
        post("/spec/queries", json!({ "name": "query1", "query": "x" })),
        get("/spec/queries"),
        get("/spec/queries/query1"),
        post("/spec/packs", json!({ "name": "pack_1", "queries": [] })),
        get("/spec/packs"),
        get("/spec/packs/pack_1"),
        post("/spec/teams", json!({ "name": "T", "secrets": ["t"] })),
        post("/spec/fleets", json!({ "name": "T" })),
        post("/spec/labels", label),
        get("/spec/labels"),
        get("/spec/labels/local"),
        ("POST", "/spec/enroll_secret", Some(secrets)),
        get("/spec/enroll_secret"),
    ]
}

/// The routes of live queries, and what is around them.
fn live() -> Vec<Sent> {
    let run = |path, selected| {
        let body = json!({ "query": "select 1", "selected": selected });
        ("POST", path, Some(body))
    };
    let get = |path| ("GET", path, None);
    vec![
        get("/status/live_query"),
        get("/status/result_store"),
        run("/queries/run", json!({ "hosts": [1] })),
        run("/reports/run", json!({ "labels": [6] })),
        run("/queries/run_by_names", json!({ "hosts": ["h"] })),
        run("/reports/run_by_names", json!({ "labels": ["local"] })),
        run(
            "/queries/run_by_identifiers",
            json!({ "hosts": ["UUID-h"] }),
        ),
        run(
            "/reports/run_by_identifiers",
            json!({ "hosts": ["SERIAL-h"] }),
        ),
        get("/queries"),
        get("/reports"),
        get("/teams"),
        get("/fleets"),
    ]
}

#[tokio::test]
async fn every_documented_route_is_at_every_versions_path() {
    let server = Server::start().await;
    server.host("h", None, &[]).await;
    let bearer = format!("Bearer {TOKEN}");
    for prefix in PREFIXES {
        for (method, path, body) in specs().into_iter().chain(live()) {
            let body = body.map_or_else(String::new, |body| body.to_string());
            let path = format!("{prefix}{path}");
            let with =
                |headers: &'static str| [("authorization", bearer.as_str()), ("accept", headers)];
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let reply = server
                .send(method.clone(), &path, &with("*/*"), body.clone())
                .await;
            assert_eq!(reply.status, 200, "{method} {path}: {}", reply.text());
            assert_eq!(
                reply.header("content-type"),
                "application/json; charset=utf-8",
                "{method} {path}"
            );
            let stranger = server.send(method.clone(), &path, &[], body).await;
            assert_eq!(stranger.status, 401, "{method} {path}");
            let other = server.send(Method::PUT, &path, &with("*/*"), "{}").await;
            assert_eq!(other.status, 405, "{path}");
            let allowed = other.header("allow");
            assert!(allowed.contains(method.as_str()), "{path}: {allowed}");
        }
        let unknown = prefix
            .replace("v1", "v2")
            .replace("2022-04", "2021-01")
            .replace("latest", "last");
        let reply = server
            .send(
                Method::GET,
                &format!("{unknown}/spec/queries"),
                &[("authorization", &bearer)],
                "",
            )
            .await;
        assert_eq!(
            (reply.status, &reply.json()["message"]),
            (404, &json!("Resource Not Found"))
        );
    }
}

#[tokio::test]
async fn later_names_of_fields_mean_the_same() {
    let server = Server::start().await;
    let team = server.team("T").await;
    server.host("h", Some(team), &[]).await;
    let query = json!({ "name": "q", "query": "select 1", "fleet_id": team });
    let made = server.post("/reports", query).await["query"].clone();
    assert_eq!(made["team_id"], team);
    let body = json!({ "report_id": made["id"], "selected": { "fleets": [team] } });
    let said = server.post("/reports/run", body).await;
    assert_eq!(said["campaign"]["query_id"], made["id"]);
    assert_eq!(said["campaign"]["Metrics"]["TotalHosts"], 1);
    let specs = json!({ "specs": [{ "name": "q", "query": "select 2", "fleet": "T" }] });
    server.post("/spec/queries", specs).await;
    let body = json!({ "fleet_id": null, "hosts": [1] });
    server.post("/hosts/transfer", body).await;
    assert_eq!(server.get("/hosts/count?team_id=0").await["count"], 1);
}
