//! The only reader of request bodies: bounded in bytes as sent and as inflated, and in time.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes};
use flate2::write::MultiGzDecoder;
use futures_util::{FutureExt, Stream, StreamExt};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, EXPECT, HeaderValue};
use http::{HeaderMap, StatusCode};
use tokio::time::{Instant, timeout_at};

use crate::telemetry::metrics::names;

/// How long and how much more is read of a body that is refused, so that its sender is still there to
/// hear why: closing a socket with unread input destroys the answer. Most clients write all before they read, so
/// that it must be more than what somebody sends by mistake; none of it is kept.
const REFUSED_TIME: Duration = Duration::from_secs(2);
const REFUSED_BYTES: usize = 32 * 1024 * 1024;

/// What one route accepts.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The body's length in bytes, as sent and as inflated each.
    pub bytes: usize,
    /// From the header to the last byte.
    pub time: Duration,
    /// Shared by all routes.
    pub budget: Budget,
}

impl Limits {
    /// At most `bytes` within 30 s, outside of any shared budget.
    #[must_use]
    pub fn of(bytes: usize) -> Self {
        Self {
            bytes,
            time: Duration::from_secs(30),
            budget: Budget::new(usize::MAX),
        }
    }
}

/// The memory that bodies still being read may take together, in bytes. Clones share it.
#[derive(Clone, Debug)]
pub struct Budget {
    used: Arc<AtomicUsize>,
    max: usize,
}

impl Budget {
    /// A budget of `max` bytes.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self {
            used: Arc::new(AtomicUsize::new(0)),
            max,
        }
    }
}

/// Bytes taken from a [`Budget`], given back when dropped.
struct Share<'a> {
    budget: &'a Budget,
    taken: usize,
}

impl Share<'_> {
    /// Grows the share to `total`; false if the budget is spent.
    fn grow(&mut self, total: usize) -> bool {
        let more = total.saturating_sub(self.taken);
        let used = self.budget.used.fetch_add(more, Ordering::Relaxed);
        self.taken += more;
        used.saturating_add(more) <= self.budget.max
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.taken, Ordering::Relaxed);
    }
}

/// A whole request body, inflated.
pub type Body = Bytes;

/// Takes over a body that has become longer than its route keeps, so that what matters of it is not lost.
pub trait Reduce {
    /// The next bytes, from the body's first on.
    fn push(&mut self, bytes: &[u8]);

    /// Bytes that it holds.
    fn held(&self) -> usize;
}

/// No body is reduced: one that is too long is refused.
#[derive(Debug)]
pub enum Refused {}

impl Reduce for Refused {
    fn push(&mut self, _: &[u8]) {
        match *self {}
    }

    fn held(&self) -> usize {
        match *self {}
    }
}

/// What has come of a body.
#[derive(Debug)]
pub struct Taken<R> {
    /// It as it came, inflated; empty if it was reduced.
    pub body: Body,
    /// What took it over when it became too long.
    pub reduced: Option<R>,
    /// Why nothing behind this could be read: only faults that a second try would meet again.
    pub fault: Option<BodyError>,
}

impl<R> Taken<R> {
    const fn whole(body: Body) -> Self {
        Self {
            body,
            reduced: None,
            fault: None,
        }
    }
}

/// Why a body was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Longer than the route allows, as sent or as inflated.
    #[error("request body is too large")]
    TooLarge,
    /// Not whole in time.
    #[error("request body did not arrive in time")]
    Timeout,
    /// The connection ended or broke the framing before the body's end.
    #[error("request body ended early")]
    Truncated,
    /// An encoding other than gzip.
    #[error("content encoding is not supported")]
    Encoding,
    /// It says gzip and is not.
    #[error("compressed request body is broken")]
    Broken,
    /// All bodies together take all the memory they may.
    #[error("too many request bodies at once")]
    Busy,
}

impl BodyError {
    /// The status that answers it.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Timeout => StatusCode::REQUEST_TIMEOUT,
            Self::Truncated | Self::Broken => StatusCode::BAD_REQUEST,
            Self::Encoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The metric's label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Timeout => "timeout",
            Self::Truncated => "truncated",
            Self::Encoding => "encoding",
            Self::Broken => "broken",
            Self::Busy => "busy",
        }
    }
}

