//! How agents prove who they are: enroll secrets, which people hand out, and node keys, which we do.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::catalog::entity::EnrollSecret;
use crate::results::TeamId;

/// Random bytes of a node key or secret (spec fleet-live-query, 4: `node_key_size`).
const KEY_BYTES: usize = 24;
/// Longer ones cannot be ours and are not hashed.
const KEY_CHARS_MAX: usize = 256;

/// A new node key or enroll secret: 192 random bits in base64.
///
/// # Errors
/// When the system gives no entropy.
pub fn new_key() -> Result<String, getrandom::Error> {
    let mut bytes = [0; KEY_BYTES];
    getrandom::fill(&mut bytes)?;
    Ok(STANDARD.encode(bytes))
}

/// What is kept of a node key: its SHA-256. None if it is too long to be one.
#[must_use]
pub fn hash(node_key: &str) -> Option<[u8; 32]> {
    (node_key.len() <= KEY_CHARS_MAX).then(|| Sha256::digest(node_key).into())
}

/// The team (or none) that an offered secret leads to; `None` if it leads nowhere. Of equal secrets a team's wins
/// over the global one, and the older team's over the newer's. Takes as long for a wrong secret as for a right one.
#[must_use]
pub fn team_of_secret<'a>(
    secrets: impl IntoIterator<Item = &'a EnrollSecret>,
    offered: &str,
) -> Option<Option<TeamId>> {
    let mut found = None;
    let offered = Sha256::digest(offered);
    for EnrollSecret { secret, team, .. } in secrets {
        // Of equal length, so that the comparison does not tell how long the secret is.
        let same = Sha256::digest(secret).ct_eq(&offered);
        let better = match (found, team) {
            (None, _) | (Some(None), Some(_)) => true,
            (Some(Some(before)), Some(team)) => *team < before,
            (Some(_), None) => false,
        };
        if bool::from(same) & better & !secret.is_empty() {
            found = Some(*team);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(secret: &str, team: Option<u32>) -> EnrollSecret {
        EnrollSecret {
            secret: secret.into(),
            team: team.map(TeamId),
            created_at: 0,
        }
    }

    #[test]
    fn a_teams_secret_wins_over_the_global_one_of_the_same_text() {
        let secrets = [
            secret("both", None),
            secret("both", Some(7)),
            secret("both", Some(3)),
            secret("all", None),
            secret("", None),
        ];
        assert_eq!(team_of_secret(&secrets, "both"), Some(Some(TeamId(3))));
        assert_eq!(team_of_secret(&secrets, "all"), Some(None));
        assert_eq!(team_of_secret(&secrets, "al"), None);
        assert_eq!(
            team_of_secret(&secrets, ""),
            None,
            "an empty secret opens nothing"
        );
        assert_eq!(team_of_secret(&[], "x"), None);
    }

    #[test]
    fn node_keys_differ_and_are_kept_as_hashes() {
        let (one, other) = (new_key().unwrap(), new_key().unwrap());
        assert_eq!(one.len(), 32);
        assert_ne!(one, other);
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(crate::text::hex(hash("").unwrap()), empty);
        assert_eq!(hash(&"x".repeat(257)), None);
    }
}
