//! The driver of a streaming response: frames straight to the socket, in chunks, and the client's leaving noticed.

use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::ReadBuf;

use super::frames::{Frames, Polled};
use super::outbound::Outbound;
use crate::net::Socket;
use crate::sockjs::coding::LAST_CHUNK;

/// How much is asked for before it is written, in bytes, at least.
const BATCH: usize = 128 * 1024;
/// What a client may send ahead of its next request's turn, in bytes; more is not read before.
const READ_AHEAD_MAX: usize = 16 * 1024;
/// How much is read at a time, on the stack, in bytes.
const READ: usize = 2 * 1024;

/// One streaming response. The future is complete when the response is: with the socket, or without it if the client
/// has gone or takes nothing.
pub(super) struct Streaming {
    /// `None` once it is given back.
    socket: Option<Socket>,
    /// `None` once it is written.
    head: Option<Bytes>,
    frames: Frames,
    /// What the socket has not taken yet.
    outbound: Option<Box<Outbound>>,
    /// Whether nothing follows what is outbound.
    ended: bool,
    read_ahead: Vec<u8>,
}

/// The client has gone.
struct Gone;

impl Streaming {
    /// A response that begins with `head`.
    pub(super) fn new(socket: Socket, head: Bytes, frames: Frames) -> Self {
        Self {
            socket: Some(socket),
            head: Some(head),
            frames,
            outbound: None,
            ended: false,
            read_ahead: Vec::new(),
        }
    }

    /// Ready when all is written.
    fn drive(&mut self, socket: &mut Socket, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        self.read(socket, cx)?;
        if let Some(waiting) = self.outbound.take()
            && self.write(waiting, socket, cx)?.is_pending()
        {
            if self.frames.is_wanted() {
                return Poll::Pending;
            }
            // The session has ended for its taking nothing; what the kernel holds for it is thrown away.
            socket.reset_on_drop();
            return Poll::Ready(Err(Gone));
        }
        loop {
            if self.ended {
                self.frames.written(true);
                return Poll::Ready(Ok(()));
            }
            let mut batch = Outbound::default();
            let drained = self.fill(&mut batch, cx);
            let all = self.write(batch, socket, cx)?.is_ready();
            if !all || drained {
                self.frames.taken(all);
                return Poll::Pending;
            }
        }
    }

    /// Takes from the session what fits in one write. Whether that was all there is for now.
    fn fill(&mut self, batch: &mut Outbound, cx: &mut Context<'_>) -> bool {
        if let Some(head) = self.head.take() {
            batch.push(head);
        }
        let mut bytes = 0;
        while bytes < BATCH {
            match self.frames.poll(cx) {
                Polled::Parts { parts, drained } => {
                    bytes += parts.iter().map(Bytes::len).sum::<usize>();
                    batch.extend(parts);
                    if drained {
                        return true;
                    }
                }
                Polled::Nothing => return true,
                Polled::End => {
                    batch.push(LAST_CHUNK);
                    self.ended = true;
                    return false;
                }
            }
        }
        false
    }

    /// Writes what the socket takes and keeps the rest.
    fn write<O>(
        &mut self,
        mut waiting: O,
        socket: &mut Socket,
        cx: &mut Context<'_>,
    ) -> Result<Poll<()>, Gone>
    where
        O: AsMut<Outbound> + Into<Box<Outbound>>,
    {
        let mut taken = 0;
        match waiting.as_mut().poll_write(socket, cx, &mut taken) {
            Poll::Ready(Ok(())) => Ok(Poll::Ready(())),
            Poll::Ready(Err(_)) => Err(Gone),
            Poll::Pending => {
                if taken > 0 {
                    self.frames.written(false);
                }
                self.outbound = Some(waiting.into());
                Ok(Poll::Pending)
            }
        }
    }

    /// Keeps what the client sends for its next request. A closed sending half is how its leaving looks.
    fn read(&mut self, socket: &mut Socket, cx: &mut Context<'_>) -> Result<(), Gone> {
        while self.read_ahead.len() < READ_AHEAD_MAX {
            let mut space = [const { MaybeUninit::uninit() }; READ];
            let mut buffer = ReadBuf::uninit(&mut space);
            match socket.poll_input(cx, &mut buffer) {
                Poll::Pending => break,
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    self.read_ahead.extend_from_slice(buffer.filled());
                }
                Poll::Ready(_) => return Err(Gone),
            }
        }
        Ok(())
    }
}

impl Future for Streaming {
    type Output = Option<Socket>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Socket>> {
        let this = self.get_mut();
        let Some(mut socket) = this.socket.take() else {
            return Poll::Ready(None);
        };
        match this.drive(&mut socket, cx) {
            Poll::Pending => {
                this.socket = Some(socket);
                Poll::Pending
            }
            Poll::Ready(Err(Gone)) => Poll::Ready(None),
            Poll::Ready(Ok(())) => {
                socket.unread(std::mem::take(&mut this.read_ahead).into());
                Poll::Ready(Some(socket))
            }
        }
    }
}
