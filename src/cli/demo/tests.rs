//! The demo's hosts, judged by their answers, and one of them against a small server.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::answer::{Answer, Answers};
use super::host::{Host, Platform};
use super::row::Moment;
use super::{DemoSettings, run};

const NOON: Moment = Moment {
    unix_s: 1_760_000_400,
    running_s: 60,
};

fn ask(platform: Platform, sql: &str) -> Answer {
    let host = (0..).map(Host::new).find(|host| host.platform == platform);
    Answers::default().answer(sql, &host.unwrap(), NOON)
}

fn matches(platform: Platform, sql: &str) -> bool {
    !ask(platform, sql).unwrap().is_empty()
}

#[test]
fn label_queries_match_the_platform_of_the_host_only() {
    let ubuntu = "select 1 from os_version where platform = 'ubuntu';";
    assert!(matches(Platform::Ubuntu, ubuntu));
    assert!(!matches(Platform::Darwin, ubuntu));
    let centos = "SELECT 1 FROM os_version WHERE platform = 'centos' OR name LIKE '%centos%'";
    assert!(matches(Platform::CentOs, centos));
    assert!(!matches(Platform::Ubuntu, centos));
    let linux = "select 1 from osquery_info where build_platform LIKE '%ubuntu%' or build_distro LIKE '%centos%'";
    assert!(matches(Platform::Ubuntu, linux) && matches(Platform::CentOs, linux));
    assert!(!matches(Platform::Windows, linux));
    let sonoma =
        "select 1 from os_version where platform = 'darwin' and cast(major as integer) >= 13";
    assert!(matches(Platform::Darwin, sonoma));
    assert!(!matches(Platform::Windows, sonoma));
    assert!(matches(Platform::Windows, "select 1"));
}

#[test]
fn lists_and_negations_are_understood() {
    let linux = "SELECT 1 FROM os_version WHERE platform NOT IN ('darwin', 'windows', 'chrome')";
    assert!(matches(Platform::Ubuntu, linux) && matches(Platform::CentOs, linux));
    assert!(!matches(Platform::Darwin, linux) && !matches(Platform::Windows, linux));
    let network = "SELECT a.address, d.mac FROM interface_addresses a JOIN interface_details d \
         USING (interface) WHERE d.mac NOT IN ('', '00:00:00:00:00:00') AND a.address NOT LIKE '127.%' \
         AND a.address <> '::1' ORDER BY CAST(d.ibytes AS INTEGER) DESC LIMIT 16";
    let rows = ask(Platform::Windows, network).unwrap();
    assert_eq!(rows.len(), 1);
    assert!(rows[0]["address"].as_str().unwrap().starts_with("10.20."));
    assert!(rows[0]["mac"].as_str().unwrap().starts_with("02:"));
    let flags = "SELECT name, value FROM osquery_flags WHERE name IN ('distributed_interval', 'config_refresh')";
    assert_eq!(ask(Platform::Ubuntu, flags).unwrap().len(), 2);
}

#[test]
fn columns_aliases_counts_and_limits_are_honoured() {
    let rows = ask(
        Platform::Ubuntu,
        "SELECT name AS os, o.version FROM os_version o",
    )
    .unwrap();
    assert_eq!(rows.len(), 1);
    let names: Vec<_> = rows[0].keys().cloned().collect();
    assert_eq!(names, ["os", "version"]);
    assert_eq!(rows[0]["os"], "Ubuntu");
    let all = ask(Platform::Ubuntu, "select * from processes").unwrap();
    assert!(all.len() > 3 && all[0].len() > 8);
    let some = ask(Platform::Ubuntu, "select pid from processes limit 2").unwrap();
    assert_eq!(some.len(), 2);
    let count = ask(Platform::Ubuntu, "select count(*) as n from processes").unwrap();
    assert_eq!(count[0]["n"], all.len().to_string());
    assert_eq!(ask(Platform::Darwin, "select 1").unwrap()[0]["1"], "1");
}

#[test]
fn joins_show_columns_of_both_tables() {
    let sql = "select u.username, t.unix_time from users u join time t limit 1";
    let rows = ask(Platform::Ubuntu, sql).unwrap();
    assert_eq!(rows[0]["username"], "root");
    assert_eq!(rows[0]["unix_time"], NOON.unix_s.to_string());
    let sql = "with p as (select pid from processes) select * from p";
    assert!(ask(Platform::Ubuntu, sql).unwrap().len() > 3);
}

#[test]
fn failures_read_like_those_of_sqlite() {
    let said = |sql| ask(Platform::Ubuntu, sql).unwrap_err();
    assert_eq!(said("select * from nonsense"), "no such table: nonsense");
    assert_eq!(said("select * from apps"), "no such table: apps");
    assert_eq!(said("select shoe from time"), "no such column: shoe");
    assert_eq!(said("drop table time"), "not authorized");
    assert_eq!(said("selec 1"), "near \"selec\": syntax error");
    assert_eq!(said("select"), "incomplete input");
    assert_eq!(said(""), "not an error");
}

