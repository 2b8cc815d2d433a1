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

/// As osquery reads a reply: what it does not take for a failure it takes for a success, whatever the status, and then
/// forgets what it has sent.
fn is_sent_again(said: &Value) -> bool {
    !said.is_object() || said.get("error").is_some() || said["node_invalid"] == true
}

#[tokio::test]
async fn what_is_not_json_is_a_bad_request_that_is_not_made_again() {
    let bed = Bed::new().await;
    let bodies = ["", "null", "[]", "\u{0}", "{", r#"{"queries":{"a":[]"#];
    for body in bodies {
        for route in ["distributed/write", "log"] {
            let path = format!("/api/osquery/{route}");
            let (status, said) = bed.send(Method::POST, &path, &[], body).await;
            assert_eq!(status, 400, "{body} {said}");
            assert!(said["message"].is_string(), "{body} {said}");
            assert!(!is_sent_again(&said), "{body} {said}");
        }
        let (status, said) = bed
            .send(Method::POST, "/api/osquery/enroll", &[], body)
            .await;
        assert!(matches!(status, 400 | 401), "{body} {said}");
    }
}

#[tokio::test]
async fn of_a_body_that_breaks_off_what_was_whole_is_taken() {
    let bed = Bed::new().await;
    let host = bed.idle_host("web-1").await;
    let (one, two) = (
        bed.campaign("select 1", &[host.id()]).await,
        bed.campaign("select 2", &[host.id()]).await,
    );
    let key = &host.node_key;
    let rest = [
        "",
        "[",
        r#"[{"a":"#,
        "[}",
        r#"[{"a":1}"#,
        r#"[{"a":"1"}]}"#,
        r#"[{"a":"1"}]},"statuses":{"a" 1}}"#,
        r#"[{"a":"1"}]},"statuses":[1]} x"#,
    ];
    for rest in rest {
        let body = format!(
            r#"{{"node_key":"{key}","queries":{{"{}":[{{"x":"1"}}],"{}":{rest}"#,
            live(one),
            live(two)
        );
        let path = "/api/osquery/distributed/write";
        let (status, said) = bed.send(Method::POST, path, &[], body.clone()).await;
        assert_eq!((status, said), (200, json!({})), "{body}");
    }
    let named = [("authorization", &*format!("NodeKey {key}"))];
    for body in ["", "null", r#"{"queries":[1]}"#, r#"{"queries":{}"#] {
        for route in ["distributed/write", "log"] {
            let path = format!("/api/osquery/{route}");
            let (status, said) = bed.send(Method::POST, &path, &named, body).await;
            assert_eq!((status, said), (200, json!({})), "{body}");
        }
    }
    assert_eq!(bed.answers(one).await[0]["rows"][0]["x"], "1");
    let two = bed.answers(two).await;
    assert_eq!(two.len(), 1);
    assert_eq!(
        two[0]["error"],
        "unreadable answer: the host's message broke off or is not JSON"
    );
}

#[tokio::test]
async fn who_names_itself_before_the_body_is_judged_before_it() {
    let bed = Bed::new().await;
    let host = bed.idle_host("web-1").await;
    let id = bed.campaign("select 1", &[host.id()]).await;
    let good = format!("NodeKey {}", host.node_key);
    let body = json!({ "queries": { live(id): [{ "x": "1" }] } }).to_string();
    for (authorization, expected) in [("NodeKey wrong", 401), (&*good, 200), ("Basic eDp5", 401)] {
        for route in ROUTES {
            let path = format!("/api/osquery/{route}");
            let named = [("authorization", authorization)];
            let (status, said) = bed.send(Method::POST, &path, &named, body.clone()).await;
            assert_eq!(status, expected, "{route} {authorization} {said}");
            assert_eq!(is_refused(&said, true), expected == 401, "{said}");
        }
    }
    assert_eq!(bed.answers(id).await.len(), 1);
}

#[tokio::test]
async fn an_answer_that_is_too_large_fails_alone() {
    let bed = Bed::new().await;
    let host = bed.idle_host("web-1").await;
    let names = ["select 1", "select 2", "select 3"];
    let mut ids = Vec::new();
    for sql in names {
        ids.push(bed.campaign(sql, &[host.id()]).await);
    }
    let large = "x".repeat(17 << 20);
    let plain = json!({
        "queries": {
            live(ids[0]): [{ "a": "1" }],
            live(ids[1]): [{ "a": large }],
            live(ids[2]): [{ "a": "3" }],
            "fleet_distributed_query_999999": [{ "a": large }],
            "other": large,
        },
        "statuses": { live(ids[0]): 0, live(ids[1]): 0, live(ids[2]): 0 },
        "node_key": host.node_key,
    });
    let plain = plain.to_string();
    for (body, encoding) in [
        (plain.clone().into_bytes(), vec![]),
        (gzip(plain.as_bytes()), vec![("content-encoding", "gzip")]),
    ] {
        let path = "/api/osquery/distributed/write";
        let (status, said) = bed.send(Method::POST, path, &encoding, body).await;
        assert_eq!((status, said), (200, json!({})));
    }
    for (id, rows) in [(ids[0], json!("1")), (ids[2], json!("3"))] {
        let answers = bed.answers(id).await;
        assert_eq!(answers.len(), 1);
        assert_eq!(answers[0]["rows"][0]["a"], rows);
        assert!(answers[0]["error"].is_null());
    }
    let answers = bed.answers(ids[1]).await;
    assert_eq!(answers.len(), 1);
    assert_eq!(
        answers[0]["error"],
        "answer too large: 17.0 MiB, the limit is 16 MiB for all answers of one check-in; ask for fewer columns or rows"
    );
    assert_eq!(answers[0]["rows"], json!([]));
}

#[tokio::test]
async fn a_log_that_is_too_large_loses_only_the_lines_that_do_not_fit() {
    let bed = Bed::new().await;
    let host = bed.idle_host("web-1").await;
    let body = json!({
        "log_type": "result",
        "data": [{ "a": 1 }, { "b": "x".repeat(17 << 20) }, { "c": 3 }],
        "node_key": host.node_key,
    });
    assert_eq!(bed.post("log", &body).await, (200, json!({})));
    let odd = json!({ "log_type": "other", "data": [{}], "node_key": host.node_key });
    assert_eq!(bed.post("log", &odd).await, (200, json!({})));
    let lines = bed.file("osquery_result.log");
    assert_eq!(lines.lines().count(), 2, "{} bytes", lines.len());
}

#[tokio::test]
async fn deep_nesting_is_refused_cheaply() {
    let bed = Bed::new().await;
    let host = bed.idle_host("web-1").await;
    let (id, other) = (
        bed.campaign("select 1", &[host.id()]).await,
        bed.campaign("select 2", &[host.id()]).await,
    );
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    let body = format!(
        r#"{{"queries":{{"{}":{deep},"{}":[{{"a":"2"}}]}},"node_key":"{}"}}"#,
        live(id),
        live(other),
        host.node_key
    );
    let began = Instant::now();
    for route in ["distributed/write", "log"] {
        let path = format!("/api/osquery/{route}");
        let (status, said) = bed.send(Method::POST, &path, &[], body.clone()).await;
        assert_eq!((status, said), (200, json!({})), "{route}");
    }
    for route in ["config", "distributed/read", "enroll"] {
        let path = format!("/api/osquery/{route}");
        let (status, said) = bed.send(Method::POST, &path, &[], body.clone()).await;
        assert!(matches!(status, 400 | 401), "{route} {status} {said}");
    }
    let alone = bed.send(Method::POST, "/api/osquery/distributed/write", &[], deep);
    assert_eq!(alone.await.0, 400);
    assert!(began.elapsed() < Duration::from_secs(2));
    assert_eq!(bed.answers(other).await[0]["rows"][0]["a"], "2");
    let answers = bed.answers(id).await;
    let error = answers[0]["error"].as_str().unwrap();
    assert!(error.contains("nested deeper"), "{error}");
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
        .send(Method::POST, "/api/osquery/distributed/read", &[], large)
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
        json!({ "enroll_secret": SECRET, "host_identifier": "a\u{1b}[2J" }),
        json!({ "enroll_secret": SECRET, "host_identifier": "web\u{202e}1" }),
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
            .next()
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

#[tokio::test]
async fn a_compressed_body_that_breaks_off_is_taken_as_far_as_it_goes() {
    let bed = Bed::new().await;
    let host = bed.idle_host("web-1").await;
    let (one, two) = (
        bed.campaign("select 1", &[host.id()]).await,
        bed.campaign("select 2", &[host.id()]).await,
    );
    let noise: String = (0..20_000u32)
        .map(|number| format!("{:x}", number.wrapping_mul(2_654_435_761)))
        .collect();
    let body = json!({ "queries": { live(one): [{ "a": "1" }], live(two): [{ "a": noise }] } });
    let whole = gzip(body.to_string().as_bytes());
    let cut = whole[..whole.len() / 2].to_vec();
    let key = format!("NodeKey {}", host.node_key);
    let headers = [("content-encoding", "gzip"), ("authorization", &*key)];
    let path = "/api/osquery/distributed/write";
    let (status, said) = bed.send(Method::POST, path, &headers, cut.clone()).await;
    assert_eq!((status, said), (200, json!({})));
    assert_eq!(bed.answers(one).await[0]["rows"][0]["a"], "1");
    let error = bed.answers(two).await[0]["error"].clone();
    assert!(error.as_str().unwrap().contains("broke off"), "{error}");
    // Nobody knows whose this is, and it would be the same again.
    let (status, said) = bed.send(Method::POST, path, &headers[..1], cut).await;
    assert_eq!(status, 400);
    assert!(!is_sent_again(&said), "{said}");
}

#[tokio::test]
async fn hosts_with_orbit_are_answered_so_that_they_do_not_fail() {
    let bed = Bed::new().await;
    let enroll = "/api/fleet/orbit/enroll";
    let body = json!({ "enroll_secret": SECRET, "hardware_uuid": "u" }).to_string();
    let (status, said) = bed.send(Method::POST, enroll, &[], body).await;
    assert_eq!(status, 200, "{said}");
    let key = said["orbit_node_key"].as_str().unwrap().to_owned();
    assert!(!key.is_empty());
    let body = json!({ "enroll_secret": "wrong" }).to_string();
    assert_eq!(bed.send(Method::POST, enroll, &[], body).await.0, 401);
    let body = json!({ "orbit_node_key": key, "device_auth_token": "t" }).to_string();
    for (path, expected) in [
        ("/api/fleet/orbit/config", json!({ "notifications": {} })),
        ("/api/latest/fleet/orbit/device_token", json!({})),
    ] {
        let answer = bed.send(Method::POST, path, &[], body.clone()).await;
        assert_eq!(answer, (200, expected), "{path}");
        assert_eq!(bed.send(Method::POST, path, &[], "{}").await.0, 401);
        assert_eq!(bed.send(Method::GET, path, &[], "").await.0, 405);
    }
    for path in [
        "/api/fleet/orbit/ping",
        "/api/latest/fleet/device/ping",
        "/api/latest/fleet/device/t/desktop",
    ] {
        assert_eq!(bed.send(Method::GET, path, &[], "").await.0, 200, "{path}");
    }
    assert_eq!(
        bed.send(Method::HEAD, "/api/fleet/orbit/ping", &[], "")
            .await
            .0,
        200
    );
}

#[tokio::test]
async fn answers_to_campaigns_that_are_made_up_ask_the_store_a_few_times() {
    let bed = Bed::new().await;
    let host = bed.idle_host("web-1").await;
    let made_up = |from: u64| {
        let queries =
            (from..from + 5_000).map(|id| (format!("fleet_distributed_query_{id}"), json!([])));
        json!({ "queries": queries.collect::<std::collections::BTreeMap<_, _>>() })
    };
    bed.store.appends.take();
    for round in 0..4 {
        assert_eq!(host.write(made_up(1_000 + round * 5_000)).await.0, 200);
    }
    let asked = bed.store.appends.take();
    assert!((200..300).contains(&asked), "{asked} questions");
    // What is true is taken.
    let campaign = bed.campaign("select 1", &[host.id()]).await;
    assert_eq!(
        host.write(json!({ "queries": { format!("fleet_distributed_query_{campaign}"): [] } }))
            .await
            .0,
        200
    );
    assert_eq!(bed.answers(campaign).await.len(), 1);
}
