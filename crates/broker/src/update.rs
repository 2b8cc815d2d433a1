//! The messages that viewers get besides results, as JSON texts (spec fleet-live-query, 1.7).

use bytes::Bytes;
use serde::Serialize;

use super::campaign::Ending;
use super::stream_error::StreamError;

/// How many hosts a campaign targets, and how they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// All targets.
    pub count: u64,
    /// Checked in lately.
    pub online: u64,
    /// Did not, missing ones included.
    pub offline: u64,
    /// Unseen for 30 days.
    pub missing_in_action: u64,
    /// The log's epoch: it changes when a store failover has rewritten the log's end.
    pub epoch: u64,
}

/// How far a viewer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// Targets that are online now.
    pub expected_results: u64,
    /// Results that this viewer has been sent; each is another host's.
    pub actual_results: u64,
    /// Whether this is enough. Once finished, always finished.
    pub status: Phase,
}

/// The word in `status.data.status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Answers are missing.
    Pending,
    /// As many answers as hosts are online; clients may close now.
    Finished,
}

/// That a campaign has ended, and why. Nothing follows what is in its log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ended {
    /// `stopped`, `unwatched`, `unclaimed` or `expired`; `unknown` if the store has lost it.
    pub reason: &'static str,
    /// The e-mail address of whoever stopped it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

impl Ended {
    /// An ending, with the e-mail address of whoever stopped the campaign.
    #[must_use]
    pub const fn new(ending: Ending, by: Option<String>) -> Self {
        let reason = ending.reason();
        Self { reason, by }
    }

    /// The store does not know the campaign any more.
    #[must_use]
    pub const fn unknown() -> Self {
        let reason = "unknown";
        Self { reason, by: None }
    }
}

/// An `error` message. Its `data` is what fleetctl, the console and scripts print: always a plain string, never an
/// object.
#[must_use]
pub fn error(error: &StreamError) -> Bytes {
    #[derive(Serialize)]
    struct Message<'a> {
        r#type: &'static str,
        #[serde(flatten)]
        error: &'a StreamError,
    }
    let kind = "error";
    bytes(&Message {
        r#type: kind,
        error,
    })
}

/// A `totals` message.
#[must_use]
pub fn totals(totals: &Totals) -> Bytes {
    message("totals", totals)
}

/// A `status` message; `ended` once the campaign has.
#[must_use]
pub fn status(standing: &Standing, ended: Option<&Ended>) -> Bytes {
    #[derive(Serialize)]
    struct Data<'a> {
        #[serde(flatten)]
        standing: &'a Standing,
        #[serde(skip_serializing_if = "Option::is_none")]
        ended: Option<&'a Ended>,
    }
    message("status", &Data { standing, ended })
}

fn message<T: Serialize + ?Sized>(kind: &'static str, data: &T) -> Bytes {
    #[derive(Serialize)]
    struct Message<'a, T: ?Sized> {
        r#type: &'static str,
        data: &'a T,
    }
    bytes(&Message { r#type: kind, data })
}

fn bytes(message: &impl Serialize) -> Bytes {
    // Numbers and strings always serialize; an empty text would be dropped by every client.
    serde_json::to_vec(message)
        .map(Bytes::from)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ErrorCode, UserId};

    #[test]
    fn messages_have_the_shapes_that_clients_know() {
        let numbers = Totals {
            count: 24,
            online: 6,
            offline: 18,
            missing_in_action: 0,
            epoch: 0,
        };
        assert_eq!(
            totals(&numbers),
            r#"{"type":"totals","data":{"count":24,"online":6,"offline":18,"missing_in_action":0,"epoch":0}}"#
        );
        let standing = Standing {
            expected_results: 6,
            actual_results: 7,
            status: Phase::Finished,
        };
        assert_eq!(
            status(&standing, None),
            r#"{"type":"status","data":{"expected_results":6,"actual_results":7,"status":"finished"}}"#
        );
        let ended = Ended::new(Ending::StoppedBy(UserId(1)), Some("a@example.com".into()));
        assert_eq!(
            status(&standing, Some(&ended)),
            r#"{"type":"status","data":{"expected_results":6,"actual_results":7,"status":"finished","ended":{"reason":"stopped","by":"a@example.com"}}}"#
        );
        assert_eq!(
            error(&StreamError::last(ErrorCode::ResultsGone, "gone \"x\"")),
            r#"{"type":"error","data":"gone \"x\"","code":"results_gone","final":true}"#
        );
    }
}