#[test]
fn odd_statements_are_answered_without_a_panic() {
    for sql in [
        "select '",
        "select \"é",
        "select from where limit",
        "with",
        "select ((((",
        "select , from ,",
        "-- only a comment",
        "select 1 where like like like",
        "select ° from users where é = 'ü%'",
    ] {
        let _ = ask(Platform::Darwin, sql);
    }
}

#[test]
fn a_fleet_is_mixed_and_no_two_hosts_are_alike() {
    let hosts: Vec<Host> = (0..500).map(Host::new).collect();
    for platform in [
        Platform::Ubuntu,
        Platform::Darwin,
        Platform::Windows,
        Platform::CentOs,
    ] {
        assert!(
            hosts
                .iter()
                .filter(|host| host.platform == platform)
                .count()
                >= 50
        );
    }
    let distinct = |of: fn(&Host) -> String| {
        let set: std::collections::HashSet<_> = hosts.iter().map(of).collect();
        set.len()
    };
    assert_eq!(distinct(|host| host.uuid.clone()), 500);
    assert_eq!(distinct(|host| host.hostname.clone()), 500);
    assert_eq!(distinct(Host::address), 500);
}

fn column(platform: Platform, sql: &str) -> Vec<String> {
    let rows = ask(platform, sql).unwrap();
    let cells = rows
        .iter()
        .map(|row| row.values().next().unwrap().as_str().unwrap().to_owned());
    cells.collect()
}

const ALL: [Platform; 4] = [
    Platform::Ubuntu,
    Platform::Darwin,
    Platform::Windows,
    Platform::CentOs,
];

#[test]
fn sql_is_sqlites_own() {
    let one = |sql| column(Platform::Ubuntu, sql);
    assert_eq!(one("select max(pid) > min(pid) from processes"), ["1"]);
    assert_eq!(
        one("select upper('x') union select 'y' order by 1 desc"),
        ["y", "X"]
    );
    assert_eq!(
        one(
            "select count(*) from (select uid, count(*) c from processes group by uid having c > 1)"
        ),
        ["1"]
    );
    assert_eq!(
        one("select name from processes order by pid limit 1 offset 1"),
        ["systemd-journal"]
    );
    assert_eq!(
        one(
            "with recursive n(i) as (select 1 union all select i + 1 from n where i < 5) select sum(i) from n"
        ),
        ["15"]
    );
    assert_eq!(
        one("select 1 where (1 = 2 or 1 = 1) and not (1 = 2)"),
        ["1"]
    );
    assert_eq!(one("select 0.1 + 0.2"), ["0.3"]);
    assert_eq!(one("select null"), [""]);
    assert_eq!(one("select 1; select 2"), ["1"]);
    let joined =
        "select p.name from listening_ports l join processes p using (pid) where l.port = 443";
    assert_eq!(one(joined), ["nginx"]);
    let same = ask(Platform::Ubuntu, "select 1 as a, 2 as a").unwrap();
    assert_eq!((same[0].len(), &same[0]["a"]), (1, &json!("2")));
}

#[test]
fn every_table_has_the_columns_that_it_declares_and_fills() {
    for platform in ALL {
        let tables = column(
            platform,
            "select name from osquery_registry where registry = 'table' and active = 1",
        );
        assert!(tables.len() > 35, "{platform:?}: {}", tables.len());
        for table in tables {
            let rows = ask(platform, &format!("select * from {table}"));
            let rows = rows.unwrap_or_else(|error| panic!("{platform:?} {table}: {error}"));
            let columns = column(
                platform,
                &format!("select name from pragma_table_info('{table}')"),
            );
            let info = ask(platform, &format!("pragma table_info({table})")).unwrap();
            assert_eq!(info.len(), columns.len(), "{table}");
            assert!(info.iter().all(|column| column["type"] != ""), "{table}");
            if let Some(row) = rows.first() {
                assert_eq!(row.len(), columns.len(), "{platform:?} {table}");
            }
        }
    }
}

#[test]
fn what_a_host_says_of_itself_fits_together() {
    for platform in ALL {
        let none = |sql: &str| {
            assert_eq!(
                column(platform, sql),
                Vec::<String>::new(),
                "{platform:?} {sql}"
            )
        };
        none("select name from processes where uid not in (select uid from users)");
        none("select gid from users where gid not in (select gid from groups)");
        none("select port from listening_ports where pid not in (select pid from processes)");
        none(
            "select pid from osquery_info where pid not in (select pid from processes where name like 'osqueryd%')",
        );
        none("select pid from logged_in_users where pid not in (select pid from processes)");
        none("select user from logged_in_users where user not in (select username from users)");
        none("select pid from processes group by pid having count(*) > 1");
        none("select pid from process_open_sockets where pid not in (select pid from processes)");
    }
    let pairs = "select version || ' ' || build from os_version";
    let mut found: Vec<String> = (0..200)
        .map(Host::new)
        .filter(|host| host.platform == Platform::Darwin)
        .map(|host| {
            Answers::default().answer(pairs, &host, NOON).unwrap()[0]
                .values()
                .next()
                .unwrap()
                .to_string()
        })
        .collect();
    found.sort();
    found.dedup();
    assert_eq!(
        found,
        ["\"13.7.4 22H420\"", "\"14.7.4 23H420\"", "\"15.3.1 24D70\""]
    );
}

