//! Real redis-server processes on free ports: one alone, a cluster of 3 + 3, or a master with Sentinels. Killed when dropped.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a server may take to answer; machines that run tests are busy.
const START_WITHIN: Duration = Duration::from_secs(60);

/// One process.
pub struct RedisServer {
    child: Child,
    port: u16,
    dir: TempDir,
    args: Vec<String>,
}

/// Whether tests can run servers. Set `ANSWERBACK_REQUIRE_REDIS` where a missing `redis-server` must be a failure.
pub fn is_installed() -> bool {
    let found = Command::new("redis-server")
        .arg("--version")
        .output()
        .is_ok();
    if !found {
        assert!(
            std::env::var_os("ANSWERBACK_REQUIRE_REDIS").is_none(),
            "redis-server is not installed"
        );
        eprintln!("skipped: redis-server is not installed");
    }
    found
}

/// The files of a server, by their paths in its directory.
pub type Files = Vec<(PathBuf, Vec<u8>)>;

impl RedisServer {
    /// A server of its own that keeps everything (append-only file, written every second).
    pub fn start() -> Self {
        Self::with(&["--appendonly", "yes", "--appendfsync", "everysec"])
    }

    /// A server with these arguments.
    pub fn with(args: &[&str]) -> Self {
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        Self::launch(tempfile::tempdir().unwrap(), args)
    }

