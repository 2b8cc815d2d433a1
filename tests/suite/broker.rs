//! A broker as users run it: the built binary in a child process, with a data directory and ports of its own.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::redis_server::{RedisServer, is_installed};

/// The API token that every test's broker is preset with.
pub const TOKEN: &str = "abk_test_token_0123456789abcdef";
/// The enroll secret likewise.
pub const SECRET: &str = "test-enroll-secret";
/// The admin's password likewise.
pub const PASSWORD: &str = "correct horse battery staple";
/// How long a start may take, debug builds and busy machines included.
const START_WITHIN: Duration = Duration::from_secs(60);

/// What a broker prints, line by line.
pub type Printed = Lines<BufReader<ChildStdout>>;

/// What its environment has besides.
type Env = Vec<(String, PathBuf)>;

/// A running broker, killed when dropped.
pub struct Broker {
    /// `ADDR:PORT`.
    pub address: String,
    /// `http` or `https`.
    pub scheme: &'static str,
    child: Child,
    dir: PathBuf,
    args: Vec<String>,
    env: Env,
    client: Client<HttpConnector, Full<Bytes>>,
    _owned_dir: Option<tempfile::TempDir>,
}

impl Broker {
    /// Starts on a free port with a fresh data directory.
    pub async fn start(args: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut broker = Self::start_in(dir.path(), "127.0.0.1:0", args).await;
        broker._owned_dir = Some(dir);
        broker
    }

    /// Starts on this address with this data directory.
    pub async fn start_in(dir: &Path, listen: &str, args: &[&str]) -> Self {
        let (broker, mut lines) = Self::launch(dir, listen, args).await;
        // Whatever else it prints must be read, or the pipe would fill; the task ends with the child.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        broker
    }

    /// Starts on a free port with this data directory and environment.
    pub async fn start_with(dir: &Path, args: &[&str], env: &[(&str, &Path)]) -> Self {
        let env = env
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let (broker, mut lines) = Self::launch_with(dir, "127.0.0.1:0", args, env.collect()).await;
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        broker
    }

    /// Starts on a free port with a fresh data directory; what it prints from then on must be read.
    pub async fn start_and_listen(args: &[&str]) -> (Self, Printed) {
        let dir = tempfile::tempdir().unwrap();
        let (mut broker, lines) = Self::launch(dir.path(), "127.0.0.1:0", args).await;
        broker._owned_dir = Some(dir);
        (broker, lines)
    }

    async fn launch(dir: &Path, listen: &str, args: &[&str]) -> (Self, Printed) {
        Self::launch_with(dir, listen, args, Env::new()).await
    }

    async fn launch_with(dir: &Path, listen: &str, args: &[&str], env: Env) -> (Self, Printed) {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let (child, url, lines) = spawn(dir, listen, &args, &env).await;
        let (scheme, address) = match url.strip_prefix("https://") {
            Some(address) => ("https", address),
            None => ("http", url.strip_prefix("http://").unwrap()),
        };
        let client = Client::builder(TokioExecutor::new()).build(HttpConnector::new());
        let address = address.trim_end_matches('/').to_owned();
        let broker = Self {
            address,
            scheme,
            child,
            dir: dir.to_owned(),
            args,
            env,
            client,
            _owned_dir: None,
        };
        (broker, lines)
    }

    /// kill -9, then a start with the same directory, port and flags.
    pub async fn crash_and_restart(&mut self) {
        self.crash().await;
        self.restart().await;
    }

    /// A start after it has ended, with the same directory, port and flags.
    pub async fn restart(&mut self) {
        let (child, _, mut lines) = spawn(&self.dir, &self.address, &self.args, &self.env).await;
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        self.child = child;
    }

    /// kill -9.
    pub async fn crash(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// The process's number.
    pub fn pid(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// Sends SIGTERM and waits for the end; returns whether it was a success.
    pub async fn stop(&mut self) -> bool {
        let pid = self.pid().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &pid])
                .status()
                .await
                .unwrap()
                .success()
        );
        let ended = tokio::time::timeout(Duration::from_secs(20), self.child.wait()).await;
        ended.expect("the broker stops in time").unwrap().success()
    }

    /// `http://ADDR:PORT` and the path.
    pub fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.address)
    }

    /// A request with the preset token; the body is JSON if there is one.
    pub async fn call(&self, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let body = body
            .map(|body| Bytes::from(body.to_string()))
            .unwrap_or_default();
        self.send(
            method,
            path,
            &[("authorization", &format!("Bearer {TOKEN}"))],
            body,
        )
        .await
    }

    /// POST with the preset token.
    pub async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.call(Method::POST, path, Some(body)).await
    }

    /// GET with the preset token.
    pub async fn get(&self, path: &str) -> (u16, Value) {
        self.call(Method::GET, path, None).await
    }

    /// A request with these headers and bytes; replies that are not JSON are given as a string.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> (u16, Value) {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let reply = self
            .client
            .request(request.body(Full::new(body)).unwrap())
            .await
            .unwrap();
        let status = reply.status().as_u16();
        let body = reply.into_body().collect().await.unwrap().to_bytes();
        let said = serde_json::from_slice(&body)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&body).into_owned()));
        (status, said)
    }

    /// Starts a campaign on all hosts and returns its number.
    pub async fn run_on_all(&self, sql: &str) -> u64 {
        let selected = json!({ "labels": ["All Hosts"] });
        let body = json!({ "query": sql, "selected": selected });
        let (status, said) = self.post("/api/v1/fleet/queries/run_by_names", body).await;
        assert_eq!(status, 200, "{said}");
        said["campaign"]["id"].as_u64().unwrap()
    }
}

async fn spawn(dir: &Path, listen: &str, args: &[String], env: &Env) -> (Child, String, Printed) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_answerback"))
        .args(["serve", "--listen", listen, "--data-dir"])
        .arg(dir)
        .args(args)
        .env("ANSWERBACK_API_TOKEN", TOKEN)
        .env("ANSWERBACK_ENROLL_SECRET", SECRET)
        .env("ANSWERBACK_ADMIN_EMAIL", "admin@example.com")
        .env("ANSWERBACK_ADMIN_PASSWORD", PASSWORD)
        .env("ANSWERBACK_LOG", "warn")
        .envs(env.iter().map(|(name, value)| (name, value)))
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let listening = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if let Some(at) = line.find("listening on ") {
                return line[at + 13..].trim().to_owned();
            }
        }
        panic!("the broker ended before it listened");
    };
    let url = tokio::time::timeout(START_WITHIN, listening)
        .await
        .expect("the broker starts in time");
    (child, url, lines)
}

/// Two nodes on a Redis of their own; none where there is no Redis to run.
pub async fn two_nodes() -> Option<(RedisServer, Broker, Broker)> {
    if !is_installed() {
        return None;
    }
    let redis = RedisServer::start();
    let url = redis.url();
    let a = Broker::start(&["--store", &url, "--node", "a"]).await;
    let b = Broker::start(&["--store", &url, "--node", "b"]).await;
    Some((redis, a, b))
}

/// Runs the program, for at most so many seconds (then the code is 124); its exit code, and all that it says.
pub fn answerback(seconds: u32, args: &[&str]) -> (Option<i32>, String) {
    let mut command = std::process::Command::new("timeout");
    command.arg(seconds.to_string());
    command.arg(env!("CARGO_BIN_EXE_answerback")).args(args);
    let done = command.output().expect("it runs");
    let said = [done.stdout, done.stderr].concat();
    (
        done.status.code(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}
