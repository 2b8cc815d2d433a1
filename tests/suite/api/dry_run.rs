//! Dry runs: every route that changes something answers as it would, and changes nothing.

use std::collections::BTreeSet;

use answerback::store::load_all;
use http::Method;
use serde_json::{Value, json};

use super::server::{NONE, Server, TOKEN};

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
                // A token's number is the beginning of its hash.
                if members.contains_key("token") && members.get("id").is_some_and(Value::is_string)
                {
                    members.remove("id");
                }
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
const REQUESTS: &str = r#"
POST /spec/queries {"specs": [{"name": "q", "query": "select 1"}]}
POST /spec/labels {"specs": [{"name": "l", "query": "select 1"}]}
POST /spec/packs {"specs": [{"name": "p", "queries": [{"query": "q", "interval": 60}]}]}
POST /spec/teams {"specs": [{"name": "t2", "secrets": [{"secret": "of the second team"}]}]}
POST /spec/enroll_secret {"spec": {"secrets": [{"secret": "another secret"}]}}
PATCH /config {"server_settings": {"live_query_disabled": false}, "org_info": {"org_name": "N"}}
POST /queries {"name": "q2", "query": "select 2"}
PATCH /queries/2 {"description": "changed"}
POST /queries/run {"query": "select 1", "selected": {"hosts": [$host]}}
POST /queries/run_by_identifiers {"query": "select 1", "selected": {"labels": ["All Hosts"]}}
GET /queries/run {"query_ids": [1], "host_ids": [$host]}
POST /queries/1/run {"query_ids": [1], "host_ids": [$host]}
GET /queries/1/run {"query_ids": [1], "host_ids": [$host]}
POST /hosts/$host/query {"query": "select 1"}
POST /hosts/identifier/web/query {"query": "select 1"}
POST /campaigns/$campaign/stop
POST /labels {"name": "l2", "query": "select 1"}
PATCH /labels/$label {"name": "l3"}
POST /teams {"name": "t3"}
PATCH /teams/$team {"name": "renamed"}
POST /teams/$team/agent_options {"config": {"options": {"distributed_interval": 5}}}
PATCH /teams/$team/secrets {"secrets": [{"secret": "the team's own"}]}
POST /hosts/transfer {"team_id": $team, "hosts": [$host]}
POST /hosts/transfer/filter {"team_id": null, "filters": {"query": "web"}}
POST /hosts/search {"query": "web"}
POST /translate {"list": [{"type": "host", "payload": {"identifier": "web"}}]}
POST /users/roles/spec {"spec": {"roles": {"admin@example.com": {"global_role": "admin", "teams": []}}}}
POST /targets {"query": "web"}
POST /targets/count {"selected": {"hosts": [$host]}}
POST /users/admin {"name": "N", "email": "n@example.com", "password": "a good long password", "global_role": "observer"}
POST /users/api_only {"name": "P", "global_role": "observer"}
PATCH /users/$user {"name": "changed"}
POST /users/$user/require_password_reset {"require": true}
POST /users/$user/tokens
DELETE /users/$user/tokens/$token
DELETE /users/$user/sessions
POST /change_password {"old_password": "correct horse battery staple", "new_password": "another good password 1"}
POST /login {"email": "admin@example.com", "password": "another good password 1"}
POST /perform_required_password_reset {"new_password": "yet another password 2"}
DELETE /packs/p
DELETE /packs/id/$pack
DELETE /labels/l2
DELETE /labels/id/$label
DELETE /queries/q2
DELETE /queries/id/1
POST /queries/delete {"ids": [1]}
DELETE /hosts/$host
DELETE /teams/$team
DELETE /users/$user
POST /logout
"#;

/// The requests with these numbers.
fn requests(numbers: &[(&str, u64)]) -> Vec<(Method, String, String)> {
    let lines = REQUESTS.lines().filter(|line| !line.is_empty());
    let requests = lines.map(|line| {
        let mut line = line.to_owned();
        for (name, number) in numbers {
            line = line.replace(name, &number.to_string());
        }
        let mut parts = line.splitn(3, ' ').map(str::to_owned);
        let method = parts.next().unwrap().parse().unwrap();
        let path = parts.next().unwrap();
        (method, path, parts.next().unwrap_or_default())
    });
    requests.collect()
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
    let made = server.post("/users/api_only", made).await;
    let first = format!("/users/{}/tokens", made["user"]["id"]);
    let first = server.get(&first).await["tokens"][0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let users = server.get("/users").await["users"].clone();
    let user = users.as_array().unwrap().iter();
    let user = user.map(|user| user["id"].as_u64().unwrap()).max().unwrap();
    let campaign = server.campaign(&[host]).await;
    let mut missing = knowing(&server).await;
    assert!(missing.len() > 35, "{}", missing.len());
    let numbers = [
        ("$host", u64::from(host)),
        ("$team", u64::from(team)),
        ("$user", user),
        ("$campaign", campaign),
    ];
    for (method, path, body) in requests(&numbers) {
        let body = serde_json::from_str(&body).unwrap_or(NONE);
        let newest = |said: &Value, of: &str| {
            let ids = said[of].as_array().unwrap().iter();
            let ids = ids.map(|each| each["id"].as_u64().unwrap_or(0));
            ids.max().unwrap_or(1).to_string()
        };
        let label = newest(&server.get("/labels").await, "labels");
        let pack = newest(&server.get("/packs").await, "packs");
        let path = path.replace("$label", &label).replace("$pack", &pack);
        let path = path.replace("$token", &first);
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
