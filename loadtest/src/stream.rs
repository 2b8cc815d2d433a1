//! A connection whose reads share one buffer a thread, and plain HTTP exchanges over it.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::ready;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::http1::{ResponseReader, Step};
use crate::target::Target;

/// The buffer that all reads of a thread share: a viewer needs none of its own.
const SCRATCH_BYTES: usize = 256 << 10;
/// The longest plain exchange; a live query's longest is far below.
pub(crate) const EXCHANGE_TIME_MAX: Duration = Duration::from_secs(60);
/// The largest body of a plain reply that is kept.
const BODY_BYTES_MAX: usize = 64 << 20;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH_BYTES]);
}

/// A TCP connection, with TLS or without.
#[derive(Debug)]
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Waits for bytes and hands them to `take`; `None` at the end of the stream.
    ///
    /// `take` must not read from another stream.
    pub(crate) async fn read_with<T>(
        &mut self,
        mut take: impl FnMut(&[u8]) -> T,
    ) -> io::Result<Option<T>> {
        poll_fn(|cx| {
            SCRATCH.with_borrow_mut(|scratch| {
                let mut buffer = ReadBuf::new(scratch);
                let read = match self {
                    Stream::Plain(stream) => Pin::new(stream).poll_read(cx, &mut buffer),
                    Stream::Tls(stream) => Pin::new(stream).poll_read(cx, &mut buffer),
                };
                ready!(read)?;
                let filled = buffer.filled();
                let taken = (!filled.is_empty()).then(|| take(filled));
                Ok(taken).into()
            })
        })
        .await
    }

    pub(crate) async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Stream::Plain(stream) => stream.write_all(bytes).await,
            Stream::Tls(stream) => {
                stream.write_all(bytes).await?;
                stream.flush().await
            }
        }
    }

    /// Makes the coming drop a reset instead of a close.
    pub(crate) fn reset_on_drop(&self) {
        let stream = match self {
            Stream::Plain(stream) => stream,
            Stream::Tls(stream) => stream.get_ref().0,
        };
        // Without it the drop is a normal close: less cruel, but no error.
        let _ = stream.set_zero_linger();
    }
}

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
