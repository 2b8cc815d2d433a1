//! What has arrived of a body, inflated as it arrives.

use std::io::Write;

use bytes::{Buf, Bytes};
use flate2::write::MultiGzDecoder;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, HeaderValue};

use super::{BodyError, Reduce, Share, Taken};
use crate::limits::account::Party;
use crate::limits::{AGENT_BODY_BYTES, GZIP_DECODER_BYTES, GZIP_HELD_BYTES, GZIP_RATIO};

/// So many bytes are inflated at once: they become at most a megabyte, in a millisecond.
const PIECE_BYTES: usize = 1024;
/// After inflating so much others have their turn.
const TURN_BYTES: u64 = 256 * 1024;
/// A stream that is longer than this and than twice what it has become is made of empty parts, each of which takes time.
const HOLLOW_BYTES: u64 = 64 * 1024;

/// The content of a body.
pub(super) enum Content<R: Reduce> {
    Plain(Bounded<R>),
    Gzip(Gzip<R>),
}

/// A compressed body. It is kept as it was sent until it is whole or long, because a decoder is large.
pub(super) struct Gzip<R: Reduce> {
    held: Vec<u8>,
    decoder: Decoder<R>,
    sent: u64,
    /// Whether more is waited for with a decoder.
    waits: bool,
    /// Counts the turns of others.
    turns: u64,
}

enum Decoder<R: Reduce> {
    Idle(Bounded<R>),
    Running(Box<MultiGzDecoder<Bounded<R>>>),
}

impl<R: Reduce> Content<R> {
    pub(super) fn new(
        headers: &HeaderMap,
        max: usize,
        reduce: Option<(R, u64)>,
    ) -> Result<Self, BodyError> {
        let bounded = Bounded::new(max, reduce);
        let encoding = headers.get(CONTENT_ENCODING).map(HeaderValue::as_bytes);
        match encoding.map(<[u8]>::trim_ascii) {
            None => Ok(Self::Plain(bounded)),
            Some(name) if name.is_empty() || name.eq_ignore_ascii_case(b"identity") => {
                Ok(Self::Plain(bounded))
            }
            Some(name)
                if name.eq_ignore_ascii_case(b"gzip") || name.eq_ignore_ascii_case(b"x-gzip") =>
            {
                Ok(Self::Gzip(Gzip {
                    held: Vec::new(),
                    decoder: Decoder::Idle(bounded),
                    sent: 0,
                    waits: false,
                    turns: 0,
                }))
            }
            Some(_) => Err(BodyError::Encoding),
        }
    }

    /// Takes a part of the body, a piece at a time, so that others have their turn.
    pub(super) async fn push_all<W: Fn() -> Party>(
        &mut self,
        part: &mut impl Buf,
        share: &mut Share<'_, W>,
    ) -> Result<(), BodyError> {
        if let Self::Gzip(gzip) = self
            && matches!(gzip.decoder, Decoder::Idle(_))
        {
            if gzip.held.len() + part.remaining() <= GZIP_HELD_BYTES {
                while part.has_remaining() {
                    let chunk = part.chunk();
                    let count = chunk.len();
                    gzip.held.extend_from_slice(chunk);
                    part.advance(count);
                }
                return Ok(());
            }
            gzip.waits = true;
            self.end(share).await?;
        }
        self.feed(part, share).await
    }

    /// All has come: what was kept back is inflated.
    pub(super) async fn end<W: Fn() -> Party>(
        &mut self,
        share: &mut Share<'_, W>,
    ) -> Result<(), BodyError> {
        let Self::Gzip(gzip) = self else {
            return Ok(());
        };
        gzip.start();
        let mut held = Bytes::from(std::mem::take(&mut gzip.held));
        self.feed(&mut held, share).await
    }

