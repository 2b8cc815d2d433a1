//! The errors that a viewer is told: a code for programs, a text for people, and whether trying again is of any use.

use serde::{Deserialize, Serialize};

use super::ids::{CampaignId, Seq};

/// What an error is about. Programs go by the code; the text is for people, and its words may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The token is unknown or no longer good, or its user may not watch this campaign any more.
    Unauthorized,
    /// The message was not the one that is due, or could not be read.
    InvalidMessage,
    /// There is no such campaign, or none that this user may watch: the two are told alike.
    CampaignNotFound,
    /// The campaign was cancelled, because nobody watched it in time.
    CampaignCancelled,
    /// The position to resume from is not in the log.
    CannotResume,
    /// Results that this viewer has not seen are no longer kept.
    ResultsGone,
    /// The result store does not answer. This mends itself.
    StoreUnavailable,
    /// Results that were acknowledged are lost: their file was damaged. Those that are left follow.
    ResultsIncomplete,
    /// A code that this version does not know, or none.
    #[serde(other)]
    Unknown,
}

/// The `error` message. `data` is a plain string, as it always was; `code` and `final` stand beside it.
///
/// If `final` is false, the stream goes on, or a new connection resumes it once the store answers again. If it is true,
/// asking again would hear the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamError {
    /// For people.
    #[serde(rename = "data")]
    pub text: String,
    /// For programs.
    #[serde(default = "unknown")]
    pub code: ErrorCode,
    /// Whether asking again is of no use. Brokers that do not say so mean it.
    #[serde(rename = "final", default = "yes")]
    pub is_final: bool,
}

const fn unknown() -> ErrorCode {
    ErrorCode::Unknown
}

const fn yes() -> bool {
    true
}

impl StreamError {
    /// An error after which asking again is of no use.
    #[must_use]
    pub fn last(code: ErrorCode, text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            code,
            is_final: true,
        }
    }

    fn passing(code: ErrorCode, text: impl Into<String>) -> Self {
        Self {
            is_final: false,
            ..Self::last(code, text)
        }
    }

    /// The token is not good, or no longer.
    #[must_use]
    pub fn unauthorized() -> Self {
        Self::last(ErrorCode::Unauthorized, "unauthorized")
    }

    /// The client's message is not what was expected.
    #[must_use]
    pub fn invalid_message(text: &'static str) -> Self {
        Self::last(ErrorCode::InvalidMessage, text)
    }

    /// There is no such campaign for this user.
    #[must_use]
    pub fn campaign_not_found(id: CampaignId) -> Self {
        let text = format!("cannot find campaign for ID {id}");
        Self::last(ErrorCode::CampaignNotFound, text)
    }

    /// The reaper has ended the campaign before anybody watched it.
    #[must_use]
    pub fn campaign_cancelled(id: CampaignId) -> Self {
        let text = format!("campaign {id} was cancelled: nobody watched it within 60 seconds");
        Self::last(ErrorCode::CampaignCancelled, text)
    }

    /// The log does not reach to where the viewer wants to go on.
    #[must_use]
    pub fn cannot_resume(id: CampaignId, after: Seq) -> Self {
        let text = format!("cannot resume campaign {id} after {after}: its log ends before");
        Self::last(ErrorCode::CannotResume, text)
    }

    /// All results are forgotten.
    #[must_use]
    pub fn results_gone(id: CampaignId) -> Self {
        let text = format!("the results of campaign {id} are no longer kept");
        Self::last(ErrorCode::ResultsGone, text)
    }

    /// Some results are forgotten, and the viewer has not had them.
    #[must_use]
    pub fn some_results_gone(id: CampaignId, first: Seq, last: Seq) -> Self {
        let text = format!("results {first} to {last} of campaign {id} are no longer kept");
        Self::last(ErrorCode::ResultsGone, text)
    }

    /// Not all results are shown that there were.
    #[must_use]
    pub fn results_incomplete(id: CampaignId) -> Self {
        let text = format!(
            "some results of campaign {id} are missing: its file was damaged; those that are left are shown"
        );
        Self::passing(ErrorCode::ResultsIncomplete, text)
    }

    /// The campaign cannot be opened now. The text is Fleet's, with its trailing space (spec fleet-live-query, 1.6).
    #[must_use]
    pub fn cannot_open(id: CampaignId) -> Self {
        let text =
            format!("error getting campaign reader: cannot open read channel for campaign {id} ");
        Self::passing(ErrorCode::StoreUnavailable, text)
    }

    /// The token cannot be looked up now.
    #[must_use]
    pub fn cannot_authenticate() -> Self {
        let text = "the token cannot be checked now: the result store does not answer; try again";
        Self::passing(ErrorCode::StoreUnavailable, text)
    }

    /// A running stream waits for the store. Fleet's clients know texts that begin so as no end of the stream (spec
    /// fleet-live-query, 1.6).
    #[must_use]
    pub fn store_unavailable() -> Self {
        let text = "pubsub error: the result store does not answer; results go on when it does";
        Self::passing(ErrorCode::StoreUnavailable, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_other_versions_are_read_and_what_says_nothing_is_final() {
        let read = |text: &str| serde_json::from_str::<StreamError>(text).unwrap();
        let bare = read(r#"{"type":"error","data":"forbidden"}"#);
        assert_eq!(bare, StreamError::last(ErrorCode::Unknown, "forbidden"));
        let newer = read(r#"{"type":"error","data":"x","code":"of_tomorrow","final":false}"#);
        assert_eq!(newer.code, ErrorCode::Unknown);
        assert!(!newer.is_final);
    }

    #[test]
    fn only_what_mends_itself_is_not_final() {
        let id = CampaignId(1);
        for passing in [
            StreamError::cannot_open(id),
            StreamError::cannot_authenticate(),
            StreamError::store_unavailable(),
        ] {
            assert_eq!(passing.code, ErrorCode::StoreUnavailable);
            assert!(!passing.is_final, "{passing:?}");
        }
        for last in [
            StreamError::unauthorized(),
            StreamError::campaign_not_found(id),
            StreamError::campaign_cancelled(id),
            StreamError::cannot_resume(id, Seq(2)),
            StreamError::results_gone(id),
        ] {
            assert!(last.is_final, "{last:?}");
        }
    }
}
