//! Numbers after a loss: those that were given out by what is lost are given to nobody else.
//!
//! A store that has been put back from a backup does not know what it gave out since. Campaigns go on at the seconds since
//! [`FIRST_SECOND`], so that not even two lives that follow the same backup share one: hosts and viewers name a campaign by its
//! number alone. All others leave out [`GAP`] numbers: tables of hosts are as long as their highest number.

use super::{Kind, Store, StoreError};
use crate::clock::Timestamp;

/// The sequence of campaigns.
pub(super) const CAMPAIGN: Kind = "campaign";
/// The first second of 2024. At a campaign a second, the sequence could not have come as far since.
const FIRST_SECOND: u64 = 1_704_067_200;
/// At least so many are left out.
pub(super) const GAP: u64 = 100_000;

/// Where campaigns go on, unless they have come further.
pub(super) fn second(now: Timestamp) -> u64 {
    now.secs().saturating_sub(FIRST_SECOND)
}

/// Moves sequences on after their store was put back.
///
/// # Errors
/// The store's own.
pub async fn skip(store: &dyn Store, sequences: &[Kind], now: Timestamp) -> Result<(), StoreError> {
    for sequence in sequences {
        let next = store.reserve(sequence, 0).await?;
        let wanted = if *sequence == CAMPAIGN {
            second(now)
        } else {
            0
        };
        let left_out = wanted.saturating_sub(next).max(GAP);
        let left_out = u32::try_from(left_out).unwrap_or(u32::MAX);
        store.reserve(sequence, left_out).await?;
    }
    Ok(())
}