/// Reads a body to its end. Chunked bodies and bodies without a length are read alike; no body at all
/// is an empty one.
///
/// # Errors
/// [`BodyError`]; the rest of a refused body is read for a moment and dropped.
pub async fn read<S, B, E>(
    headers: &HeaderMap,
    stream: S,
    limits: &Limits,
) -> Result<Body, BodyError>
where
    S: Stream<Item = Result<B, E>>,
    B: Buf,
{
    let taken = take(headers, stream, limits, None::<(Refused, u64)>).await?;
    match taken.fault {
        Some(fault) => Err(fault),
        None => Ok(taken.body),
    }
}

/// As [`read`], but a body that is longer than the limit is handed over to `reduce`, which takes one of at most as many
/// bytes as stand beside it; and what could be inflated of a broken body is kept.
///
/// # Errors
/// [`BodyError`] where nothing is kept.
pub async fn take<S, B, E, R>(
    headers: &HeaderMap,
    stream: S,
    limits: &Limits,
    reduce: Option<(R, u64)>,
) -> Result<Taken<R>, BodyError>
where
    S: Stream<Item = Result<B, E>>,
    B: Buf,
    R: Reduce,
{
    let mut stream = std::pin::pin!(stream);
    let outcome = take_within(headers, stream.as_mut(), limits, reduce).await;
    let fault = match &outcome {
        Ok(taken) => taken.fault,
        Err(fault) => Some(*fault),
    };
    if let Some(fault) = fault {
        metrics::counter!(names::BODIES_REFUSED, "reason" => fault.label()).increment(1);
        let gone = matches!(fault, BodyError::Truncated | BodyError::Timeout);
        if !gone {
            discard(headers, stream).await;
        }
    }
    outcome
}

/// Reads a body that nobody wants for a moment, so that its sender is still there to hear why.
pub async fn discard<S, B, E>(headers: &HeaderMap, stream: S)
where
    S: Stream<Item = Result<B, E>>,
    B: Buf,
{
    // Whoever expects a permission to send has not sent, and asking for more would give it.
    if !headers.contains_key(EXPECT) {
        swallow(std::pin::pin!(stream)).await;
    }
}

async fn take_within<S, B, E, R>(
    headers: &HeaderMap,
    mut stream: S,
    limits: &Limits,
    reduce: Option<(R, u64)>,
) -> Result<Taken<R>, BodyError>
where
    S: Stream<Item = Result<B, E>> + Unpin,
    B: Buf,
    R: Reduce,
{
    let bytes_max = reduce.as_ref().map_or(limits.bytes as u64, |(_, max)| *max);
    let mut content = Content::new(headers, limits.bytes, reduce)?;
    let mut share = Share {
        budget: &limits.budget,
        taken: 0,
    };
    let declared = declared_length(headers);
    if declared.is_some_and(|length| length > bytes_max) {
        return Err(BodyError::TooLarge);
    }
    // Most bodies have come with their header, and need no clock.
    let mut deadline = None;
    let mut sent = 0;
    loop {
        let item = match stream.next().now_or_never() {
            Some(item) => item,
            None => {
                let deadline = *deadline.get_or_insert_with(|| Instant::now() + limits.time);
                let item = timeout_at(deadline, stream.next()).await;
                item.map_err(|_| BodyError::Timeout)?
            }
        };
        let Some(part) = item else {
            return content.finish();
        };
        let mut part = part.map_err(|_| BodyError::Truncated)?;
        let first = sent == 0;
        sent += part.remaining() as u64;
        if sent > bytes_max {
            return content.broken(BodyError::TooLarge);
        }
        let whole = first && declared == Some(sent) && part.remaining() <= limits.bytes;
        if whole && content.is_plain() {
            // The common case, a small body in one piece, is not copied: it is what was read from the socket.
            let count = part.remaining();
            return match share.grow(count) {
                true => Ok(Taken::whole(part.copy_to_bytes(count))),
                false => Err(BodyError::Busy),
            };
        }
        if let Err(fault) = content.push_all(&mut part) {
            return content.broken(fault);
        }
        if !share.grow(content.len()) {
            return Err(BodyError::Busy);
        }
    }
}

fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Reads on without keeping anything.
async fn swallow<S, B, E>(mut stream: S)
where
    S: Stream<Item = Result<B, E>> + Unpin,
    B: Buf,
{
    let deadline = Instant::now() + REFUSED_TIME;
    let mut left = REFUSED_BYTES;
    while let Ok(Some(Ok(part))) = timeout_at(deadline, stream.next()).await {
        left = left.saturating_sub(part.remaining());
        if left == 0 {
            return;
        }
    }
}

/// What has arrived, inflated as it arrives.
enum Content<R: Reduce> {
    Plain(Bounded<R>),
    Gzip(Box<MultiGzDecoder<Bounded<R>>>),
}

impl<R: Reduce> Content<R> {
    fn new(headers: &HeaderMap, max: usize, reduce: Option<(R, u64)>) -> Result<Self, BodyError> {
        let bounded = Bounded {
            bytes: Vec::new(),
            max,
            total: 0,
            reduce,
            reducing: false,
            full: false,
        };
        let encoding = headers.get(CONTENT_ENCODING).map(HeaderValue::as_bytes);
        match encoding.map(<[u8]>::trim_ascii) {
            None => Ok(Self::Plain(bounded)),
            Some(name) if name.is_empty() || name.eq_ignore_ascii_case(b"identity") => {
                Ok(Self::Plain(bounded))
            }
            Some(name)
                if name.eq_ignore_ascii_case(b"gzip") || name.eq_ignore_ascii_case(b"x-gzip") =>
            {
                Ok(Self::Gzip(Box::new(MultiGzDecoder::new(bounded))))
            }
            Some(_) => Err(BodyError::Encoding),
        }
    }

    fn push(&mut self, chunk: &[u8]) -> Result<(), BodyError> {
        match self {
            Self::Plain(bounded) => bounded.write_all(chunk).map_err(|_| BodyError::TooLarge),
            Self::Gzip(decoder) => decoder
                .write_all(chunk)
                .map_err(|_| decoder.get_ref().fault()),
        }
    }

    fn push_all(&mut self, part: &mut impl Buf) -> Result<(), BodyError> {
        while part.has_remaining() {
            let chunk = part.chunk();
            let count = chunk.len();
            self.push(chunk)?;
            part.advance(count);
        }
        Ok(())
    }

    const fn is_plain(&self) -> bool {
        matches!(self, Self::Plain(_))
    }

    fn bounded(&mut self) -> &mut Bounded<R> {
        match self {
            Self::Plain(bounded) => bounded,
            Self::Gzip(decoder) => decoder.get_mut(),
        }
    }

    fn len(&mut self) -> usize {
        self.bounded().len()
    }

    fn finish(mut self) -> Result<Taken<R>, BodyError> {
        if let Self::Gzip(decoder) = &mut self {
            // Flushes what the decoder still holds; a stream without its trailer is a fault.
            if decoder.try_finish().is_err() {
                let fault = decoder.get_ref().fault();
                return self.broken(fault);
            }
        }
        Ok(self.bounded().taken(None))
    }

    /// A fault that a second try would meet again: what has arrived is kept, if there is somebody who can use it.
    fn broken(mut self, fault: BodyError) -> Result<Taken<R>, BodyError> {
        if let Self::Gzip(decoder) = &mut self {
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

/// A vector that does not grow beyond its bound, and what takes over when it would.
struct Bounded<R: Reduce> {
    bytes: Vec<u8>,
    max: usize,
    total: u64,
    /// Who takes over, and how many bytes the body may have then.
    reduce: Option<(R, u64)>,
    reducing: bool,
    full: bool,
}

impl<R: Reduce> Bounded<R> {
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

#[cfg(test)]
#[path = "body_tests.rs"]
mod tests;