    async fn feed<W: Fn() -> Party>(
        &mut self,
        part: &mut impl Buf,
        share: &mut Share<'_, W>,
    ) -> Result<(), BodyError> {
        while part.has_remaining() {
            let chunk = part.chunk();
            let count = match self {
                Self::Plain(bounded) => {
                    let written = bounded.write_all(chunk);
                    written.map_err(|_| BodyError::TooLarge)?;
                    chunk.len()
                }
                Self::Gzip(gzip) => {
                    let piece = &chunk[..chunk.len().min(PIECE_BYTES)];
                    gzip.push(piece)?;
                    piece.len()
                }
            };
            part.advance(count);
            share.grow(self.len())?;
            if let Self::Gzip(gzip) = self
                && gzip.is_others_turn()
            {
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    pub(super) const fn is_plain(&self) -> bool {
        matches!(self, Self::Plain(_))
    }

    fn bounded(&mut self) -> &mut Bounded<R> {
        match self {
            Self::Plain(bounded) => bounded,
            Self::Gzip(gzip) => gzip.bounded(),
        }
    }

    fn len(&mut self) -> usize {
        let beside = match self {
            Self::Gzip(gzip) if gzip.waits => GZIP_DECODER_BYTES,
            _ => 0,
        };
        self.bounded().len() + beside
    }

    pub(super) fn finish(mut self) -> Result<Taken<R>, BodyError> {
        if let Self::Gzip(gzip) = &mut self
            && let Decoder::Running(decoder) = &mut gzip.decoder
        {
            // Flushes what the decoder still holds; a stream without its trailer is a fault.
            if decoder.try_finish().is_err() {
                let fault = decoder.get_ref().fault();
                return self.broken(fault);
            }
        }
        Ok(self.bounded().taken(None))
    }

    /// A fault that a second try would meet again: what has arrived is kept, if there is somebody who can use it.
    pub(super) fn broken(mut self, fault: BodyError) -> Result<Taken<R>, BodyError> {
        if let Self::Gzip(gzip) = &mut self
            && let Decoder::Running(decoder) = &mut gzip.decoder
        {
            // What is inflated already; the fault is known.
            let _ = decoder.flush();
        }
        let bounded = self.bounded();
        if bounded.reduce.is_none() {
            return Err(fault);
        }
        Ok(bounded.taken(Some(fault)))
    }
}

impl<R: Reduce> Gzip<R> {
    fn start(&mut self) {
        if let Decoder::Idle(bounded) = &mut self.decoder {
            let bounded = std::mem::replace(bounded, Bounded::new(0, None));
            self.decoder = Decoder::Running(Box::new(MultiGzDecoder::new(bounded)));
        }
    }

    fn bounded(&mut self) -> &mut Bounded<R> {
        match &mut self.decoder {
            Decoder::Idle(bounded) => bounded,
            Decoder::Running(decoder) => decoder.get_mut(),
        }
    }

    fn push(&mut self, piece: &[u8]) -> Result<(), BodyError> {
        self.sent += piece.len() as u64;
        let Decoder::Running(decoder) = &mut self.decoder else {
            return Err(BodyError::Broken);
        };
        let written = decoder.write_all(piece);
        written.map_err(|_| decoder.get_ref().fault())?;
        let total = decoder.get_ref().total;
        if self.sent > HOLLOW_BYTES + 2 * total {
            return Err(BodyError::Broken);
        }
        if total > (AGENT_BODY_BYTES as u64).max(self.sent * GZIP_RATIO) {
            return Err(BodyError::TooLarge);
        }
        Ok(())
    }

    fn is_others_turn(&mut self) -> bool {
        let turns = self.bounded().total / TURN_BYTES + self.sent / (16 * PIECE_BYTES as u64);
        std::mem::replace(&mut self.turns, turns) != turns
    }
}

/// A vector that does not grow beyond its bound, and what takes over when it would.
pub(super) struct Bounded<R: Reduce> {
    bytes: Vec<u8>,
    max: usize,
    total: u64,
    /// Who takes over, and how many bytes the body may have then.
    reduce: Option<(R, u64)>,
    reducing: bool,
    full: bool,
}

impl<R: Reduce> Bounded<R> {
    const fn new(max: usize, reduce: Option<(R, u64)>) -> Self {
        Self {
            bytes: Vec::new(),
            max,
            total: 0,
            reduce,
            reducing: false,
            full: false,
        }
    }

    const fn fault(&self) -> BodyError {
        if self.full {
            BodyError::TooLarge
        } else {
            BodyError::Broken
        }
    }

    fn len(&self) -> usize {
        let reduced = self.reduce.as_ref().filter(|_| self.reducing);
        self.bytes.len() + reduced.map_or(0, |(reduce, _)| reduce.held())
    }

    fn taken(&mut self, fault: Option<BodyError>) -> Taken<R> {
        let reduced = self.reduce.take().filter(|_| self.reducing);
        Taken {
            body: Bytes::from(std::mem::take(&mut self.bytes)),
            reduced: reduced.map(|(reduce, _)| reduce),
            fault,
            share: None,
        }
    }
}

impl<R: Reduce> Write for Bounded<R> {
    fn write(&mut self, chunk: &[u8]) -> std::io::Result<usize> {
        self.total += chunk.len() as u64;
        if !self.reducing && chunk.len() <= self.max - self.bytes.len() {
            self.bytes.extend_from_slice(chunk);
            return Ok(chunk.len());
        }
        let Some((reduce, _)) = self.reduce.as_mut().filter(|(_, max)| self.total <= *max) else {
            self.full = true;
            return Err(std::io::ErrorKind::FileTooLarge.into());
        };
        if !self.reducing {
            self.reducing = true;
            reduce.push(&std::mem::take(&mut self.bytes));
        }
        reduce.push(chunk);
        Ok(chunk.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
