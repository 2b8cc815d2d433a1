//! A viewer on a slow line behind a node that relays for it: it comes back long after its answer was handed out.

use std::time::{Duration, Instant};

use serde_json::json;
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::broker::{TOKEN, two_nodes};
use crate::hosts::Host;

const PATIENCE: Duration = Duration::from_secs(30);

/// A connection whose kernel takes little at a time.
async fn narrow(address: &str) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4 * 1024).unwrap();
    socket.set_nonblocking(true).unwrap();
    let socket = TcpSocket::from_std_stream(socket.into());
    socket.connect(address.parse().unwrap()).await.unwrap()
}

/// One request over it; reads `step` bytes every tenth of a second, and returns the response.
async fn ask(socket: &mut TcpStream, path: &str, body: &str, step: usize) -> String {
    let length = body.len();
    let request =
        format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}");
    socket.write_all(request.as_bytes()).await.unwrap();
    let (mut seen, mut buffer) = (Vec::new(), vec![0; step]);
    loop {
        let count = tokio::time::timeout(PATIENCE, socket.read(&mut buffer)).await;
        let count = count.expect("it answers").unwrap();
        assert!(count > 0, "the broker has closed");
        seen.extend_from_slice(&buffer[..count]);
        let text = String::from_utf8_lossy(&seen);
        if text.ends_with("]\n") || text.ends_with("o\n") || text.contains(" 204 ") {
            return text.into_owned();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_viewer_of_a_session_on_another_node_keeps_it() {
    let Some((_redis, a, b)) = two_nodes().await else {
        return;
    };
    let hosts = Host::enroll_many(&a, 20).await;
    let campaign = a.run_on_all("select 1").await;
    for host in &hosts {
        let rows = json!([{ "a": "x".repeat(6_000) }]);
        assert_eq!(host.answer(&a, campaign, rows).await, 200);
    }
    let session = "/api/latest/fleet/results/000/slowsession";
    let mut near = TcpStream::connect(&a.address).await.unwrap();
    let mut far = narrow(&b.address).await;
    let poll = format!("{session}/xhr");
    assert!(ask(&mut near, &poll, "", 4096).await.ends_with("o\n"));
    let messages = [
        json!({ "type": "auth", "data": { "token": TOKEN } }).to_string(),
        json!({ "type": "select_campaign", "data": { "campaign_id": campaign } }).to_string(),
    ];
    let messages = json!(messages).to_string();
    ask(&mut near, &format!("{session}/xhr_send"), &messages, 4096).await;
    let (mut results, mut slowest) = (0, Duration::ZERO);
    while results < hosts.len() {
        let since = Instant::now();
        let answer = ask(&mut far, &poll, "", 1_500).await;
        slowest = slowest.max(since.elapsed());
        assert!(!answer.ends_with("o\n"), "the session is another one");
        assert!(!answer.contains("\nc["), "the session has ended");
        results += answer.matches(r#"\"type\":\"result\""#).count();
    }
    // The delay is five seconds.
    assert!(slowest > Duration::from_secs(6), "{slowest:?}");
}
