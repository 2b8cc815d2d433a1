//! HTTP over real sockets: bodies, timers, limits, TLS, the stop.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use answerback::net::Settings;
use answerback::transport::websocket;
use flate2::Compression;
use flate2::write::GzEncoder;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::wire::{Client, PATIENCE, Server, exchange, read_to_end, start, start_tls};

fn server() -> Server {
    server_with(|_| ())
}

fn server_with(change: impl FnOnce(&mut Settings)) -> Server {
    let mut settings = Settings::default();
    change(&mut settings);
    start(settings, websocket::Settings::default())
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

/// A POST to `/body` with these headers and bytes, and what comes back: status and body.
async fn post(server: &Server, headers: &str, body: &[u8]) -> (u16, String) {
    let head = format!("POST /body HTTP/1.1\r\nHost: t\r\nConnection: close\r\n{headers}\r\n");
    let response = exchange(server, &[head.as_bytes(), body].concat()).await;
    let status = response.get(9..12).unwrap_or("0").parse().unwrap();
    let body = response.rsplit("\r\n\r\n").next().unwrap_or_default();
    (status, body.to_owned())
}

#[tokio::test]
async fn bodies_with_and_without_a_length_are_read() {
    let server = server();
    let ok = |length: &str| (200, length.to_owned());
    assert_eq!(post(&server, "", b"").await, ok("0"));
    assert_eq!(
        post(&server, "Content-Length: 5\r\n", b"hello").await,
        ok("5")
    );
    let chunked = "Transfer-Encoding: chunked\r\n";
    let chunks = b"5\r\nhello\r\n3\r\nyou\r\n0\r\n\r\n";
    assert_eq!(post(&server, chunked, chunks).await, ok("8"));
    let old = exchange(
        &server,
        b"POST /body HTTP/1.0\r\nContent-Length: 2\r\n\r\nhi",
    )
    .await;
    assert!(old.ends_with("\r\n\r\n2"), "{old}");
}

#[tokio::test]
async fn bodies_over_the_cap_are_refused_however_they_come() {
    let server = server();
    let refused = (413, "too_large".to_owned());
    let large = vec![b'x'; 1_000_000];
    let length = format!("Content-Length: {}\r\n", large.len());
    assert_eq!(post(&server, &length, &large).await, refused);
    let huge = "Content-Length: 10000000000\r\nExpect: 100-continue\r\n";
    assert_eq!(post(&server, huge, b"").await, refused);
    let mut chunks = format!("{:x}\r\n", large.len()).into_bytes();
    chunks.extend_from_slice(&large);
    chunks.extend_from_slice(b"\r\n0\r\n\r\n");
    assert_eq!(
        post(&server, "Transfer-Encoding: chunked\r\n", &chunks).await,
        refused
    );
}

#[tokio::test]
async fn compressed_bodies_are_bounded_by_what_they_become() {
    let server = server();
    let send = async |plain: &[u8]| {
        let body = gzip(plain);
        let headers = format!(
            "Content-Encoding: gzip\r\nContent-Length: {}\r\n",
            body.len()
        );
        post(&server, &headers, &body).await
    };
    assert_eq!(send(&[b'x'; 10_000]).await, (200, "10000".to_owned()));
    assert_eq!(send(&[b'x'; 10_001]).await, (413, "too_large".to_owned()));
    // 5 MB that travel as 5 kB: the cap on what is sent does not see it.
    assert_eq!(
        send(&vec![0; 5_000_000]).await,
        (413, "too_large".to_owned())
    );
    let headers = "Content-Encoding: gzip\r\nContent-Length: 5\r\n";
    assert_eq!(
        post(&server, headers, b"hello").await,
        (400, "broken".to_owned())
    );
    let headers = "Content-Encoding: zstd\r\nContent-Length: 5\r\n";
    assert_eq!(
        post(&server, headers, b"hello").await,
        (415, "encoding".to_owned())
    );
}

#[tokio::test]
async fn a_slow_body_is_told_and_a_truncated_one_ends() {
    let server = server();
    let began = Instant::now();
    let slow = post(&server, "Content-Length: 10\r\n", b"hel").await;
    assert_eq!(slow, (408, "timeout".to_owned()));
    assert!(began.elapsed() < Duration::from_secs(3));
    let mut stream = server.connect().await;
    let head = b"POST /body HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\nhel";
    stream.write_all(head).await.unwrap();
    stream.shutdown().await.unwrap();
    let response = read_to_end(&mut stream).await;
    assert!(
        response.is_empty() || response.contains("truncated"),
        "{response}"
    );
}

#[tokio::test]
async fn the_silent_and_the_dripping_are_cut_off() {
    let server = server_with(|settings| settings.first_request = Duration::from_millis(300));
    let began = Instant::now();
    let mut silent = server.connect().await;
    assert_eq!(read_to_end(&mut silent).await, "");
    let mut dripping = server.connect().await;
    let mut drops = b"GET /peer HTTP/1.1\r\nHost: ttttttttttttttttttttttttttt".iter();
    let dripped = async {
        while dripping.write_all(&[*drops.next().unwrap()]).await.is_ok() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, dripped).await.expect("it is cut off");
    assert!(began.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn an_idle_connection_is_kept_and_then_closed() {
    let server = server_with(|settings| {
        settings.first_request = Duration::from_millis(250);
        settings.idle = Duration::from_millis(1_000);
    });
    let mut stream = server.connect().await;
    let request = b"GET /peer HTTP/1.1\r\nHost: t\r\n\r\n";
    let mut buffer = [0; 1000];
    for _ in 0..2 {
        stream.write_all(request).await.unwrap();
        let count = stream.read(&mut buffer).await.unwrap();
        assert!(buffer[..count].ends_with(b"127.0.0.1 false"));
        sleep(Duration::from_millis(300)).await;
    }
    let began = Instant::now();
    read_to_end(&mut stream).await;
    assert!(began.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn headers_are_bounded_in_bytes_and_number() {
    let server = server();
    let long = format!(
        "GET /peer HTTP/1.1\r\nHost: t\r\nX: {}\r\n\r\n",
        "x".repeat(40_000)
    );
    let response = exchange(&server, long.as_bytes()).await;
    assert!(response.starts_with("HTTP/1.1 431"), "{response}");
    let many = format!(
        "GET /peer HTTP/1.1\r\nHost: t\r\n{}\r\n",
        "X: y\r\n".repeat(101)
    );
    let response = exchange(&server, many.as_bytes()).await;
    assert!(response.starts_with("HTTP/1.1 431"), "{response}");
}

#[tokio::test]
async fn connections_over_the_cap_wait_and_websockets_count() {
    let server = server_with(|settings| settings.connections = 2);
    let first = server.websocket("raw").await;
    let _second = server.websocket("raw").await;
    let mut third = server.connect().await;
    third
        .write_all(b"GET /peer HTTP/1.1\r\nHost: t\r\n\r\n")
        .await
        .unwrap();
    let mut buffer = [0; 1000];
    let early = timeout(Duration::from_millis(300), third.read(&mut buffer)).await;
    assert!(early.is_err(), "it is not served yet");
    drop(first);
    let count = timeout(PATIENCE, third.read(&mut buffer))
        .await
        .expect("its turn")
        .unwrap();
    assert!(buffer[..count].starts_with(b"HTTP/1.1 200"));
}

#[tokio::test]
async fn a_client_that_has_left_is_not_worked_for() {
    let server = server();
    let mut stream = server.connect().await;
    stream
        .write_all(b"GET /slow HTTP/1.1\r\nHost: t\r\n\r\n")
        .await
        .unwrap();
    let began = Instant::now();
    stream.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut stream).await, "");
    assert!(began.elapsed() < Duration::from_millis(700));
}

async fn tls_client(server: &Server) -> TlsStream<TcpStream> {
    let pem = &server.certificate.as_ref().unwrap().certificate;
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    connector
        .connect(name, server.connect().await)
        .await
        .unwrap()
}

#[tokio::test]
async fn requests_and_websockets_run_over_tls() {
    let server = start_tls(Settings::default(), websocket::Settings::default());
    let mut stream = tls_client(&server).await;
    let request = b"GET /peer HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let response = read_to_end(&mut stream).await;
    assert!(response.ends_with("127.0.0.1 true"), "{response}");
    let stays = "strict-transport-security: max-age=31536000\r\n";
    assert!(response.contains(stays), "{response}");
    let mut client = Client::upgrade(tls_client(&server).await, "framed", "").await;
    client.expect(0x81, b"o").await;
    let text = "x".repeat(50_000);
    client.text(&format!("\"{text}\"")).await;
    client
        .expect(0x81, format!("a[\"{text}\"]").as_bytes())
        .await;
    client.send(0x88, &1000u16.to_be_bytes()).await;
    client.expect_close(1000).await;
    client.expect_end().await;
    server.until(|bench| &bench.closed, 1).await;
}

#[tokio::test]
async fn a_handshake_that_never_comes_is_cut_off() {
    let handshake = Duration::from_millis(300);
    let settings = Settings {
        handshake,
        ..Settings::default()
    };
    let server = start_tls(settings, websocket::Settings::default());
    let mut silent = server.connect().await;
    assert_eq!(read_to_end(&mut silent).await, "");
    // Plain HTTP on a TLS port ends too, and does not disturb the next one.
    exchange(&server, b"GET /peer HTTP/1.1\r\nHost: t\r\n\r\n").await;
    tls_client(&server).await;
}

#[tokio::test]
async fn a_stop_finishes_requests_in_flight_and_drops_the_rest() {
    let server = server_with(|settings| settings.drain = Duration::from_secs(3));
    let mut idle = server.connect().await;
    idle.write_all(b"GET /peer HTTP/1.1\r\nHost: t\r\n\r\n")
        .await
        .unwrap();
    let mut buffer = [0; 1000];
    let count = idle.read(&mut buffer).await.unwrap();
    assert!(count > 0);
    let mut busy = server.connect().await;
    busy.write_all(b"GET /slow HTTP/1.1\r\nHost: t\r\n\r\n")
        .await
        .unwrap();
    let mut stuck = server.connect().await;
    stuck.write_all(b"GET /peer HTTP/1.1\r\nHo").await.unwrap();
    sleep(Duration::from_millis(100)).await;
    server.stop();
    read_to_end(&mut idle).await;
    let response = read_to_end(&mut busy).await;
    assert!(response.ends_with("\r\n\r\nslow"), "{response}");
    timeout(PATIENCE, server.served)
        .await
        .expect("it ends")
        .unwrap();
    assert!(
        TcpStream::connect(server.address).await.is_err(),
        "nobody listens"
    );
}
