//! Dry runs: every route that changes something answers as it would, and changes nothing.

use std::collections::BTreeSet;

use answerback::store::load_all;
use http::Method;
use serde_json::{Value, json};

use super::server::{EMAIL, NONE, PASSWORD, Server, TOKEN};

/// Everything durable, as text.
async fn everything(server: &Server) -> String {
    let (records, revision) = load_all(&*server.store).await.unwrap();
    let mut sequences = Vec::new();
    for kind in [
        "user", "query", "pack", "label", "team", "host", "activity", "campaign",
    ] {
        sequences.push(server.store.reserve(kind, 0).await.unwrap());
    }
    let campaigns = server.store.campaigns(1000).await.unwrap();
    let records: Vec<String> = records
        .iter()
        .map(|record| format!("{} {} {:?}", record.kind, record.key, record.value))
        .collect();
    format!("{revision} {sequences:?} {campaigns:?} {records:#?}")
}

/// What differs between two runs by its nature.
fn steady(mut said: Value) -> Value {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(members) => {
                for secret in ["token", "temporary_password"] {
                    if let Some(member) = members.get_mut(secret) {
                        *member = json!("made up");
                    }
                }
                if members.get("api_only") == Some(&json!(true)) {
                    members.remove("email");
                }
                members.values_mut().for_each(strip);
            }
            Value::Array(elements) => elements.iter_mut().for_each(strip),
            _ => {}
        }
    }
    strip(&mut said);
    said
}

/// One request to each route that changes something, in an order in which all go well. `$` stands for numbers.
fn requests(host: u32, team: u32, user: u32, campaign: u64) -> Vec<(Method, String, Value)> {
    let (post, patch, delete) = (Method::POST, Method::PATCH, Method::DELETE);
    let spec = |spec: Value| json!({ "specs": [spec] });
    let one = json!({"query": "select 1", "selected": {"hosts": [host]}});
    let named = json!({"query": "select 1", "selected": {"labels": ["All Hosts"]}});
    let sync = json!({"query_ids": [1], "host_ids": [host]});
    let list = vec![
        (
            post.clone(),
            "/spec/queries",
            spec(json!({"name": "q", "query": "select 1"})),
        ),
        (
            post.clone(),
            "/spec/labels",
            spec(json!({"name": "l", "query": "select 1"})),
        ),
        (
            post.clone(),
            "/spec/packs",
            spec(json!({"name": "p", "queries": [{"query": "q", "interval": 60}]})),
        ),
        (
            post.clone(),
            "/spec/teams",
            spec(json!({"name": "t2", "secrets": [{"secret": "of the second team"}]})),
        ),
        (
            post.clone(),
            "/spec/enroll_secret",
            json!({"spec": {"secrets": [{"secret": "another secret"}]}}),
        ),
        (
            patch.clone(),
            "/config",
            json!({"server_settings": {"live_query_disabled": false}, "org_info": {"org_name": "N"}}),
        ),
        (
            post.clone(),
            "/queries",
            json!({"name": "q2", "query": "select 2"}),
        ),
        (
            patch.clone(),
            "/queries/2",
            json!({"description": "changed"}),
        ),
        (post.clone(), "/queries/run", one),
        (post.clone(), "/queries/run_by_identifiers", named),
        (Method::GET, "/queries/run", sync.clone()),
        (post.clone(), "/queries/1/run", sync.clone()),
        (Method::GET, "/queries/1/run", sync),
        (
            post.clone(),
            "/hosts/$host/query",
            json!({"query": "select 1"}),
        ),
        (
            post.clone(),
            "/hosts/identifier/web/query",
            json!({"query": "select 1"}),
        ),
        (post.clone(), "/campaigns/$campaign/stop", NONE),
        (
            post.clone(),
            "/labels",
            json!({"name": "l2", "query": "select 1"}),
        ),
        (patch.clone(), "/labels/$label", json!({"name": "l3"})),
        (post.clone(), "/teams", json!({"name": "t3"})),
        (patch.clone(), "/teams/$team", json!({"name": "renamed"})),
        (
            post.clone(),
            "/teams/$team/agent_options",
            json!({"config": {"options": {"distributed_interval": 5}}}),
        ),
        (
            patch.clone(),
            "/teams/$team/secrets",
            json!({"secrets": [{"secret": "the team's own"}]}),
        ),
        (
            post.clone(),
            "/hosts/transfer",
            json!({"team_id": team, "hosts": [host]}),
        ),
        (post.clone(), "/hosts/search", json!({"query": "web"})),
        (post.clone(), "/targets", json!({"query": "web"})),
        (
            post.clone(),
            "/targets/count",
            json!({"selected": {"hosts": [host]}}),
        ),
        (
            post.clone(),
            "/users/admin",
            json!({"name": "N", "email": "n@example.com", "password": "a good long password", "global_role": "observer"}),
        ),
        (
            post.clone(),
            "/users/api_only",
            json!({"name": "P", "global_role": "observer"}),
        ),
        (patch.clone(), "/users/$user", json!({"name": "changed"})),
        (
            post.clone(),
            "/users/$user/require_password_reset",
            json!({"require": true}),
        ),
        (post.clone(), "/users/$user/tokens", NONE),
        (delete.clone(), "/users/$user/sessions", NONE),
        (
            post.clone(),
            "/change_password",
            json!({"old_password": PASSWORD, "new_password": "another good password 1"}),
        ),
        (
            post.clone(),
            "/login",
            json!({"email": EMAIL, "password": "another good password 1"}),
        ),
        (
            post.clone(),
            "/perform_required_password_reset",
            json!({"new_password": "yet another password 2"}),
        ),
        (delete.clone(), "/packs/p", NONE),
        (delete.clone(), "/packs/id/$pack", NONE),
        (delete.clone(), "/labels/l2", NONE),
        (delete.clone(), "/labels/id/$label", NONE),
        (delete.clone(), "/queries/q2", NONE),
        (delete.clone(), "/queries/id/1", NONE),
        (post.clone(), "/queries/delete", json!({"ids": [1]})),
        (delete.clone(), "/hosts/$host", NONE),
        (delete.clone(), "/teams/$team", NONE),
        (delete.clone(), "/users/$user", NONE),
        (post, "/logout", NONE),
    ];
    let filled = list.into_iter().map(|(method, path, body)| {
        let path = path
            .replace("$host", &host.to_string())
            .replace("$team", &team.to_string())
            .replace("$user", &user.to_string())
            .replace("$campaign", &campaign.to_string());
        (method, path, body)
    });
    filled.collect()
}

