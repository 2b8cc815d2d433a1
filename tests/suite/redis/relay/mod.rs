//! SockJS sessions on many nodes behind a balancer without memory: relayed, authenticated, and cleanly lost.

mod balancer;
mod outages;
mod session;
mod strangers;

use http::Method;
use serde_json::{Value, json};

use self::balancer::Balancer;
use self::session::{KINDS, Kind, Session};
use crate::broker::Broker;
use crate::clients;
use crate::hosts::Host;
use crate::redis_server::{RedisServer, is_installed};

/// What a receiver hears whose session is lost.
const INTERRUPTED: &str = r#"c[1002,"Connection interrupted"]"#;

/// What the product says to a viewer that does not begin with `auth`: here the sign that a message has arrived.
const REFUSED: &str = r#"c[1008,"expected auth"]"#;

/// Nodes on one server, one after the other, so that the first makes the catalog.
async fn nodes(server: &RedisServer, count: usize, args: &[&str]) -> Vec<Broker> {
    let url = server.url();
    let args = [&["--store", &url], args].concat();
    let mut nodes = Vec::new();
    for _ in 0..count {
        nodes.push(Broker::start(&args).await);
    }
    nodes
}

/// The base URL of each node.
fn bases(nodes: &[Broker]) -> Vec<String> {
    nodes.iter().map(|node| node.url("")).collect()
}

/// How many requests the nodes have sent on to each other.
async fn relayed(nodes: &[Broker]) -> u64 {
    let mut all = 0;
    for node in nodes {
        let (status, page) = node.get("/metrics").await;
        assert_eq!(status, 200);
        let page = page.as_str().unwrap_or_default().to_owned();
        let name = r#"answerback_relayed_total{outcome="answered"} "#;
        let count = page.lines().find_map(|line| line.strip_prefix(name));
        all += count.map_or(0, |count| count.parse().unwrap());
    }
    all
}

