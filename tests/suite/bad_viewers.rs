//! Viewers that do not do as they should: each hears why, and the broker goes on.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use crate::broker::{Broker, TOKEN};
use crate::hosts::Host;
use crate::viewer::{Heard, Viewer};

async fn authenticated(broker: &Broker) -> Viewer {
    let mut viewer = Viewer::connect(broker).await;
    viewer
        .say(&json!({ "type": "auth", "data": { "token": TOKEN } }))
        .await;
    viewer
}

#[tokio::test]
async fn unknown_and_malformed_tokens_are_unauthorized() {
    let broker = Broker::start(&[]).await;
    for token in [
        "",
        "nonsense",
        "abk_test_token_0123456789abcdeX",
        &"x".repeat(10_000),
    ] {
        let mut viewer = Viewer::connect(&broker).await;
        viewer
            .say(&json!({ "type": "auth", "data": { "token": token } }))
            .await;
        assert_eq!(viewer.refusal().await, "unauthorized");
    }
}

#[tokio::test]
async fn a_logged_out_token_is_unauthorized() {
    let broker = Broker::start(&[]).await;
    let login = json!({ "email": "admin@example.com", "password": crate::broker::PASSWORD });
    let (status, said) = broker.post("/api/v1/fleet/login", login).await;
    assert_eq!(status, 200, "{said}");
    let token = said["token"].as_str().unwrap();
    let bearer = format!("Bearer {token}");
    let out = broker
        .send(
            http::Method::POST,
            "/api/v1/fleet/logout",
            &[("authorization", &bearer)],
            "{}".into(),
        )
        .await;
    assert_eq!(out.0, 200, "{}", out.1);
    let mut viewer = Viewer::connect(&broker).await;
    viewer
        .say(&json!({ "type": "auth", "data": { "token": token } }))
        .await;
    assert_eq!(viewer.refusal().await, "unauthorized");
}

