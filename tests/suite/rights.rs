//! Streams and what their users may: whoever loses a right loses the streams that came with it, on every node and over
//! every transport.

use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};

use crate::broker::{Broker, PASSWORD, TOKEN, two_nodes};
use crate::hosts::Host;
use crate::redis::faults::stream::{Stream, Transport};
use crate::viewer::{Heard, Viewer};

/// The promise is a second; debug builds share this machine with other tests.
const SOON: Duration = Duration::from_secs(10);
pub const ALL: [Transport; 5] = [
    Transport::Raw,
    Transport::WebSocket,
    Transport::XhrStreaming,
    Transport::EventSource,
    Transport::Xhr,
];

/// Somebody who has logged in.
struct Person {
    id: u64,
    email: String,
    token: String,
}

impl Person {
    async fn new(broker: &Broker, name: &str, role: Value) -> Self {
        let email = format!("{name}@example.com");
        let mut body = json!({ "name": name, "email": email, "password": PASSWORD, "admin_forced_password_reset": false });
        let (Value::Object(body_map), Value::Object(role)) = (&mut body, role) else {
            panic!("no object");
        };
        body_map.extend(role);
        let (status, made) = broker.post("/api/v1/fleet/users/admin", body).await;
        assert_eq!(status, 200, "{made}");
        let id = made["user"]["id"].as_u64().unwrap();
        let token = login(broker, &email).await;
        Self { id, email, token }
    }

    async fn run(&self, broker: &Broker, hosts: &[u64]) -> u64 {
        let selected = json!({ "hosts": hosts, "labels": [], "teams": [] });
        let body = json!({ "query": "select 1", "selected": selected });
        let (status, said) = as_user(broker, &self.token, Method::POST, "/queries/run", body).await;
        assert_eq!(status, 200, "{said}");
        said["campaign"]["id"].as_u64().unwrap()
    }
}

async fn login(broker: &Broker, email: &str) -> String {
    let body = json!({ "email": email, "password": PASSWORD });
    let (status, said) = broker.post("/api/v1/fleet/login", body).await;
    assert_eq!(status, 200, "{said}");
    said["token"].as_str().unwrap().to_owned()
}

async fn as_user(
    broker: &Broker,
    token: &str,
    method: Method,
    path: &str,
    body: Value,
) -> (u16, Value) {
    let path = format!("/api/v1/fleet{path}");
    let bearer = format!("Bearer {token}");
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    broker
        .send(method, &path, &[("authorization", &bearer)], body.into())
        .await
}

pub async fn as_admin(broker: &Broker, method: Method, path: &str, body: Value) -> Value {
    let (status, said) = as_user(broker, TOKEN, method, path, body).await;
    assert_eq!(status, 200, "{path}: {said}");
    said
}

/// A stream that watches, or has only authenticated if no campaign is given.
pub async fn open(
    broker: &Broker,
    transport: Transport,
    token: &str,
    campaign: Option<u64>,
) -> Stream {
    let session: String = format!("{:?}", Instant::now())
        .chars()
        .filter(char::is_ascii_digit)
        .collect();
    let mut stream = Stream::open(&broker.address, transport, &session)
        .await
        .unwrap();
    let mut messages = vec![json!({ "type": "auth", "data": { "token": token } }).to_string()];
    let select =
        |id: u64| json!({ "type": "select_campaign", "data": { "campaign_id": id } }).to_string();
    messages.extend(campaign.map(select));
    stream.send(&messages).await.unwrap();
    if campaign.is_some() {
        let first = next(&mut stream).await;
        assert_eq!(first["type"], "totals", "{first}");
    }
    stream
}

pub async fn next(stream: &mut Stream) -> Value {
    let text = tokio::time::timeout(Duration::from_secs(30), stream.next()).await;
    serde_json::from_str(&text.expect("a message comes").expect("the stream goes on")).unwrap()
}

/// Fails unless the stream says `unauthorized` and ends.
async fn assert_ends(what: &str, stream: &mut Stream) {
    let ending = async {
        let mut error = None;
        while let Some(text) = stream.next().await {
            let message: Value = serde_json::from_str(&text).unwrap();
            if message["type"] == "error" {
                error = Some(message);
            }
        }
        error
    };
    let error = tokio::time::timeout(SOON, ending).await;
    let error = error.unwrap_or_else(|_| panic!("{what}: the stream goes on"));
    let expected =
        json!({ "type": "error", "data": "unauthorized", "code": "unauthorized", "final": true });
    assert_eq!(error, Some(expected), "{what}");
}

