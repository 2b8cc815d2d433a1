//! Who somebody is, by token or by password, and what they may do.

pub mod agent;
mod bootstrap;
mod failures;
pub mod recovery;
pub mod role;
pub mod token;
pub mod user;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use roaring::RoaringBitmap;

use crate::catalog::entity::{Entity, Role, Token, User};
use crate::catalog::record::kind;
use crate::catalog::{Catalog, CommitError, Edit, State};
use crate::clock::Timestamp;
use crate::results::{Campaign, TeamId, UserId};
use crate::store::StoreError;
pub use bootstrap::{BootstrapError, FirstStart, Presets, bootstrap};
use failures::Failures;
pub use role::{Action, Reach};
use token::NoEntropy;
use user::{HashError, PASSWORD_CHARS_MAX, Passwords};

/// Sessions that one user may have at once; the oldest goes when one more begins.
const SESSIONS_MAX: usize = 200;
/// Tokens for programs that one user may have.
const TOKENS_MAX: usize = 50;

/// How people log in.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long a session lives.
    pub session: Duration,
    /// Whether only its creator may watch a campaign, as in Fleet; otherwise global admins may too.
    pub watch_creator_only: bool,
    /// What a password hash costs.
    pub cost: user::Cost,
    /// Password hashes computed at once.
    pub hashes_at_once: usize,
    /// A failed login takes at least this long.
    pub failure_delay: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            session: Duration::from_secs(5 * 24 * 3600),
            watch_creator_only: false,
            cost: user::Cost::default(),
            hashes_at_once: 2,
            failure_delay: Duration::from_secs(1),
        }
    }
}

/// Somebody whose token is good.
#[derive(Clone, Debug)]
pub struct Actor {
    /// Who it is, as of the request.
    pub user: Arc<User>,
    /// What they came with.
    pub token: Arc<Token>,
    watch_creator_only: bool,
}

impl Actor {
    /// Where they may do it.
    #[must_use]
    pub fn reach(&self, action: Action) -> Reach {
        role::reach(&self.user, action)
    }

    /// Whether they may do it everywhere.
    #[must_use]
    pub fn may(&self, action: Action) -> bool {
        self.reach(action) == Reach::Everywhere
    }

    /// Whether they may do it in this team; without a team, only who may everywhere may.
    #[must_use]
    pub fn may_in(&self, action: Action, team: Option<TeamId>) -> bool {
        self.reach(action).holds(team)
    }

    /// Whether they may watch, export and stop this campaign.
    #[must_use]
    pub fn may_watch(&self, campaign: &Campaign) -> bool {
        self.may_read(campaign.question.user_id, &campaign.question.teams)
    }

    /// Whether they may read what hosts of these teams have answered this user: their own, as long as they may still
    /// ask all of these hosts, and as a global admin everybody's, unless a setting says otherwise.
    #[must_use]
    pub fn may_read(&self, maker: UserId, teams: &[Option<TeamId>]) -> bool {
        let reach = self.reach(Action::RunSaved);
        let runs = !reach.is_nowhere() && teams.iter().all(|team| reach.holds(*team));
        (maker == self.user.id && runs) || (!self.watch_creator_only && self.may(Action::WatchAll))
    }

    /// The hosts on which they may do it, as raw numbers.
    #[must_use]
    pub fn hosts(&self, action: Action, state: &State) -> RoaringBitmap {
        match self.reach(action) {
            Reach::Everywhere => state.hosts.all().clone(),
            Reach::Teams(teams) => {
                let sets = teams.iter().filter_map(|team| state.hosts.of_team(*team));
                sets.fold(RoaringBitmap::new(), |all, set| all | set)
            }
        }
    }
}

/// Why somebody is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The token is unknown or over, or its user is gone.
    #[error("authentication required")]
    Required,
    /// The password must be changed first.
    #[error("password reset required")]
    PasswordReset(UserId),
}

