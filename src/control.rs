//! The socket in the data directory by which commands on the same machine reach a running broker: one JSON line asks,
//! one answers. Only the directory's owner can open it.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use crate::auth::recovery::{Recovered, Recovery, recover};
use crate::catalog::Catalog;
use crate::clock::Clock;

/// The longest line.
const LINE_BYTES_MAX: u64 = 16 * 1024;
/// How long one command may take: a password's hash takes most of a second on a slow machine.
const WITHIN: Duration = Duration::from_secs(10);

/// The answer to a command.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Done(Recovered),
    Refused(String),
}

fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("control.sock")
}

/// The listening socket.
pub struct Control {
    listener: UnixListener,
    path: PathBuf,
}

impl Control {
    /// Listens in the directory. What a killed broker has left there is replaced: whoever calls this holds the
    /// directory's lock.
    ///
    /// # Errors
    /// When there can be no socket, e.g. because the path is longer than the 107 bytes that sockets may have.
    pub fn listen(data_dir: &Path) -> io::Result<Self> {
        let path = path(data_dir);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self { listener, path })
    }

    /// Does what commands ask, one after the other, for ever.
    pub async fn serve(self, catalog: Arc<Catalog>, clock: Clock) {
        loop {
            let Ok((stream, _)) = self.listener.accept().await else {
                // Out of descriptors; whoever asked hears that nobody answers.
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            };
            match timeout(WITHIN, answer(stream, &catalog, &clock)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "a command broke off"),
                Err(_) => tracing::debug!("a command took too long"),
            }
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // It is replaced by the next start if it stays.
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn answer(mut stream: UnixStream, catalog: &Catalog, clock: &Clock) -> io::Result<()> {
    let (from, mut to) = stream.split();
    let mut line = String::new();
    BufReader::new(from.take(LINE_BYTES_MAX))
        .read_line(&mut line)
        .await?;
    let answer = match serde_json::from_str::<Recovery>(&line) {
        Err(error) => Answer::Refused(format!(
            "this broker does not understand the command: {error}"
        )),
        Ok(wanted) => match recover(catalog, &wanted, clock.now()).await {
            Ok(done) => {
                let what = match wanted {
                    Recovery::ResetPassword { .. } => "password reset",
                    Recovery::NewToken { .. } => "token made",
                };
                tracing::warn!(target: "audit", user = done.email, "{what} by a command on this machine");
                Answer::Done(done)
            }
            Err(error) => Answer::Refused(error.to_string()),
        },
    };
    let mut text = serde_json::to_vec(&answer)?;
    text.push(b'\n');
    to.write_all(&text).await
}

/// Asks the broker that runs in this directory; none if none runs there.
///
/// # Errors
/// Why the broker has refused, or did not answer.
pub async fn ask(data_dir: &Path, wanted: &Recovery) -> Result<Option<Recovered>, String> {
    let mut stream = match UnixStream::connect(path(data_dir)).await {
        Ok(stream) => stream,
        Err(error) => {
            return match error.kind() {
                io::ErrorKind::NotFound
                | io::ErrorKind::ConnectionRefused
                | io::ErrorKind::InvalidInput => Ok(None),
                _ => Err(format!(
                    "cannot reach the broker by {}: {error}",
                    path(data_dir).display()
                )),
            };
        }
    };
    let asking = async {
        let (from, mut to) = stream.split();
        let mut text = serde_json::to_vec(wanted)?;
        text.push(b'\n');
        to.write_all(&text).await?;
        let mut line = String::new();
        BufReader::new(from.take(LINE_BYTES_MAX))
            .read_line(&mut line)
            .await?;
        Ok::<_, io::Error>(serde_json::from_str(&line)?)
    };
    match timeout(WITHIN, asking).await {
        Ok(Ok(Answer::Done(done))) => Ok(Some(done)),
        Ok(Ok(Answer::Refused(why))) => Err(why),
        Ok(Err(error)) => Err(format!(
            "the running broker's answer cannot be read: {error}"
        )),
        Err(_) => Err(format!(
            "the running broker does not answer within {} s",
            WITHIN.as_secs()
        )),
    }
}