/// The ways of losing one's rights: what is done, by an admin or by the person.
async fn lose(broker: &Broker, way: &str, person: &Person) {
    let user = format!("/users/{}", person.id);
    let (method, path, body, own) = match way {
        "logout" => (Method::POST, "/logout".to_owned(), json!({}), true),
        "sessions ended" => (
            Method::DELETE,
            format!("{user}/sessions"),
            Value::Null,
            false,
        ),
        "user deleted" => (Method::DELETE, user, Value::Null, false),
        "role narrowed" => {
            let name = format!("team of {}", person.email);
            let team = as_admin(broker, Method::POST, "/teams", json!({ "name": name })).await;
            let teams = json!([{ "id": team["team"]["id"], "role": "maintainer" }]);
            (Method::PATCH, user, json!({ "teams": teams }), false)
        }
        "password set" => {
            let body = json!({ "password": "another good password" });
            (Method::PATCH, user, body, false)
        }
        "reset required" => {
            let path = format!("{user}/require_password_reset");
            (Method::POST, path, json!({ "require": true }), false)
        }
        "password changed" => {
            let body = json!({ "old_password": PASSWORD, "new_password": "another good password" });
            let other = login(broker, &person.email).await;
            let (status, said) =
                as_user(broker, &other, Method::POST, "/change_password", body).await;
            assert_eq!(status, 200, "{said}");
            return;
        }
        way => panic!("{way}"),
    };
    let token = if own { &person.token } else { TOKEN };
    let (status, said) = as_user(broker, token, method, &path, body).await;
    assert_eq!(status, 200, "{way}: {said}");
}

const WAYS: [&str; 7] = [
    "logout",
    "sessions ended",
    "user deleted",
    "role narrowed",
    "password set",
    "reset required",
    "password changed",
];

/// Opens streams at `here`, takes the right away at `there`.
async fn every_way_ends_streams(here: &Broker, there: &Broker) {
    let hosts = Host::enroll_many(here, 1).await;
    hosts[0].read(here).await;
    // The admin's own stream goes on whatever happens to others.
    let bystander = here.run_on_all("select 1").await;
    let mut bystander = open(here, Transport::Raw, TOKEN, Some(bystander)).await;
    for (at, way) in WAYS.iter().enumerate() {
        let role = json!({ "global_role": "maintainer" });
        let person = Person::new(there, &format!("p{at}"), role).await;
        let campaign = person.run(there, &[1]).await;
        let mut streams = Vec::new();
        for transport in ALL {
            let stream = open(here, transport, &person.token, Some(campaign)).await;
            streams.push((transport, stream));
        }
        let mut idle = open(here, Transport::Raw, &person.token, None).await;
        lose(there, way, &person).await;
        for (transport, stream) in &mut streams {
            assert_ends(&format!("{way}, {transport:?}"), stream).await;
        }
        if *way != "role narrowed" {
            assert_ends(&format!("{way}, nothing selected"), &mut idle).await;
        }
    }
    let quiet = async {
        while let Some(text) = bystander.next().await {
            assert!(!text.contains("error"), "{text}");
        }
    };
    let quiet = tokio::time::timeout(Duration::from_millis(300), quiet).await;
    assert!(quiet.is_err(), "the bystander's stream has ended");
}

#[tokio::test]
async fn every_way_of_losing_a_right_ends_every_stream() {
    let broker = Broker::start(&[]).await;
    every_way_ends_streams(&broker, &broker).await;
}

#[tokio::test]
async fn every_way_of_losing_a_right_ends_every_stream_of_another_node() {
    let Some((_redis, a, b)) = two_nodes().await else {
        return;
    };
    every_way_ends_streams(&a, &b).await;
}

#[tokio::test]
async fn a_token_that_is_revoked_ends_a_programs_streams() {
    let broker = Broker::start(&[]).await;
    Host::enroll_many(&broker, 1).await;
    let body = json!({ "name": "robot", "email": "r@example.com", "global_role": "maintainer" });
    let (status, made) = broker.post("/api/v1/fleet/users/api_only", body).await;
    assert_eq!(status, 200, "{made}");
    let robot = Person {
        id: made["user"]["id"].as_u64().unwrap(),
        email: "r@example.com".to_owned(),
        token: made["token"].as_str().unwrap().to_owned(),
    };
    let campaign = robot.run(&broker, &[1]).await;
    let mut stream = open(&broker, Transport::Raw, &robot.token, Some(campaign)).await;
    lose(&broker, "sessions ended", &robot).await;
    let (status, _) = as_user(&broker, &robot.token, Method::GET, "/me", Value::Null).await;
    if status == 200 {
        // Tokens of programs are no sessions here; the user's end takes them.
        lose(&broker, "user deleted", &robot).await;
    }
    assert_ends("a program's token", &mut stream).await;
}

