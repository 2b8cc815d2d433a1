//! One accepted connection, plain or encrypted, which hyper uses and an upgrade takes back.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use hyper_util::rt::TokioIo;
use rustix::net::SendFlags;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::coop::has_budget_remaining;
use tokio_rustls::server::TlsStream;

use super::places::ConnectionPermit;
use super::refusal::instead_of;

/// Parts of at most this many bytes in all are copied and sent as one: a head and a short body cost the kernel more apart
/// than the copy does, 2.5 % of a check-in.
const GATHERED_BYTES: usize = 512;

/// A connection with its place among the connections allowed; dropping it gives the place back.
#[derive(Debug)]
pub struct Socket {
    stream: Stream,
    /// What was read too early, to be read again.
    unread: Option<Box<Bytes>>,
    /// Whether the task that polls the input will be woken when there is some.
    awaited: bool,
    /// While hyper has it.
    flushed: Option<Flushed>,
    /// What is written in place of a refusal of hyper's own.
    refusal: Option<Box<Bytes>>,
    place: Arc<ConnectionPermit>,
}

#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    fn poll_write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(stream) => poll_send(stream, cx, buf.len(), || {
                rustix::net::send(&*stream, buf, SendFlags::NOSIGNAL)
            }),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }
}

/// Whether all that was written has been flushed; hyper flushes as soon as it has nothing left to write.
#[derive(Clone, Debug)]
pub(super) struct Flushed(Arc<AtomicBool>);

