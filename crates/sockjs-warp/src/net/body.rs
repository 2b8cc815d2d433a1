//! The only reader of request bodies: bounded in bytes as sent and as inflated, and in time.

mod content;

use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::{FutureExt, Stream, StreamExt};
use http::header::{CONTENT_LENGTH, EXPECT};
use http::{HeaderMap, StatusCode};
use tokio::time::{Instant, timeout_at};

use crate::limits::BODY_RATE;
use crate::limits::account::{self, Account, Party};
use crate::names;
use content::Content;

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
    /// From the header to the last byte, and longer as long as [`BODY_RATE`] bytes a second arrive.
    pub time: Duration,
    /// What all routes take from.
    pub account: Account,
    /// How many bytes one of the body becomes until the request is answered: it, and what is made of it.
    pub becomes: usize,
}

impl Limits {
    /// At most `bytes` within 30 s, of an account of its own.
    #[must_use]
    pub fn of(bytes: usize) -> Self {
        Self {
            bytes,
            time: Duration::from_secs(30),
            account: Account::default(),
            becomes: 1,
        }
    }

    /// The same for another length.
    #[must_use]
    pub fn with_bytes(&self, bytes: usize) -> Self {
        Self {
            bytes,
            ..self.clone()
        }
    }
}

/// What a body takes from the account.
struct Share<'a, W> {
    limits: &'a Limits,
    who: W,
    taken: Option<account::Taken>,
}

impl<W: Fn() -> Party> Share<'_, W> {
    /// Takes so much in all; what is free is not counted.
    fn grow(&mut self, bytes: usize) -> Result<(), BodyError> {
        /// To take a little each time would take the account's lock each time.
        const STEP: usize = 64 * 1024;
        if bytes <= self.limits.account.free() {
            return Ok(());
        }
        let weight = bytes.saturating_mul(self.limits.becomes);
        let weight = weight.checked_next_multiple_of(STEP.min(weight.max(1)));
        let weight = weight.unwrap_or(usize::MAX);
        let outcome = match &mut self.taken {
            Some(taken) => taken.grow(weight),
            None => self
                .limits
                .account
                .take((self.who)(), weight)
                .map(|taken| self.taken = Some(taken)),
        };
        outcome.map_err(|_| BodyError::Busy)
    }
}

/// A whole request body, inflated. A large one holds its share of the account until it is dropped.
pub type Body = Bytes;

/// Bytes and their share of the account.
struct Held {
    bytes: Bytes,
    _share: account::Taken,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

fn held(bytes: Bytes, share: Option<account::Taken>) -> Body {
    match share {
        None => bytes,
        Some(share) => Bytes::from_owner(Held {
            bytes,
            _share: share,
        }),
    }
}

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
    /// What a reduced body took of the account.
    pub share: Option<account::Taken>,
}

impl<R> Taken<R> {
    const fn whole(body: Body) -> Self {
        Self {
            body,
            reduced: None,
            fault: None,
            share: None,
        }
    }

    /// With what was taken from the account for it.
    fn with(mut self, share: Option<account::Taken>) -> Self {
        if self.reduced.is_some() {
            self.share = share;
        } else {
            self.body = held(self.body, share);
        }
        self
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
/// is an empty one. `who` is asked only for bodies that count.
///
/// # Errors
/// [`BodyError`]; the rest of a refused body is read for a moment and dropped.
pub async fn read<S, B, E>(
    headers: &HeaderMap,
    stream: S,
    limits: &Limits,
    who: impl Fn() -> Party,
) -> Result<Body, BodyError>
where
    S: Stream<Item = Result<B, E>>,
    B: Buf,
{
    let taken = take(headers, stream, limits, who, None::<(Refused, u64)>).await?;
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
    who: impl Fn() -> Party,
    reduce: Option<(R, u64)>,
) -> Result<Taken<R>, BodyError>
where
    S: Stream<Item = Result<B, E>>,
    B: Buf,
    R: Reduce,
{
    let mut stream = std::pin::pin!(stream);
    let outcome = take_within(headers, stream.as_mut(), limits, who, reduce).await;
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
    who: impl Fn() -> Party,
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
        limits,
        who,
        taken: None,
    };
    let declared = declared_length(headers);
    if declared.is_some_and(|length| length > bytes_max) {
        return Err(BodyError::TooLarge);
    }
    // Most bodies have come with their header, and need no clock.
    let mut began = None;
    let mut sent = 0;
    loop {
        let item = next_part(&mut stream, limits, &mut began, sent).await?;
        let Some(part) = item else {
            let outcome = match content.end(&mut share).await {
                Err(fault) => content.broken(fault),
                Ok(()) => content.finish(),
            };
            return outcome.map(|taken| taken.with(share.taken));
        };
        let mut part = part.map_err(|_| BodyError::Truncated)?;
        let first = sent == 0;
        sent += part.remaining() as u64;
        if sent > bytes_max {
            let taken = content.broken(BodyError::TooLarge)?;
            return Ok(taken.with(share.taken));
        }
        let whole = first && declared == Some(sent) && part.remaining() <= limits.bytes;
        if whole && content.is_plain() {
            // The common case, a small body in one piece, is not copied: it is what was read from the socket.
            let count = part.remaining();
            share.grow(count)?;
            let body = part.copy_to_bytes(count);
            return Ok(Taken::whole(body).with(share.taken));
        }
        match content.push_all(&mut part, &mut share).await {
            Ok(()) => {}
            Err(BodyError::Busy) => return Err(BodyError::Busy),
            Err(fault) => return Ok(content.broken(fault)?.with(share.taken)),
        }
    }
}

/// The next part, if it comes while its body still has time; most parts are there already.
async fn next_part<S>(
    stream: &mut S,
    limits: &Limits,
    began: &mut Option<Instant>,
    sent: u64,
) -> Result<Option<S::Item>, BodyError>
where
    S: Stream + Unpin,
{
    if let Some(item) = stream.next().now_or_never() {
        return Ok(item);
    }
    let began = *began.get_or_insert_with(Instant::now);
    let more = Duration::from_secs(sent / BODY_RATE);
    let item = timeout_at(began + limits.time + more, stream.next()).await;
    item.map_err(|_| BodyError::Timeout)
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

#[cfg(test)]
#[path = "body_tests.rs"]
mod tests;