#[tokio::test]
async fn whoever_is_moved_to_another_team_reads_the_former_ones_campaigns_no_longer() {
    let broker = Broker::start(&[]).await;
    let hosts = Host::enroll_many(&broker, 2).await;
    let mut teams = Vec::new();
    for name in ["A", "B"] {
        let made = as_admin(&broker, Method::POST, "/teams", json!({ "name": name })).await;
        teams.push(made["team"]["id"].as_u64().unwrap());
    }
    for (team, host) in teams.iter().zip([1, 2]) {
        let body = json!({ "team_id": team, "hosts": [host] });
        as_admin(&broker, Method::POST, "/hosts/transfer", body).await;
    }
    let role = |team: u64| json!([{ "id": team, "role": "observer_plus" }]);
    let person = Person::new(&broker, "p", json!({ "teams": role(teams[0]) })).await;
    let campaign = person.run(&broker, &[1]).await;
    let mut stream = open(&broker, Transport::Raw, &person.token, Some(campaign)).await;
    // A host that leaves the team takes nothing from what was asked while it was there.
    let body = json!({ "team_id": teams[1], "hosts": [1] });
    as_admin(&broker, Method::POST, "/hosts/transfer", body).await;
    let path = format!("/campaigns/{campaign}");
    let (status, _) = as_user(&broker, &person.token, Method::GET, &path, Value::Null).await;
    assert_eq!(status, 200);

    let body = json!({ "teams": role(teams[1]) });
    let user = format!("/users/{}", person.id);
    as_admin(&broker, Method::PATCH, &user, body).await;
    assert_ends("moved", &mut stream).await;
    let token = login(&broker, &person.email).await;
    let results = format!("{path}/results");
    for path in [&path, &results] {
        let (status, said) = as_user(&broker, &token, Method::GET, path, Value::Null).await;
        assert!([403, 404].contains(&status), "{path}: {status} {said}");
    }
    let mut viewer = Viewer::connect(&broker).await;
    viewer
        .say(&json!({ "type": "auth", "data": { "token": token } }))
        .await;
    viewer.select(campaign, 0).await;
    let refusal = viewer.refusal().await;
    assert_eq!(refusal, format!("cannot find campaign for ID {campaign}"));
    drop(hosts);
}

#[tokio::test]
async fn whoever_is_no_admin_any_more_watches_no_campaigns_of_others() {
    let broker = Broker::start(&[]).await;
    Host::enroll_many(&broker, 1).await;
    let campaign = broker.run_on_all("select 1").await;
    let admin = Person::new(&broker, "a", json!({ "global_role": "admin" })).await;
    let mut stream = open(&broker, Transport::WebSocket, &admin.token, Some(campaign)).await;
    let own = admin.run(&broker, &[1]).await;
    let mut kept = open(&broker, Transport::Raw, &admin.token, Some(own)).await;
    let user = format!("/users/{}", admin.id);
    as_admin(
        &broker,
        Method::PATCH,
        &user,
        json!({ "global_role": "maintainer" }),
    )
    .await;
    assert_ends("no admin any more", &mut stream).await;
    let quiet = tokio::time::timeout(Duration::from_millis(300), kept.next()).await;
    assert!(
        !matches!(quiet, Ok(None)),
        "their own campaign's stream has ended"
    );
    as_admin(&broker, Method::DELETE, &user, Value::Null).await;
    assert_ends("deleted", &mut kept).await;
}

#[tokio::test]
async fn an_export_ends_with_the_right_to_read_it() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let broker = Broker::start(&[]).await;
    let hosts = Host::enroll_many(&broker, 120).await;
    let person = Person::new(&broker, "p", json!({ "global_role": "maintainer" })).await;
    let all: Vec<u64> = (1..=120).collect();
    let campaign = person.run(&broker, &all).await;
    for host in &hosts {
        let rows = json!([{ "a": "x".repeat(100_000) }]);
        assert_eq!(host.answer(&broker, campaign, rows).await, 200);
    }
    let mut socket = tokio::net::TcpStream::connect(&broker.address)
        .await
        .unwrap();
    let request = format!(
        "GET /api/v1/fleet/campaigns/{campaign}/results HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n\r\n",
        person.token
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut piece = vec![0; 10_000];
    assert!(socket.read(&mut piece).await.unwrap() > 0);
    let user = format!("/users/{}", person.id);
    as_admin(&broker, Method::DELETE, &user, Value::Null).await;
    let mut rest = Vec::new();
    let reading = tokio::time::timeout(Duration::from_secs(30), socket.read_to_end(&mut rest));
    let _ = reading.await.expect("the export ends");
    assert!(rest.len() < 11_000_000, "all of it came");
    assert!(!rest.ends_with(b"0\r\n\r\n"), "it looks complete");
}

#[tokio::test]
async fn what_may_not_be_watched_sounds_like_what_is_not_there() {
    let broker = Broker::start(&[]).await;
    Host::enroll_many(&broker, 1).await;
    let campaign = broker.run_on_all("select 1").await;
    let observer = json!({ "global_role": "observer" });
    let person = Person::new(&broker, "o", observer).await;
    let mut heard = Vec::new();
    for id in [campaign, campaign + 1_000] {
        let mut viewer = Viewer::connect(&broker).await;
        viewer
            .say(&json!({ "type": "auth", "data": { "token": person.token } }))
            .await;
        viewer.select(id, 0).await;
        let message = viewer.message().await.to_string();
        let Heard::Closed(Some((code, reason))) = viewer.hear().await else {
            panic!("no close");
        };
        let id = id.to_string();
        heard.push((message.replace(&id, "N"), code, reason.replace(&id, "N")));
    }
    assert_eq!(heard[0], heard[1]);
    assert!(heard[0].0.contains("campaign_not_found"), "{heard:?}");
}
