//! Bad input, and what changes under a campaign's feet.

use http::Method;
use serde_json::{Value, json};

use super::server::{NONE, Server, TOKEN};

#[tokio::test]
async fn ten_megabytes_of_specs_are_refused_and_change_nothing() {
    let server = Server::start().await;
    server.host("h", None, &[]).await;
    let long = "x".repeat(10 * 1024 * 1024);
    for (path, spec) in [
        ("/spec/queries", json!({ "name": "q", "query": long })),
        ("/spec/packs", json!({ "name": "p", "description": long })),
        ("/spec/labels", json!({ "name": "l", "query": long })),
        (
            "/spec/teams",
            json!({ "name": "t", "agent_options": { "config": { "x": long } } }),
        ),
    ] {
        let body = json!({ "specs": [spec] });
        let said = server.gives(413, Method::POST, path, body).await;
        assert_eq!(said["message"], "Request Entity Too Large");
        assert_eq!(said["errors"][0]["name"], "base");
    }
    assert_eq!(server.get("/spec/queries").await, json!({ "specs": [] }));
    // Five megabytes are many queries.
    let spec =
        |at: u32, bytes: usize| json!({ "name": format!("q{at}"), "query": "x".repeat(bytes) });
    let specs: Vec<_> = (0..80).map(|at| spec(at, 64 * 1024)).collect();
    server
        .post("/spec/queries", json!({ "specs": specs }))
        .await;
    assert_eq!(server.get("/queries").await["count"], 80);
    let long = spec(7, 64 * 1024 + 1);
    for (path, body) in [
        ("/spec/queries", json!({ "specs": [long] })),
        ("/spec/labels", json!({ "specs": [long] })),
        ("/queries", long.clone()),
        ("/labels", long.clone()),
        (
            "/queries/run",
            json!({ "query": long["query"], "selected": { "hosts": [1] } }),
        ),
    ] {
        let said = server.gives(422, Method::POST, path, body).await;
        assert!(
            said["errors"][0]["reason"]
                .as_str()
                .unwrap()
                .contains("65536 bytes"),
            "{path}: {said}"
        );
    }
    // All labels are asked in one check-in.
    let labels: Vec<_> = (0..15).map(|at| spec(at, 64 * 1024)).collect();
    server
        .post("/spec/labels", json!({ "specs": labels }))
        .await;
    server
        .gives(422, Method::POST, "/labels", spec(17, 64 * 1024))
        .await;
}

#[tokio::test]
async fn who_writes_all_before_reading_hears_why_it_was_refused() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let server = Server::start().await;
    let body = "x".repeat(10 * 1024 * 1024);
    let mut socket = tokio::net::TcpStream::connect(&server.address)
        .await
        .unwrap();
    let head = format!(
        "POST /api/v1/fleet/spec/queries HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    socket.write_all(body.as_bytes()).await.unwrap();
    let mut said = String::new();
    socket.read_to_string(&mut said).await.unwrap();
    assert!(said.starts_with("HTTP/1.1 413 "), "{said}");
    assert!(said.contains("Request Entity Too Large"), "{said}");
}

#[tokio::test]
async fn a_label_that_is_deleted_stays_what_a_campaign_asked() {
    let server = Server::start().await;
    let (a, b) = (
        server.host("a", None, &[]).await,
        server.host("b", None, &[]).await,
    );
    let label = json!({ "name": "Ours", "hosts": ["a", "b"] });
    let label = server.post("/labels", label).await["label"]["id"].clone();
    let body = json!({ "query": "select 1", "selected": { "labels": [label] } });
    let said = server.post("/queries/run", body.clone()).await;
    let campaign = said["campaign"]["id"].as_u64().unwrap();
    server
        .gives(200, Method::DELETE, "/labels/Ours", NONE)
        .await;
    server
        .answer(campaign, a, json!([{ "x": "1" }]), None)
        .await;
    let hosts = server.get(&format!("/campaigns/{campaign}/hosts")).await;
    assert_eq!(hosts["counts"]["answered"], 1);
    assert_eq!(hosts["counts"]["waiting"], 1);
    server.answer(campaign, b, json!([]), None).await;
    let said = server.gives(400, Method::POST, "/queries/run", body).await;
    assert_eq!(said["errors"][0]["reason"], "no hosts targeted");
    let named = json!({ "query": "select 1", "selected": { "labels": ["Ours"] } });
    let said = server
        .gives(400, Method::POST, "/queries/run_by_names", named)
        .await;
    assert_eq!(said["errors"][0]["reason"], "Invalid label names: Ours");
}

