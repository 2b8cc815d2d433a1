//! Who may do what, over HTTP: every route by every role, and the edges between teams.

use http::Method;
use serde_json::{Value, json};

use super::server::{NONE, Server, TOKEN};

/// Requests, and who hears something else than 403: global admin, maintainer, observer, observer_plus, and the same
/// in a team.
const ROUTES: &[(&str, &str, &str, &str)] = &[
    ("GET", "/me", "AMOP", "AMOP"),
    ("GET", "/version", "AMOP", "AMOP"),
    ("GET", "/status/live_query", "AMOP", "AMOP"),
    ("GET", "/hosts", "AMOP", "AMOP"),
    ("GET", "/hosts/count", "AMOP", "AMOP"),
    ("GET", "/host_summary", "AMOP", "AMOP"),
    ("POST", "/hosts/search", "AMOP", "AMOP"),
    ("DELETE", "/hosts/77", "AM..", "AM.."),
    ("POST", "/hosts/77/query", "AM.P", "AM.P"),
    ("POST", "/targets", "AMOP", "AMOP"),
    ("POST", "/targets/count", "AMOP", "AMOP"),
    ("GET", "/labels", "AMOP", "AMOP"),
    ("GET", "/labels/summary", "AMOP", "AMOP"),
    ("GET", "/spec/labels", "AMOP", "AMOP"),
    ("POST", "/spec/labels", "AM..", "...."),
    ("POST", "/labels", "AM..", "...."),
    ("PATCH", "/labels/6", "AM..", "...."),
    ("DELETE", "/labels/x", "AM..", "...."),
    ("DELETE", "/labels/id/6", "AM..", "...."),
    ("GET", "/queries", "AMOP", "AMOP"),
    ("GET", "/spec/queries", "AMOP", "AMOP"),
    ("POST", "/spec/queries", "AM..", "AM.."),
    ("PATCH", "/queries/77", "AM..", "AM.."),
    ("DELETE", "/queries/x", "AM..", "AM.."),
    ("POST", "/queries/delete", "AM..", "AM.."),
    ("POST", "/queries/run", "AM.P", "AM.P"),
    ("POST", "/queries/run_by_names", "AM.P", "AM.P"),
    ("GET", "/packs", "AMOP", "AMOP"),
    ("GET", "/spec/packs", "AMOP", "AMOP"),
    ("POST", "/spec/packs", "AM..", "...."),
    ("DELETE", "/packs/x", "AM..", "...."),
    ("DELETE", "/packs/id/1", "AM..", "...."),
    ("GET", "/teams", "AMOP", "AMOP"),
    ("POST", "/teams", "A...", "...."),
    ("PATCH", "/teams/77", "A...", "A..."),
    ("DELETE", "/teams/77", "A...", "...."),
    ("POST", "/spec/teams", "A...", "A..."),
    ("GET", "/teams/77/secrets", "A...", "A..."),
    ("PATCH", "/teams/77/secrets", "A...", "A..."),
    ("GET", "/spec/enroll_secret", "A...", "...."),
    ("POST", "/spec/enroll_secret", "A...", "...."),
    ("GET", "/users", "A...", "...."),
    ("GET", "/users/1", "A...", "...."),
    ("POST", "/users/admin", "A...", "...."),
    ("POST", "/users/api_only", "A...", "...."),
    ("PATCH", "/users/77", "A...", "...."),
    ("DELETE", "/users/77", "A...", "...."),
    ("DELETE", "/users/77/sessions", "A...", "...."),
    ("GET", "/users/77/tokens", "A...", "...."),
    ("POST", "/users/77/tokens", "A...", "...."),
    (
        "DELETE",
        "/users/77/tokens/0123456789abcdef",
        "A...",
        "....",
    ),
    ("POST", "/users/77/require_password_reset", "A...", "...."),
    ("GET", "/activities", "AMOP", "...."),
    ("GET", "/config", "AMOP", "AMOP"),
    ("PATCH", "/config", "A...", "...."),
    ("GET", "/campaigns", "AMOP", "AMOP"),
];

const ROLES: [&str; 4] = ["admin", "maintainer", "observer", "observer_plus"];

fn body_of(path: &str) -> Value {
    match path {
        "/queries/run" => json!({"query": "select 1", "selected": {"hosts": [1]}}),
        "/queries/run_by_names" => json!({"query": "select 1", "selected": {"hosts": ["h"]}}),
        _ => json!({}),
    }
}

