//! What strangers may see of the broker's state, secrets from files, and requests for no or for two hosts.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::broker::{Broker, answerback};

/// The whole reply to what is written, from a connection that is then closed.
async fn told(address: &str, request: &str) -> String {
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut reply = String::new();
    let read = socket.read_to_string(&mut reply);
    tokio::time::timeout(Duration::from_secs(10), read)
        .await
        .unwrap()
        .unwrap();
    reply
}

fn get(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n")
}

#[tokio::test]
async fn metrics_are_for_this_machine_unless_somebody_chooses_otherwise() {
    let broker = Broker::start(&[]).await;
    let address = broker.address.clone();
    assert!(
        told(&address, &get("/metrics", ""))
            .await
            .contains("answerback_")
    );
    for forwarded in [
        "X-Forwarded-For: 192.0.2.1\r\n",
        "Forwarded: for=192.0.2.1\r\n",
        "Via: 1.1 p\r\n",
    ] {
        let reply = told(&address, &get("/metrics", forwarded)).await;
        assert!(
            reply.starts_with("HTTP/1.1 403 ") && reply.contains("--metrics-listen"),
            "{reply}"
        );
        assert!(
            told(&address, &get("/readyz", forwarded))
                .await
                .starts_with("HTTP/1.1 200 ")
        );
    }
}

#[tokio::test]
async fn metrics_are_open_or_elsewhere_by_choice() {
    let broker = Broker::start(&["--metrics-open"]).await;
    let reply = told(
        &broker.address,
        &get("/metrics", "X-Forwarded-For: 192.0.2.1\r\n"),
    )
    .await;
    assert!(reply.contains("answerback_"));

    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let broker = Broker::start(&["--metrics-listen", &free.to_string()]).await;
    for path in ["/metrics", "/readyz"] {
        assert!(
            told(&broker.address, &get(path, ""))
                .await
                .starts_with("HTTP/1.1 404 "),
            "{path}"
        );
        assert!(
            told(&free.to_string(), &get(path, ""))
                .await
                .starts_with("HTTP/1.1 200 "),
            "{path}"
        );
    }
    assert!(
        told(&free.to_string(), &get("/api/v1/fleet/me", ""))
            .await
            .starts_with("HTTP/1.1 404 ")
    );
    assert!(
        told(&broker.address, &get("/healthz", ""))
            .await
            .starts_with("HTTP/1.1 200 ")
    );
}

#[tokio::test]
async fn a_request_has_one_host() {
    let broker = Broker::start(&[]).await;
    let address = broker.address.clone();
    let request = |version: &str, hosts: &str| {
        format!("GET /healthz HTTP/{version}\r\n{hosts}Connection: close\r\n\r\n")
    };
    for (version, hosts, status) in [
        ("1.1", "Host: x\r\n", 200),
        ("1.0", "", 200),
        ("1.0", "Host: x\r\n", 200),
        ("1.1", "", 400),
        ("1.1", "Host: x\r\nHost: y\r\n", 400),
        ("1.1", "Host: x\r\nhost: x\r\n", 400),
        ("1.0", "Host: x\r\nHost: x\r\n", 400),
    ] {
        let reply = told(&address, &request(version, hosts)).await;
        assert_eq!(
            reply[9..12],
            status.to_string(),
            "{version} {hosts:?}: {reply}"
        );
        if status == 400 {
            let (head, body) = reply.split_once("\r\n\r\n").unwrap();
            let head = head.to_lowercase();
            assert!(head.contains("content-type: application/json"), "{head}");
            let body: serde_json::Value = serde_json::from_str(body).unwrap();
            let reason = body["errors"][0]["reason"].as_str().unwrap();
            assert!(reason.contains("one Host header"), "{body}");
        }
    }
    let agent =
        "POST /api/osquery/enroll HTTP/1.1\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}";
    assert!(told(&address, agent).await.starts_with("HTTP/1.1 400 "));
    let viewer = "GET /api/v1/fleet/results/websocket HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                  Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nHost: a\r\nHost: b\r\n\
                  \r\n";
    let mut socket = TcpStream::connect(&address).await.unwrap();
    socket.write_all(viewer.as_bytes()).await.unwrap();
    let mut head = [0; 12];
    socket.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 400");
}

#[tokio::test]
async fn secrets_come_from_files_and_those_of_flags_are_warned_of() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("store");
    std::fs::write(&file, "embedded\n").unwrap();
    let file = file.display().to_string();
    let broker = Broker::start(&["--store-file", &file]).await;
    assert_eq!(broker.get("/api/v1/fleet/me").await.0, 200);
    std::fs::write(&file, "postgres://").unwrap();
    let (code, said) = answerback(20, &["check-config", "--store-file", &file]);
    assert!(code == Some(2) && said.contains("postgres://"), "{said}");
    let (code, said) = answerback(
        20,
        &[
            "check-config",
            "--admin-password",
            "another password 1",
            "--admin-password-file",
            &file,
        ],
    );
    assert_eq!(code, Some(2));
    assert!(said.contains("leave one out"), "{said}");
    // A flag is seen by all: the log says so before anything can go wrong.
    let (_, said) = answerback(
        20,
        &[
            "serve",
            "--listen",
            "127.0.0.1:1",
            "--data-dir",
            "/proc/nowhere",
            "--node-secret",
            "0123456789abcdef0123456789abcdef",
        ],
    );
    assert!(
        said.contains("--node-secret-file") && !said.contains("0123456789abcdef"),
        "{said}"
    );
}