impl Flushed {
    pub(super) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Socket {
    pub(super) fn plain(stream: TcpStream, place: Arc<ConnectionPermit>) -> Self {
        Self {
            stream: Stream::Plain(stream),
            unread: None,
            awaited: false,
            flushed: None,
            refusal: None,
            place,
        }
    }

    pub(super) fn tls(stream: TlsStream<TcpStream>, place: Arc<ConnectionPermit>) -> Self {
        Self {
            stream: Stream::Tls(Box::new(stream)),
            unread: None,
            awaited: false,
            flushed: None,
            refusal: None,
            place,
        }
    }

    /// What it holds its place by.
    pub(super) fn place(&self) -> Arc<ConnectionPermit> {
        Arc::clone(&self.place)
    }

    /// From here on it is known whether what was written is flushed.
    pub(super) fn watch_flushes(&mut self) -> Flushed {
        let flushed = Flushed(Arc::new(AtomicBool::new(true)));
        self.flushed.insert(flushed).clone()
    }

    /// What hyper gives back, with what it has read and not used.
    pub fn from_hyper(io: TokioIo<Self>, read: Bytes) -> Self {
        let mut socket = io.into_inner();
        // Whoever has taken it decides how long it lasts.
        socket.place.busy();
        // A line of memory less for each write.
        socket.flushed = None;
        socket.awaited = false;
        socket.unread(read);
        socket
    }

    /// [`poll_read`](AsyncRead::poll_read) for whoever has taken the socket from hyper and always polls it with the same
    /// waker: that is registered once, and as long as nothing has come this is one look.
    pub fn poll_input(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.awaited && !self.has_input() {
            return Poll::Pending;
        }
        let polled = Pin::new(&mut *self).poll_read(cx, buf);
        // A task that has used its turn up is told to come again, and is not registered.
        self.awaited = polled.is_pending() && has_budget_remaining();
        polled
    }

    /// Whether there may be something to read, or the peer has gone.
    pub fn has_input(&self) -> bool {
        match &self.stream {
            Stream::Plain(stream) => {
                self.unread.is_some() || stream.try_io(Interest::READABLE, || Ok(())).is_ok()
            }
            // What has come may be in the session's buffers.
            Stream::Tls(_) => true,
        }
    }

    /// Whether hyper writes a refusal of its own; then what says more is written with the next flush.
    fn is_refusal(&mut self, head: &[u8]) -> bool {
        let Some(told) = self.flushed.as_ref().and_then(|_| instead_of(head)) else {
            return false;
        };
        self.refusal = Some(Box::new(told));
        true
    }

    fn poll_refusal(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(mut rest) = self.refusal.take() {
            let polled = self.stream.poll_write(cx, &rest);
            if let Poll::Ready(Ok(count)) = &polled {
                rest.advance(*count);
            }
            if !rest.is_empty() && !matches!(polled, Poll::Ready(Err(_))) {
                self.refusal = Some(rest);
            }
            ready!(polled)?;
        }
        Poll::Ready(Ok(()))
    }

    fn set_flushed(&self, flushed: bool) {
        if let Some(Flushed(known)) = &self.flushed {
            known.store(flushed, Ordering::Relaxed);
        }
    }

    /// What was read and is not the reader's: it is read again before anything else.
    pub fn unread(&mut self, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        let bytes = match self.unread.take() {
            None => bytes,
            // What has not been read again yet came after it.
            Some(rest) => [bytes, *rest].concat().into(),
        };
        self.unread = Some(Box::new(bytes));
    }

    /// Makes the drop throw away what the kernel still holds for the peer, instead of keeping it until
    /// the peer takes it or times out.
    pub fn reset_on_drop(&self) {
        let stream = match &self.stream {
            Stream::Plain(stream) => stream,
            Stream::Tls(stream) => stream.get_ref().0,
        };
        // A socket that refuses is already dead.
        let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(bytes) = &mut self.unread {
            let count = bytes.len().min(buf.remaining());
            buf.put_slice(&bytes[..count]);
            bytes.advance(count);
            if bytes.is_empty() {
                self.unread = None;
            }
            return Poll::Ready(Ok(()));
        }
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.set_flushed(false);
        if self.is_refusal(buf) {
            return Poll::Ready(Ok(buf.len()));
        }
        self.stream.poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.set_flushed(false);
        if let [only] = bufs
            && self.is_refusal(only)
        {
            return Poll::Ready(Ok(only.len()));
        }
        match &mut self.stream {
            Stream::Plain(stream) => {
                let len = bufs.iter().map(|buf| buf.len()).sum();
                let mut whole = [0; GATHERED_BYTES];
                match gather(bufs, len, &mut whole) {
                    Some(whole) => poll_send(stream, cx, len, || {
                        rustix::net::send(&*stream, whole, SendFlags::NOSIGNAL)
                    }),
                    None => poll_send(stream, cx, len, || rustix::io::writev(&*stream, bufs)),
                }
            }
            Stream::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_refusal(cx))?;
        let flushed = match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        };
        self.set_flushed(flushed.is_ready());
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// Puts the parts, `len` bytes together, one behind the other if there is room for them.
fn gather<'a>(
    bufs: &[IoSlice<'_>],
    len: usize,
    whole: &'a mut [u8; GATHERED_BYTES],
) -> Option<&'a [u8]> {
    let whole = whole.get_mut(..len)?;
    let mut rest = &mut *whole;
    bufs.iter().for_each(|buf| rest.put_slice(buf));
    Some(whole)
}

/// Sends up to `len` bytes as soon as the socket takes something. The system calls are made without the C library, whose
/// `send` may be cancelled by other threads: two locked operations for each, a hundredth of a delivery.
fn poll_send(
    stream: &TcpStream,
    cx: &mut Context<'_>,
    len: usize,
    send: impl Fn() -> rustix::io::Result<usize>,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(stream.poll_write_ready(cx))?;
        let mut part = None;
        let outcome = stream.try_io(Interest::WRITABLE, || match send() {
            // What takes a part is full; said so, it is asked again when it is not.
            Ok(count @ 1..) if count < len => {
                part = Some(count);
                Err(io::ErrorKind::WouldBlock.into())
            }
            outcome => outcome.map_err(io::Error::from),
        });
        match (part, outcome) {
            (Some(count), _) => return Poll::Ready(Ok(count)),
            (None, Err(fault)) if is_passing(&fault) => {}
            (None, outcome) => return Poll::Ready(outcome),
        }
    }
}

/// Whether the same call can succeed later: the socket is full, or a signal came in between.
fn is_passing(fault: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, WouldBlock};
    matches!(fault.kind(), WouldBlock | Interrupted)
}
