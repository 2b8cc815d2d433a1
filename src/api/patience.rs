//! Answers that take long: after a second the response begins, with a space a second until the document is there.
//!
//! JSON may have space before it. Writing is the only way to learn that a client is gone: one that closed its half
//! of the connection may still read. And balancers cut connections on which nothing moves.

use std::io;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, Stream};
use serde::Serialize;
use tokio::time::{Interval, interval_at, timeout};

use super::error::ApiError;
use super::reply::Reply;
use crate::limits::permits::Permit;
use crate::results::UserId;

/// Work that is over by then is answered as usual, faults with their status included.
const SOON: Duration = Duration::from_secs(1);
/// A sign of life so often.
const SIGN: Duration = Duration::from_secs(1);

type Work = BoxFuture<'static, Result<Document, ApiError>>;

/// A document, and the memory that it was counted for, until it is sent.
#[derive(Debug)]
pub(super) struct Document(Bytes);

impl Document {
    /// `taken` is given back when the text is out.
    pub(super) fn of(document: &impl Serialize, taken: Vec<Permit<UserId>>) -> Self {
        // What the API answers always serializes.
        let mut text = serde_json::to_vec_pretty(document).unwrap_or_default();
        text.push(b'\n');
        Self(Bytes::from_owner(Held {
            text,
            _taken: taken,
        }))
    }
}

struct Held {
    text: Vec<u8>,
    _taken: Vec<Permit<UserId>>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.text
    }
}

/// Answers with what the work makes; the work is dropped when the client is gone.
///
/// # Errors
/// The work's, if they come soon; later ones cut the response off.
pub(super) async fn wait_for(
    work: impl Future<Output = Result<Document, ApiError>> + Send + 'static,
) -> Result<Reply, ApiError> {
    let mut work: Work = work.boxed();
    if let Ok(outcome) = timeout(SOON, &mut work).await {
        return Ok(Reply::json_text(outcome?.0));
    }
    let now = tokio::time::Instant::now();
    let slow = Slow(Mutex::new(Some((work, interval_at(now, SIGN)))));
    Ok(Reply::slow(slow))
}

/// The body: signs of life, and then the document. The lock is never contended; it makes the work shareable, as
/// bodies must be.
struct Slow(Mutex<Option<(Work, Interval)>>);

impl Stream for Slow {
    type Item = Result<Bytes, io::Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let state = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        let Some((work, signs)) = state else {
            return Poll::Ready(None);
        };
        if let Poll::Ready(outcome) = work.poll_unpin(cx) {
            *state = None;
            return Poll::Ready(Some(outcome.map(|document| document.0).map_err(|error| {
                tracing::warn!(%error, "an answer was cut off");
                io::Error::other(error)
            })));
        }
        signs
            .poll_tick(cx)
            .map(|_| Some(Ok(Bytes::from_static(b" "))))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;
    use serde_json::json;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn signs_of_life_come_until_the_document_does() {
        let work = async {
            tokio::time::sleep(Duration::from_millis(2_500)).await;
            Ok(Document::of(&json!({"a": 1}), Vec::new()))
        };
        let now = tokio::time::Instant::now();
        let slow = Slow(Mutex::new(Some((work.boxed(), interval_at(now, SIGN)))));
        let pieces: Vec<Bytes> = slow.map(Result::unwrap).collect().await;
        assert_eq!(pieces, [" ", " ", " ", "{\n  \"a\": 1\n}\n"]);
    }

    #[tokio::test(start_paused = true)]
    async fn faults_are_answered_with_their_status_if_they_come_soon() {
        let fault = async { Err(ApiError::Forbidden) };
        assert!(matches!(wait_for(fault).await, Err(ApiError::Forbidden)));
    }
}
