//! The servers of a comparison as processes of their own, each on a port of its own.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::packaged;
use crate::measure::{Broker, Subject, Trigger};
use crate::process::Process;

/// A broker of a million hosts starts slowly on a busy machine.
const START_MAX: Duration = Duration::from_secs(120);
/// Whoever takes longer to end in order is killed.
const STOP_MAX: Duration = Duration::from_secs(60);
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
    pub(super) peers: PathBuf,
    /// Python whose packages bring uWebSockets
    #[arg(
        long,
        default_value = "target/peers/venv/bin/python",
        value_name = "FILE"
    )]
    pub(super) python: PathBuf,
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

    pub(super) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
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
    Uws,
    Nchan,
    Nats,
}

impl Server {
    /// What makes it publish a message, if it has no campaigns.
    fn trigger(self) -> Trigger {
        match self {
            Self::Uws => Trigger::FramedByte,
            Self::Nchan => Trigger::Message,
            Self::Nats => Trigger::Nats,
            Self::LimitSingle
            | Self::LimitBatched
            | Self::BareHttp
            | Self::Answerback
            | Self::Ws
            | Self::SockjsNode => Trigger::Byte,
        }
    }

    /// Whether it has a folder of its own, for what it writes or is told.
    fn has_folder(self) -> bool {
        matches!(self, Self::Answerback | Self::Nchan | Self::Nats)
    }
}

/// A server that runs until this is dropped.
pub(crate) struct Running {
    pub(crate) subject: Subject,
    server: Server,
    child: Child,
    /// What it writes or is told; goes with it.
    folder: Option<PathBuf>,
}

impl Running {
    /// Starts a server whose messages have `bytes` bytes, where it makes them itself.
    pub(crate) async fn start(
        server: Server,
        bytes: usize,
        places: &Places,
    ) -> anyhow::Result<Self> {
        let address = free_address()?;
        let folder = server.has_folder().then(|| scratch(address.port()));
        let command = command(server, address, bytes, places, folder.as_deref())?;
        Self::spawn(server, address, command, folder).await
    }

    /// Starts a broker on a folder that stays when it stops. Its campaigns go with their viewers, so that those of
    /// one start are not in the way of the next.
    pub(crate) async fn broker(folder: &Path, places: &Places) -> anyhow::Result<Self> {
        let (server, address) = (Server::Answerback, free_address()?);
        let mut command = command(server, address, 0, places, Some(folder))?;
        command
            .env("ANSWERBACK_RESUME_GRACE_S", "0")
            .env("ANSWERBACK_RETENTION_S", "1");
        Self::spawn(server, address, command, None).await
    }

    async fn spawn(
        server: Server,
        address: SocketAddr,
        mut command: Command,
        folder: Option<PathBuf>,
    ) -> anyhow::Result<Self> {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .with_context(|| format!("{server:?}"))?;
        let broker = server == Server::Answerback;
        let subject = Subject {
            address,
            process: Process::new(child.id()),
            broker: broker.then(|| Broker::new(address, TOKEN, SECRET)),
            trigger: server.trigger(),
        };
        let mut running = Self {
            subject,
            server,
            child,
            folder,
        };
        let start = Instant::now();
        while TcpStream::connect(address).await.is_err() {
            let ended = running.child.try_wait()?;
            ensure!(ended.is_none(), "{server:?} has ended: {ended:?}");
            ensure!(start.elapsed() < START_MAX, "{server:?} does not listen");
            sleep(Duration::from_millis(1)).await;
        }
        Ok(running)
    }

    /// Asks the server to end and waits for it. Whoever has children cannot be killed without leaving them behind.
    pub(crate) fn stop(&mut self) -> anyhow::Result<()> {
        let mut ask = Command::new("sh");
        ask.args(["-c", "kill -TERM \"$0\"", &self.child.id().to_string()]);
        ask.status()?;
        let start = Instant::now();
        while self.child.try_wait()?.is_none() {
            ensure!(start.elapsed() < STOP_MAX, "{:?} goes on", self.server);
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.server == Server::Nchan && matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.stop();
        }
        // Either fails only if the process has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(folder) = &self.folder {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

fn command(
    server: Server,
    address: SocketAddr,
    bytes: usize,
    places: &Places,
    folder: Option<&Path>,
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
                .args(folder)
                .env("ANSWERBACK_LOG", "warn")
                // All hosts of a run enroll from here.
                .env("ANSWERBACK_ENROLL_RATE", "100000")
                .env("ANSWERBACK_HOSTS", "10000000")
                .env("ANSWERBACK_API_TOKEN", TOKEN)
                .env("ANSWERBACK_ENROLL_SECRET", SECRET);
            Ok(command)
        }
        Server::Uws => Ok(packaged::uws(places, address, bytes)),
        Server::Nchan | Server::Nats => {
            let folder = folder.context("no folder")?;
            packaged::configured(server, places, address, folder)
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
