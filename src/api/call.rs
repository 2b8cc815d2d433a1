//! One request of the operators' API, taken apart for its handler.

use std::net::IpAddr;

use bytes::Bytes;
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::Api;
use super::error::ApiError;
use crate::auth::Actor;
use crate::clock::Timestamp;
use crate::net::aside;
use crate::results::{Campaign, CampaignId};

/// The parameter that asks for a dry run; every route that changes something knows it.
pub(super) const DRY_RUN: &str = "dry_run";
/// More parameters after `?` are refused: one that is not looked at may be the one that counts.
const QUERY_PARAMETERS_MAX: usize = 100;

/// A path's parameters by name, decoded.
pub(crate) type Params = Vec<(&'static str, String)>;

/// A request whose route is known and whose sender may use it.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) actor: Option<Actor>,
    pub(super) params: Params,
    pub(super) query: Vec<(String, String)>,
    pub(super) body: Bytes,
    /// When it came.
    pub now: Timestamp,
    /// The client's address.
    pub address: IpAddr,
}

impl Call {
    /// Who calls.
    ///
    /// # Errors
    /// 401 on routes that are open to strangers.
    pub(super) fn actor(&self) -> Result<&Actor, ApiError> {
        let required = ApiError::Unauthenticated("Authentication required");
        self.actor.as_ref().ok_or(required)
    }

    /// A parameter of the path; empty if the pattern has none of this name.
    #[must_use]
    pub(super) fn param(&self, name: &str) -> &str {
        let mut params = self.params.iter();
        params
            .find(|(key, _)| *key == name)
            .map_or("", |(_, value)| value)
    }

    /// A number in the path. Numbers that are too large for anything of ours name nothing, as 0 does.
    ///
    /// # Errors
    /// 400 if it is no number.
    pub(super) fn id(&self, name: &str) -> Result<u64, ApiError> {
        let text = self.param(name);
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            let reason = format!("{name} must be a number, and is {text:?}");
            return Err(ApiError::BadRequest(reason));
        }
        Ok(text.parse().unwrap_or(0))
    }

    /// The campaign of the path's `id`, if the caller may watch it.
    ///
    /// # Errors
    /// 404, 403.
    pub(super) async fn campaign(&self, api: &Api) -> Result<Campaign, ApiError> {
        let actor = self.actor()?;
        let id = CampaignId(self.id("id")?);
        let campaign = api.parts.store.campaign(id).await?;
        // Which campaigns there are is nobody's business who may not watch them.
        let campaign = campaign.filter(|campaign| actor.may_watch(campaign));
        campaign.ok_or_else(|| ApiError::not_found(format_args!("Campaign {id}")))
    }

    /// A number in the path that fits 32 bits; 0, which nothing has, if it does not.
    ///
    /// # Errors
    /// 400 if it is no number.
    pub(super) fn id32(&self, name: &str) -> Result<u32, ApiError> {
        Ok(u32::try_from(self.id(name)?).unwrap_or(0))
    }

    /// A parameter after `?`; none if it is missing or empty.
    #[must_use]
    pub(super) fn asked(&self, name: &str) -> Option<&str> {
        let mut query = self.query.iter();
        let value = query.find(|(key, _)| key == name)?;
        Some(value.1.as_str()).filter(|value| !value.is_empty())
    }

    /// Whether the request is to be tried only.
    ///
    /// # Errors
    /// 400 for what does not clearly say so or not: nothing may be changed by mistake.
    pub(super) fn is_dry_run(&self) -> Result<bool, ApiError> {
        let Some((_, text)) = self.query.iter().find(|(key, _)| key == DRY_RUN) else {
            return Ok(false);
        };
        match text.to_ascii_lowercase().as_str() {
            "true" | "t" | "1" => Ok(true),
            "false" | "f" | "0" => Ok(false),
            _ => {
                let reason = format!("{DRY_RUN} must be true or false, and is {text:?}");
                Err(ApiError::BadRequest(reason))
            }
        }
    }

    /// A number after `?`.
    ///
    /// # Errors
    /// 400 if it is no number, or negative, or beyond 64 bits.
    pub(super) fn asked_number(&self, name: &str) -> Result<Option<u64>, ApiError> {
        let Some(text) = self.asked(name) else {
            return Ok(None);
        };
        let number = text.parse::<u64>();
        number.map(Some).map_err(|_| {
            ApiError::BadRequest(format!("{name} must be a number from 0, and is {text:?}"))
        })
    }

    /// The body as JSON of this shape. The content type is not looked at: Fleet's own clients send none.
    ///
    /// # Errors
    /// 400 with Fleet's texts and what is wrong.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        self.text()?;
        object(&self.body)?;
        let read = aside(self.body.len(), || serde_json::from_slice(&self.body));
        read.map_err(|error| ApiError::Json(error.to_string()))
    }

    /// The same, where a request without a body says nothing in particular.
    ///
    /// # Errors
    /// As [`Call::json`].
    pub(super) fn json_or_default<T: DeserializeOwned + Default>(&self) -> Result<T, ApiError> {
        if self.body.trim_ascii().is_empty() {
            return Ok(T::default());
        }
        self.json()
    }

    /// The body as JSON of any shape, as it was written.
    ///
    /// # Errors
    /// As [`Call::json`].
    pub(super) fn raw_json(&self) -> Result<Box<RawValue>, ApiError> {
        self.text()?;
        serde_json::from_slice(&self.body).map_err(|error| ApiError::Json(error.to_string()))
    }

    /// There must be a body.
    pub(super) fn text(&self) -> Result<(), ApiError> {
        if self.body.trim_ascii().is_empty() {
            return Err(ApiError::BadRequest("Expected JSON Body".to_owned()));
        }
        Ok(())
    }
}

