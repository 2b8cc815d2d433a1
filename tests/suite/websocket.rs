//! WebSocket sessions over real sockets: framing, limits, clients that misbehave, the stop.

use std::sync::atomic::Ordering;
use std::time::Duration;

use answerback::net;
use answerback::sockjs::settings::Timing;
use answerback::transport::websocket::Settings;
use flate2::write::DeflateEncoder;
use flate2::{Compression, Decompress, FlushDecompress};
use std::io::Write;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, sink};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::wire::{Client, PATIENCE, Server, exchange, masked, start};

const NORMAL: [u8; 2] = 1000u16.to_be_bytes();

fn server() -> Server {
    start(net::Settings::default(), Settings::default())
}

fn server_with(change: impl FnOnce(&mut Settings)) -> Server {
    let mut settings = Settings::default();
    change(&mut settings);
    start(net::Settings::default(), settings)
}

#[tokio::test]
async fn raw_clients_hear_their_own_bytes() {
    let server = server();
    let mut client = server.websocket("raw").await;
    for text in ["", "hello", "\u{2028}\u{ffff}", &"ä".repeat(20_000)] {
        client.text(text).await;
        client.expect(0x81, text.as_bytes()).await;
    }
    client.send(0x88, &NORMAL).await;
    client.expect(0x88, &NORMAL).await;
    client.expect_end().await;
    server.until(|bench| &bench.closed, 1).await;
}

