//! The servers of a comparison as processes of their own, each on a port of its own.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::measure::{Broker, Subject};
use crate::process::Process;

/// Node starts slowly on a busy machine.
const START_MAX: Duration = Duration::from_secs(20);
const TOKEN: &str = "loadtest-token-of-the-comparison";
const SECRET: &str = "loadtest-enroll-secret";

/// Where the programs are, and where they run.
#[derive(Clone, Debug, Args)]
pub(crate) struct Places {
    /// Folder of the built programs; by default the one that this program lies in
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
    /// Folder of the peers that come from npm
    #[arg(long, default_value = "loadtest/peers", value_name = "DIR")]
    peers: PathBuf,
    /// Pin servers to this core (taskset); pin this program to another one
    #[arg(long, value_name = "CORE")]
    server_cpu: Option<u32>,
}

impl Places {
    fn program(&self, name: &str) -> anyhow::Result<PathBuf> {
        let own = std::env::current_exe()?;
        let own = own.parent().map(Path::to_owned).unwrap_or_default();
        let path = self.programs.clone().unwrap_or(own).join(name);
        ensure!(path.exists(), "{} is not built", path.display());
        Ok(path)
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        match self.server_cpu {
            None => Command::new(program),
            Some(core) => {
                let mut command = Command::new("taskset");
                command.args(["-c", &core.to_string()]).arg(program);
                command
            }
        }
    }
}

/// What can be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    LimitSingle,
    LimitBatched,
    /// A hyper handler that parses an agent's JSON and does nothing.
    BareHttp,
    Answerback,
    Ws,
    SockjsNode,
}

/// A server that runs until this is dropped.
pub(crate) struct Running {
    pub(crate) subject: Subject,
    child: Child,
    /// What a broker wrote.
    data: Option<PathBuf>,
}

impl Running {
    /// Starts a server whose messages have `bytes` bytes, where it makes them itself.
    pub(crate) async fn start(
        server: Server,
        bytes: usize,
        places: &Places,
    ) -> anyhow::Result<Self> {
        let address = free_address()?;
        let data = (server == Server::Answerback).then(|| scratch(address.port()));
        let mut command = command(server, address, bytes, places, data.as_deref())?;
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .with_context(|| format!("{server:?}"))?;
        let broker = data.is_some();
        let subject = Subject {
            address,
            process: Process::new(child.id()),
            broker: broker.then(|| Broker::new(address, TOKEN, SECRET)),
        };
        let running = Self {
            subject,
            child,
            data,
        };
        let start = Instant::now();
        while TcpStream::connect(address).await.is_err() {
            ensure!(start.elapsed() < START_MAX, "{server:?} does not listen");
            sleep(Duration::from_millis(2)).await;
        }
        Ok(running)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Either fails only if the process has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(data) = &self.data {
            let _ = std::fs::remove_dir_all(data);
        }
    }
}

fn command(
    server: Server,
    address: SocketAddr,
    bytes: usize,
    places: &Places,
    data: Option<&Path>,
) -> anyhow::Result<Command> {
    let limit = |mode: &str| -> anyhow::Result<Command> {
        let mut command = places.command(places.program("examples/limit")?);
        command.args([&address.to_string(), mode, &bytes.to_string()]);
        Ok(command)
    };
    let peer = |kind: &str| -> anyhow::Result<Command> {
        let modules = places.peers.join("node_modules");
        ensure!(
            modules.exists(),
            "the peers are not installed: npm ci --prefix {}",
            places.peers.display()
        );
        let mut command = places.command("node");
        command.arg(places.peers.join("server.mjs")).args([
            kind,
            &address.port().to_string(),
            &bytes.to_string(),
        ]);
        Ok(command)
    };
    match server {
        Server::LimitSingle => limit("write"),
        Server::LimitBatched => limit("batch"),
        Server::BareHttp => limit("http"),
        Server::Ws => peer("ws"),
        Server::SockjsNode => peer("sockjs"),
        Server::Answerback => {
            let mut command = places.command(places.program("answerback")?);
            command
                .args(["serve", "--listen", &address.to_string(), "--data-dir"])
                .args(data)
                .env("ANSWERBACK_API_TOKEN", TOKEN)
                .env("ANSWERBACK_ENROLL_SECRET", SECRET);
            Ok(command)
        }
    }
}

/// An address that was free a moment ago.
fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// A folder that only this run uses.
fn scratch(port: u16) -> PathBuf {
    let name = format!("answerback-loadtest-{}-{port}", std::process::id());
    std::env::temp_dir().join(name)
}