#[tokio::test]
async fn every_route_by_every_role_is_as_written() {
    let server = Server::start().await;
    let team = server.team("T").await;
    server.host("h", Some(team), &[]).await;
    for (at, role) in ROLES.iter().enumerate() {
        let global = server.user(Some(role), &[]).await;
        let in_team = server.user(None, &[(team, role)]).await;
        for (method, path, everywhere, within) in ROUTES {
            for (token, columns) in [(&global, everywhere), (&in_team, within)] {
                let method = Method::from_bytes(method.as_bytes()).unwrap();
                let body = if method == Method::GET {
                    Value::Null
                } else {
                    body_of(path)
                };
                let (status, said) = server.call_as(token, method.clone(), path, body).await;
                let may = columns.as_bytes()[at] != b'.';
                assert_eq!(
                    status != 403,
                    may,
                    "{method} {path} as {role} ({columns}): {status} {said}"
                );
                if !may {
                    assert_eq!(
                        said,
                        json!({"message": "Permission Denied", "errors": null})
                    );
                }
            }
        }
    }
    let nobody = server.user(None, &[]).await;
    server
        .gives_as(&nobody, 403, Method::GET, "/hosts", NONE)
        .await;
    server
        .gives_as(&nobody, 200, Method::GET, "/me", NONE)
        .await;
}

async fn run(server: &Server, token: &str, body: Value) -> (u16, Value) {
    server
        .call_as(token, Method::POST, "/queries/run", body)
        .await
}

#[tokio::test]
async fn observers_run_what_allows_it_and_nothing_else() {
    let server = Server::start().await;
    server.host("h", None, &[]).await;
    let observer = server.user(Some("observer"), &[]).await;
    let closed = server
        .post("/queries", json!({"name": "closed", "query": "select 1"}))
        .await;
    let open = server
        .post(
            "/queries",
            json!({"name": "open", "query": "select 2", "observer_can_run": true}),
        )
        .await;
    let selected = json!({"hosts": [1]});
    let ask = |query: &Value| json!({"query_id": query["query"]["id"], "query": "select 'mine'", "selected": selected});
    assert_eq!(run(&server, &observer, ask(&closed)).await.0, 403);
    assert_eq!(
        run(
            &server,
            &observer,
            json!({"query": "select 1", "selected": selected})
        )
        .await
        .0,
        403
    );
    let (status, said) = run(&server, &observer, ask(&open)).await;
    assert_eq!(status, 200);
    let campaign = format!("/campaigns/{}", said["campaign"]["id"]);
    let shown = server
        .call_as(&observer, Method::GET, &campaign, NONE)
        .await
        .1;
    assert_eq!(
        shown["campaign"]["query"], "select 2",
        "the saved SQL, not the observer's"
    );
    let path = format!("/queries/{}/run", closed["query"]["id"]);
    let (status, _) = server
        .call_as(&observer, Method::POST, &path, json!({"host_ids": [1]}))
        .await;
    assert_eq!(status, 403);
    let many = json!({"query_ids": [closed["query"]["id"]], "host_ids": [1]});
    server
        .gives_as(&observer, 403, Method::GET, "/queries/run", many)
        .await;
}

/// A host of one's own team, one of another's, one of none, and the token of a maintainer of the first team.
async fn two_teams() -> (Server, [u32; 2], [u32; 2], String) {
    let server = Server::start().await;
    let (mine, other) = (server.team("Mine").await, server.team("Other").await);
    let own = server.host("own", Some(mine), &[]).await;
    let foreign = server.host("foreign", Some(other), &[]).await;
    server.host("free", None, &[]).await;
    let token = server.user(None, &[(mine, "maintainer")]).await;
    (server, [mine, other], [own, foreign], token)
}

