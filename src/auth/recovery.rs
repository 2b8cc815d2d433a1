//! A way back in for whoever has lost a password or a token. Whoever may write in the store may use it: no role is asked.

use serde::{Deserialize, Serialize};

use super::bootstrap::token_of;
use super::token::{self, NoEntropy};
use super::user::{Cost, HashError, Passwords, weakness};
use super::{forget, sessions_of};
use crate::catalog::entity::{Entity, Role, User};
use crate::catalog::{Catalog, CommitError, Edit, State};
use crate::clock::Timestamp;
use crate::store::StoreError;

/// Addresses of admins that are named to whoever has mistyped one.
const ADMINS_NAMED: usize = 10;

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Recovery {
    /// A new password. Whoever is signed in as this user is signed out.
    ResetPassword {
        /// The user's address; case does not matter.
        email: String,
        /// The password; if none, one is made that must be changed at the first login.
        password: Option<String>,
        /// Whether the tokens of the user's programs are revoked, too.
        revoke_tokens: bool,
    },
    /// A token that never expires, beside those that there are.
    NewToken {
        /// The user's address.
        email: String,
    },
}

/// What was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovered {
    /// The user's address, as it is kept.
    pub email: String,
    /// The password; none if it was given.
    pub password: Option<String>,
    /// The token.
    pub token: Option<String>,
}

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// There is no such user.
    #[error("no user has the address {email}{}", known(.admins))]
    Unknown {
        /// The address that was given.
        email: String,
        /// Addresses of admins.
        admins: Vec<String>,
    },
    /// The user is a program.
    #[error(
        "{0} is for programs and has no password: make a token with `answerback user new-token {0}`"
    )]
    ApiOnly(String),
    /// The password is too weak, for this reason.
    #[error("{0}")]
    Weak(&'static str),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The password could not be hashed.
    #[error(transparent)]
    Hash(#[from] HashError),
    /// No randomness.
    #[error(transparent)]
    Entropy(#[from] NoEntropy),
    /// Others were faster, again and again.
    #[error("too many writers at once: try again")]
    Contended,
}

impl From<CommitError<RecoveryError>> for RecoveryError {
    fn from(error: CommitError<RecoveryError>) -> Self {
        error.or_contended(|| Self::Contended)
    }
}

fn known(admins: &[String]) -> String {
    match admins {
        [] => String::new(),
        admins => format!("; admins are {}", admins.join(", ")),
    }
}

/// Does what is wanted.
///
/// # Errors
/// See [`RecoveryError`]; nothing is changed then.
pub async fn recover(
    catalog: &Catalog,
    wanted: &Recovery,
    now: Timestamp,
) -> Result<Recovered, RecoveryError> {
    match wanted {
        Recovery::ResetPassword {
            email,
            password,
            revoke_tokens,
        } => reset(catalog, email, password.as_deref(), *revoke_tokens).await,
        Recovery::NewToken { email } => new_token(catalog, email, now).await,
    }
}

async fn reset(
    catalog: &Catalog,
    email: &str,
    given: Option<&str>,
    revoke_tokens: bool,
) -> Result<Recovered, RecoveryError> {
    if let Some(reason) = given.and_then(weakness) {
        return Err(RecoveryError::Weak(reason));
    }
    let made = match given {
        Some(_) => None,
        None => Some(token::fresh_password()?),
    };
    let password = given.or(made.as_deref()).unwrap_or_default();
    let hash = Passwords::new(Cost::default(), 1).hash(password).await?;
    let plan = |state: &State| {
        let mut user = user(state, email)?;
        if user.api_only {
            return Err(RecoveryError::ApiOnly(user.email));
        }
        user.password_hash = Some(hash.clone());
        user.must_change_password = made.is_some();
        let mut edits: Vec<Edit> = match revoke_tokens {
            true => super::revoke_all(state, user.id),
            false => {
                let sessions = sessions_of(state, user.id).into_iter();
                sessions.map(|(hash, _)| forget(hash)).collect()
            }
        };
        let email = user.email.clone();
        edits.push(Edit::Put(Entity::User(user)));
        Ok((edits, email))
    };
    let email = catalog.commit(plan).await?;
    Ok(Recovered {
        email,
        password: made,
        token: None,
    })
}

async fn new_token(
    catalog: &Catalog,
    email: &str,
    now: Timestamp,
) -> Result<Recovered, RecoveryError> {
    let text = token::fresh()?;
    let plan = |state: &State| {
        let user = user(state, email)?;
        let edits = vec![Edit::Create(Entity::Token(token_of(
            user.id,
            &text,
            "answerback user new-token",
            now,
        )))];
        Ok::<_, RecoveryError>((edits, user.email))
    };
    let email = catalog.commit(plan).await?;
    Ok(Recovered {
        email,
        password: None,
        token: Some(text),
    })
}

fn user(state: &State, email: &str) -> Result<User, RecoveryError> {
    if let Some(user) = state.user_by_email(email) {
        return Ok(User::clone(user));
    }
    let users = state.users.values();
    let admins = users.filter(|(user, _)| user.global_role == Some(Role::Admin));
    let admins = admins.map(|(user, _)| user.email.clone());
    Err(RecoveryError::Unknown {
        email: email.to_owned(),
        admins: admins.take(ADMINS_NAMED).collect(),
    })
}
