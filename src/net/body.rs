//! The only reader of request bodies: bounded in bytes as sent and as inflated, and in time.

use std::convert::Infallible;
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
use warp::Filter;

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

/// A filter that reads the body and never rejects: the route answers faults in its own shape.
pub fn capped(
    limits: Limits,
) -> impl Filter<Extract = (Result<Body, BodyError>,), Error = Infallible> + Clone {
    // A body that was already taken cannot happen on a route with one reader; it reads as cut off.
    let stream = warp::body::stream()
        .map(Some)
        .or_else(|_| std::future::ready(Ok::<_, Infallible>((None,))));
    warp::header::headers_cloned()
        .and(stream)
        .then(move |headers: HeaderMap, stream| {
            let limits = limits.clone();
            async move {
                match stream {
                    Some(stream) => read(&headers, stream, &limits).await,
                    None => Err(BodyError::Truncated),
                }
            }
        })
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
    let mut stream = std::pin::pin!(stream);
    let outcome = read_within(headers, stream.as_mut(), limits).await;
    if let Err(fault) = outcome {
        metrics::counter!(names::BODIES_REFUSED, "reason" => fault.label()).increment(1);
        let gone = matches!(fault, BodyError::Truncated | BodyError::Timeout);
        // Whoever expects a permission to send has not sent, and asking for more would give it.
        if !gone && !headers.contains_key(EXPECT) {
            swallow(stream).await;
        }
    }
    outcome
}