/// Whether a path fits a template of the document.
fn fits(template: &str, path: &str) -> bool {
    template.split('/').count() == path.split('/').count()
        && template
            .split('/')
            .zip(path.split('/'))
            .all(|(own, given)| own == given || own.starts_with('{'))
}

/// The routes that know the parameter.
async fn knowing(server: &Server) -> BTreeSet<(String, String)> {
    let document = server.openapi().await;
    let mut knowing = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let parameters = operation["parameters"].as_array();
            let knows = |parameter: &Value| parameter["name"] == "dry_run";
            if parameters.is_some_and(|all| all.iter().any(knows)) {
                knowing.insert((method.to_uppercase(), path.clone()));
            }
        }
    }
    knowing
}

#[tokio::test]
async fn every_route_answers_as_it_would_and_changes_nothing() {
    let server = Server::start().await;
    let host = server.host("web", None, &[]).await;
    let team = server.team("t").await;
    let made = json!({"name": "P", "global_role": "observer"});
    server.post("/users/api_only", made).await;
    let users = server.get("/users").await["users"].clone();
    let user = users.as_array().unwrap().iter();
    let user = user.map(|user| user["id"].as_u64().unwrap()).max().unwrap();
    let campaign = server.campaign(&[host]).await;
    let mut missing = knowing(&server).await;
    assert!(missing.len() > 35, "{}", missing.len());
    let user = u32::try_from(user).unwrap();
    for (method, path, body) in requests(host, team, user, campaign) {
        let newest = |said: &Value, of: &str| {
            let ids = said[of].as_array().unwrap().iter();
            let ids = ids.map(|each| each["id"].as_u64().unwrap_or(0));
            ids.max().unwrap_or(1).to_string()
        };
        let label = newest(&server.get("/labels").await, "labels");
        let pack = newest(&server.get("/packs").await, "packs");
        let path = path.replace("$label", &label).replace("$pack", &pack);
        missing.retain(|(each, template)| each != method.as_str() || !fits(template, &path));
        // So that a synchronous query of the real run has nobody to wait for.
        server.clock.advance(std::time::Duration::from_secs(600));
        let before = everything(&server).await;
        for yes in ["true", "1", "TRUE"] {
            let dry = format!("{path}?dry_run={yes}");
            let (status, said) = server.call(method.clone(), &dry, body.clone()).await;
            assert_eq!(everything(&server).await, before, "{method} {dry}");
            if yes != "TRUE" {
                continue;
            }
            let real = format!("{path}?dry_run=false");
            let (real_status, real_said) = server.call(method.clone(), &real, body.clone()).await;
            assert_eq!(status, real_status, "{method} {path}: {said} {real_said}");
            assert_eq!(steady(said), steady(real_said), "{method} {path}");
        }
    }
    assert_eq!(missing, BTreeSet::new(), "routes without a request");
}

#[tokio::test]
async fn what_does_not_clearly_say_so_is_refused_and_changes_nothing() {
    let server = Server::start().await;
    let body = json!({"name": "t"});
    let many = format!("?{}dry_run=true", "a=b&".repeat(100));
    for query in [
        "?dry_run",
        "?dry_run=",
        "?dry_run=yes",
        "?dry_run=true&dry_run=false",
        &many,
    ] {
        let before = everything(&server).await;
        let path = format!("/teams{query}");
        server.gives(400, Method::POST, &path, body.clone()).await;
        assert_eq!(everything(&server).await, before, "{path}");
    }
    for version in ["v1", "2022-04", "latest"] {
        let path = format!("/api/{version}/fleet/spec/fleets?dry_run=true");
        let bearer = format!("Bearer {TOKEN}");
        let headers = [("authorization", bearer.as_str())];
        let before = everything(&server).await;
        let specs = json!({"specs": [body]}).to_string();
        let reply = server.send(Method::POST, &path, &headers, specs).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(everything(&server).await, before, "{path}");
    }
}

#[tokio::test]
async fn a_dry_run_is_refused_as_the_real_one_would_be() {
    let server = Server::start().await;
    let observer = server.user(Some("observer"), &[]).await;
    let path = "/spec/teams?dry_run=true";
    let good = json!({"specs": [{"name": "t"}]});
    server
        .gives_as(&observer, 403, Method::POST, path, good)
        .await;
    let bad = json!({"specs": [{"name": ""}]});
    server.gives(422, Method::POST, path, bad).await;
    let body = json!({"name": "t"});
    server.post("/teams", body.clone()).await;
    server
        .gives(409, Method::POST, "/teams?dry_run=true", body)
        .await;
}
