//! The network between a node and Redis: a proxy that passes bytes on, late, in part, or not at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What the network does to every piece that is read from a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Weather {
    /// Passes it on.
    Fine,
    /// Passes it on after a while: longer than a call of the store may take, or just not.
    Slow,
    /// Passes half of it on and cuts the connection.
    Truncating,
    /// Loses it, and says nothing: neither an answer nor an end.
    Silent,
    /// Cuts every connection, and refuses new ones.
    Cut,
}

/// Delays of [`Weather::Slow`], in turn.
const DELAYS_MS: [u64; 4] = [5, 150, 600, 1_200];

/// The proxy, gone when dropped.
pub struct Proxy {
    port: u16,
    weather: Arc<AtomicU8>,
    serving: JoinHandle<()>,
}

impl Proxy {
    /// Listens on a free port for a server on the loopback address.
    pub async fn start(server: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let weather = Arc::new(AtomicU8::new(Weather::Fine as u8));
        let serving = tokio::spawn(serve(listener, server, Arc::clone(&weather)));
        Self {
            port,
            weather,
            serving,
        }
    }

    /// A URL for a broker's `--store`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// From now on.
    pub fn turn(&self, weather: Weather) {
        self.weather.store(weather as u8, Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(listener: TcpListener, server: u16, weather: Arc<AtomicU8>) {
    loop {
        let Ok((node, _)) = listener.accept().await else {
            return;
        };
        if weather.load(Ordering::SeqCst) == Weather::Cut as u8 {
            continue;
        }
        let Ok(redis) = TcpStream::connect(("127.0.0.1", server)).await else {
            continue;
        };
        let weather = Arc::clone(&weather);
        tokio::spawn(async move {
            let ((from_node, to_node), (from_redis, to_redis)) =
                (node.into_split(), redis.into_split());
            // A stream that has lost a piece never goes on: TCP does not deliver what follows a hole.
            let lost = AtomicBool::new(false);
            tokio::select! {
                () = pass(from_node, to_redis, &weather, &lost) => {}
                () = pass(from_redis, to_node, &weather, &lost) => {}
                () = until_cut(&weather) => {}
            }
        });
    }
}

async fn until_cut(weather: &AtomicU8) {
    while weather.load(Ordering::SeqCst) != Weather::Cut as u8 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn pass(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    weather: &AtomicU8,
    lost: &AtomicBool,
) {
    let mut piece = vec![0; 16 * 1024];
    for turn in 0.. {
        let Ok(length @ 1..) = from.read(&mut piece).await else {
            return;
        };
        let now = weather.load(Ordering::SeqCst);
        if lost.load(Ordering::SeqCst) || now == Weather::Silent as u8 {
            lost.store(true, Ordering::SeqCst);
            continue;
        }
        if now == Weather::Truncating as u8 {
            let _ = to.write_all(&piece[..length / 2]).await;
            return;
        }
        if now == Weather::Slow as u8 {
            tokio::time::sleep(Duration::from_millis(DELAYS_MS[turn % DELAYS_MS.len()])).await;
        }
        if to.write_all(&piece[..length]).await.is_err() {
            return;
        }
    }
}
