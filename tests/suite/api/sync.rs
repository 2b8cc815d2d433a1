//! Live queries that answer in one request.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use super::server::{Server, TOKEN};

async fn saved(server: &Server, name: &str) -> u64 {
    let said = server
        .post("/queries", json!({"name": name, "query": "select 1"}))
        .await;
    said["query"]["id"].as_u64().unwrap()
}

#[tokio::test]
async fn a_host_answers_and_the_request_with_it() {
    let server = Server::start().await;
    let host = server.host("Web", None, &[]).await;
    for path in [
        format!("/hosts/{host}/query"),
        "/hosts/identifier/web/query".to_owned(),
    ] {
        let before = server
            .store
            .campaigns(1)
            .await
            .unwrap()
            .first()
            .map_or(0, |last| last.id.0);
        let asking = server.post(&path, json!({"query": "select 1"}));
        let answering = async {
            let id = server.next_campaign(before).await;
            let rows =
                json!([{"b": "2", "a": "1", "host_hostname": "Web", "host_display_name": "Web"}]);
            server.answer(id, host, rows, None).await;
        };
        let started = std::time::Instant::now();
        let (said, ()) = tokio::join!(asking, answering);
        assert!(
            started.elapsed() < Duration::from_millis(1_900),
            "it does not wait for the period"
        );
        assert_eq!(
            said,
            json!({"host_id": host, "rows": [{"b": "2", "a": "1"}], "query": "select 1", "status": "online"})
        );
    }
    assert!(
        server.store.active().is_empty(),
        "each campaign was stopped"
    );
}

#[tokio::test]
async fn silence_failure_and_absence_are_told_apart() {
    let server = Server::start().await;
    let host = server.host("h", None, &[]).await;
    let path = format!("/hosts/{host}/query");
    let said = server.post(&path, json!({"query": "select 1"})).await;
    assert_eq!(
        (&said["error"], &said["status"]),
        (&json!("timeout waiting for results"), &json!("online"))
    );
    let asking = server.post(&path, json!({"query": "select x"}));
    let answering = async {
        let id = server.next_campaign(1).await;
        server
            .answer(id, host, json!([]), Some("no such column: x"))
            .await;
    };
    let (said, ()) = tokio::join!(asking, answering);
    assert_eq!(
        (&said["error"], &said["rows"]),
        (&json!("no such column: x"), &json!([]))
    );
    server.clock.advance(Duration::from_secs(100));
    let said = server.post(&path, json!({"query": "select 1"})).await;
    assert_eq!(
        said,
        json!({"host_id": host, "rows": [], "query": "select 1", "status": "offline"})
    );
    assert_eq!(
        server.store.campaigns(10).await.unwrap().len(),
        2,
        "who is offline is not asked"
    );
    server
        .gives(
            404,
            Method::POST,
            "/hosts/77/query",
            json!({"query": "select 1"}),
        )
        .await;
    server
        .gives(422, Method::POST, &path, json!({"query": ""}))
        .await;
}

#[tokio::test]
async fn saved_queries_run_on_hosts_each_as_its_own_campaign() {
    let server = Server::start().await;
    let (a, b) = (
        server.host("a", None, &[]).await,
        server.host("b", None, &[]).await,
    );
    let (one, two) = (saved(&server, "one").await, saved(&server, "two").await);
    let body = json!({"query_ids": [one, two, one, 999], "host_ids": [a, b, a]});
    let asking = server.call(Method::GET, "/queries/run", body);
    let answering = async {
        let first = server.next_campaign(0).await;
        let second = server.next_campaign(first).await;
        for campaign in [first, second] {
            server.answer(campaign, a, json!([{"x": "1"}]), None).await;
        }
        server.answer(first, b, json!([]), Some("failed")).await;
    };
    let ((status, said), ()) = tokio::join!(asking, answering);
    assert_eq!(status, 200, "{said}");
    assert_eq!(
        said["summary"],
        json!({"targeted_host_count": 2, "responded_host_count": 2})
    );
    let results = said["live_query_results"].as_array().unwrap();
    let counts: Vec<usize> = results
        .iter()
        .map(|each| each["results"].as_array().unwrap().len())
        .collect();
    assert!(counts == [2, 1, 0] || counts == [1, 2, 0], "{said}");
    assert_eq!(
        results[2]["error"],
        "Query 999 was not found in the datastore"
    );
    assert!(server.store.active().is_empty());
    for bad in [
        json!({}),
        json!({"query_ids": [], "host_ids": [1]}),
        json!({"query_ids": [1], "host_ids": null}),
    ] {
        let (status, said) = server.call(Method::GET, "/queries/run", bad).await;
        assert_eq!(
            (status, &said["errors"][0]["reason"]),
            (400, &json!("query_ids and host_ids are required"))
        );
    }
}

#[tokio::test]
async fn one_saved_query_is_run_by_its_path() {
    let server = Server::start().await;
    let host = server.host("a", None, &[]).await;
    let query = saved(&server, "q").await;
    let mut before = 0;
    for method in [Method::POST, Method::GET] {
        let path = format!("/queries/{query}/run");
        let asking = server.call(method, &path, json!({"host_ids": [host]}));
        let answering = async {
            let id = server.next_campaign(before).await;
            server.answer(id, host, json!([{"x": "1"}]), None).await;
            id
        };
        let ((status, said), id) = tokio::join!(asking, answering);
        before = id;
        assert_eq!(status, 200);
        let answer = json!({"host_id": host, "rows": [{"x": "1"}], "error": null});
        assert_eq!(
            said,
            json!({"query_id": query, "targeted_host_count": 1, "responded_host_count": 1, "results": [answer]})
        );
    }
    let server = &server;
    let post =
        |path: String, body: Value| async move { server.call(Method::POST, &path, body).await };
    assert_eq!(
        post("/queries/999/run".into(), json!({"host_ids": [host]}))
            .await
            .0,
        404
    );
    assert_eq!(
        post(format!("/queries/{query}/run"), json!({"host_ids": []}))
            .await
            .0,
        400
    );
    assert_eq!(
        post(format!("/queries/{query}/run"), json!({"host_ids": [99]}))
            .await
            .0,
        400
    );
}

#[tokio::test]
async fn a_client_that_goes_away_stops_its_campaign() {
    let server = Server::start_with(answerback::api::Settings {
        sync_period: Duration::from_secs(60),
        ..answerback::api::Settings::default()
    })
    .await;
    let host = server.host("h", None, &[]).await;
    let mut socket = tokio::net::TcpStream::connect(&server.address)
        .await
        .unwrap();
    let body = r#"{"query": "select 1"}"#;
    let request = format!(
        "POST /api/v1/fleet/hosts/{host}/query HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    server.next_campaign(0).await;
    drop(socket);
    for _ in 0..500 {
        if server.store.active().is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the campaign goes on without anybody");
}