#[tokio::test]
async fn framed_clients_hear_sockjs_frames() {
    let server = server();
    let mut client = server.websocket("framed").await;
    client.expect(0x81, b"o").await;
    client.text("").await;
    client.text("[]").await;
    client.text(r#"["a","b\u2028"]"#).await;
    client.expect(0x81, br#"a["a","b\u2028"]"#).await;
    client.text(r#""bare""#).await;
    client.expect(0x81, br#"a["bare"]"#).await;
    client.text(r#"["close"]"#).await;
    client.expect(0x81, br#"c[3000,"Go away!"]"#).await;
    client.expect_close(1000).await;
    client.send(0x88, &NORMAL).await;
    client.expect_end().await;
    server.until(|bench| &bench.closed, 1).await;
}

#[tokio::test]
async fn broken_json_ends_a_framed_session_without_a_word_more() {
    let server = server();
    let mut client = server.websocket("framed").await;
    client.expect(0x81, b"o").await;
    client.text(r#"["a"#).await;
    client.text(r#"["b"]"#).await;
    client.expect_close(3000).await;
    client.send(0x88, &NORMAL).await;
    client.expect_end().await;
    assert_eq!(server.bench.received.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_application_closes_with_its_code_and_reason() {
    let server = server();
    let mut client = server.websocket("raw").await;
    client.text("close").await;
    assert_eq!(client.expect_close(3000).await, "Go away!");
    client.send(0x88, &NORMAL).await;
    client.expect_end().await;
}

#[tokio::test]
async fn what_comes_with_the_handshake_is_read() {
    let server = server();
    let stream = server.connect().await;
    let early = masked(0x81, b"early");
    let mut client = Client::upgrade_with(stream, "raw", "", &early).await;
    client.expect(0x81, b"early").await;
}

#[tokio::test]
async fn bytes_may_come_one_by_one_and_messages_in_fragments() {
    let server = server();
    let mut client = server.websocket("raw").await;
    let parts = [
        masked(0x01, b"fr\xc3"),
        masked(0x89, b"ping"),
        masked(0x00, b"\xa4g"),
        masked(0x80, b""),
    ];
    for byte in parts.concat() {
        client.stream.write_all(&[byte]).await.unwrap();
    }
    client.expect(0x8a, b"ping").await;
    client.expect(0x81, "fräg".as_bytes()).await;
}

#[tokio::test]
async fn violations_are_answered_by_their_codes() {
    let server = server();
    let unmasked = b"\x81\x05hello".to_vec();
    let oversized = masked(0x81, &vec![b'x'; 64 * 1024 + 1])[..14].to_vec();
    for (bytes, code) in [
        (unmasked, 1002),
        (oversized, 1009),
        (masked(0x81, b"caf\xe9"), 1007),
        (masked(0x82, b"binary"), 1003),
        (masked(0xc1, b"rsv1"), 1002),
        (masked(0x83, b""), 1002),
        (masked(0x88, &1005u16.to_be_bytes()), 1002),
    ] {
        let mut client = server.websocket("raw").await;
        // More behind it: unread input must not cost the client the close frame.
        let more = masked(0x81, &[b'y'; 10_000]);
        client
            .stream
            .write_all(&[bytes, more].concat())
            .await
            .unwrap();
        client.expect_close(code).await;
        client.expect_end_or_shut(code).await;
    }
    server.until(|bench| &bench.closed, 7).await;
    assert_eq!(server.bench.received.load(Ordering::SeqCst), 0);
}

impl Client<tokio::net::TcpStream> {
    /// After a binary message the session still listens for a close frame.
    async fn expect_end_or_shut(&mut self, code: u16) {
        if code == 1003 {
            self.send(0x88, &NORMAL).await;
        }
        self.expect_end().await;
    }
}

#[tokio::test]
async fn requests_that_are_no_handshake_are_told_why() {
    let server = server();
    let ask = |request: String| {
        let server = &server;
        async move { exchange(server, request.as_bytes()).await }
    };
    let tail = "Host: t\r\nConnection: close\r\n\r\n";
    let plain = ask(format!("GET /raw HTTP/1.1\r\n{tail}")).await;
    assert!(plain.starts_with("HTTP/1.1 400"), "{plain}");
    assert!(
        plain.ends_with("Can \"Upgrade\" only to \"WebSocket\"."),
        "{plain}"
    );
    let half = ask(format!("GET /raw HTTP/1.1\r\nUpgrade: websocket\r\n{tail}")).await;
    assert!(
        half.ends_with("\"Connection\" must be \"Upgrade\"."),
        "{half}"
    );
    let post = ask(format!("POST /raw HTTP/1.1\r\n{tail}")).await;
    assert!(post.starts_with("HTTP/1.1 405"), "{post}");
    assert!(
        post.contains("allow: GET\r\n") && !post.contains("\ncontent-type:"),
        "{post}"
    );
    let upgrade = "Upgrade: websocket\r\nConnection: upgrade, close\r\n";
    let old = format!("GET /raw HTTP/1.1\r\nHost: t\r\n{upgrade}Sec-WebSocket-Version: 99\r\n\r\n");
    let old = ask(old).await;
    assert!(old.starts_with("HTTP/1.1 426"), "{old}");
    assert!(old.contains("sec-websocket-version: 13\r\n"), "{old}");
}

#[tokio::test]
async fn silent_clients_get_heartbeats_and_need_not_answer() {
    let server = server_with(|settings| settings.timing.heartbeat = Duration::from_millis(50));
    let mut raw = server.websocket("raw").await;
    let mut framed = server.websocket("framed").await;
    framed.expect(0x81, b"o").await;
    for _ in 0..3 {
        raw.expect(0x89, b"").await;
        framed.expect(0x81, b"h").await;
    }
}

#[tokio::test]
async fn compressed_messages_travel_both_ways_and_bombs_do_not() {
    let server = server();
    let offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";
    let mut client = Client::upgrade(server.connect().await, "raw", offer).await;
    assert!(
        client
            .head
            .contains("server_no_context_takeover; client_no_context_takeover")
    );
    let text = "row,".repeat(1000);
    client.send(0xc1, &deflated(text.as_bytes())).await;
    let (first, payload) = client.frame().await.unwrap();
    assert_eq!(first, 0xc1);
    assert!(payload.len() < 200);
    let mut inflated = Vec::with_capacity(text.len() + 1);
    let tail = [&payload[..], &[0, 0, 0xff, 0xff]].concat();
    Decompress::new(false)
        .decompress_vec(&tail, &mut inflated, FlushDecompress::Sync)
        .unwrap();
    assert_eq!(inflated, text.as_bytes());
    client.text("small").await;
    client.expect(0x81, b"small").await;
    client.send(0xc1, &deflated(&vec![0; 20_000_000])).await;
    client.expect_close(1009).await;
    client.expect_end().await;
}

fn deflated(plain: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(plain).unwrap();
    encoder.flush().unwrap();
    let bytes = encoder.get_ref();
    bytes[..bytes.len() - 4].to_vec()
}

#[tokio::test]
async fn sessions_that_share_a_task_are_served_and_end_each_alone() {
    let server = server();
    let mut clients = Vec::new();
    for _ in 0..140 {
        clients.push(server.websocket("raw").await);
    }
    clients[70].text("panic").await;
    clients[70].expect_end().await;
    server.until(|bench| &bench.closed, 1).await;
    clients.swap_remove(70);
    let mut faulty = clients.swap_remove(20);
    faulty.text("panic at the end").await;
    faulty.expect(0x81, b"panic at the end").await;
    drop(faulty);
    server.until(|bench| &bench.closed, 2).await;
    for (number, client) in clients.iter_mut().enumerate() {
        client.text(&number.to_string()).await;
    }
    for (number, client) in clients.iter_mut().enumerate() {
        client.expect(0x81, number.to_string().as_bytes()).await;
    }
    let mut leaving = clients.split_off(50);
    for client in &mut leaving {
        client.send(0x88, &NORMAL).await;
    }
    server.until(|bench| &bench.closed, 90).await;
    // They find places that others have left, and are not taken for them.
    for _ in 0..50 {
        clients.push(server.websocket("raw").await);
    }
    for client in &mut clients {
        client.text("hello").await;
    }
    for client in &mut clients {
        client.expect(0x81, b"hello").await;
    }
    drop((clients, leaving));
    server.until(|bench| &bench.closed, 190).await;
    server.stop();
    server
        .until_no_task_is_left("no task outlives its sessions")
        .await;
}

#[tokio::test]
async fn busy_sessions_do_not_keep_a_neighbour_waiting() {
    let server = server();
    let mut drains = JoinSet::new();
    for _ in 0..60 {
        let mut busy = server.websocket("raw").await;
        busy.text("flood").await;
        drains.spawn(async move { copy(&mut busy.stream, &mut sink()).await });
    }
    let mut quiet = server.websocket("raw").await;
    for text in ["one", "two", "three"] {
        quiet.text(text).await;
        quiet.expect(0x81, text.as_bytes()).await;
    }
    drains.shutdown().await;
    drop(quiet);
    server.until(|bench| &bench.closed, 61).await;
}

#[tokio::test]
async fn a_client_that_vanishes_is_forgotten() {
    let server = server();
    let mut client = server.websocket("raw").await;
    client.text("x").await;
    client.expect(0x81, b"x").await;
    drop(client);
    server.until(|bench| &bench.closed, 1).await;
    // One that vanishes in the middle of a frame, too.
    let mut client = server.websocket("raw").await;
    client
        .stream
        .write_all(&masked(0x81, &[b'x'; 100])[..50])
        .await
        .unwrap();
    drop(client);
    server.until(|bench| &bench.closed, 2).await;
}

#[tokio::test]
async fn a_client_that_never_reads_costs_the_kernel_and_not_the_server() {
    let server = server();
    let mut client = server.websocket("raw").await;
    client.text("flood").await;
    server.until(|bench| &bench.handed, 1).await;
    let mut before = 0;
    // Until the sockets' buffers are full; then nothing more is asked for.
    let settled = async {
        loop {
            sleep(Duration::from_millis(200)).await;
            let handed = server.bench.handed.load(Ordering::SeqCst);
            if handed == before {
                return handed;
            }
            before = handed;
        }
    };
    let handed = timeout(PATIENCE, settled).await.expect("it settles");
    assert!(handed < 32 << 20, "{handed}");
    // It still hears the client leave.
    client.send(0x88, &NORMAL).await;
    server.until(|bench| &bench.closed, 1).await;
}

#[tokio::test]
async fn a_client_that_asks_and_never_reads_is_not_read_either() {
    let server = server();
    let mut client = server.websocket("raw").await;
    let question = masked(0x81, &[b'q'; 60_000]);
    let mut sent = 0;
    while let Ok(written) = timeout(
        Duration::from_millis(500),
        client.stream.write_all(&question),
    )
    .await
    {
        written.unwrap();
        sent += question.len();
        assert!(sent < 64 << 20, "the server has taken {sent} bytes");
    }
    let other = async {
        let mut other = server.websocket("raw").await;
        other.text("still here").await;
        other.expect(0x81, b"still here").await;
    };
    timeout(PATIENCE, other).await.expect("others are served");
}

#[tokio::test]
async fn a_stalled_client_is_dropped_after_its_time() {
    let stall = Duration::from_millis(300);
    let server = server_with(|settings| {
        settings.timing = Timing {
            stall,
            ..settings.timing
        }
    });
    let mut client = server.websocket("raw").await;
    client.text("flood").await;
    server.until(|bench| &bench.closed, 1).await;
    server.until_no_task_is_left("the task is gone").await;
}

#[tokio::test]
async fn a_slow_client_is_not_a_stalled_one() {
    let stall = Duration::from_millis(600);
    let server = server_with(|settings| {
        settings.timing = Timing {
            stall,
            ..settings.timing
        }
    });
    let mut client = server.websocket("raw").await;
    client.text("flood").await;
    let mut buffer = vec![0; 1 << 20];
    for _ in 0..15 {
        client.stream.read_exact(&mut buffer).await.unwrap();
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(server.bench.closed.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_flood_of_pings_is_answered_as_far_as_it_is_read() {
    let server = server();
    let mut client = server.websocket("raw").await;
    let pings = masked(0x89, &[b'p'; 100]).repeat(1000);
    for _ in 0..9 {
        client.stream.write_all(&pings).await.unwrap();
    }
    client.text("last").await;
    loop {
        match client.frame().await.unwrap() {
            (0x8a, payload) => assert_eq!(payload, [b'p'; 100]),
            (0x81, payload) => break assert_eq!(payload, b"last"),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_client_that_ignores_a_close_is_left() {
    let server = server_with(|settings| settings.close_wait = Duration::from_millis(200));
    let mut client = server.websocket("raw").await;
    client.text("close").await;
    client.expect_close(3000).await;
    client.text("I heard nothing").await;
    client.expect_end().await;
    assert_eq!(server.bench.received.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_graceful_stop_tells_everybody_and_waits_for_them() {
    let server = server_with(|settings| settings.goodbye_spread = Duration::from_millis(200));
    let mut raw = server.websocket("raw").await;
    let mut framed = server.websocket("framed").await;
    framed.expect(0x81, b"o").await;
    server.stop();
    assert_eq!(raw.expect_close(1001).await, "Server going away");
    framed.expect(0x81, br#"c[3000,"Go away!"]"#).await;
    framed.expect_close(1001).await;
    for client in [&mut raw, &mut framed] {
        client.send(0x88, &NORMAL).await;
        client.expect_end().await;
    }
    server.until_no_task_is_left("sessions end").await;
    timeout(PATIENCE, server.served)
        .await
        .expect("serving ends")
        .unwrap();
    assert_eq!(server.bench.closed.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_client_that_never_reads() {
    let server = server_with(|settings| settings.close_wait = Duration::from_millis(300));
    let mut client = server.websocket("raw").await;
    client.text("flood").await;
    server.until(|bench| &bench.handed, 1).await;
    sleep(Duration::from_millis(300)).await;
    server.stop();
    server.until_no_task_is_left("the session is cut").await;
    assert_eq!(server.bench.closed.load(Ordering::SeqCst), 1);
}