#[tokio::test]
async fn whatever_comes_before_auth_is_closed_with_a_reason() {
    let broker = Broker::start(&[]).await;
    let deep = format!(r#"{{"type":"auth","data":{}"#, "[".repeat(60_000));
    for text in [
        r#"{"type":"select_campaign","data":{"campaign_id":1}}"#,
        "nonsense",
        "{}",
        &deep,
    ] {
        let mut viewer = Viewer::connect(&broker).await;
        viewer.say_text(text).await;
        let Heard::Closed(Some((1008, reason))) = viewer.hear().await else {
            panic!("{text:.40}")
        };
        assert_eq!(reason, "expected auth");
    }
}

#[tokio::test]
async fn choices_that_cannot_be_met_hear_the_texts_of_the_specification() {
    let broker = Broker::start(&[]).await;
    Host::enroll_many(&broker, 1).await;
    let campaign = broker.run_on_all("select 1").await;
    let cases = [
        (
            json!({ "campaign_id": 0 }),
            "0 is not a valid campaign ID".to_owned(),
        ),
        (
            json!({ "campaign_id": -1 }),
            "error unmarshaling select_campaign data".to_owned(),
        ),
        (
            json!({ "campaign_id": "1" }),
            "error unmarshaling select_campaign data".to_owned(),
        ),
        (
            json!({ "campaign_id": 77 }),
            "cannot find campaign for ID 77".to_owned(),
        ),
        (
            json!({ "campaign_id": u64::MAX }),
            format!("cannot find campaign for ID {}", u64::MAX),
        ),
        (
            json!({ "campaign_id": campaign, "after": 5 }),
            format!("cannot resume campaign {campaign} after 5: its log ends before"),
        ),
    ];
    for (data, text) in cases {
        let mut viewer = authenticated(&broker).await;
        viewer
            .say(&json!({ "type": "select_campaign", "data": data }))
            .await;
        assert_eq!(viewer.refusal().await, text);
    }
    let mut viewer = authenticated(&broker).await;
    viewer
        .say_text(r#"{"type":"select_campaign","data":{"campaign_id":18446744073709551616}}"#)
        .await;
    assert_eq!(
        viewer.refusal().await,
        "error unmarshaling select_campaign data"
    );
}

#[tokio::test]
async fn binary_frames_are_taken_like_text_and_oversized_ones_refused() {
    let broker = Broker::start(&[]).await;
    let mut viewer = Viewer::connect(&broker).await;
    viewer
        .say_frame(Message::binary(
            r#"{"type":"auth","data":{"token":"nonsense"}}"#,
        ))
        .await;
    assert_eq!(viewer.refusal().await, "unauthorized");
    let mut viewer = Viewer::connect(&broker).await;
    viewer.say_frame(Message::text("x".repeat(3 << 20))).await;
    match viewer.hear().await {
        Heard::Closed(Some((1009, _))) | Heard::Closed(None) => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_viewer_that_never_authenticates_is_closed_after_ten_seconds() {
    let broker = Broker::start(&[]).await;
    let mut viewer = Viewer::connect(&broker).await;
    let since = std::time::Instant::now();
    let Heard::Closed(Some((1008, reason))) = viewer.hear().await else {
        panic!("no close")
    };
    assert_eq!(reason, "authentication timed out");
    let took = since.elapsed();
    assert!(
        took > Duration::from_secs(9) && took < Duration::from_secs(20),
        "{took:?}"
    );
}

#[tokio::test]
async fn a_viewer_that_never_reads_costs_the_broker_no_memory_and_the_others_nothing() {
    const HOSTS: usize = 400;
    let broker = Broker::start(&["--log-mib", "8"]).await;
    let hosts = Host::enroll_many(&broker, HOSTS).await;
    let campaign = broker.run_on_all("select 1").await;
    let mut never = Viewer::watch(&broker, campaign, 0).await;
    never.message().await;
    let mut quick = Viewer::watch(&broker, campaign, 0).await;
    let before = resident_kib(broker.pid());
    let wide = "w".repeat(200_000);
    for host in &hosts {
        assert_eq!(
            host.answer(&broker, campaign, json!([{ "wide": wide }]))
                .await,
            200
        );
        quick.until_results(quick.seqs.len() + 1).await;
    }
    let grown = resident_kib(broker.pid()).saturating_sub(before);
    assert!(
        grown < 48 * 1024,
        "80 MB of answers, 8 MiB of memory for them, grew by {grown} KiB"
    );
    never.until_results(HOSTS).await;
    assert_eq!(
        never.seqs,
        (1..=HOSTS as u64).collect::<Vec<_>>(),
        "and all is there when it reads at last"
    );
}

fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A WebSocket without any help.
async fn upgraded(broker: &Broker) -> TcpStream {
    let mut tcp = TcpStream::connect(&broker.address).await.unwrap();
    let request = format!(
        "GET /api/v1/fleet/results/websocket HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        broker.address
    );
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut reply = [0u8; 1024];
    let read = tcp.read(&mut reply).await.unwrap();
    assert!(String::from_utf8_lossy(&reply[..read]).starts_with("HTTP/1.1 101"));
    tcp
}

async fn until_the_end(tcp: &mut TcpStream) -> Vec<u8> {
    let mut heard = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(10), tcp.read_to_end(&mut heard)).await;
    ended.expect("the connection ends").ok();
    heard
}

#[tokio::test]
async fn a_flood_of_frames_that_carry_nothing_ends_the_connection() {
    let broker = Broker::start(&[]).await;
    let ping = [0x89, 0x80, 0, 0, 0, 0];
    // A message that never ends, in empty parts.
    let part = [0x00, 0x80, 0, 0, 0, 0];
    let begun = [0x01, 0x80, 0, 0, 0, 0];
    for (begun, frame) in [(&[][..], ping), (&begun, part)] {
        let mut tcp = upgraded(&broker).await;
        let flood = [begun, &frame.repeat(9_000)].concat();
        tcp.write_all(&flood).await.unwrap();
        let (mut reading, mut writing) = tcp.into_split();
        let more = tokio::spawn(async move { writing.write_all(&frame.repeat(9_000)).await });
        let mut heard = Vec::new();
        let ended =
            tokio::time::timeout(Duration::from_secs(10), reading.read_to_end(&mut heard)).await;
        ended.expect("the connection ends").ok();
        let said = String::from_utf8_lossy(&heard);
        assert!(said.contains("too many frames"), "{} bytes", heard.len());
        // It may be cut off.
        let _ = more.await.unwrap();
    }
}

#[tokio::test]
async fn a_client_frame_without_a_mask_is_a_protocol_error() {
    let broker = Broker::start(&[]).await;
    let mut tcp = upgraded(&broker).await;
    tcp.write_all(&[0x81, 0x02, b'{', b'}']).await.unwrap();
    let heard = until_the_end(&mut tcp).await;
    assert_eq!(
        heard.get(..4),
        Some(&[0x88, heard[1], 0x03, 0xea][..]),
        "close 1002"
    );
}
