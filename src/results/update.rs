//! The messages that viewers get besides results, as JSON texts (spec fleet-live-query, 1.7).

use bytes::Bytes;
use serde::Serialize;

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

/// What fleetctl, the console and scripts print: always a plain string, never an object.
#[must_use]
pub fn error(text: &str) -> Bytes {
    message("error", text)
}

/// A `totals` message.
#[must_use]
pub fn totals(totals: &Totals) -> Bytes {
    message("totals", totals)
}

/// A `status` message.
#[must_use]
pub fn status(standing: &Standing) -> Bytes {
    message("status", standing)
}

fn message<T: Serialize + ?Sized>(kind: &'static str, data: &T) -> Bytes {
    #[derive(Serialize)]
    struct Message<'a, T: ?Sized> {
        r#type: &'static str,
        data: &'a T,
    }
    // Numbers and strings always serialize; an empty text would be dropped by every client.
    serde_json::to_vec(&Message { r#type: kind, data })
        .map(Bytes::from)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

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
            status(&standing),
            r#"{"type":"status","data":{"expected_results":6,"actual_results":7,"status":"finished"}}"#
        );
        assert_eq!(
            error("forbidden \"x\""),
            r#"{"type":"error","data":"forbidden \"x\""}"#
        );
    }
}
