//! Specs: whole or not at all, with names of every kind.

use http::Method;
use serde_json::{Value, json};

use super::server::{NONE, Server, TOKEN};

/// A name with everything that a path has to escape, and how it is escaped.
const NAME: &str = "a/b \"c\" 🐙 100% #?&+é";
const ESCAPED: &str = "a%2Fb%20%22c%22%20%F0%9F%90%99%20100%25%20%23%3F%26%2B%C3%A9";

async fn apply(server: &Server, path: &str, specs: Value) -> (u16, Value) {
    server
        .call(Method::POST, path, json!({"specs": specs}))
        .await
}

/// The first fault's field, of specs that are refused.
async fn refused(server: &Server, path: &str, specs: Value) -> String {
    let (status, said) = apply(server, path, specs).await;
    assert_eq!(status, 422, "{said}");
    said["errors"][0]["name"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn names_of_every_kind_come_back_by_their_escaped_path() {
    let server = Server::start().await;
    let query = json!({"name": NAME, "query": "select 1"});
    let pack = json!({"name": NAME, "queries": [{"query": NAME, "interval": 60}]});
    for (kind, spec) in [("queries", &query), ("packs", &pack), ("labels", &query)] {
        let path = format!("/spec/{kind}");
        assert_eq!(
            apply(&server, &path, json!([spec])).await,
            (200, json!({})),
            "{kind}"
        );
        let said = server.get(&format!("{path}/{ESCAPED}")).await;
        assert_eq!(said["specs"]["name"], NAME, "{kind}");
        let (status, said) = server
            .call(Method::GET, &format!("{path}/a%2Fb"), NONE)
            .await;
        assert_eq!(
            (status, &said["message"]),
            (404, &json!("Resource Not Found"))
        );
        server
            .call(Method::GET, &format!("{path}/%FF%00%"), NONE)
            .await;
    }
    assert_eq!(
        server.get(&format!("/spec/packs/{ESCAPED}")).await["specs"]["queries"][0]["name"],
        NAME
    );
    server
        .gives(200, Method::DELETE, &format!("/packs/{ESCAPED}"), NONE)
        .await;
    server
        .gives(200, Method::DELETE, &format!("/queries/{ESCAPED}"), NONE)
        .await;
    server
        .gives(200, Method::DELETE, &format!("/labels/{ESCAPED}"), NONE)
        .await;
    assert_eq!(server.get("/spec/packs").await, json!({"specs": []}));
}

#[tokio::test]
async fn one_bad_item_keeps_all_from_being_applied_and_is_named() {
    let server = Server::start().await;
    let good = json!({"name": "good", "query": "select 1"});
    let specs = json!([good, {"name": "bad"}, {"query": "select 1"}]);
    let (status, said) = apply(&server, "/spec/queries", specs).await;
    assert_eq!(status, 422);
    assert_eq!(
        said["errors"],
        json!([
            {"name": "specs[1].query", "reason": "\"bad\": query must not be empty"},
            {"name": "specs[2].name", "reason": "\"\": name must not be empty"},
        ])
    );
    for (bad, reason) in [
        (
            json!({"name": "bad", "query": 5}),
            "specs[1]: invalid type: integer",
        ),
        (
            json!(["bad", "", "select 1"]),
            "specs[1]: expected an object",
        ),
    ] {
        let (status, said) = apply(&server, "/spec/queries", json!([good, bad])).await;
        let told = said["errors"][1]["reason"].as_str().unwrap();
        assert!(status == 400 && told.starts_with(reason), "{told}");
    }
    let of_none = json!([good, {"name": "bad", "query": "x", "team": "none"}]);
    assert_eq!(
        refused(&server, "/spec/queries", of_none).await,
        "specs[1].team"
    );
    assert_eq!(
        server.get("/spec/queries").await,
        json!({"specs": []}),
        "nothing was made"
    );
}

#[tokio::test]
async fn a_packs_queries_are_checked() {
    let server = Server::start().await;
    for (queries, field) in [
        (
            json!([{"query": "q", "interval": 0}]),
            "queries[0].interval",
        ),
        (
            json!([{"query": "q", "interval": 604_801}]),
            "queries[0].interval",
        ),
        (json!([{"interval": 5}]), "queries[0].query"),
        (
            json!([{"query": "q", "interval": 5, "shard": 101}]),
            "queries[0].shard",
        ),
        (
            json!([{"query": "q", "interval": 5}, {"query": "q", "interval": 6}]),
            "queries[1].name",
        ),
    ] {
        let specs = json!([{"name": "p", "queries": queries}]);
        let expected = format!("specs[0].{field}");
        assert_eq!(refused(&server, "/spec/packs", specs).await, expected);
    }
}

#[tokio::test]
async fn applying_again_changes_what_has_changed_and_the_last_of_two_counts() {
    let server = Server::start().await;
    let specs = json!([{"name": "q", "query": "select 1"}, {"name": "r", "query": "select 2"}, {"name": "q", "query": "select 3"}]);
    assert_eq!(apply(&server, "/spec/queries", specs).await.0, 200);
    let queries = server.get("/queries").await["queries"].clone();
    assert_eq!(queries.as_array().unwrap().len(), 2);
    let q = server.get("/spec/queries/q").await["specs"].clone();
    assert_eq!(q["query"], "select 3");
    server.clock.advance(std::time::Duration::from_secs(60));
    let again = json!([{"name": "q", "query": "select 3"}, {"name": "r", "query": "select 4", "observer_can_run": true, "interval": 300}]);
    assert_eq!(apply(&server, "/spec/queries", again).await.0, 200);
    let after = server.get("/queries?order_key=name").await["queries"].clone();
    assert_eq!(
        after[0]["updated_at"], after[0]["created_at"],
        "what is as it was is not touched"
    );
    assert_ne!(after[1]["updated_at"], after[1]["created_at"]);
    assert_eq!(
        (&after[1]["observer_can_run"], &after[1]["interval"]),
        (&json!(true), &json!(300))
    );
    let ids = |list: &Value| -> Vec<Value> {
        list.as_array()
            .unwrap()
            .iter()
            .map(|query| query["id"].clone())
            .collect()
    };
    let (mut before, mut now) = (ids(&queries), ids(&after));
    before.sort_by_key(Value::as_u64);
    now.sort_by_key(Value::as_u64);
    assert_eq!(before, now, "numbers stay");
}

#[tokio::test]
async fn a_teams_queries_are_apart_from_the_global_ones() {
    let server = Server::start().await;
    let team = server.team("T").await;
    let specs = json!([{"name": "q", "query": "select 1"}, {"name": "q", "query": "select 2", "team": "T"}]);
    assert_eq!(apply(&server, "/spec/queries", specs).await.0, 200);
    assert_eq!(
        server.get("/spec/queries/q").await["specs"]["query"],
        "select 1"
    );
    let own = server.get(&format!("/spec/queries/q?team_id={team}")).await["specs"].clone();
    assert_eq!(
        (&own["query"], &own["team"]),
        (&json!("select 2"), &json!("T"))
    );
    assert_eq!(
        server.get(&format!("/spec/queries?team_id={team}")).await["specs"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    server
        .gives(
            200,
            Method::DELETE,
            &format!("/queries/q?team_id={team}"),
            NONE,
        )
        .await;
    assert_eq!(
        server.get("/spec/queries/q").await["specs"]["query"],
        "select 1"
    );
}

#[tokio::test]
async fn builtin_labels_cannot_be_made_or_changed_but_stand_in_documents() {
    let server = Server::start().await;
    let all = server.get("/spec/labels").await["specs"].clone();
    let (status, said) = apply(&server, "/spec/labels", all.clone()).await;
    assert_eq!(status, 200, "as it is given out: {said}");
    let mut changed = all[0].clone();
    changed["query"] = json!("select 2");
    let new = |field: &str, value: Value| {
        let mut spec = json!({"name": "New", "query": "select 1"});
        spec[field] = value;
        spec
    };
    for (spec, field) in [
        (changed, "name"),
        (new("name", json!("All Hosts")), "name"),
        (new("name", json!("x".repeat(256))), "name"),
        (new("label_type", json!("builtin")), "label_type"),
        (new("label_type", json!("odd")), "label_type"),
        (
            new("label_membership_type", json!("odd")),
            "label_membership_type",
        ),
        (new("label_membership_type", json!("manual")), "hosts"),
        (new("query", json!(" ")), "query"),
    ] {
        let expected = format!("specs[0].{field}");
        assert_eq!(
            refused(&server, "/spec/labels", json!([spec])).await,
            expected
        );
    }
    assert_eq!(server.get("/spec/labels").await["specs"], all);
}

#[tokio::test]
async fn a_manual_label_keeps_its_hosts_and_its_kind() {
    let server = Server::start().await;
    let manual = json!({"name": "M", "label_membership_type": "manual", "hosts": ["h"]});
    assert_eq!(apply(&server, "/spec/labels", json!([manual])).await.0, 200);
    let kept = json!({"name": "M", "label_membership_type": "manual", "description": "new"});
    assert_eq!(apply(&server, "/spec/labels", json!([kept])).await.0, 200);
    let spec = server.get("/spec/labels/M").await["specs"].clone();
    assert_eq!(
        (&spec["hosts"], &spec["description"]),
        (&json!(["h"]), &json!("new"))
    );
    let dynamic = json!([{"name": "M", "query": "select 1"}]);
    let field = refused(&server, "/spec/labels", dynamic).await;
    assert_eq!(field, "specs[0].label_membership_type");
}

/// Two teams with options and secrets; their paths.
async fn teams_a_and_b(server: &Server, options: &Value) -> (String, String) {
    let specs = json!([
        {"name": "A", "agent_options": options, "secrets": [{"secret": "both"}, {"secret": "a"}]},
        {"name": "B", "agent_options": {"spec": options}, "secrets": ["b"]},
    ]);
    let (status, said) = apply(server, "/spec/teams", specs).await;
    assert_eq!(status, 200, "{said}");
    let ids = &said["team_ids_by_name"];
    (
        format!("/teams/{}", ids["A"]),
        format!("/fleets/{}", ids["B"]),
    )
}

#[tokio::test]
async fn teams_keep_what_a_spec_does_not_give() {
    let server = Server::start().await;
    let options = json!({"config": {"options": {"distributed_interval": 7}}, "overrides": {}});
    let (a, b) = teams_a_and_b(&server, &options).await;
    for path in [&a, &b] {
        assert_eq!(
            server.get(path).await["team"]["agent_options"],
            options,
            "both shapes"
        );
    }
    let secrets_only = json!([{"name": "A", "secrets": ["new"]}]);
    assert_eq!(apply(&server, "/spec/teams", secrets_only).await.0, 200);
    assert_eq!(server.get(&a).await["team"]["agent_options"], options);
    let nothing = json!([{"name": "A", "agent_options": null, "secrets": []}]);
    assert_eq!(apply(&server, "/spec/teams", nothing).await.0, 200);
    let team = server.get(&a).await["team"].clone();
    assert_eq!(
        (&team["agent_options"], &team["secrets"]),
        (&json!(null), &json!([]))
    );
    let odd = [
        json!("text"),
        json!([]),
        json!({"config": 5}),
        json!({"spec": {"config": []}}),
    ];
    for bad in odd {
        let specs = json!([{"name": "C", "agent_options": bad}]);
        assert_eq!(
            refused(&server, "/spec/teams", specs).await,
            "specs[0].agent_options"
        );
    }
}

#[tokio::test]
async fn a_secret_may_be_global_and_a_teams_but_not_two_teams() {
    let server = Server::start().await;
    let (a, _) = teams_a_and_b(&server, &json!({})).await;
    let global = json!({"spec": {"secrets": [{"secret": "both"}, {"secret": "both"}]}});
    assert_eq!(server.post("/spec/enroll_secret", global).await, json!({}));
    let said = server.get("/spec/enroll_secret").await;
    assert_eq!(said["spec"]["secrets"].as_array().unwrap().len(), 1);
    let stolen = json!([{"name": "B", "secrets": [{"secret": "a"}]}]);
    assert_eq!(refused(&server, "/spec/teams", stolen).await, "secrets");
    let shared = json!([{"name": "C", "secrets": ["c"]}, {"name": "D", "secrets": ["c"]}]);
    assert_eq!(refused(&server, "/spec/teams", shared).await, "secrets");
    let swapped = json!([{"name": "A", "secrets": ["b"]}, {"name": "B", "secrets": ["a"]}]);
    assert_eq!(
        apply(&server, "/spec/teams", swapped).await.0,
        200,
        "in one go"
    );
    let secrets = server.get(&format!("{a}/secrets")).await;
    assert_eq!(secrets["secrets"][0]["secret"], "b");
}

#[tokio::test]
async fn secrets_are_bounded_and_keep_their_age() {
    let server = Server::start().await;
    let set = |secrets: Value| json!({"spec": {"secrets": secrets}});
    let many: Vec<Value> = (0..51)
        .map(|at| json!({"secret": format!("s{at}")}))
        .collect();
    for (secrets, field) in [
        (json!(many), "spec.secrets"),
        (json!([{"secret": ""}]), "spec.secrets[0].secret"),
        (
            json!([{"secret": "x".repeat(256)}]),
            "spec.secrets[0].secret",
        ),
    ] {
        let (status, said) = server
            .call(Method::POST, "/spec/enroll_secret", set(secrets))
            .await;
        assert_eq!((status, &said["errors"][0]["name"]), (422, &json!(field)));
    }
    server
        .post("/spec/enroll_secret", set(json!(many[..50])))
        .await;
    server.clock.advance(std::time::Duration::from_secs(60));
    server
        .post(
            "/spec/enroll_secret",
            set(json!([{"secret": "s7"}, {"secret": "new"}])),
        )
        .await;
    let said = server.get("/spec/enroll_secret").await["spec"]["secrets"].clone();
    assert_eq!(
        (&said[0]["secret"], &said[1]["secret"]),
        (&json!("new"), &json!("s7"))
    );
    assert_ne!(said[0]["created_at"], said[1]["created_at"]);
    server.post("/spec/enroll_secret", set(json!(null))).await;
    assert_eq!(server.get("/spec/enroll_secret").await, set(json!([])));
    server
        .gives(400, Method::POST, "/spec/enroll_secret", json!({}))
        .await;
}

#[tokio::test]
async fn two_who_apply_the_same_document_at_once_make_everything_once() {
    let server = Server::start().await;
    let specs: Vec<Value> = (0..50)
        .map(|at| json!({"name": format!("q{at}"), "query": "select 1"}))
        .collect();
    let body = json!({"specs": specs}).to_string();
    let both = (0..4).map(|_| server.say(TOKEN, Method::POST, "/spec/queries", &body));
    let replies = futures_util::future::join_all(both).await;
    assert!(replies.iter().all(|reply| reply.status == 200));
    assert_eq!(server.get("/queries").await["count"], 50);
    assert_eq!(
        server.get("/queries?query=Q4&per_page=3").await["meta"]["has_next_results"],
        true
    );
}

#[tokio::test]
async fn a_document_with_too_many_items_is_refused() {
    let server = Server::start().await;
    let specs: Vec<Value> = (0..10_001)
        .map(|at| json!({"name": format!("q{at}"), "query": "select 1"}))
        .collect();
    let (status, said) = apply(&server, "/spec/queries", json!(specs)).await;
    assert_eq!((status, &said["errors"][0]["name"]), (422, &json!("specs")));
    assert_eq!(
        apply(&server, "/spec/queries", json!(null)).await,
        (200, json!({}))
    );
    assert_eq!(
        apply(&server, "/spec/packs", json!([])).await,
        (200, json!({}))
    );
}
