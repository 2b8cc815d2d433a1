//! Bad input: every kind is answered in a shape that osquery knows, and none costs more than it should.

use std::io::Write as _;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::future::join_all;
use http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::bed::{Bed, SECRET, live};

const ROUTES: [&str; 4] = ["config", "distributed/read", "distributed/write", "log"];

fn is_refused(said: &Value, node_invalid: bool) -> bool {
    let text = said["error"].as_str().is_some_and(|text| !text.is_empty());
    text && said.get("node_invalid").is_some_and(|value| value == true) == node_invalid
}

#[tokio::test]
async fn without_a_good_node_key_nothing_else_of_a_body_is_looked_at() {
    let bed = Bed::new().await;
    let bodies = [
        json!({}),
        json!({ "node_key": null }),
        json!({ "node_key": 7 }),
        json!({ "node_key": "" }),
        json!({ "node_key": "x".repeat(100_000) }),
        json!({ "node_key": "wrong", "queries": 5, "log_type": 6 }),
    ];
    let calls = ROUTES
        .iter()
        .flat_map(|route| bodies.iter().map(|body| bed.post(route, body)));
    for (status, said) in join_all(calls).await {
        assert_eq!(status, 401, "{said}");
        assert!(is_refused(&said, true), "{said}");
    }
}