async fn answer_all(nodes: &[Broker], hosts: &[Host], campaign: u64) {
    for (at, host) in hosts.iter().enumerate() {
        let rows = json!([{ "host": host.name, "text": "%41 </script> \u{2028} \"\\" }]);
        let status = host.answer(&nodes[at % nodes.len()], campaign, rows).await;
        assert_eq!(status, 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_http_transport_gets_all_in_order_and_once_behind_a_balancer_without_memory() {
    const HOSTS: usize = 300;
    if !is_installed() {
        return;
    }
    let server = RedisServer::start();
    let nodes = nodes(&server, 3, &["--sockjs-response-limit", "4096"]).await;
    let balancer = Balancer::over(&nodes).await;
    let base = format!("http://{}", balancer.address);
    let hosts = Host::enroll_many(&nodes[0], HOSTS).await;
    let campaign = nodes[0].run_on_all("select 1").await;
    let mut sessions: Vec<_> = KINDS
        .iter()
        .map(|kind| Session::new(&base, *kind, &format!("{kind:?}").to_lowercase()))
        .collect();
    let watching = sessions.iter_mut().map(|session| session.watch(campaign));
    let watching = futures_util::future::join_all(watching);
    let (seen, ()) = tokio::join!(watching, answer_all(&nodes, &hosts, campaign));
    for ((seqs, mut hosts), kind) in seen.into_iter().zip(KINDS) {
        assert_eq!(seqs, (1..=HOSTS as u64).collect::<Vec<_>>(), "{kind:?}");
        hosts.sort();
        hosts.dedup();
        assert_eq!(hosts.len(), HOSTS, "{kind:?}");
    }
    for session in &sessions {
        assert!(session.responses > 5, "responses were recycled");
    }
    assert!(relayed(&nodes).await > 20, "there was something to relay");

    // The library itself, over the transports that it has in Node.
    for transport in ["xhr-streaming", "xhr-polling", "eventsource"] {
        let said = clients::node(
            "sockjs.mjs",
            [
                &base,
                crate::broker::TOKEN,
                &campaign.to_string(),
                transport,
            ],
        )
        .await;
        let said: Value = serde_json::from_str(&said).unwrap();
        assert_eq!(said["transport"], transport);
        assert_eq!(
            said["seqs"],
            json!((1..=HOSTS).collect::<Vec<_>>()),
            "{transport}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_speak_tls_with_self_signed_certificates_relay_to_each_other() {
    if !is_installed() {
        return;
    }
    let server = RedisServer::start();
    let nodes = nodes(&server, 2, &["--tls-self-signed"]).await;
    let bases = bases(&nodes);
    assert!(bases[0].starts_with("https://"));
    let session = Session::new(&bases[0], Kind::Xhr, "secure");
    assert_eq!(session.poll(&bases[0], &[]).await, (200, "o\n".to_owned()));
    let nonsense = json!({ "type": "nonsense" });
    assert_eq!(session.send_to(&bases[1], &[nonsense]).await, 204);
    assert_eq!(
        session.poll(&bases[1], &[]).await,
        (200, format!("{REFUSED}\n"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relayed_answers_are_those_of_the_holder() {
    if !is_installed() {
        return;
    }
    let server = RedisServer::start();
    let nodes = nodes(&server, 2, &[]).await;
    let bases = bases(&nodes);
    let mut session = Session::new(&bases[0], Kind::XhrStreaming, "mirror");
    assert_eq!(session.frame().await, "o");
    let origin = [
        ("origin", "https://page.example"),
        ("cookie", "JSESSIONID=x"),
    ];
    // A second receiver and a sender, on the holder and through the relay: what they hear is the same.
    for (method, endpoint, body) in [
        (Method::POST, "xhr", ""),
        (Method::POST, "xhr_streaming", ""),
        (Method::GET, "eventsource", ""),
        (Method::GET, "htmlfile?c=a.b", ""),
        (Method::GET, "jsonp?c=a.b", ""),
        (Method::GET, "jsonp?c=a(b", ""),
        (Method::GET, "xhr", ""),
        (Method::POST, "xhr_send", "[]"),
        (Method::POST, "xhr_send", "[\"x"),
        (Method::POST, "jsonp_send", "[]"),
        (Method::OPTIONS, "xhr_send", ""),
    ] {
        let mut heard = Vec::new();
        for base in &bases {
            let answer = session
                .request(base, method.clone(), endpoint, &origin, body.into())
                .await;
            let mut headers: Vec<_> = answer
                .headers()
                .iter()
                .filter(|(name, _)| *name != "date" && *name != "expires")
                .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
                .collect();
            headers.sort();
            let status = answer.status();
            let body = http_body_util::BodyExt::collect(answer.into_body()).await;
            heard.push((status, headers, body.unwrap().to_bytes()));
        }
        assert_eq!(heard[0], heard[1], "{method} {endpoint}");
    }
    // Nothing of this has disturbed the receiver.
    let nonsense = json!({ "type": "nonsense" });
    assert_eq!(session.send_to(&bases[1], &[nonsense]).await, 204);
    assert_eq!(session.frame().await, REFUSED);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_that_is_opened_on_two_nodes_at_once_is_one_session() {
    if !is_installed() {
        return;
    }
    let server = RedisServer::start();
    let nodes = nodes(&server, 2, &[]).await;
    let bases = bases(&nodes);
    for round in 0..20 {
        let id = format!("both{round}");
        let mut on_a = Session::new(&bases[0], Kind::XhrStreaming, &id);
        let mut on_b = Session::new(&bases[1], Kind::XhrStreaming, &id);
        let (a, b) = tokio::join!(on_a.frame(), on_b.frame());
        let mut heard = [a, b];
        heard.sort();
        let another = r#"c[2010,"Another connection still open"]"#;
        assert_eq!(heard, [another, "o"], "round {round}");
    }
}