#[test]
fn a_query_may_only_read_and_has_bounds() {
    let answers = Answers::default();
    let host = Host::new(0);
    let said = |sql: &str| answers.answer(sql, &host, NOON).unwrap_err();
    for sql in [
        "insert into users (uid) values (7)",
        "delete from users",
        "create table t (a)",
        "attach 'x.db' as x",
        "pragma journal_mode",
        "begin",
        "select load_extension('x')",
    ] {
        let said = said(sql);
        assert!(said.starts_with("not authorized"), "{sql}: {said}");
    }
    let endless =
        "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n";
    let began = std::time::Instant::now();
    assert_eq!(said(endless), "interrupted");
    assert!(began.elapsed() < Duration::from_secs(20));
    assert!(said("select randomblob(100000000)").contains("too big"));
    let many = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 20000) select i from n";
    assert!(said(many).contains("at most"));
    // And the next query is not the worse for it.
    assert_eq!(
        answers
            .answer("select count(*) as n from users", &host, NOON)
            .unwrap()[0]["n"],
        "6"
    );
    let untouched = answers
        .answer("select count(*) as n from users", &host, NOON)
        .unwrap();
    assert_eq!(untouched[0]["n"], "6");
}

type Heard = Arc<Mutex<Vec<(String, Value)>>>;

/// A server of one page a kind that hands out two queries, and on the first check-in a bad key.
async fn stub(heard: Heard) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let heard = heard.clone();
            let service = service_fn(move |request| serve(request, heard.clone()));
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

async fn serve(
    request: Request<Incoming>,
    heard: Heard,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let body: Value = serde_json::from_slice(&body).unwrap();
    let before = {
        let mut heard = heard.lock().unwrap();
        heard.push((path.clone(), body));
        heard.iter().filter(|(other, _)| *other == path).count()
    };
    let (status, reply) = match path.as_str() {
        "/api/osquery/enroll" => (200, json!({ "node_key": format!("key-{before}") })),
        "/api/osquery/distributed/read" if before == 1 => (401, json!({ "node_invalid": true })),
        "/api/osquery/distributed/read" => (
            200,
            json!({
                "queries": {
                    "fleet_distributed_query_7": "select * from time",
                    "fleet_distributed_query_8": "select * from nonsense",
                    "fleet_detail_query_2": "select * from users",
                },
                "discovery": {
                    "fleet_distributed_query_7": "SELECT 1",
                    "fleet_detail_query_2": "select 1 from osquery_registry where name = 'shoes'",
                },
                "accelerate": 10,
            }),
        ),
        _ => (200, json!({})),
    };
    let reply = Full::new(Bytes::from(reply.to_string()));
    Ok(Response::builder().status(status).body(reply).unwrap())
}

#[tokio::test]
async fn a_host_enrols_checks_in_answers_and_enrols_again_when_told() {
    let heard = Heard::default();
    let address = stub(heard.clone()).await;
    let cancel = CancellationToken::new();
    let settings = DemoSettings {
        url: format!("http://{address}/"),
        hosts: 1,
        enroll_secret: "let me in".to_owned(),
        interval: Duration::from_millis(20),
    };
    let demo = tokio::spawn(run(settings, cancel.clone()));
    let write = tokio::time::timeout(Duration::from_secs(10), async {
        loop {
            let found = {
                let heard = heard.lock().unwrap();
                heard
                    .iter()
                    .find(|(path, _)| path.ends_with("write"))
                    .cloned()
            };
            match found {
                Some((_, body)) => break body,
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    })
    .await
    .unwrap();
    cancel.cancel();
    demo.await.unwrap().unwrap();
    assert_eq!(write["node_key"], "key-2");
    assert!(write["queries"]["fleet_distributed_query_7"][0]["unix_time"].is_string());
    assert_eq!(write["statuses"]["fleet_distributed_query_7"], 0);
    assert_eq!(write["queries"]["fleet_distributed_query_8"], "");
    assert_eq!(write["statuses"]["fleet_distributed_query_8"], 1);
    assert_eq!(
        write["messages"]["fleet_distributed_query_8"],
        "no such table: nonsense"
    );
    assert!(write["queries"].get("fleet_detail_query_2").is_none());
    let enrolments: Vec<Value> = heard
        .lock()
        .unwrap()
        .iter()
        .filter(|(path, _)| path.ends_with("enroll"))
        .map(|(_, body)| body.clone())
        .collect();
    assert_eq!(enrolments.len(), 2);
    assert_eq!(enrolments[0]["enroll_secret"], "let me in");
    assert_eq!(
        enrolments[0]["host_details"]["os_version"]["platform"],
        "ubuntu"
    );
}

#[tokio::test]
async fn a_url_of_another_kind_is_refused() {
    let settings = DemoSettings {
        url: "ftp://127.0.0.1".to_owned(),
        hosts: 1,
        enroll_secret: String::new(),
        interval: Duration::from_secs(1),
    };
    assert!(run(settings, CancellationToken::new()).await.is_err());
}
