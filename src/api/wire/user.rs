//! Users as the API shows them: never a hash.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::number::Number;
use super::time::Rfc3339;
use crate::catalog::State;
use crate::catalog::entity::{Role, User};
use crate::results::UserId;

/// A user.
#[derive(Serialize)]
pub(crate) struct UserOut {
    created_at: Rfc3339,
    updated_at: Rfc3339,
    id: UserId,
    name: String,
    email: String,
    force_password_reset: bool,
    gravatar_url: &'static str,
    sso_enabled: bool,
    mfa_enabled: bool,
    api_only: bool,
    global_role: Option<Role>,
    teams: Vec<Value>,
}

impl UserOut {
    /// The user, with the names of their teams.
    #[must_use]
    pub(crate) fn of(user: &User, state: &State) -> Self {
        let teams = user.teams.iter().map(|(id, role)| {
            let name = state.teams.get(id).map_or("", |(team, _)| &team.name);
            json!({"id": id, "name": name, "role": role})
        });
        Self {
            created_at: Rfc3339(user.created_at),
            updated_at: Rfc3339(user.created_at),
            id: user.id,
            name: user.name.clone(),
            email: user.email.clone(),
            force_password_reset: user.must_change_password,
            gravatar_url: "",
            sso_enabled: false,
            mfa_enabled: false,
            api_only: user.api_only,
            global_role: user.global_role,
            teams: teams.collect(),
        }
    }
}

/// A role in a team, as it is taken.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct TeamRoleIn {
    /// The team.
    pub id: Number,
    /// The role's word.
    pub role: String,
}

/// The role of a word.
#[must_use]
pub(crate) fn parse_role(word: &str) -> Option<Role> {
    match word {
        "admin" => Some(Role::Admin),
        "maintainer" => Some(Role::Maintainer),
        "observer" => Some(Role::Observer),
        "observer_plus" => Some(Role::ObserverPlus),
        _ => None,
    }
}
