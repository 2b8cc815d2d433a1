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

/// The routes in an order in which each finds what it needs; none stands for no body.
fn routes() -> Vec<(&'static str, &'static str, Option<Value>)> {
    let specs = |spec: Value| Some(json!({ "specs": [spec] }));
    let run = |selected: Value| Some(json!({ "query": "select 1", "selected": selected }));
    vec![
        (
            "POST",
            "/spec/queries",
            specs(json!({ "name": "query1", "query": "select 1" })),
        ),
        ("GET", "/spec/queries", None),
        ("GET", "/spec/queries/query1", None),
        (
            "POST",
            "/spec/packs",
            specs(json!({ "name": "pack_1", "queries": [] })),
        ),
        ("GET", "/spec/packs", None),
        ("GET", "/spec/packs/pack_1", None),
        (
            "POST",
            "/spec/teams",
            specs(json!({ "name": "T", "secrets": [{ "secret": "t" }] })),
        ),
        ("POST", "/spec/fleets", specs(json!({ "name": "T" }))),
        (
            "POST",
            "/spec/labels",
            specs(
                json!({ "name": "local_machine", "label_membership_type": "manual", "hosts": ["h"] }),
            ),
        ),
        ("GET", "/spec/labels", None),
        ("GET", "/spec/labels/local_machine", None),
        (
            "POST",
            "/spec/enroll_secret",
            Some(json!({ "spec": { "secrets": [{ "secret": "s" }] } })),
        ),
        ("GET", "/spec/enroll_secret", None),
        ("GET", "/status/live_query", None),
        ("GET", "/status/result_store", None),
        ("POST", "/queries/run", run(json!({ "hosts": [1] }))),
        ("POST", "/reports/run", run(json!({ "hosts": [1] }))),
        (
            "POST",
            "/queries/run_by_names",
            run(json!({ "hosts": ["h"] })),
        ),
        (
            "POST",
            "/reports/run_by_names",
            run(json!({ "labels": ["All Hosts"] })),
        ),
        (
            "POST",
            "/queries/run_by_identifiers",
            run(json!({ "hosts": ["UUID-h"] })),
        ),
        (
            "POST",
            "/reports/run_by_identifiers",
            run(json!({ "hosts": ["SERIAL-h"] })),
        ),
        ("GET", "/queries", None),
        ("GET", "/reports", None),
        ("GET", "/teams", None),
        ("GET", "/fleets", None),
    ]
}

#[tokio::test]
async fn every_documented_route_is_at_every_versions_path() {
    let server = Server::start().await;
    server.host("h", None, &[]).await;
    let bearer = format!("Bearer {TOKEN}");
    for prefix in PREFIXES {
        for (method, path, body) in routes() {
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