#[tokio::test]
async fn what_is_not_json_is_a_bad_request() {
    let bed = Bed::new().await;
    let host = bed.idle_host("web-1").await;
    let key = &host.node_key;
    let bodies = [
        String::new(),
        "null".to_owned(),
        "[]".to_owned(),
        "\u{0}".to_owned(),
        "{".to_owned(),
        r#"{"queries":{"a":[]"#.to_owned(),
        format!(r#"{{"node_key":"{key}","queries":{{"a":[]"#),
        format!(r#"{{"node_key":"{key}","queries":[1]}}"#),
        format!(r#"{{"node_key":"{key}","statuses":{{"a" 1}}}}"#),
        format!(r#"{{"queries":{{}},"node_key":"{key}"}} x"#),
    ];
    for body in bodies {
        let (status, said) = bed
            .send(
                Method::POST,
                "/api/osquery/distributed/write",
                &[],
                body.clone(),
            )
            .await;
        assert_eq!(status, 400, "{body} {said}");
        assert!(is_refused(&said, false), "{body} {said}");
        let (status, said) = bed
            .send(Method::POST, "/api/osquery/enroll", &[], body.clone())
            .await;
        assert!(matches!(status, 400 | 401), "{body} {said}");
    }
}

#[tokio::test]
async fn deep_nesting_is_refused_cheaply() {
    let bed = Bed::new().await;
    let host = bed.idle_host("web-1").await;
    let id = bed.campaign("select 1", &[host.id()]).await;
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    let body = format!(
        r#"{{"node_key":"{}","queries":{{"{}":{deep}}}}}"#,
        host.node_key,
        live(id)
    );
    let began = Instant::now();
    for route in ROUTES {
        let (status, said) = bed
            .send(
                Method::POST,
                &format!("/api/osquery/{route}"),
                &[],
                body.clone(),
            )
            .await;
        assert!(
            matches!(
                (route, status),
                (_, 400) | ("config" | "distributed/read", 200)
            ),
            "{route} {status} {said}"
        );
    }
    let last = format!(
        r#"{{"queries":{{"{}":{deep}}},"node_key":"{}"}}"#,
        live(id),
        host.node_key
    );
    assert_eq!(
        bed.send(Method::POST, "/api/osquery/distributed/write", &[], last)
            .await
            .0,
        400
    );
    assert_eq!(
        bed.send(Method::POST, "/api/osquery/enroll", &[], deep)
            .await
            .0,
        400
    );
    assert!(began.elapsed() < Duration::from_secs(2));
    assert!(bed.answers(id).await.is_empty());
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn bodies_may_be_gzip_but_no_bombs() {
    let bed = Bed::new().await;
    let host = bed.idle_host("web-1").await;
    let encoding = [("content-encoding", "gzip")];
    let read = "/api/v1/osquery/distributed/read";
    let body = gzip(json!({ "node_key": host.node_key }).to_string().as_bytes());
    assert_eq!(
        bed.send(Method::POST, read, &encoding, body.clone())
            .await
            .0,
        200
    );
    let cut = body[..body.len() - 4].to_vec();
    for body in [gzip(&vec![b' '; 40 << 20]), cut, b"no gzip".to_vec()] {
        let (status, said) = bed.send(Method::POST, read, &encoding, body).await;
        assert!(matches!(status, 400 | 413), "{status} {said}");
        assert!(is_refused(&said, false), "{said}");
    }
    let other = [("content-encoding", "br")];
    assert_eq!(bed.send(Method::POST, read, &other, body).await.0, 415);
}

#[tokio::test]
async fn bodies_without_a_length_are_read_and_endless_ones_refused() {
    let bed = Bed::new().await;
    let host = bed.idle_host("web-1").await;
    let body = json!({ "node_key": host.node_key }).to_string();
    let head = "POST /api/osquery/distributed/read HTTP/1.1\r\nHost: t\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
    let (first, rest) = body.split_at(5);
    let chunks = format!(
        "{head}5\r\n{first}\r\n{:x}\r\n{rest}\r\n0\r\n\r\n",
        rest.len()
    );
    assert!(
        exchange(&bed, chunks.as_bytes())
            .await
            .starts_with("HTTP/1.1 200")
    );
    let length = "POST /api/osquery/log HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: 99999999999\r\nExpect: 100-continue\r\n\r\n";
    assert!(
        exchange(&bed, length.as_bytes())
            .await
            .starts_with("HTTP/1.1 413")
    );
    let large = vec![b' '; (16 << 20) + 1];
    let (status, said) = bed
        .send(Method::POST, "/api/osquery/distributed/write", &[], large)
        .await;
    assert_eq!(status, 413, "{said}");
    assert!(is_refused(&said, false), "{said}");
}

#[tokio::test]
async fn a_body_that_is_cut_off_changes_nothing() {
    let bed = Bed::new().await;
    let host = bed.idle_host("web-1").await;
    let id = bed.campaign("select 1", &[host.id()]).await;
    let body = format!(
        r#"{{"node_key":"{}","queries":{{"{}":[]}}}}"#,
        host.node_key,
        live(id)
    );
    let head = format!(
        "POST /api/osquery/distributed/write HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n",
        body.len() + 1
    );
    let mut stream = TcpStream::connect(bed.address).await.unwrap();
    stream
        .write_all(format!("{head}{body}").as_bytes())
        .await
        .unwrap();
    stream.shutdown().await.unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.unwrap();
    assert!(
        reply.is_empty() || reply.starts_with("HTTP/1.1 400"),
        "{reply}"
    );
    assert!(bed.answers(id).await.is_empty());
}

async fn exchange(bed: &Bed, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(bed.address).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.unwrap();
    reply
}

#[tokio::test]
async fn other_paths_and_methods_are_told_so() {
    let bed = Bed::new().await;
    for (method, path, expected) in [
        (Method::GET, "/api/osquery/enroll", 405),
        (Method::PUT, "/api/v1/osquery/distributed/read", 405),
        (Method::POST, "/api/osquery/nothing", 404),
        (Method::POST, "/api/v1/osquery/carve/begin", 501),
        (Method::POST, "/api/osquery/carve/block", 501),
    ] {
        let (status, said) = bed.send(method, path, &[], "{}").await;
        assert_eq!(status, expected, "{path} {said}");
        assert!(is_refused(&said, false), "{path} {said}");
    }
    let (status, said) = bed
        .send(Method::POST, "/api/v1/fleet/enroll", &[], "{}")
        .await;
    assert_eq!(status, 404);
    assert!(said.is_string(), "another face answers this: {said}");
}

#[tokio::test]
async fn an_enrolment_needs_a_secret_and_an_identifier() {
    let bed = Bed::new().await;
    for body in [
        json!({}),
        json!({ "enroll_secret": "wrong", "host_identifier": "a" }),
        json!({ "enroll_secret": "", "host_identifier": "a" }),
        json!({ "enroll_secret": [SECRET], "host_identifier": "a" }),
        json!({ "enroll_secret": SECRET }),
        json!({ "enroll_secret": SECRET, "host_identifier": "  " }),
        json!({ "enroll_secret": SECRET, "host_identifier": "x".repeat(256) }),
    ] {
        let (status, said) = bed.post("enroll", &body).await;
        assert_eq!(status, 401, "{said}");
        assert!(is_refused(&said, true), "{said}");
    }
    assert!(bed.catalog.read().hosts.all().is_empty());
    let odd =
        json!({ "os_version": 5, "system_info": { "hostname": { "a": 1 }, "uuid": 7 }, "x": null });
    let body = json!({ "enroll_secret": SECRET, "host_identifier": " a ", "host_details": odd });
    assert_eq!(bed.post("enroll", &body).await.0, 200);
    assert_eq!(
        bed.catalog
            .read()
            .hosts
            .by_identifier("a")
            .unwrap()
            .details
            .uuid,
        "7"
    );
}

#[tokio::test]
async fn failed_enrolments_are_limited_and_good_ones_never() {
    let bed = Bed::new().await;
    let wrong = json!({ "enroll_secret": "wrong", "host_identifier": "a" });
    let mut statuses = Vec::new();
    for _ in 0..110 {
        statuses.push(bed.post("enroll", &wrong).await.0);
    }
    assert_eq!(statuses[0], 401);
    assert_eq!(statuses.last(), Some(&429));
    for number in 0..20 {
        bed.enroll(&format!("host-{number}"), SECRET).await;
    }
    bed.pass(60);
    assert_eq!(
        bed.post("enroll", &wrong).await.0,
        401,
        "and strangers may try again later"
    );
}
