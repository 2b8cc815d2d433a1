//! What strangers can take: many connections from few addresses, large bodies, guesses. Honest requests go on beside it.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::broker::Broker;
use crate::wire::{PATIENCE, exchange, read_to_end, start};

/// A connection from `127.0.x.y`.
async fn connect_from(server: SocketAddr, from: [u8; 2]) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    let address = Ipv4Addr::new(127, 0, from[0], from[1]);
    socket.bind((address, 0).into()).unwrap();
    let connected = timeout(PATIENCE, socket.connect(server)).await;
    connected.expect("the kernel takes it").ok()
}

/// The reply to one request from there; empty if the connection was ended.
async fn request_from(server: SocketAddr, from: [u8; 2], request: &str) -> String {
    let Some(mut stream) = connect_from(server, from).await else {
        return String::new();
    };
    if stream.write_all(request.as_bytes()).await.is_err() {
        return String::new();
    }
    let mut reply = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut reply)).await;
    String::from_utf8_lossy(&reply).into_owned()
}

const HONEST: &str = "GET /healthz HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n";

/// Asks from addresses of which nobody else comes, and gives the slowest answer's time.
async fn honest(server: SocketAddr, times: u8) -> Duration {
    let mut slowest = Duration::ZERO;
    for last in 1..=times {
        let began = Instant::now();
        let reply = request_from(server, [200, last], HONEST).await;
        assert!(reply.starts_with("HTTP/1.1 200"), "{last}: {reply:?}");
        slowest = slowest.max(began.elapsed());
    }
    slowest
}

#[tokio::test]
async fn idle_connections_of_one_address_and_of_many_leave_room_for_newcomers() {
    let broker = Broker::start(&["--connections", "100"]).await;
    let server: SocketAddr = broker.address.parse().unwrap();
    let mut held = Vec::new();
    for _ in 0..300 {
        held.extend(connect_from(server, [1, 1]).await);
    }
    let slowest = honest(server, 10).await;
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    // From many addresses, each having said something and then nothing more.
    let idle = "GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n";
    for n in 0..300u16 {
        let [_, last] = n.to_be_bytes();
        if let Some(mut stream) = connect_from(server, [2, last % 50 + 1]).await {
            let _ = stream.write_all(idle.as_bytes()).await;
            held.push(stream);
        }
    }
    let slowest = honest(server, 10).await;
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
}

#[tokio::test]
async fn more_connections_than_descriptors_are_not_promised() {
    // Started under a low soft limit, which is raised; clients are not told to wait for ever.
    let broker = Broker::start(&[]).await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", broker.pid())).unwrap();
    let files = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let mut words = files.unwrap().split_whitespace().skip(3);
    let (soft, hard) = (words.next().unwrap(), words.next().unwrap());
    assert_eq!(soft, hard, "{limits}");
}

fn told(response: &str, status: u16) -> Value {
    let (head, body) = response.split_once("\r\n\r\n").unwrap_or_default();
    assert!(
        head.starts_with(&format!("HTTP/1.1 {status} ")),
        "{response}"
    );
    assert!(head.contains("application/json"), "{response}");
    let said: Value = serde_json::from_str(body).unwrap();
    assert!(said["message"].is_string(), "{said}");
    assert!(said["errors"][0]["reason"].is_string(), "{said}");
    assert!(said.get("error").is_none(), "an agent would send it again");
    said
}

#[tokio::test]
async fn requests_that_no_route_has_seen_are_refused_in_json() {
    let settings = answerback::net::Settings {
        first_request: Duration::from_millis(500),
        ..answerback::net::Settings::default()
    };
    let server = start(
        settings,
        answerback::transport::websocket::Settings::default(),
    );
    let path = "/api/v1/fleet/me";
    let large = "x".repeat(40_000);
    let many = "X: y\r\n".repeat(101);
    let cases = [
        (
            431,
            format!("GET {path} HTTP/1.1\r\nHost: t\r\nX: {large}\r\n\r\n"),
        ),
        (431, format!("GET {path} HTTP/1.1\r\nHost: t\r\n{many}\r\n")),
        (
            431,
            format!(
                "GET {path}?x={} HTTP/1.1\r\nHost: t\r\n\r\n",
                "x".repeat(2_000_000)
            ),
        ),
        (
            400,
            format!("GET {path} HTTP/1.1\r\nHost: t\r\nno colon\r\n\r\n"),
        ),
        (400, format!("GET {path} HTTP/7.1\r\nHost: t\r\n\r\n")),
        (
            400,
            format!("POST {path} HTTP/1.1\r\nHost: t\r\nContent-Length: x\r\n\r\n"),
        ),
        (
            400,
            format!("POST {path} HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: br\r\n\r\n"),
        ),
        (400, "\u{1}\u{2}\r\n\r\n".to_owned()),
        (408, format!("GET {path} HTTP/1.1\r\nHost: t\r\nX: ")),
    ];
    for (status, request) in cases {
        let response = exchange(&server, request.as_bytes()).await;
        told(&response, status);
    }
    let mut silent = server.connect().await;
    assert_eq!(
        read_to_end(&mut silent).await,
        "",
        "who asks nothing is told nothing"
    );
}
