//! Passwords: argon2id, made and checked off the async threads, few at a time.

use std::sync::Arc;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::Semaphore;

use crate::limits::HASHES_WAITING;

/// The least length of a password, in characters; what Fleet demands too.
pub const PASSWORD_CHARS_MIN: usize = 12;
/// The most bytes of a password.
pub const PASSWORD_CHARS_MAX: usize = 256;

/// What one hash costs.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
}

impl Default for Cost {
    /// OWASP's least for argon2id; about 21 ms on one core.
    fn default() -> Self {
        Self {
            memory_kib: 19_456,
            passes: 2,
        }
    }
}

/// Why a password cannot be hashed.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    /// The cost is out of argon2's bounds, or memory ran out.
    #[error("hashing failed: {0}")]
    Argon2(String),
    /// Too many wait already.
    #[error("too many passwords are being checked, try again in a second")]
    Busy,
    /// The process is stopping.
    #[error("hashing was cut off")]
    CutOff,
}

/// Makes and checks password hashes, a bounded number at once: each takes 19 MiB.
#[derive(Debug)]
pub struct Passwords {
    cost: Cost,
    permits: Arc<Semaphore>,
    /// Of those that are hashed and those that wait for it.
    queue: Arc<Semaphore>,
}

impl Passwords {
    /// At most `at_once` hashes run together; [`HASHES_WAITING`] more wait.
    #[must_use]
    pub fn new(cost: Cost, at_once: usize) -> Self {
        Self {
            cost,
            permits: Arc::new(Semaphore::new(at_once.max(1))),
            queue: Arc::new(Semaphore::new(at_once.max(1) + HASHES_WAITING)),
        }
    }

    /// Hashes a password into PHC form.
    ///
    /// # Errors
    /// When argon2 fails.
    pub async fn hash(&self, password: &str) -> Result<String, HashError> {
        let (cost, password) = (self.cost, password.to_owned());
        self.run(move || hash(cost, &password)).await?
    }

    /// Whether the password belongs to the hash. With no hash the answer is no, and takes as long.
    ///
    /// # Errors
    /// When argon2 fails.
    pub async fn verify(&self, password: &str, hash: Option<&str>) -> Result<bool, HashError> {
        let (cost, password) = (self.cost, password.to_owned());
        let known = hash.map(str::to_owned);
        self.run(move || match known {
            Some(known) => verify(&password, &known),
            None => self::hash(cost, &password).map(|_| false),
        })
        .await?
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, HashError> {
        let queued = Arc::clone(&self.queue).try_acquire_owned();
        let queued = queued.map_err(|_| HashError::Busy)?;
        let permits = Arc::clone(&self.permits);
        let permit = permits.acquire_owned().await;
        let permit = permit.map_err(|_| HashError::CutOff)?;
        let done = tokio::task::spawn_blocking(move || {
            // Held by the work itself: a caller that goes away does not make room while the work goes on.
            let _held = (permit, queued);
            work()
        });
        done.await.map_err(|_| HashError::CutOff)
    }
}

/// Whether a text may be an e-mail address: something on both sides of an `@`, and no space.
#[must_use]
pub fn is_address(text: &str) -> bool {
    let parts = text.split_once('@');
    let both = parts.is_some_and(|(user, host)| !user.is_empty() && !host.is_empty());
    both && !text.contains(char::is_whitespace)
}

/// Why a new password is not good enough, if it is not.
#[must_use]
pub fn weakness(password: &str) -> Option<&'static str> {
    if password.chars().count() < PASSWORD_CHARS_MIN {
        return Some("Password must be at least 12 characters");
    }
    if password.chars().count() > PASSWORD_CHARS_MAX {
        return Some("Password must not be longer than 256 characters");
    }
    let first = password.chars().next();
    if password.chars().all(|each| Some(each) == first) {
        return Some("Password must not be one character repeated");
    }
    None
}

fn hash(cost: Cost, password: &str) -> Result<String, HashError> {
    let failed = |error: argon2::Error| HashError::Argon2(error.to_string());
    let params = Params::new(cost.memory_kib, cost.passes, 1, None).map_err(failed)?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let made: PasswordHash = argon2
        .hash_password(password.as_bytes())
        .map_err(|error| HashError::Argon2(error.to_string()))?;
    Ok(made.to_string())
}

fn verify(password: &str, known: &str) -> Result<bool, HashError> {
    let known = PasswordHash::new(known).map_err(|error| HashError::Argon2(error.to_string()))?;
    let verdict = Argon2::default().verify_password(password.as_bytes(), &known);
    match verdict {
        Ok(()) => Ok(true),
        Err(argon2::password_hash::Error::PasswordInvalid) => Ok(false),
        Err(error) => Err(HashError::Argon2(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: Cost = Cost {
        memory_kib: 64,
        passes: 1,
    };

    #[tokio::test]
    async fn a_password_is_known_by_its_hash_and_no_other_is() {
        let passwords = Passwords::new(CHEAP, 1);
        let hash = passwords.hash("correct horse battery").await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=64,t=1,p=1$"), "{hash}");
        assert!(
            passwords
                .verify("correct horse battery", Some(&hash))
                .await
                .unwrap()
        );
        assert!(
            !passwords
                .verify("correct horse batterx", Some(&hash))
                .await
                .unwrap()
        );
        assert!(
            !passwords
                .verify("correct horse battery", None)
                .await
                .unwrap()
        );
        assert!(passwords.verify("x", Some("not a hash")).await.is_err());
    }

    #[tokio::test]
    async fn only_so_many_wait_for_their_turn() {
        let passwords = Passwords::new(CHEAP, 1);
        let all = (0..200).map(|_| passwords.hash("correct horse battery"));
        let all = futures_util::future::join_all(all).await;
        let busy = all
            .iter()
            .filter(|hash| matches!(hash, Err(HashError::Busy)));
        assert_eq!(busy.count(), 200 - 1 - HASHES_WAITING);
        assert!(passwords.hash("correct horse battery").await.is_ok());
    }

    #[test]
    fn weak_passwords_are_told_why() {
        assert!(weakness("eleven char").is_some());
        assert!(weakness("aaaaaaaaaaaaaaaa").is_some());
        assert!(weakness(&"ab".repeat(200)).is_some());
        assert_eq!(weakness("twelve chars"), None);
        assert_eq!(weakness("zwölf zeiche"), None);
    }
}
