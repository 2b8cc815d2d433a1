//! Teams and enroll secrets as the API takes and shows them.

use roaring::RoaringBitmap;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::campaign::or_default;
use super::object::Object;
use super::time::Rfc3339;
use crate::catalog::State;
use crate::catalog::entity::{EnrollSecret, Team};
use crate::results::TeamId;

/// A team.
#[derive(Serialize)]
pub(crate) struct TeamOut<'a> {
    created_at: Rfc3339,
    id: TeamId,
    name: &'a str,
    description: &'a str,
    agent_options: Option<&'a RawValue>,
    user_count: usize,
    host_count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    secrets: Option<Vec<SecretOut>>,
}

impl<'a> TeamOut<'a> {
    /// The team, with its secrets and options for who may see them.
    #[must_use]
    pub(crate) fn of(team: &'a Team, state: &State, with_secrets: bool) -> Self {
        let users = state.users.values();
        let users = users.filter(|(user, _)| user.teams.contains_key(&team.id));
        Self {
            created_at: Rfc3339(team.created_at),
            id: team.id,
            name: &team.name,
            description: &team.description,
            agent_options: team.agent_options.as_deref().filter(|_| with_secrets),
            user_count: users.count(),
            host_count: state.hosts.of_team(team.id).map_or(0, RoaringBitmap::len),
            secrets: with_secrets.then(|| secrets_of(state, Some(team.id))),
        }
    }
}

/// An enroll secret.
#[derive(Serialize)]
pub(crate) struct SecretOut {
    secret: String,
    created_at: Rfc3339,
    #[serde(skip_serializing_if = "Option::is_none")]
    team_id: Option<TeamId>,
}

impl From<&EnrollSecret> for SecretOut {
    fn from(secret: &EnrollSecret) -> Self {
        Self {
            secret: secret.secret.clone(),
            created_at: Rfc3339(secret.created_at),
            team_id: secret.team,
        }
    }
}

/// The secrets of a team, or the global ones; the newest first.
#[must_use]
pub(crate) fn secrets_of(state: &State, team: Option<TeamId>) -> Vec<SecretOut> {
    let secrets = state.secrets.values().filter(|secret| secret.team == team);
    let mut secrets: Vec<SecretOut> = secrets.map(SecretOut::from).collect();
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.created_at));
    secrets
}

/// A secret as it is taken: `{"secret": "..."}`, or the text alone.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum SecretIn {
    /// The text alone.
    Text(String),
    /// An object that has it.
    Object(Object<Bearer>),
}

/// An object with a secret.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Bearer {
    secret: String,
}

impl SecretIn {
    /// The text.
    #[must_use]
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Text(secret) | Self::Object(Object(Bearer { secret })) => secret,
        }
    }
}

/// A team's spec. What is not given stays as it is.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct TeamSpecIn {
    /// Its name.
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    /// `{config, overrides}`, or that below `spec`; null takes the global options.
    #[serde(default, deserialize_with = "given")]
    pub agent_options: Option<Box<RawValue>>,
    /// All its secrets.
    #[serde(default)]
    pub secrets: Option<Vec<SecretIn>>,
}

/// Reads null as a value: it is not the same as a field that is not there.
///
/// # Errors
/// None: every JSON value is one.
pub(crate) fn given<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(deserializer).map(Some)
}

/// Agent options as the catalog keeps them: `{config, overrides}` as they were written; none for null.
///
/// # Errors
/// What is wrong with them.
pub(crate) fn agent_options(given: &RawValue) -> Result<Option<Box<RawValue>>, String> {
    #[derive(Deserialize)]
    struct Wrapped {
        spec: Box<RawValue>,
    }
    let value: Value = serde_json::from_str(given.get()).map_err(|error| error.to_string())?;
    if value.is_null() {
        return Ok(None);
    }
    let Some(object) = value.as_object() else {
        return Err("must be an object".to_owned());
    };
    check_options(object, &["config", "overrides", "spec"])?;
    if let Some(spec) = object.get("spec").and_then(Value::as_object) {
        check_options(spec, &["config", "overrides"])?;
        let inner: Wrapped =
            serde_json::from_str(given.get()).map_err(|error| error.to_string())?;
        return Ok(Some(inner.spec));
    }
    Ok(Some(given.to_owned()))
}

fn check_options(options: &serde_json::Map<String, Value>, fields: &[&str]) -> Result<(), String> {
    for field in fields {
        let value = options.get(*field);
        if value.is_some_and(|value| !value.is_object() && !value.is_null()) {
            return Err(format!("{field} must be an object"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> Result<Option<String>, String> {
        let raw: Box<RawValue> = serde_json::from_str(text).unwrap();
        Ok(agent_options(&raw)?.map(|kept| kept.get().to_owned()))
    }

    #[test]
    fn both_shapes_of_agent_options_are_kept_as_the_inner_one() {
        let inner = r#"{"config": {"b": 1, "a": 2}, "overrides": {}}"#;
        assert_eq!(options(inner).unwrap().as_deref(), Some(inner));
        let outer = format!("{{\"spec\": {inner}}}");
        assert_eq!(options(&outer).unwrap().as_deref(), Some(inner));
        assert_eq!(options("null").unwrap(), None);
        for bad in [
            "[]",
            "\"x\"",
            "1",
            r#"{"config": 1}"#,
            r#"{"spec": {"overrides": []}}"#,
        ] {
            assert!(options(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn deep_options_are_refused_and_do_no_harm() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let raw: Result<Box<RawValue>, _> = serde_json::from_str(&deep);
        assert!(raw.is_err() || agent_options(&raw.unwrap()).is_err());
    }
}
