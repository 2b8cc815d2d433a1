//! `answerback user`: whoever has lost a password or a token gets in again, whether the broker runs or not.

use std::path::Path;

use bytes::Bytes;
use http::Method;
use serde_json::json;

use crate::broker::Broker;
use crate::redis_server::{RedisServer, is_installed};

const ADMIN: &str = "admin@example.com";

/// Runs the command; gives its exit code, what it printed and what it said.
async fn user(args: &[&str], place: &[&str]) -> (Option<i32>, String, String) {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_answerback"));
    let done = command.arg("user").args(args).args(place).output().await;
    let done = done.expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    (done.status.code(), text(&done.stdout), text(&done.stderr))
}

async fn log_in(broker: &Broker, password: &str) -> (u16, serde_json::Value) {
    let body = json!({ "email": ADMIN, "password": password });
    broker.post("/api/v1/fleet/login", body).await
}

/// The status of a request with this token.
async fn with_token(broker: &Broker, token: &str) -> u16 {
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str())];
    let asked = broker.send(Method::GET, "/api/v1/fleet/me", &headers, Bytes::new());
    asked.await.0
}

async fn lost_and_found(broker: &Broker, place: &[&str]) {
    let (code, password, said) = user(&["reset-password", "ADMIN@example.com"], place).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(ADMIN) && !said.contains(&password), "{said}");
    // A node on Redis hears of it within a second.
    let mut reply = log_in(broker, &password).await;
    for _ in 0..20 {
        if reply.0 == 200 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        reply = log_in(broker, &password).await;
    }
    assert_eq!(reply.0, 200, "{}", reply.1);
    assert_eq!(reply.1["user"]["force_password_reset"], true, "{}", reply.1);
    let session = reply.1["token"].as_str().expect("a session").to_owned();

    let (code, token, said) = user(&["new-token", ADMIN], place).await;
    assert_eq!(code, Some(0), "{said}");
    for _ in 0..20 {
        if with_token(broker, &token).await == 200 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    assert_eq!(with_token(broker, &token).await, 200);

    // A password of one's own: sessions end, tokens of programs do not unless that is asked for.
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("password");
    std::fs::write(&file, "a password of my own\n").expect("written");
    let file = file.to_str().expect("a path");
    let own = ["reset-password", ADMIN, "--password-file", file];
    let (code, printed, said) = user(&own, place).await;
    assert_eq!((code, printed.as_str()), (Some(0), ""), "{said}");
    tokio::time::sleep(std::time::Duration::from_millis(1_200)).await;
    assert_eq!(log_in(broker, "a password of my own").await.0, 200);
    assert_eq!(with_token(broker, &session).await, 401);
    assert_eq!(with_token(broker, &token).await, 200);
    let all = ["reset-password", ADMIN, "--revoke-tokens"];
    assert_eq!(user(&all, place).await.0, Some(0));
    tokio::time::sleep(std::time::Duration::from_millis(1_200)).await;
    assert_eq!(with_token(broker, &token).await, 401);

    let (code, printed, said) = user(&["reset-password", "nobody@example.com"], place).await;
    assert_eq!((code, printed.as_str()), (Some(1), ""));
    assert!(
        said.contains("nobody@example.com") && said.contains(ADMIN),
        "{said}"
    );
    std::fs::write(file, "short").expect("written");
    let (code, _, said) = user(&own, place).await;
    assert!(
        code == Some(1) && said.contains("12 characters"),
        "{code:?} {said}"
    );
}

#[tokio::test]
async fn a_lost_password_is_reset_while_the_broker_runs_and_while_it_does_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let place = ["--data-dir", dir.path().to_str().expect("a path")];
    let mut broker = Broker::start_in(dir.path(), "127.0.0.1:0", &[]).await;
    lost_and_found(&broker, &place).await;
    let (_, token, _) = user(&["new-token", ADMIN], &place).await;
    broker.crash().await;
    // What is left of the socket does not mislead.
    assert!(dir.path().join("control.sock").exists());
    let (code, password, said) = user(&["reset-password", ADMIN], &place).await;
    assert_eq!(code, Some(0), "{said}");
    let mut broker = Broker::start_in(dir.path(), "127.0.0.1:0", &[]).await;
    assert_eq!(log_in(&broker, &password).await.0, 200);
    assert_eq!(with_token(&broker, &token).await, 200);
    assert!(broker.stop().await);
    assert!(!dir.path().join("control.sock").exists());
}

#[tokio::test]
async fn a_lost_password_is_reset_on_redis() {
    if !is_installed() {
        return;
    }
    let redis = RedisServer::start();
    let url = redis.url();
    let broker = Broker::start(&["--store", &url]).await;
    lost_and_found(&broker, &["--store", &url]).await;
}

#[tokio::test]
async fn a_directory_without_users_is_named_and_stays_empty() {
    let dir = tempfile::tempdir().expect("a directory");
    let place = ["--data-dir", dir.path().to_str().expect("a path")];
    let (code, _, said) = user(&["new-token", ADMIN], &place).await;
    assert_eq!(code, Some(1));
    assert!(
        said.contains(place[1]) && said.contains("no catalog"),
        "{said}"
    );
    let left = std::fs::read_dir(Path::new(place[1]))
        .expect("readable")
        .count();
    assert_eq!(left, 0);
    let (code, _, said) = user(&["reset-password"], &place).await;
    assert_eq!(code, Some(2), "{said}");
}
