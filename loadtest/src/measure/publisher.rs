//! Whoever makes results: agents that post answers, or one connection that tells a limit or a peer to publish.

use anyhow::ensure;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::JoinSet;

use super::{Fan, Subject, Trigger};

/// Connections that agents share.
const AGENT_CONNECTIONS: usize = 2;

pub(super) enum Publisher {
    Connection {
        stream: OwnedWriteHalf,
        trigger: Trigger,
        /// Length of a message.
        bytes: usize,
        /// Takes off what the server says about it; ends with the publisher.
        _replies: JoinSet<()>,
    },
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
            return Self::connection(subject, fan.bytes).await;
        };
        let requests = broker.answers(campaign, fan.results, fan.bytes);
        let (mut streams, mut replies) = (Vec::new(), JoinSet::new());
        for _ in 0..AGENT_CONNECTIONS {
            let stream = TcpStream::connect(subject.address).await?;
            stream.set_nodelay(true)?;
            let (read, write) = stream.into_split();
            streams.push(write);
            replies.spawn_local(drain(read));
        }
        Ok(Self::Agents {
            streams,
            requests,
            _replies: replies,
        })
    }

    async fn connection(subject: &Subject, bytes: usize) -> anyhow::Result<Self> {
        let trigger = subject.trigger;
        let mut stream = TcpStream::connect(subject.address).await?;
        stream.set_nodelay(true)?;
        stream.write_all(trigger.request().as_bytes()).await?;
        let mut head = Vec::with_capacity(1024);
        stream.read_buf(&mut head).await?;
        ensure!(
            head.starts_with(b"HTTP/1.1 101"),
            "the server does not let publish: {}",
            String::from_utf8_lossy(&head)
        );
        stream.write_all(&trigger.hello()).await?;
        let (read, stream) = stream.into_split();
        let mut replies = JoinSet::new();
        replies.spawn_local(drain(read));
        Ok(Self::Connection {
            stream,
            trigger,
            bytes,
            _replies: replies,
        })
    }

    /// Publishes the results from number `from` on.
    pub(super) async fn publish(&mut self, from: usize, count: usize) -> anyhow::Result<()> {
        match self {
            Self::Connection {
                stream,
                trigger,
                bytes,
                ..
            } => stream.write_all(&trigger.publish(count, *bytes)).await?,
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

/// Reads and forgets until the other side closes.
async fn drain(mut from: OwnedReadHalf) {
    let mut space = vec![0; 65536];
    while let Ok(1..) = from.read(&mut space).await {}
}
