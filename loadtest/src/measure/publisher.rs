//! Whoever makes results: agents that post answers, or one connection whose bytes each publish a message.

use anyhow::ensure;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::task::JoinSet;

use super::{Fan, Subject};

/// Asks a limit or a peer to publish a message for each byte that follows.
const PUBLISH: &[u8] =
    b"GET /publish HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: publish\r\n\r\n";
/// Connections that agents share.
const AGENT_CONNECTIONS: usize = 2;

pub(super) enum Publisher {
    Bytes(TcpStream),
    Agents {
        streams: Vec<OwnedWriteHalf>,
        requests: Vec<Vec<u8>>,
        /// Takes the replies off the connections; ends with the publisher.
        _replies: JoinSet<()>,
    },
}

impl Publisher {
    pub(super) async fn new(subject: &Subject, campaign: u64, fan: &Fan) -> anyhow::Result<Self> {
        let Some(broker) = &subject.broker else {
            let mut stream = TcpStream::connect(subject.address).await?;
            stream.set_nodelay(true)?;
            stream.write_all(PUBLISH).await?;
            let count = stream.read_buf(&mut Vec::with_capacity(512)).await?;
            ensure!(count > 0, "the server does not let publish");
            return Ok(Self::Bytes(stream));
        };
        let requests = broker.answers(campaign, fan.results, fan.bytes);
        let (mut streams, mut replies) = (Vec::new(), JoinSet::new());
        for _ in 0..AGENT_CONNECTIONS {
            let stream = TcpStream::connect(subject.address).await?;
            stream.set_nodelay(true)?;
            let (mut read, write) = stream.into_split();
            streams.push(write);
            replies.spawn_local(async move {
                let mut space = vec![0; 65536];
                while let Ok(1..) = read.read(&mut space).await {}
            });
        }
        Ok(Self::Agents {
            streams,
            requests,
            _replies: replies,
        })
    }

    /// Publishes the results from number `from` on.
    pub(super) async fn publish(&mut self, from: usize, count: usize) -> anyhow::Result<()> {
        match self {
            Self::Bytes(stream) => stream.write_all(&vec![1; count]).await?,
            Self::Agents {
                streams, requests, ..
            } => {
                let which = from % streams.len();
                let some = requests[from..from + count].concat();
                streams[which].write_all(&some).await?;
            }
        }
        Ok(())
    }
}
