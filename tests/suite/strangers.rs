//! What strangers can take: many connections from few addresses, large bodies, guesses. Honest requests go on beside it.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::broker::{Broker, PASSWORD, SECRET, TOKEN};
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

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

/// A POST of a gzip body from there; the reply's status, 0 if there was none.
async fn post_from(
    server: SocketAddr,
    from: [u8; 2],
    path: &str,
    headers: &str,
    body: &[u8],
) -> u16 {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Encoding: gzip\r\n{headers}Content-Length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = connect_from(server, from).await.unwrap();
    stream
        .write_all(&[head.as_bytes(), body].concat())
        .await
        .unwrap();
    let mut reply = Vec::new();
    let read = timeout(9 * PATIENCE, stream.read_to_end(&mut reply)).await;
    let _ = read.expect("an answer");
    let text = String::from_utf8_lossy(&reply);
    text.get(9..12)
        .and_then(|status| status.parse().ok())
        .unwrap_or(0)
}

/// The most memory that the broker has used, in MiB.
fn peak_mib(broker: &Broker) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", broker.pid())).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM"))
        .unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib / 1024
}

/// Checks in as an honest host until told to stop; how often, and the slowest.
async fn check_in(server: SocketAddr, node_key: &str, over: CancellationToken) -> (u32, Duration) {
    let body = format!(r#"{{"node_key":"{node_key}"}}"#);
    let request = format!(
        "POST /api/osquery/distributed/read HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let (mut times, mut slowest) = (0, Duration::ZERO);
    while !over.is_cancelled() {
        let began = Instant::now();
        let reply = request_from(server, [200, 1], &request).await;
        assert!(reply.starts_with("HTTP/1.1 200"), "{reply:?}");
        slowest = slowest.max(began.elapsed());
        times += 1;
    }
    (times, slowest)
}

async fn enrolled(broker: &Broker) -> String {
    let body = json!({ "enroll_secret": SECRET, "host_identifier": "honest" });
    let (status, said) = broker.post("/api/osquery/enroll", body).await;
    assert_eq!(status, 200, "{said}");
    said["node_key"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_bodies_that_become_large_cost_strangers_more_than_the_broker() {
    let broker = Broker::start(&[]).await;
    let server: SocketAddr = broker.address.parse().unwrap();
    let node_key = enrolled(&broker).await;
    let over = CancellationToken::new();
    let honest = tokio::spawn({
        let over = over.clone();
        async move { check_in(server, &node_key, over).await }
    });
    let members = r#""a":[],"#.repeat(2_200_000);
    let bomb = gzip(format!(r#"{{"queries":{{{members}"b":[]}}}}"#).as_bytes());
    assert!(bomb.len() < 64 * 1024);
    let empty = gzip(b"").repeat(100_000);
    let mut attacks = Vec::new();
    for n in 0..15 {
        let (body, path) = match n % 3 {
            0 => (&empty, "/api/osquery/log"),
            1 => (&bomb, "/api/v1/fleet/login"),
            _ => (&bomb, "/api/osquery/distributed/write"),
        };
        attacks.push(post_from(server, [3, n % 4 + 1], path, "", body));
    }
    let statuses = join_all(attacks).await;
    assert!(
        statuses
            .iter()
            .all(|status| matches!(status, 400 | 401 | 413 | 503)),
        "{statuses:?}"
    );
    assert!(statuses.contains(&401), "a stranger: {statuses:?}");
    over.cancel();
    let (times, slowest) = honest.await.unwrap();
    assert!(
        times > 3 && slowest < Duration::from_secs(5),
        "{times} {slowest:?}"
    );
    let peak = peak_mib(&broker);
    assert!(peak < 400, "{peak} MiB");
}

#[tokio::test]
async fn a_route_takes_no_more_than_it_needs() {
    let broker = Broker::start(&[]).await;
    let server: SocketAddr = broker.address.parse().unwrap();
    let bearer = format!("Authorization: Bearer {TOKEN}\r\n");
    let padded = |bytes: usize| gzip(format!("{{{}}}", " ".repeat(bytes)).as_bytes());
    let cases = [
        ("/api/v1/fleet/login", 5_000, 413),
        ("/api/v1/fleet/change_password", 70_000, 413),
        ("/api/v1/fleet/queries/run", 70_000, 422),
        ("/api/v1/fleet/queries/run", 1_100_000, 413),
        ("/api/v1/fleet/spec/queries", 1_100_000, 422),
        ("/api/v1/fleet/spec/queries", 8_500_000, 413),
        ("/api/osquery/distributed/read", 300_000, 413),
    ];
    for (path, bytes, expected) in cases {
        let status = post_from(server, [4, 1], path, &bearer, &padded(bytes)).await;
        let taken = expected == 422 && status != 413 && status != 0;
        assert!(status == expected || taken, "{path} {bytes}: {status}");
    }
}

async fn login_from(server: SocketAddr, from: [u8; 2], email: &str, password: &str) -> String {
    let body = json!({ "email": email, "password": password }).to_string();
    let request = format!(
        "POST /api/v1/fleet/login HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let reply = request_from(server, from, &request).await;
    reply.get(9..12).unwrap_or_default().to_owned()
}

#[tokio::test]
async fn guesses_at_an_account_keep_neither_its_owner_out_nor_the_guessers_neighbours() {
    let broker = Broker::start(&[]).await;
    let server: SocketAddr = broker.address.parse().unwrap();
    let neighbour = "neighbour@example.com";
    let user = json!({
        "name": "N", "email": neighbour, "password": PASSWORD, "global_role": "observer",
        "admin_forced_password_reset": false,
    });
    let (status, said) = broker.post("/api/v1/fleet/users/admin", user).await;
    assert_eq!(status, 200, "{said}");
    let owner = "admin@example.com";
    let guesses = (0..20).map(|_| login_from(server, [5, 1], owner, "wrong wrong wrong"));
    let told = join_all(guesses).await;
    assert_eq!(
        told.iter().filter(|status| *status == "429").count(),
        10,
        "{told:?}"
    );
    for last in 1..=5 {
        assert_eq!(login_from(server, [6, last], owner, PASSWORD).await, "200");
    }
    assert_eq!(login_from(server, [5, 1], neighbour, PASSWORD).await, "200");
    assert_eq!(login_from(server, [5, 1], owner, PASSWORD).await, "429");
}