/// Why a login or a change of password did not happen.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// No such user, or not their password.
    #[error("authentication failed")]
    Failed,
    /// Too many failures of late; worth another try after this long.
    #[error("too many failures")]
    TooMany(Duration),
    /// The new password is not good enough, for this reason.
    #[error("weak password: {0}")]
    Weak(&'static str),
    /// The user has as many tokens for programs as one may have.
    #[error("a user has at most {TOKENS_MAX} tokens: revoke one that is not used")]
    TooManyTokens,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The password could not be hashed.
    #[error(transparent)]
    Hash(HashError),
    /// No randomness.
    #[error(transparent)]
    Entropy(#[from] NoEntropy),
    /// Others were faster, again and again.
    #[error("too many writers at once")]
    Contended,
}

/// What a token is for.
#[derive(Clone, Debug)]
pub enum Purpose {
    /// A log-in: it ends by itself.
    Session,
    /// A program.
    Program {
        /// What people call it.
        name: String,
        /// Seconds since the epoch; none for never.
        expires_at: Option<u64>,
    },
}

impl From<CommitError<LoginError>> for LoginError {
    fn from(error: CommitError<LoginError>) -> Self {
        error.or_contended(|| Self::Contended)
    }
}

/// A login that went well.
#[derive(Debug)]
pub struct Login {
    /// Who logged in.
    pub user: Arc<User>,
    /// The token of the session, known to nobody else.
    pub token: String,
}

/// Knows tokens and passwords.
pub struct Auth {
    catalog: Arc<Catalog>,
    settings: Settings,
    passwords: Arc<Passwords>,
    failures: Arc<Failures>,
}

impl From<HashError> for LoginError {
    fn from(error: HashError) -> Self {
        match error {
            HashError::Busy => Self::TooMany(Duration::from_secs(1)),
            error => Self::Hash(error),
        }
    }
}

impl Auth {
    /// Over this catalog.
    #[must_use]
    pub fn new(catalog: Arc<Catalog>, settings: Settings) -> Self {
        let passwords = Passwords::new(settings.cost, settings.hashes_at_once);
        Self {
            catalog,
            settings,
            passwords: Arc::new(passwords),
            failures: Arc::default(),
        }
    }

    /// The same over another catalog: failures and hashes are counted together.
    #[must_use]
    pub fn over(&self, catalog: Arc<Catalog>) -> Self {
        Self {
            catalog,
            settings: self.settings.clone(),
            passwords: Arc::clone(&self.passwords),
            failures: Arc::clone(&self.failures),
        }
    }

    /// Hashes and checks passwords.
    #[must_use]
    pub fn passwords(&self) -> &Passwords {
        &self.passwords
    }

    /// Whose token this is, if they may act now. Looks into memory only.
    #[must_use]
    pub fn authenticate(&self, token: &str, now: Timestamp) -> Option<Actor> {
        self.identify(token, now).ok()
    }

    /// Whose token this is.
    ///
    /// # Errors
    /// Why they may not act.
    pub fn identify(&self, token: &str, now: Timestamp) -> Result<Actor, AuthError> {
        self.admit(&token::digest(token), now)
    }

    fn admit(&self, hash: &str, now: Timestamp) -> Result<Actor, AuthError> {
        let actor = self.find(hash, now)?;
        // A token made for a program stays good while its user's first password waits to be changed.
        if actor.user.must_change_password && actor.token.is_session() {
            return Err(AuthError::PasswordReset(actor.user.id));
        }
        Ok(actor)
    }

    /// The same person as they stand now; none if their token is not good any more.
    #[must_use]
    pub fn renew(&self, actor: &Actor, now: Timestamp) -> Option<Actor> {
        self.admit(&actor.token.hash, now).ok()
    }

    /// Whose token this is, even if all they may do is change their password.
    ///
    /// # Errors
    /// [`AuthError::Required`].
    pub fn resolve(&self, token: &str, now: Timestamp) -> Result<Actor, AuthError> {
        self.find(&token::digest(token), now)
    }

    fn find(&self, hash: &str, now: Timestamp) -> Result<Actor, AuthError> {
        let state = self.catalog.read();
        let token = state.tokens.get(hash).ok_or(AuthError::Required)?;
        if token.expires_at.is_some_and(|at| at <= now.secs()) {
            return Err(AuthError::Required);
        }
        let (user, _) = state.users.get(&token.user).ok_or(AuthError::Required)?;
        Ok(Actor {
            user: Arc::clone(user),
            token: Arc::clone(token),
            watch_creator_only: self.settings.watch_creator_only,
        })
    }

    /// Checks a password and begins a session. Failures are slow, counted, and all alike.
    ///
    /// # Errors
    /// See [`LoginError`].
    pub async fn login(
        &self,
        email: &str,
        password: &str,
        address: IpAddr,
        now: Timestamp,
    ) -> Result<Login, LoginError> {
        let user = self.catalog.read().user_by_email(email).cloned();
        let hash = user.as_ref().and_then(|user| user.password_hash.as_deref());
        self.check(email, password, hash, address, now).await?;
        let user = user.ok_or(LoginError::Failed)?;
        let token = self.issue(user.id, Purpose::Session, now).await?;
        Ok(Login { user, token })
    }

    /// Makes a token for a user.
    ///
    /// # Errors
    /// When the user is gone or has as many as they may have, the store fails, or there is no randomness.
    pub async fn issue(
        &self,
        user: UserId,
        purpose: Purpose,
        now: Timestamp,
    ) -> Result<String, LoginError> {
        let text = token::fresh()?;
        let (name, expires_at) = match purpose {
            Purpose::Session => (None, Some((now + self.settings.session).secs())),
            Purpose::Program { name, expires_at } => (Some(name), expires_at),
        };
        let token = Token {
            hash: token::digest(&text),
            user,
            created_at: now.secs(),
            expires_at,
            name,
        };
        let plan = |state: &State| {
            if !state.users.contains_key(&user) {
                return Err(LoginError::Failed);
            }
            if !token.is_session() && programs_of(state, user).count() >= TOKENS_MAX {
                return Err(LoginError::TooManyTokens);
            }
            let mut edits = surplus(state, user, now);
            edits.push(Edit::Create(Entity::Token(token.clone())));
            Ok((edits, ()))
        };
        self.catalog.commit(plan).await?;
        Ok(text)
    }

    /// Ends a session.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn revoke(&self, token: &Token) -> Result<(), LoginError> {
        let delete = Edit::Delete(kind::TOKEN, token.hash.clone());
        let plan = |_: &State| Ok::<_, LoginError>((vec![delete.clone()], ()));
        Ok(self.catalog.commit(plan).await?)
    }

    /// Replaces the actor's password; their other sessions end.
    ///
    /// # Errors
    /// See [`LoginError`]; [`LoginError::Failed`] if `old` is wrong.
    pub async fn change_password(
        &self,
        actor: &Actor,
        (old, new): (&str, &str),
        address: IpAddr,
        now: Timestamp,
    ) -> Result<(), LoginError> {
        let hash = actor.user.password_hash.as_deref();
        self.check(&actor.user.email, old, hash, address, now)
            .await?;
        self.set_password(actor, new).await
    }

    /// Sets the actor's password without asking for the old one; for who must change it.
    ///
    /// # Errors
    /// See [`LoginError`].
    pub async fn set_password(&self, actor: &Actor, new: &str) -> Result<(), LoginError> {
        if let Some(reason) = user::weakness(new) {
            return Err(LoginError::Weak(reason));
        }
        let hash = self.passwords.hash(new).await?;
        let plan = |state: &State| {
            let (user, _) = state.users.get(&actor.user.id).ok_or(LoginError::Failed)?;
            let mut user = User::clone(user);
            user.password_hash = Some(hash.clone());
            user.must_change_password = false;
            let mut edits = sessions_of(state, user.id);
            edits.retain(|(hash, _)| *hash != actor.token.hash);
            let mut edits: Vec<Edit> = edits.into_iter().map(|(hash, _)| forget(hash)).collect();
            edits.push(Edit::Put(Entity::User(user)));
            Ok::<_, LoginError>((edits, ()))
        };
        Ok(self.catalog.commit(plan).await?)
    }

    /// Checks a password against failures of late and against its hash.
    async fn check(
        &self,
        email: &str,
        password: &str,
        hash: Option<&str>,
        address: IpAddr,
        now: Timestamp,
    ) -> Result<(), LoginError> {
        let started = tokio::time::Instant::now();
        let charge = self.failures.charge(address, email, now);
        let charge = charge.map_err(LoginError::TooMany)?;
        tokio::time::sleep(charge.wait()).await;
        let plausible = password.chars().count() <= PASSWORD_CHARS_MAX;
        let verified = match plausible {
            true => self.passwords.verify(password, hash).await,
            false => Ok(false),
        };
        match verified {
            Ok(true) => {
                self.failures.give_back(&charge);
                self.failures.remember(&charge, now);
                return Ok(());
            }
            Ok(false) => {}
            Err(error) => {
                // Nobody has looked at the password.
                self.failures.give_back(&charge);
                return Err(error.into());
            }
        }
        tokio::time::sleep_until(started + self.settings.failure_delay).await;
        Err(LoginError::Failed)
    }
}