#[tokio::test]
async fn who_has_a_role_in_a_team_sees_that_team_only() {
    let (server, [_, other], [own, foreign], token) = two_teams().await;
    let get = |status: u16, path: String| {
        let (server, token) = (&server, &token);
        async move {
            server
                .gives_as(token, status, Method::GET, &path, NONE)
                .await
        }
    };
    assert_eq!(get(200, "/hosts/count".into()).await, json!({"count": 1}));
    get(200, format!("/hosts/{own}")).await;
    // Not even that it is there.
    get(404, format!("/hosts/{foreign}")).await;
    get(404, "/hosts/identifier/foreign".into()).await;
    get(404, format!("/hosts?team_id={other}")).await;
    get(404, format!("/teams/{other}")).await;
    assert_eq!(get(200, "/labels".into()).await["labels"][0]["count"], 1);
    assert_eq!(
        get(200, "/teams".into()).await["teams"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn who_has_a_role_in_a_team_asks_that_team_only() {
    let (server, [mine, other], [_, foreign], token) = two_teams().await;
    let run = |status: u16, selected: Value| {
        let body = json!({"query": "select 1", "selected": selected});
        server.gives_as(&token, status, Method::POST, "/queries/run", body)
    };
    let said = run(200, json!({"labels": [6], "hosts": [foreign]})).await;
    assert_eq!(said["campaign"]["Metrics"]["TotalHosts"], 1);
    run(400, json!({"hosts": [foreign]})).await;
    run(403, json!({"teams": [mine, other]})).await;
    run(403, json!({"teams": [0]})).await;
    run(200, json!({"teams": [mine]})).await;
    let path = format!("/hosts/{foreign}/query");
    let body = json!({"query": "select 1"});
    server
        .gives_as(&token, 404, Method::POST, &path, body)
        .await;
}

#[tokio::test]
async fn who_has_a_role_in_a_team_moves_and_deletes_its_hosts_only() {
    let (server, [mine, other], [own, foreign], token) = two_teams().await;
    let delete = |status: u16, host: u32| {
        let (server, token, path) = (&server, &token, format!("/hosts/{host}"));
        async move {
            server
                .gives_as(token, status, Method::DELETE, &path, NONE)
                .await
        }
    };
    delete(404, foreign).await;
    for (team, host) in [(mine, foreign), (other, own)] {
        let body = json!({"team_id": team, "hosts": [host]});
        server
            .gives_as(&token, 403, Method::POST, "/hosts/transfer", body)
            .await;
    }
    delete(200, own).await;
}

#[tokio::test]
async fn a_teams_queries_are_its_own() {
    let server = Server::start().await;
    let (mine, other) = (server.team("Mine").await, server.team("Other").await);
    server.host("h", Some(mine), &[]).await;
    let token = server.user(None, &[(mine, "maintainer")]).await;
    let make =
        |name: &str, team: Option<u32>| json!({"name": name, "query": "select 1", "team_id": team});
    let post = |body: Value| server.call_as(&token, Method::POST, "/queries", body);
    assert_eq!(post(make("g", None)).await.0, 403);
    assert_eq!(post(make("o", Some(other))).await.0, 403);
    let (status, said) = post(make("m", Some(mine))).await;
    assert_eq!(status, 200);
    let own = said["query"]["id"].clone();
    let foreign = server.post("/queries", make("o", Some(other))).await["query"]["id"].clone();
    let global = server.post("/queries", make("g", None)).await["query"]["id"].clone();
    let ask = |query: &Value| json!({"query_id": query, "selected": {"hosts": [1]}});
    assert_eq!(run(&server, &token, ask(&own)).await.0, 200);
    assert_eq!(
        run(&server, &token, ask(&global)).await.0,
        200,
        "a global query on the own team's hosts"
    );
    assert_eq!(run(&server, &token, ask(&foreign)).await.0, 404);
    let specs = |team: &str| json!({"specs": [{"name": "s", "query": "select 1", "team": team}]});
    let apply =
        |team: &'static str| server.call_as(&token, Method::POST, "/spec/queries", specs(team));
    assert_eq!(
        (
            apply("Mine").await.0,
            apply("Other").await.0,
            apply("").await.0
        ),
        (200, 403, 403)
    );
    let secrets = json!({"specs": [{"name": "Mine", "secrets": ["x"]}]});
    server
        .gives_as(&token, 403, Method::POST, "/spec/teams", secrets.clone())
        .await;
    let admin = server.user(None, &[(mine, "admin")]).await;
    server
        .gives_as(&admin, 200, Method::POST, "/spec/teams", secrets)
        .await;
    let new = json!({"specs": [{"name": "New", "secrets": ["y"]}]});
    server
        .gives_as(&admin, 403, Method::POST, "/spec/teams", new)
        .await;
}

#[tokio::test]
async fn campaigns_are_their_creators_and_the_admins() {
    let server = Server::start().await;
    server.host("h", None, &[]).await;
    let one = server.user(Some("maintainer"), &[]).await;
    let two = server.user(Some("maintainer"), &[]).await;
    let body = json!({"query": "select 1", "selected": {"hosts": [1]}});
    let (_, said) = run(&server, &one, body).await;
    let path = format!("/campaigns/{}", said["campaign"]["id"]);
    for path in [
        path.clone(),
        format!("{path}/hosts"),
        format!("{path}/results"),
    ] {
        for (token, status) in [(two.as_str(), 404), (&one, 200), (TOKEN, 200)] {
            let reply = server.say(token, Method::GET, &path, "").await;
            assert_eq!(reply.status, status, "{path}");
        }
    }
    let stop = format!("{path}/stop");
    server.gives_as(&two, 404, Method::POST, &stop, NONE).await;
    let list = server
        .gives_as(&two, 200, Method::GET, "/campaigns", NONE)
        .await;
    assert_eq!(list["campaigns"], json!([]));
    server.gives_as(&one, 200, Method::POST, &stop, NONE).await;
    let trail = server.get("/activities?query=exported_results").await;
    let trail = trail["activities"].as_array().unwrap();
    assert_eq!(trail.len(), 1, "an admin who reads along is on record");
}
