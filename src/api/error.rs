//! What goes wrong in the operators' API, as the client hears it: the envelope of spec fleet-live-query, 5.2.

use std::time::Duration;

use http::header::{ALLOW, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use warp::reply::Response;

use super::reply::json_response;
use crate::auth::{AuthError, LoginError};
use crate::catalog::CommitError;
use crate::net::BodyError;
use crate::store::StoreError;

/// One field that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Fault {
    /// The field, such as `specs[2].name`; `base` for the request as a whole.
    pub name: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Why a request was not served.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    /// 400: the request makes no sense.
    #[error("bad request: {0}")]
    BadRequest(String),
    /// 400: the body is not JSON, or not of the route's shape; where and why.
    #[error("bad json: {0}")]
    Json(String),
    /// 401, with Fleet's text.
    #[error("not authenticated: {0}")]
    Unauthenticated(&'static str),
    /// 403: their roles do not allow it.
    #[error("forbidden")]
    Forbidden,
    /// 403: an administrator has switched it off.
    #[error("disabled: {0}")]
    Disabled(&'static str),
    /// 404: this is not there.
    #[error("not found: {0}")]
    NotFound(String),
    /// 405: the path exists; these are its methods.
    #[error("method not allowed")]
    Method(String),
    /// 409: something of this name exists.
    #[error("conflict: {0}")]
    Exists(String),
    /// 422: these fields are wrong.
    #[error("invalid: {0:?}")]
    Invalid(Vec<Fault>),
    /// 429: worth another try after this long.
    #[error("too many")]
    TooMany(Duration),
    /// 429: there is too much of it at once; the text says of what and what to do.
    #[error("{0}")]
    Crowded(String),
    /// The body was not taken.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// 503: the store does not answer, or others were faster again and again.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// 503: the store takes no writes, for this reason.
    #[error("{0}")]
    Full(String),
    /// 500: our fault. The text goes to the log, not to the client.
    #[error("internal: {0}")]
    Internal(String),
}

impl ApiError {
    /// 422 for one field.
    pub(super) fn invalid(name: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid(vec![Fault {
            name: name.into(),
            reason: reason.into(),
        }])
    }

    /// 404 in Fleet's words: `what` is `Host 5` or the like.
    pub(super) fn not_found(what: impl std::fmt::Display) -> Self {
        Self::NotFound(format!("{what} was not found in the datastore"))
    }

    /// The status that answers it.
    #[must_use]
    pub(super) const fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) | Self::Json(_) => StatusCode::BAD_REQUEST,
            Self::Unauthenticated(_) => StatusCode::UNAUTHORIZED,
            Self::Forbidden | Self::Disabled(_) => StatusCode::FORBIDDEN,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Exists(_) => StatusCode::CONFLICT,
            Self::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooMany(_) | Self::Crowded(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Body(fault) => fault.status(),
            Self::Unavailable(_) | Self::Full(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The title and the faults that the client hears; no faults at all for a denied permission.
    #[must_use]
    pub(super) fn told(&self) -> (&str, Option<Vec<Fault>>) {
        let base = |reason: &str| {
            Some(vec![Fault {
                name: "base".to_owned(),
                reason: reason.to_owned(),
            }])
        };
        match self {
            Self::BadRequest(reason) => ("Bad request", base(reason)),
            Self::Json(detail) => ("Bad request", json_faults(detail)),
            Self::Unauthenticated(text) => (text, base(text)),
            Self::Forbidden => ("Permission Denied", None),
            Self::Disabled(reason) => ("Permission Denied", base(reason)),
            Self::NotFound(reason) => ("Resource Not Found", base(reason)),
            Self::Method(_) => ("Method Not Allowed", base("Method Not Allowed")),
            Self::Exists(reason) => ("Resource Already Exists", base(reason)),
            Self::Invalid(faults) => ("Validation Failed", Some(faults.clone())),
            Self::TooMany(_) => ("Too Many Requests", base("limit exceeded, retry later")),
            Self::Crowded(reason) => ("Too Many Requests", base(reason)),
            Self::Body(fault) => body_told(*fault, base),
            Self::Unavailable(_) => (
                "Service Unavailable",
                base("the result store does not answer, retry later"),
            ),
            Self::Full(reason) => ("Service Unavailable", base(reason)),
            Self::Internal(_) => ("Internal Server Error", base("internal error")),
        }
    }

    /// The whole answer. Failures of ours are logged here, with the number that the client can quote.
    #[must_use]
    pub(super) fn into_response(self) -> Response {
        let status = self.status();
        let uuid = status.is_server_error().then(reference);
        if let Some(uuid) = &uuid {
            tracing::error!(error = %self, uuid, "a request of the API failed");
        }
        let (message, errors) = self.told();
        let envelope = Envelope {
            message,
            errors,
            uuid,
        };
        let mut response = json_response(status, &envelope);
        if let Some((name, value)) = self.header() {
            response.headers_mut().insert(name, value);
        }
        response
    }

    fn header(&self) -> Option<(HeaderName, HeaderValue)> {
        match self {
            Self::Method(allow) => Some((ALLOW, HeaderValue::from_str(allow).ok()?)),
            Self::TooMany(wait) => Some((
                RETRY_AFTER,
                wait.as_millis()
                    .div_ceil(1000)
                    .max(1)
                    .to_string()
                    .parse()
                    .ok()?,
            )),
            Self::Crowded(_) => Some((RETRY_AFTER, HeaderValue::from_static("10"))),
            Self::Unavailable(_) => Some((RETRY_AFTER, HeaderValue::from_static("1"))),
            Self::Unauthenticated(_) => {
                Some((WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")))
            }
            _ => None,
        }
    }
}

#[derive(Serialize)]
struct Envelope<'a> {
    message: &'a str,
    errors: Option<Vec<Fault>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uuid: Option<String>,
}

/// Fleet's own text first, for those who look for it, and then what is really wrong.
fn json_faults(detail: &str) -> Option<Vec<Fault>> {
    let fault = |name: &str, reason: &str| Fault {
        name: name.to_owned(),
        reason: reason.to_owned(),
    };
    Some(vec![
        fault("base", "json decoder error"),
        fault("body", detail),
    ])
}

fn body_told(
    fault: BodyError,
    base: impl Fn(&str) -> Option<Vec<Fault>>,
) -> (&'static str, Option<Vec<Fault>>) {
    let title = match fault {
        BodyError::TooLarge => "Request Entity Too Large",
        BodyError::Timeout => "Request Timeout",
        BodyError::Encoding => "Unsupported Media Type",
        BodyError::Busy => "Service Unavailable",
        BodyError::Truncated | BodyError::Broken => "Bad request",
    };
    (title, base(&fault.to_string()))
}

/// A random number to find a failure in the log by, in the form of a UUID.
fn reference() -> String {
    let mut bytes = [0u8; 16];
    // Without randomness all references are alike, which still answers the request.
    let _ = getrandom::fill(&mut bytes);
    let number = u128::from_be_bytes(bytes) & !(0xf << 76) | (4 << 76);
    let number = number & !(0b11 << 62) | (0b10 << 62);
    let hex = format!("{number:032x}");
    let (a, b, c, d, e) = (
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    );
    format!("{a}-{b}-{c}-{d}-{e}")
}

impl From<AuthError> for ApiError {
    fn from(error: AuthError) -> Self {
        Self::Unauthenticated(match error {
            AuthError::Required => "Authentication required",
            AuthError::PasswordReset(_) => "password reset required",
        })
    }
}

impl From<LoginError> for ApiError {
    fn from(error: LoginError) -> Self {
        match error {
            LoginError::Failed => Self::Unauthenticated("Authentication failed"),
            LoginError::TooMany(wait) => Self::TooMany(wait),
            LoginError::Weak(reason) => Self::invalid("new_password", reason),
            LoginError::TooManyTokens => Self::invalid("base", error.to_string()),
            LoginError::Store(error) => error.into(),
            LoginError::Contended => Self::Unavailable(error.to_string()),
            LoginError::Hash(_) | LoginError::Entropy(_) => Self::Internal(error.to_string()),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) => Self::Unavailable(error.to_string()),
            StoreError::Full(_) | StoreError::Vanished(_) => Self::Full(error.to_string()),
            StoreError::Damaged(_) => Self::Internal(error.to_string()),
        }
    }
}

impl From<CommitError<ApiError>> for ApiError {
    fn from(error: CommitError<ApiError>) -> Self {
        error.or_contended(|| Self::Unavailable("too many writers at once".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_uuids_of_version_4() {
        let one = reference();
        assert_eq!(one.len(), 36);
        assert_eq!(one.as_bytes()[14], b'4');
        assert!(b"89ab".contains(&one.as_bytes()[19]), "{one}");
        assert_ne!(one, reference());
    }
}
