//! Plain HTTP exchanges: whole requests sent, whole replies read.

use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::time::timeout;

use crate::http1::{ResponseReader, Step};
use crate::stream::Stream;
use crate::target::Target;

/// The longest plain exchange; a live query's longest is far below.
pub(crate) const EXCHANGE_TIME_MAX: Duration = Duration::from_secs(60);
/// The largest body of a plain reply that is kept.
const BODY_BYTES_MAX: usize = 64 << 20;

/// What a server answered to a plain request.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
    pub(crate) keep_alive: bool,
    pub(crate) retry_after_s: Option<u64>,
}

/// A connection for plain requests.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: Stream,
}

impl Connection {
    pub(crate) async fn open(target: &Target) -> anyhow::Result<Self> {
        let stream = target.connect().await;
        let stream =
            stream.with_context(|| format!("cannot connect to {}:{}", target.host, target.port))?;
        Ok(Self { stream })
    }

    /// Sends a whole request and reads its whole reply.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> anyhow::Result<Reply> {
        let mut reply = None;
        self.pipeline(request, 1, |one| reply = Some(one)).await?;
        reply.context("no reply")
    }

    /// Sends `count` whole requests at once and reads as many replies, in order.
    pub(crate) async fn pipeline(
        &mut self,
        requests: &[u8],
        count: usize,
        each: impl FnMut(Reply),
    ) -> anyhow::Result<()> {
        let exchange = async {
            self.stream.write_all(requests).await?;
            self.replies(count, each).await
        };
        timeout(EXCHANGE_TIME_MAX, exchange)
            .await
            .context("the server does not answer")?
    }

    async fn replies(&mut self, count: usize, mut each: impl FnMut(Reply)) -> anyhow::Result<()> {
        let mut reader = ResponseReader::default();
        let mut reply = Reply::default();
        let mut done = 0;
        while done < count {
            let taken = self
                .stream
                .read_with(|mut input| {
                    loop {
                        match reader.next(&mut input)? {
                            Step::More => return anyhow::Ok(()),
                            Step::Head(head) => {
                                reply.status = head.status;
                                reply.keep_alive = head.keep_alive;
                                reply.retry_after_s = head.retry_after_s;
                            }
                            Step::Body(body) => {
                                reply.body.extend_from_slice(body);
                                ensure!(reply.body.len() <= BODY_BYTES_MAX, "endless reply");
                            }
                            // An interim response (100) is not the reply.
                            Step::End if reply.status < 200 => {}
                            Step::End => {
                                each(std::mem::take(&mut reply));
                                done += 1;
                            }
                        }
                    }
                })
                .await?;
            match taken {
                Some(taken) => taken?,
                None if reply.status >= 200 && reader.may_end_here() => {
                    each(std::mem::take(&mut reply));
                    done += 1;
                    ensure!(done == count, "the server closed the connection");
                }
                None => anyhow::bail!("the server closed the connection"),
            }
        }
        Ok(())
    }
}

/// One request over a connection of its own.
pub(crate) async fn once(
    target: &Target,
    method: &str,
    path: &str,
    headers: &str,
    body: &[u8],
) -> anyhow::Result<Reply> {
    let mut connection = Connection::open(target).await?;
    let headers = format!("Connection: close\r\n{headers}");
    let request = target.request(method, path, &headers, body);
    connection
        .exchange(&request)
        .await
        .with_context(|| format!("{method} {path}"))
}
