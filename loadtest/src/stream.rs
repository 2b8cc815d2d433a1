//! A connection, with TLS or without, whose reads share one buffer a thread.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::ready;

use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// The buffer that all reads of a thread share: a viewer needs none of its own.
const SCRATCH_BYTES: usize = 256 << 10;

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
