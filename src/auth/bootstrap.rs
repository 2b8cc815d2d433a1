//! The first start: an empty catalog gets an admin, with what the operator preset or with what is told once.

use super::token::{self, NoEntropy};
use super::user::{Cost, HashError, Passwords, weakness};
use crate::catalog::entity::{Entity, Role, Token, User};
use crate::catalog::state::user_name;
use crate::catalog::{Catalog, CommitError, Edit, State};
use crate::clock::Timestamp;
use crate::results::UserId;
use crate::store::StoreError;

/// The address of the first admin unless one is preset.
pub(super) const EMAIL_DEFAULT: &str = "admin@localhost";

/// What the operator wants the first admin to be.
#[derive(Clone, Debug, Default)]
pub struct Presets {
    /// The admin's address.
    pub email: Option<String>,
    /// The admin's password; if none, one is made that must be changed at the first login.
    pub password: Option<String>,
    /// A token of the admin's that never expires. Made sure of at every start; an earlier one stays good until
    /// it is revoked.
    pub api_token: Option<String>,
}

/// What a preset token is called, by its flag.
const PRESET: &str = "--api-token";

/// What to tell the operator, once.
#[derive(Debug)]
pub struct FirstStart {
    /// The admin's address.
    pub email: String,
    /// The password that was made; none if it was preset.
    pub password: Option<String>,
    /// The token that was made; none if it was preset.
    pub token: Option<String>,
}

/// Why there is no admin.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// What was preset cannot be used, for this reason.
    #[error("the preset admin cannot be used: {0}")]
    Preset(&'static str),
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
    #[error("too many writers at once")]
    Contended,
}

impl From<CommitError<BootstrapError>> for BootstrapError {
    fn from(error: CommitError<BootstrapError>) -> Self {
        error.or_contended(|| Self::Contended)
    }
}

/// Preset tokens shorter than this are warned about.
const PRESET_TOKEN_BYTES_MIN: usize = 20;

/// Makes the first admin if there is none, and sees to the preset token. Nodes that start together make one. `announce` is
/// told before the admin is made: were it told after, a start that is cut short there would leave an admin whose password
/// nobody knows.
///
/// # Errors
/// See [`BootstrapError`].
pub async fn bootstrap(
    catalog: &Catalog,
    presets: &Presets,
    now: Timestamp,
    announce: impl Fn(&FirstStart),
) -> Result<Option<FirstStart>, BootstrapError> {
    check(presets)?;
    if catalog.read().has_admin() {
        ensure_token(catalog, presets, now).await?;
        return Ok(None);
    }
    let password = match &presets.password {
        Some(password) => password.clone(),
        None => token::fresh_password()?,
    };
    let token = match &presets.api_token {
        Some(token) => token.clone(),
        None => token::fresh()?,
    };
    let email = presets.email.as_deref().unwrap_or(EMAIL_DEFAULT);
    let id = catalog.reserve("user", 1).await?;
    let hash = Passwords::new(Cost::default(), 1).hash(&password).await?;
    let admin = User {
        id: UserId(u32::try_from(id).map_err(|_| BootstrapError::Contended)?),
        name: "Admin".to_owned(),
        email: email.to_owned(),
        password_hash: Some(hash),
        must_change_password: presets.password.is_none(),
        api_only: false,
        global_role: Some(Role::Admin),
        teams: std::collections::BTreeMap::new(),
        created_at: now.secs(),
    };
    let first_start = FirstStart {
        email: email.to_owned(),
        password: presets.password.is_none().then_some(password),
        token: presets.api_token.is_none().then(|| token.clone()),
    };
    announce(&first_start);
    let made = catalog
        .commit(|state: &State| plan(state, &admin, &token, now))
        .await?;
    if !made {
        ensure_token(catalog, presets, now).await?;
        return Ok(None);
    }
    Ok(Some(first_start))
}

/// What an operator presets is the operator's choice: a weak one is warned about, an unusable one refused.
fn check(presets: &Presets) -> Result<(), BootstrapError> {
    match presets.password.as_deref() {
        Some("") => return Err(BootstrapError::Preset("the password is empty")),
        Some(password) => {
            if let Some(weakness) = weakness(password) {
                tracing::warn!(weakness, "the preset admin password is weak");
            }
        }
        None => {}
    }
    let Some(token) = presets.api_token.as_deref() else {
        return Ok(());
    };
    if token::of_header(&format!("Bearer {token}")).is_none() {
        return Err(BootstrapError::Preset(
            "the API token is empty or has a space",
        ));
    }
    if token.len() < PRESET_TOKEN_BYTES_MIN {
        tracing::warn!("the preset API token is short enough to be guessed");
    }
    Ok(())
}

/// Another node may have been faster: then nothing is made.
fn plan(
    state: &State,
    admin: &User,
    token: &str,
    now: Timestamp,
) -> Result<(Vec<Edit>, bool), BootstrapError> {
    if state.has_admin() {
        return Ok((Vec::new(), false));
    }
    let number = u64::from(admin.id.0);
    let edits = vec![
        Edit::Create(Entity::Name(user_name(&admin.email), number)),
        Edit::Create(Entity::User(admin.clone())),
        Edit::Overwrite(Entity::Token(token_of(admin.id, token, PRESET, now))),
    ];
    Ok((edits, true))
}

/// The preset token belongs to the admin of the preset address, or else to the first admin.
async fn ensure_token(
    catalog: &Catalog,
    presets: &Presets,
    now: Timestamp,
) -> Result<(), BootstrapError> {
    let Some(token) = &presets.api_token else {
        return Ok(());
    };
    let email = presets.email.as_deref().unwrap_or(EMAIL_DEFAULT);
    let plan = |state: &State| {
        let is_admin = |user: &&User| user.global_role == Some(Role::Admin);
        let by_email = state.user_by_email(email).map(|user| &**user);
        let mut users = state.users.values().map(|(user, _)| &**user);
        let Some(owner) = by_email.filter(is_admin).or_else(|| users.find(is_admin)) else {
            return Ok((Vec::new(), ()));
        };
        let wanted = token_of(owner.id, token, PRESET, now);
        let known = state.tokens.get(&wanted.hash);
        if known.is_some_and(|known| known.user == owner.id && known.expires_at.is_none()) {
            return Ok((Vec::new(), ()));
        }
        Ok::<_, BootstrapError>((vec![Edit::Overwrite(Entity::Token(wanted))], ()))
    };
    Ok(catalog.commit(plan).await?)
}

/// A token that never expires.
pub(super) fn token_of(user: UserId, token: &str, name: &str, now: Timestamp) -> Token {
    Token {
        hash: token::digest(token),
        user,
        created_at: now.secs(),
        expires_at: None,
        name: Some(name.to_owned()),
    }
}