async fn read_within<S, B, E>(
    headers: &HeaderMap,
    mut stream: S,
    limits: &Limits,
) -> Result<Body, BodyError>
where
    S: Stream<Item = Result<B, E>> + Unpin,
    B: Buf,
{
    let mut content = Content::new(headers, limits.bytes)?;
    let mut share = Share {
        budget: &limits.budget,
        taken: 0,
    };
    let declared = declared_length(headers);
    if declared.is_some_and(|length| length > limits.bytes as u64) {
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
        sent += part.remaining();
        if sent > limits.bytes {
            return Err(BodyError::TooLarge);
        }
        if first && content.is_plain() && declared == Some(sent as u64) {
            // The common case, a small body in one piece, is not copied: it is what was read from the socket.
            return match share.grow(sent) {
                true => Ok(part.copy_to_bytes(sent)),
                false => Err(BodyError::Busy),
            };
        }
        while part.has_remaining() {
            let chunk = part.chunk();
            let count = chunk.len();
            content.push(chunk)?;
            part.advance(count);
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
enum Content {
    Plain(Bounded),
    Gzip(Box<MultiGzDecoder<Bounded>>),
}

impl Content {
    fn new(headers: &HeaderMap, max: usize) -> Result<Self, BodyError> {
        let bounded = Bounded {
            bytes: Vec::new(),
            max,
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

    const fn is_plain(&self) -> bool {
        matches!(self, Self::Plain(_))
    }

    fn len(&self) -> usize {
        match self {
            Self::Plain(bounded) => bounded.bytes.len(),
            Self::Gzip(decoder) => decoder.get_ref().bytes.len(),
        }
    }

    fn finish(self) -> Result<Body, BodyError> {
        match self {
            Self::Plain(bounded) => Ok(Bytes::from(bounded.bytes)),
            Self::Gzip(mut decoder) => {
                // Flushes what the decoder still holds; a stream without its trailer is a fault.
                let flushed = decoder.try_finish();
                flushed.map_err(|_| decoder.get_ref().fault())?;
                Ok(Bytes::from(std::mem::take(&mut decoder.get_mut().bytes)))
            }
        }
    }
}

/// A vector that refuses to grow beyond its bound.
struct Bounded {
    bytes: Vec<u8>,
    max: usize,
    full: bool,
}

impl Bounded {
    const fn fault(&self) -> BodyError {
        if self.full {
            BodyError::TooLarge
        } else {
            BodyError::Broken
        }
    }
}

impl Write for Bounded {
    fn write(&mut self, chunk: &[u8]) -> std::io::Result<usize> {
        if chunk.len() > self.max - self.bytes.len() {
            self.full = true;
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(chunk);
        Ok(chunk.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;

    type Parts = Vec<Result<Bytes, ()>>;

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    async fn read_parts(
        encoding: Option<&str>,
        parts: Parts,
        limits: &Limits,
    ) -> Result<Bytes, BodyError> {
        let mut headers = HeaderMap::new();
        if let Some(encoding) = encoding {
            headers.insert(CONTENT_ENCODING, encoding.parse().unwrap());
        }
        read(&headers, futures_util::stream::iter(parts), limits).await
    }

    fn cut(bytes: &[u8], size: usize) -> Parts {
        bytes
            .chunks(size)
            .map(|part| Ok(Bytes::copy_from_slice(part)))
            .collect()
    }

    #[tokio::test]
    async fn plain_bodies_are_bounded_to_the_byte() {
        let limits = Limits::of(10);
        assert_eq!(read_parts(None, vec![], &limits).await, Ok(Bytes::new()));
        let ten = read_parts(Some("identity"), cut(b"0123456789", 3), &limits).await;
        assert_eq!(ten, Ok(Bytes::from_static(b"0123456789")));
        let eleven = read_parts(None, cut(b"0123456789a", 3), &limits).await;
        assert_eq!(eleven, Err(BodyError::TooLarge));
        let broken = vec![Ok(Bytes::from_static(b"01")), Err(())];
        assert_eq!(
            read_parts(None, broken, &limits).await,
            Err(BodyError::Truncated)
        );
        let brotli = read_parts(Some("br"), cut(b"0123", 3), &limits).await;
        assert_eq!(brotli, Err(BodyError::Encoding));
    }

    #[tokio::test]
    async fn gzip_is_inflated_however_it_is_cut() {
        let plain = b"answer,".repeat(1000);
        let sent = gzip(&plain);
        for size in [1, 7, sent.len()] {
            let read = read_parts(Some("GZip"), cut(&sent, size), &Limits::of(7000)).await;
            assert_eq!(read.as_deref(), Ok(plain.as_slice()));
        }
        let short = read_parts(Some("gzip"), cut(&sent, 9), &Limits::of(6999)).await;
        assert_eq!(short, Err(BodyError::TooLarge));
    }

    #[tokio::test]
    async fn a_bomb_is_refused_and_never_unpacked() {
        let bomb = gzip(&vec![0; 100 << 20]);
        let limits = Limits::of(1 << 20);
        assert!(bomb.len() < limits.bytes);
        let read = read_parts(Some("gzip"), cut(&bomb, 4096), &limits).await;
        assert_eq!(read, Err(BodyError::TooLarge));
    }

    #[tokio::test]
    async fn damaged_and_cut_gzip_is_broken() {
        let sent = gzip(b"answer");
        let limits = Limits::of(100);
        for bytes in [&sent[..sent.len() - 3], &sent[..5], b"not gzip"] {
            let read = read_parts(Some("gzip"), cut(bytes, 4), &limits).await;
            assert_eq!(read, Err(BodyError::Broken), "{bytes:?}");
        }
    }

    #[tokio::test]
    async fn bodies_share_one_budget_and_give_it_back() {
        let mut limits = Limits::of(100);
        limits.budget = Budget::new(15);
        let other = limits.budget.used.clone();
        other.fetch_add(10, Ordering::Relaxed);
        let busy = read_parts(None, cut(b"0123456789", 10), &limits).await;
        assert_eq!(busy, Err(BodyError::Busy));
        other.fetch_sub(10, Ordering::Relaxed);
        assert!(
            read_parts(None, cut(b"0123456789", 10), &limits)
                .await
                .is_ok()
        );
        assert_eq!(other.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_body_in_one_piece_needs_its_share_too() {
        let mut limits = Limits::of(100);
        limits.budget = Budget::new(15);
        let other = limits.budget.used.clone();
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("10"));
        for (used, outcome) in [
            (10, Err(BodyError::Busy)),
            (5, Ok(Bytes::from_static(b"0123456789"))),
        ] {
            other.store(used, Ordering::Relaxed);
            let whole = futures_util::stream::iter(cut(b"0123456789", 10));
            assert_eq!(read(&headers, whole, &limits).await, outcome);
            assert_eq!(other.load(Ordering::Relaxed), used);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_comes_times_out() {
        let stream = futures_util::stream::pending::<Result<Bytes, ()>>();
        let read = read(&HeaderMap::new(), stream, &Limits::of(10)).await;
        assert_eq!(read, Err(BodyError::Timeout));
    }
}