/// A user's tokens for programs.
pub fn programs_of(state: &State, user: UserId) -> impl Iterator<Item = &Token> {
    let tokens = state.tokens.values().map(|token| &**token);
    tokens.filter(move |token| token.user == user && !token.is_session())
}

/// The edits that end all of a user's sessions and take all their tokens.
#[must_use]
pub fn revoke_all(state: &State, user: UserId) -> Vec<Edit> {
    let own = state.tokens.values().filter(|token| token.user == user);
    own.map(|token| forget(token.hash.clone())).collect()
}

/// Whether anybody else than this user is a global admin.
#[must_use]
pub fn other_admin(state: &State, user: UserId) -> bool {
    let mut users = state.users.values();
    users.any(|(other, _)| other.id != user && other.global_role == Some(Role::Admin))
}

fn forget(hash: String) -> Edit {
    Edit::Delete(kind::TOKEN, hash)
}

/// A user's sessions (not the tokens of programs), each with when it began.
fn sessions_of(state: &State, user: UserId) -> Vec<(String, u64)> {
    let tokens = state.tokens.values();
    let own = tokens.filter(|token| token.user == user && token.is_session());
    own.map(|token| (token.hash.clone(), token.created_at))
        .collect()
}

/// The edits that end sessions which are over, anybody's, and this user's oldest beyond what one may have.
fn surplus(state: &State, user: UserId, now: Timestamp) -> Vec<Edit> {
    let over = |token: &Token| token.expires_at.is_some_and(|at| at <= now.secs());
    let gone = state.tokens.values().filter(|token| over(token));
    let mut edits: Vec<Edit> = gone
        .take(SESSIONS_MAX)
        .map(|token| forget(token.hash.clone()))
        .collect();
    let mut own = sessions_of(state, user);
    if own.len() >= SESSIONS_MAX {
        own.sort_by_key(|(_, began)| *began);
        let oldest = own.len() + 1 - SESSIONS_MAX;
        edits.extend(own.into_iter().take(oldest).map(|(hash, _)| forget(hash)));
    }
    edits
}