    /// A server with these arguments that begins with another's files.
    pub fn with_files(args: &[&str], files: &Files) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (path, bytes) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        Self::launch(dir, args.iter().map(|arg| (*arg).to_owned()).collect())
    }

    /// What it has written, for [`RedisServer::with_files`].
    pub fn files(&self) -> Files {
        let mut files = Vec::new();
        let mut folders = vec![self.dir.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let name = path.strip_prefix(self.dir.path()).unwrap().to_owned();
                    files.push((name, std::fs::read(path).unwrap()));
                }
            }
        }
        files
    }

    /// The append-only file that grows.
    fn growing_file(&self) -> PathBuf {
        let folder = self.dir.path().join("appendonlydir");
        let files = std::fs::read_dir(folder).unwrap();
        let mut growing: Vec<_> = files
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.to_string_lossy().ends_with(".incr.aof"))
            .collect();
        growing.sort();
        growing.pop().unwrap()
    }

    /// How long the append-only file is.
    pub fn written(&self) -> u64 {
        std::fs::metadata(self.growing_file()).unwrap().len()
    }

    /// Cuts the append-only file of a server that was killed, as a machine does that loses its power before it syncs.
    pub fn lose_beyond(&self, written: u64) {
        let file = std::fs::OpenOptions::new()
            .write(true)
            .open(self.growing_file());
        file.unwrap().set_len(written).unwrap();
    }

    fn launch(dir: TempDir, args: Vec<String>) -> Self {
        let port = free_port();
        let child = spawn(port, dir.path(), &args);
        let server = Self {
            child,
            port,
            dir,
            args,
        };
        server.await_answer();
        server
    }

    /// A server that speaks TLS only, with this certificate and key, and wants a password.
    pub fn with_tls(certificate: &str, key: &str, password: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (cert_file, key_file) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
        std::fs::write(&cert_file, certificate).unwrap();
        std::fs::write(&key_file, key).unwrap();
        let (tls, plain) = (free_port(), free_port());
        let args = format!(
            "--tls-port {tls} --tls-auth-clients no --tls-cert-file {} --tls-key-file {} \
             --tls-ca-cert-file {} --requirepass {password}",
            cert_file.display(),
            key_file.display(),
            cert_file.display()
        );
        let child = spawn(plain, dir.path(), std::slice::from_ref(&args));
        let server = Self {
            child,
            port: tls,
            dir,
            args: vec![args],
        };
        wait_until("a server listens", || {
            std::net::TcpStream::connect(("127.0.0.1", tls)).is_ok()
        });
        server
    }

    /// Its port on the loopback address.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again, on the same port and directory.
    pub fn restart(&mut self) {
        self.child = spawn(self.port, self.dir.path(), &self.args);
        self.await_answer();
    }

    /// Stops the process without ending it, as a machine does that hangs.
    pub fn freeze(&self) {
        signal("-STOP", self.child.id());
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        signal("-CONT", self.child.id());
    }

    /// What `redis-cli` says to these words.
    pub fn cli(&self, words: &[&str]) -> String {
        cli(self.port, words)
    }

    fn await_answer(&self) {
        wait_until("a server answers", || {
            let reply = self.cli(&["ping"]);
            reply.contains("PONG")
        });
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // It may have been killed by the test.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Three primaries with a replica each.
pub struct RedisCluster {
    /// The servers; which is what changes with every failover.
    pub servers: Vec<RedisServer>,
}

impl RedisCluster {
    /// Starts six servers and makes them a cluster.
    pub fn start() -> Self {
        let args = [
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            "1500",
            "--appendonly",
            "yes",
        ];
        let servers: Vec<_> = (0..6).map(|_| RedisServer::with(&args)).collect();
        let addresses = servers
            .iter()
            .map(|server| format!("127.0.0.1:{}", server.port));
        let made = Command::new("redis-cli")
            .args(["--cluster", "create"])
            .args(addresses)
            .args(["--cluster-replicas", "1", "--cluster-yes"])
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        let cluster = Self { servers };
        cluster.await_ok();
        cluster
    }

    /// Waits until all slots are served and every replica has what its primary has: else it is never promoted.
    pub fn await_ok(&self) {
        wait_until("the cluster is complete", || {
            self.servers.iter().all(|server| {
                let info = server.cli(&["cluster", "info"]);
                info.is_empty()
                    || (info.contains("cluster_state:ok")
                        && info.contains("cluster_known_nodes:6")
                        && info.contains("cluster_size:3")
                        && !server
                            .cli(&["info", "replication"])
                            .contains("master_link_status:down"))
            })
        });
    }

    /// A URL that names three of the servers.
    pub fn url(&self) -> String {
        let hosts: Vec<_> = self.servers[..3]
            .iter()
            .map(|server| format!("127.0.0.1:{}", server.port))
            .collect();
        format!("redis+cluster://{}", hosts.join(","))
    }

    /// The server that has the slot of this key now.
    pub fn primary_of(&mut self, key: &str) -> &mut RedisServer {
        let slot: u32 = self.servers[0]
            .cli(&["cluster", "keyslot", key])
            .trim()
            .parse()
            .unwrap();
        let at = self
            .servers
            .iter()
            .position(|server| {
                let nodes = server.cli(&["cluster", "nodes"]);
                let myself = nodes.lines().find(|line| line.contains("myself")).unwrap();
                myself.contains("master") && has_slot(myself, slot)
            })
            .unwrap();
        &mut self.servers[at]
    }
}

/// A master, two replicas, three Sentinels.
pub struct RedisSentinels {
    /// The master at first, then the replicas.
    pub servers: Vec<RedisServer>,
    sentinels: Vec<(Child, u16, TempDir)>,
}

impl RedisSentinels {
    /// Starts everything and waits until the Sentinels know each other and the replicas.
    pub fn start() -> Self {
        let master = RedisServer::start();
        let port = master.port.to_string();
        let replica = || {
            let of = format!("127.0.0.1 {port}");
            RedisServer::with(&["--appendonly", "yes", "--replicaof", &of])
        };
        let servers = vec![replica(), replica()];
        let servers: Vec<_> = std::iter::once(master).chain(servers).collect();
        let sentinels = (0..3).map(|_| sentinel(&port)).collect();
        let all = Self { servers, sentinels };
        wait_until(
            "the Sentinels know each other and the replicas are up",
            || {
                let up = all.servers[1..].iter().all(|server| {
                    let info = server.cli(&["info", "replication"]);
                    info.contains("master_link_status:up")
                });
                up && all.sentinels.iter().all(|(_, port, _)| {
                    let said = cli(*port, &["sentinel", "master", "mymaster"]);
                    let words: Vec<_> = said.lines().collect();
                    let of = |name: &str| {
                        words
                            .iter()
                            .position(|word| *word == name)
                            .map(|at| words[at + 1])
                    };
                    of("num-slaves") == Some("2") && of("num-other-sentinels") == Some("2")
                })
            },
        );
        all
    }

    /// A URL that names the Sentinels.
    pub fn url(&self) -> String {
        let hosts: Vec<_> = self
            .sentinels
            .iter()
            .map(|(_, port, _)| format!("127.0.0.1:{port}"))
            .collect();
        format!("redis+sentinel://{}/mymaster", hosts.join(","))
    }
}

impl Drop for RedisSentinels {
    fn drop(&mut self) {
        for (child, ..) in &mut self.sentinels {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn sentinel(master: &str) -> (Child, u16, TempDir) {
    let (port, dir) = (free_port(), tempfile::tempdir().unwrap());
    let file = dir.path().join("sentinel.conf");
    let text = format!(
        "port {port}\nsentinel monitor mymaster 127.0.0.1 {master} 2\n\
         sentinel down-after-milliseconds mymaster 3000\nsentinel failover-timeout mymaster 5000\n"
    );
    std::fs::write(&file, text).unwrap();
    let child = Command::new("redis-server")
        .arg(&file)
        .arg("--sentinel")
        .current_dir(dir.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    (child, port, dir)
}

fn spawn(port: u16, dir: &Path, args: &[String]) -> Child {
    let args = args.iter().flat_map(|arg| arg.split(' '));
    Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--save", "", "--daemonize", "no"])
        .args(["--repl-diskless-sync-delay", "0"])
        .arg("--dir")
        .arg(dir)
        .args(args)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

fn cli(port: u16, words: &[&str]) -> String {
    let said = Command::new("redis-cli")
        .args(["-p", &port.to_string()])
        .args(words)
        .stderr(Stdio::null())
        .output()
        .unwrap();
    if said.status.success() {
        String::from_utf8_lossy(&said.stdout).into_owned()
    } else {
        String::new()
    }
}

fn signal(signal: &str, process: u32) {
    let done = Command::new("kill")
        .args([signal, &process.to_string()])
        .status();
    assert!(done.unwrap().success());
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let give_up = Instant::now() + START_WITHIN;
    while !is_so() {
        assert!(Instant::now() < give_up, "it never came that {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Nobody listens there now. Low enough for the cluster's bus, which is 10,000 above.
fn free_port() -> u16 {
    loop {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        if port < 55_000 && TcpListener::bind(("127.0.0.1", port + 10_000)).is_ok() {
            return port;
        }
    }
}

/// Whether a line of `CLUSTER NODES` claims the slot.
fn has_slot(line: &str, slot: u32) -> bool {
    line.split(' ').skip(8).any(|range| {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        match (from.parse::<u32>(), to.parse::<u32>()) {
            (Ok(from), Ok(to)) => (from..=to).contains(&slot),
            _ => false,
        }
    })
}
