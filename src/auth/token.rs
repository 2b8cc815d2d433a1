//! Tokens of sessions and programs: random, known to their holder only, kept as their SHA-256.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use crate::text::hex;

/// What every token that this product makes begins with, so that secret scanners find leaked ones.
pub const PREFIX: &str = "abk_";

/// Longer tokens are refused before they are hashed; ours have 47 bytes, preset ones may have more.
const TOKEN_BYTES_MAX: usize = 1024;

/// The machine has no randomness to give; nothing secret can be made.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("no randomness: {0}")]
pub struct NoEntropy(#[from] getrandom::Error);

/// A new token: the prefix and 32 random bytes.
///
/// # Errors
/// When the system gives no randomness.
pub fn fresh() -> Result<String, NoEntropy> {
    Ok(format!("{PREFIX}{}", random_text::<32>()?))
}

/// A password for the first start: 16 random bytes as 22 characters.
///
/// # Errors
/// When the system gives no randomness.
pub fn fresh_password() -> Result<String, NoEntropy> {
    random_text::<16>()
}

/// What is stored of a token: its SHA-256 in hex. Tokens are too long to guess, so a slow hash would add nothing.
#[must_use]
pub fn digest(token: &str) -> String {
    hex(Sha256::digest(token))
}

/// The token of an `Authorization` header: exactly two parts with one space between, the first one `Bearer` in
/// any case (spec fleet-live-query, 5.1). Everything else counts as no token.
#[must_use]
pub fn of_header(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    let whole = !token.is_empty() && token.len() <= TOKEN_BYTES_MAX && !token.contains(' ');
    (scheme.eq_ignore_ascii_case("bearer") && whole).then_some(token)
}

fn random_text<const BYTES: usize>() -> Result<String, NoEntropy> {
    let mut bytes = [0u8; BYTES];
    getrandom::fill(&mut bytes)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_two_parts_with_one_space_between() {
        assert_eq!(of_header("Bearer abc"), Some("abc"));
        assert_eq!(of_header("bEARER abc"), Some("abc"));
        for bad in [
            "",
            "abc",
            "Bearer",
            "Bearer ",
            "Bearer  abc",
            "Bearer abc ",
            "Bearer a b",
            " Bearer abc",
            "Basic abc",
            "Bearer\tabc",
        ] {
            assert_eq!(of_header(bad), None, "{bad:?}");
        }
        assert_eq!(of_header(&format!("Bearer {}", "x".repeat(1025))), None);
    }

    #[test]
    fn tokens_differ_and_show_what_they_are() {
        let (one, other) = (fresh().unwrap(), fresh().unwrap());
        assert_ne!(one, other);
        assert!(one.starts_with(PREFIX) && one.len() == 47);
        assert_eq!(
            digest("abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