/// The queries' SQL, each once.
async fn sql(server: &Server) -> Vec<Value> {
    let queries = server.get("/queries?order_key=name").await["queries"].clone();
    let mut sql: Vec<Value> = queries
        .as_array()
        .unwrap()
        .iter()
        .map(|query| query["query"].clone())
        .collect();
    sql.dedup();
    sql
}

#[tokio::test]
async fn two_different_documents_applied_at_once_are_each_applied_whole() {
    let server = Server::start().await;
    let document = |sql: &str| {
        let specs: Vec<Value> = (0..200)
            .map(|at| json!({ "name": format!("q{at}"), "query": sql }))
            .collect();
        json!({ "specs": specs }).to_string()
    };
    let (one, two) = (document("select 1"), document("select 2"));
    for _ in 0..5 {
        let (one, two) = tokio::join!(
            server.say(TOKEN, Method::POST, "/spec/queries", &one),
            server.say(TOKEN, Method::POST, "/spec/queries", &two),
        );
        assert_eq!((one.status, two.status), (200, 200));
        // Whichever came last, all of it holds.
        assert_eq!(sql(&server).await.len(), 1);
    }
    assert_eq!(server.get("/queries").await["count"], 200);
}

#[tokio::test]
async fn whole_numbers_may_be_written_as_others_write_them() {
    let server = Server::start().await;
    server.host("h", None, &[]).await;
    let run = |selected: &str| {
        let body = format!(r#"{{"query": "select 1", "selected": {selected}}}"#);
        let server = &server;
        async move { server.say(TOKEN, Method::POST, "/queries/run", &body).await }
    };
    assert_eq!(run(r#"{"hosts": [1.0]}"#).await.status, 200);
    // What is larger than any number of ours names nothing, beside what does.
    let large = r#"{"hosts": [1, 1e30, 18446744073709551616], "labels": [99999999999999999999]}"#;
    let said = run(large).await;
    assert_eq!(said.json()["campaign"]["Metrics"]["TotalHosts"], 1);
    for bad in [
        r#"{"hosts": [1.5]}"#,
        r#"{"hosts": [-1]}"#,
        r#"{"hosts": ["1"]}"#,
    ] {
        assert_eq!(run(bad).await.status, 400, "{bad}");
    }
}

#[tokio::test]
async fn what_would_be_taken_for_something_else_is_refused() {
    let server = Server::start().await;
    for path in [
        "/hosts?page=0&page=1",
        "/hosts/count?status=online&status=new",
    ] {
        let said = server.gives(400, Method::GET, path, NONE).await;
        let reason = said["errors"][0]["reason"].as_str().unwrap();
        assert!(reason.ends_with("must not be given twice"), "{reason}");
    }
    server
        .gives(400, Method::GET, "/hosts/count?per_page=x", NONE)
        .await;
    // A slip of the pen: nothing is applied, replaced or deleted.
    for (path, slip) in [
        ("/spec/queries", json!({ "spec": [] })),
        ("/spec/packs", json!({})),
        ("/spec/enroll_secret", json!({ "spec": { "secret": [] } })),
        ("/queries/delete", json!({ "id": [1] })),
        ("/hosts/transfer", json!({ "team_id": 1 })),
    ] {
        let said = server.gives(400, Method::POST, path, slip).await;
        let told = said["errors"][1]["reason"].as_str().unwrap();
        assert!(told.starts_with("missing field"), "{path}: {told}");
    }
    // Clients written in Go send null for an empty list.
    server.post("/spec/queries", json!({ "specs": null })).await;
}

#[tokio::test]
async fn every_refusal_of_the_document_is_described_with_its_header() {
    let server = Server::start().await;
    let openapi = server.openapi().await;
    let responses = &openapi["components"]["responses"];
    assert!(responses["Error429"]["headers"]["Retry-After"].is_object());
    assert!(responses["Error401"]["headers"]["WWW-Authenticate"].is_object());
    let of = |path: &str, method: &str| {
        let responses = openapi["paths"][path][method]["responses"].as_object();
        let mut statuses: Vec<String> = responses.unwrap().keys().cloned().collect();
        statuses.sort();
        statuses.join(" ")
    };
    assert_eq!(
        of("/queries/run", "post"),
        "200 400 401 403 404 408 409 413 415 422 429 500 503"
    );
    assert_eq!(
        of("/status/live_query", "get"),
        "200 400 401 403 408 413 415 500 503"
    );
}
