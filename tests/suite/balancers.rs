//! The examples in `deploy/`, run as they stand but for their ports: nginx and HAProxy before three nodes on Redis.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::broker::{Broker, TOKEN};
use crate::hosts::Host;
use crate::redis::faults::crew::{client, post};
use crate::redis::faults::stream::{Stream, Transport};
use crate::redis_server::{RedisServer, is_installed};

/// However busy the machine is.
const PATIENCE: Duration = Duration::from_secs(30);
/// A proxy that gathers what it sends holds a lone answer back for 200 ms.
const PROMPT: Duration = Duration::from_millis(150);
/// A frame that a proxy holds back waits for the next heartbeat, 25 s, or for a full buffer.
const UNBUFFERED: Duration = Duration::from_secs(5);
const ANSWERS: usize = 6;

/// Three nodes and what stands before them.
struct Balanced {
    address: String,
    brokers: Vec<Broker>,
    _balancer: Child,
    _redis: RedisServer,
    _dir: TempDir,
}

/// Whether the program is there. Set `ANSWERBACK_REQUIRE_BALANCERS` where a missing one must be a failure.
fn is_there(program: &str) -> bool {
    let found = std::process::Command::new(program)
        .arg("-v")
        .output()
        .is_ok();
    if !found {
        assert!(
            std::env::var_os("ANSWERBACK_REQUIRE_BALANCERS").is_none(),
            "{program} is not installed"
        );
        eprintln!("skipped: {program} is not installed");
    }
    found && is_installed()
}

fn free_address() -> String {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap().to_string()
}

impl Balanced {
    async fn start(example: &str, program: impl FnOnce(&Path, &Path) -> Command) -> Self {
        let (redis, dir) = (RedisServer::start(), tempfile::tempdir().unwrap());
        let mut brokers = Vec::new();
        for at in 0..3 {
            let (url, node) = (redis.url(), format!("node-{at}"));
            let args = ["--store", &url, "--node", &node, "--log", "error"];
            let proxies = ["--trusted-proxies", "127.0.0.1/32"];
            let data = dir.path().join(&node);
            let all = [&args[..], &proxies].concat();
            brokers.push(Broker::start_in(&data, "127.0.0.1:0", &all).await);
        }
        let address = free_address();
        let file = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("deploy")
            .join(example);
        let mut text = std::fs::read_to_string(file).unwrap();
        let nodes = brokers.iter().map(|broker| &broker.address);
        for (at, to) in std::iter::once(&address).chain(nodes).enumerate() {
            let written = format!("127.0.0.1:{}", 8080 + at);
            assert!(text.contains(&written), "{example} names {written}");
            text = text.replace(&written, to);
        }
        let config = dir.path().join(example);
        std::fs::write(&config, text).unwrap();
        let balancer = program(&config, dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let balanced = Self {
            address,
            brokers,
            _balancer: balancer,
            _redis: redis,
            _dir: dir,
        };
        balanced.until_ready().await;
        balanced
    }

    async fn until_ready(&self) {
        let give_up = Instant::now() + PATIENCE;
        let body = json!({ "node_key": "nobody" });
        let agents = client();
        loop {
            let listens = TcpStream::connect(&self.address).await.is_ok();
            // Whoever knows the key is a node, and not the balancer's own error page.
            if listens
                && let Some((401, _)) =
                    post(&agents, &self.address, "distributed/read", &body).await
            {
                return;
            }
            assert!(Instant::now() < give_up, "nothing is balanced");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// One viewer per transport hears each answer before the next is sent; answers come in through the balancer.
    async fn streams(&self, transport: Transport) {
        let hosts = Host::enroll_many(&self.brokers[0], ANSWERS).await;
        let campaign = self.brokers[0].run_on_all("select 1").await;
        let session = format!("balanced{campaign}");
        let mut stream = Stream::open(&self.address, transport, &session)
            .await
            .expect("a stream opens");
        let auth = json!({ "type": "auth", "data": { "token": TOKEN } });
        let select = json!({ "type": "select_campaign", "data": { "campaign_id": campaign } });
        let messages = [auth.to_string(), select.to_string()];
        let give_up = Instant::now() + PATIENCE;
        // A node that does not hold the session may say so; the next one in turn may be the one that does.
        while stream.send(&messages).await.is_none() {
            assert!(Instant::now() < give_up, "no node takes the messages");
        }
        let agents = client();
        let mut took = Vec::new();
        for (at, host) in hosts.iter().enumerate() {
            let query = format!("fleet_distributed_query_{campaign}");
            let body = json!({ "node_key": host.node_key, "queries": { query: [{ "a": "1" }] } });
            let said = post(&agents, &self.address, "distributed/write", &body).await;
            assert_eq!(said.map(|(status, _)| status), Some(200));
            let posted = Instant::now();
            let seq = tokio::time::timeout(UNBUFFERED, next_result(&mut stream)).await;
            let Ok(seq) = seq else {
                panic!("{transport:?} holds frame {} back", at + 1)
            };
            assert_eq!(seq, at as u64 + 1, "after {:?}", posted.elapsed());
            took.push(posted.elapsed());
        }
        took.sort_unstable();
        let median = took[took.len() / 2];
        assert!(
            median < PROMPT,
            "{transport:?}: a lone answer takes {median:?}"
        );
    }

    /// A node stops while agents check in through the balancer: nobody needs to know.
    async fn a_node_stops(&mut self) {
        let host = Host::enroll(&self.brokers[1], "stays").await;
        let (agents, address) = (client(), self.address.clone());
        let checking_in = tokio::spawn(async move {
            let mut failed = 0;
            for _ in 0..100 {
                let body = json!({ "node_key": host.node_key });
                let said = post(&agents, &address, "distributed/read", &body).await;
                failed += usize::from(said.is_none_or(|(status, _)| status != 200));
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            failed
        });
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(self.brokers[0].stop().await);
        // A request that reached the node in the moment of its end may fail; its agent repeats it.
        assert!(checking_in.await.unwrap() <= 2);
    }
}

async fn next_result(stream: &mut Stream) -> u64 {
    loop {
        let message: Value = serde_json::from_str(&stream.next().await.unwrap()).unwrap();
        if message["type"] == "result" {
            return message["data"]["seq"].as_u64().unwrap();
        }
    }
}

async fn check(mut balanced: Balanced) {
    for transport in [
        Transport::Raw,
        Transport::WebSocket,
        Transport::XhrStreaming,
        Transport::EventSource,
    ] {
        balanced.streams(transport).await;
    }
    balanced.a_node_stops().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_balances_agents_and_streams() {
    if !is_there("nginx") {
        return;
    }
    let program = |config: &Path, dir: &Path| {
        let place = dir.display();
        let mut nginx = Command::new("nginx");
        nginx.arg("-c").arg(config).arg("-p").arg(dir);
        nginx.args(["-e", "stderr", "-g"]);
        // One process, so that nothing of it outlives the test.
        nginx.arg(format!(
            "daemon off; master_process off; pid {place}/nginx.pid;"
        ));
        nginx
    };
    check(Balanced::start("nginx.conf", program).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy_balances_agents_and_streams() {
    if !is_there("haproxy") {
        return;
    }
    let program = |config: &Path, _: &Path| {
        let mut haproxy = Command::new("haproxy");
        haproxy.arg("-db").arg("-f").arg(config);
        haproxy
    };
    check(Balanced::start("haproxy.cfg", program).await).await;
}