/// An array is no object: serde would read its elements as the fields in their order.
///
/// # Errors
/// 400.
pub(super) fn object(json: &[u8]) -> Result<(), ApiError> {
    if json
        .trim_ascii_start()
        .first()
        .is_some_and(|first| *first != b'{')
    {
        // What is no JSON at all hears what the reader has to say.
        let read = serde_json::from_slice::<&RawValue>(json).map(|_| ());
        let detail = read.map_or_else(
            |error| error.to_string(),
            |()| "expected an object".to_owned(),
        );
        return Err(ApiError::Json(detail));
    }
    Ok(())
}

/// Splits what stands after `?`. Broken escapes stay as they are; bytes that are no UTF-8 are replaced.
///
/// # Errors
/// 400 for more parameters than any request of ours has.
pub(super) fn parse_query(raw: &str) -> Result<Vec<(String, String)>, ApiError> {
    let pairs = raw.split('&').filter(|pair| !pair.is_empty());
    if pairs.clone().nth(QUERY_PARAMETERS_MAX).is_some() {
        let reason = format!("must not have more than {QUERY_PARAMETERS_MAX} parameters");
        return Err(ApiError::BadRequest(reason));
    }
    let pairs = pairs.map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode_form(key), decode_form(value))
    });
    Ok(pairs.collect())
}

fn decode_form(text: &str) -> String {
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(id: &str, query: &str) -> Call {
        Call {
            actor: None,
            params: vec![("id", id.to_owned())],
            query: parse_query(query).unwrap(),
            body: Bytes::new(),
            now: Timestamp(0),
            address: IpAddr::from([127, 0, 0, 1]),
        }
    }

    #[test]
    fn numbers_in_paths_are_digits_and_too_large_ones_name_nothing() {
        assert_eq!(call("17", "").id("id").unwrap(), 17);
        assert_eq!(call("18446744073709551616", "").id("id").unwrap(), 0);
        assert_eq!(call("4294967296", "").id32("id").unwrap(), 0);
        for bad in ["", "-1", "+1", "x", "1.0", "1e3", "٣"] {
            assert!(call(bad, "").id("id").is_err(), "{bad:?}");
        }
    }

    #[test]
    fn parameters_are_decoded_as_forms_are() {
        let call = call("", "a=b+c%20d&e&=f&g=%zz&h=%C3%A9&n=5&m=-5&i=1=2");
        assert_eq!(call.asked("a"), Some("b c d"));
        assert_eq!(call.asked("e"), None);
        assert_eq!(call.asked("g"), Some("%zz"));
        assert_eq!(call.asked("h"), Some("é"));
        assert_eq!(call.asked("i"), Some("1=2"));
        assert_eq!(call.asked_number("n").unwrap(), Some(5));
        assert_eq!(call.asked_number("none").unwrap(), None);
        assert!(call.asked_number("m").is_err());
    }
}
