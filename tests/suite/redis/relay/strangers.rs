//! Requests that pretend to come from a node.

use http::Method;
use serde_json::json;

use super::session::{Kind, Session};
use super::{REFUSED, bases, nodes};
use crate::redis_server::{RedisServer, is_installed};

const HEADER: &str = "answerback-relay";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_relay_headers_get_nothing() {
    if !is_installed() {
        return;
    }
    let server = RedisServer::start();
    let nodes = nodes(&server, 2, &[]).await;
    let bases = bases(&nodes);
    let session = Session::new(&bases[0], Kind::Xhr, "target");
    assert_eq!(session.poll(&bases[0], &[]).await.1, "o\n");
    let record = server.cli(&["get", "ab:session:/api/v1/fleet/results/target"]);
    let record = record.trim();
    assert!(record.starts_with(&format!("{}#", bases[0])), "{record}");
    let now = answerback::clock::Clock::System.now().0;
    let forged = format!("1 {now} 192.0.2.1 {record} {}", "0".repeat(64));
    let headers = [(HEADER, forged.as_str())];
    // On either node it is a client's request like any other.
    let nonsense = json!({ "type": "nonsense" });
    let body = json!([nonsense.to_string()]).to_string();
    for base in &bases {
        let sent = session
            .request(
                base,
                Method::POST,
                "xhr_send",
                &headers,
                body.clone().into(),
            )
            .await;
        assert_eq!(sent.status(), 204);
        assert!(!sent.headers().contains_key(HEADER));
    }
    assert_eq!(
        session.poll(&bases[1], &headers).await,
        (200, format!("{REFUSED}\n"))
    );
    let unknown = Session::new(&bases[0], Kind::Xhr, "unknown");
    let sent = unknown
        .request(&bases[0], Method::POST, "xhr_send", &headers, body.into())
        .await;
    assert_eq!(sent.status(), 404);
    assert!(
        !sent.headers().contains_key(HEADER),
        "only nodes are told so"
    );
    assert_eq!(unknown.poll(&bases[0], &headers).await.1, "o\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_relayed_is_not_relayed_again() {
    if !is_installed() {
        return;
    }
    let server = RedisServer::start();
    let nodes = nodes(&server, 2, &[]).await;
    let bases = bases(&nodes);
    let session = Session::new(&bases[0], Kind::Xhr, "once");
    assert_eq!(session.poll(&bases[0], &[]).await.1, "o\n");
    let via = [("via", "1.1 balancer, 1.1 answerback")];
    let (status, said) = session.poll(&bases[1], &via).await;
    assert_eq!(status, 503);
    assert!(said.contains("relayed already"), "{said}");
    let balanced = [("via", "1.1 balancer")];
    let sent = session
        .request(&bases[1], Method::POST, "xhr_send", &balanced, "[]".into())
        .await;
    assert_eq!(sent.status(), 204);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_with_different_secrets_are_strangers_to_each_other() {
    if !is_installed() {
        return;
    }
    let server = RedisServer::start();
    let mut one = nodes(&server, 1, &["--node-secret", "one"]).await;
    one.extend(nodes(&server, 1, &["--node-secret", "other"]).await);
    let bases = bases(&one);
    assert_eq!(server.cli(&["get", "ab:{ctl}:node-secret"]).trim(), "");
    let session = Session::new(&bases[0], Kind::Xhr, "shared");
    assert_eq!(session.poll(&bases[0], &[]).await.1, "o\n");
    // The holder takes it for a client's request, which it may answer.
    assert_eq!(session.send_to(&bases[1], &[]).await, 204);
}
