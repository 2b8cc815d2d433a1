//! How often logins may fail, per address and per account: charged before a password is looked at, given back
//! when it was right.
//!
//! [`crate::limits::rate`] cannot give back; with a look before and a charge after, a thousand logins sent at once
//! would all be looked at before the first one had failed.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Timestamp;
use crate::limits::FAILED_LOGINS_RATE;
use crate::limits::rate::address_key;

/// One more failure is allowed each so often.
const INTERVAL: Duration = FAILED_LOGINS_RATE.every;
/// So many failures may come at once.
const BURST: u32 = FAILED_LOGINS_RATE.burst.get();
/// Addresses and accounts remembered at once. Beyond, all new ones share one allowance.
const TABLE_ENTRIES_MAX: usize = 20_000;

/// Whose failures are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Address(IpAddr),
    Account(String),
    /// Everybody for whom the table had no room.
    Rest,
}

/// The failures of late.
#[derive(Debug, Default)]
pub(super) struct Failures(Mutex<HashMap<Key, Timestamp>>);

/// What an attempt has been charged to.
#[derive(Debug)]
pub(super) struct Charge([Key; 2]);

impl Failures {
    /// Charges an attempt to the address (IPv6: its /64) and the account.
    ///
    /// # Errors
    /// How long to wait, if either has failed too often; then nothing is charged.
    pub(super) fn charge(
        &self,
        address: IpAddr,
        account: &str,
        now: Timestamp,
    ) -> Result<Charge, Duration> {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if table.len() + 2 > TABLE_ENTRIES_MAX {
            table.retain(|_, until| *until > now);
        }
        let keys = [
            Key::Address(address_key(address)),
            Key::Account(account.to_lowercase()),
        ];
        let full = table.len() + 2 > TABLE_ENTRIES_MAX;
        let keys = keys.map(|key| {
            if full && !table.contains_key(&key) {
                Key::Rest
            } else {
                key
            }
        });
        let waits = keys.iter().filter_map(|key| wait(table.get(key), now));
        if let Some(wait) = waits.max() {
            return Err(wait);
        }
        for key in &keys {
            let until = table.entry(key.clone()).or_insert(now);
            *until = (*until).max(now) + INTERVAL;
        }
        Ok(Charge(keys))
    }

    /// The attempt was no failure.
    pub(super) fn give_back(&self, charge: &Charge) {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for key in &charge.0 {
            if let Some(until) = table.get_mut(key) {
                until.0 = until.0.saturating_sub(INTERVAL.as_secs() * 1000);
            }
        }
    }
}

/// How long until another attempt fits, if it does not now.
fn wait(until: Option<&Timestamp>, now: Timestamp) -> Option<Duration> {
    let ahead = until?.since(now);
    let room = INTERVAL * (BURST - 1);
    (ahead > room).then(|| ahead.saturating_sub(room))
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_secs(1_000);

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn ten_failures_are_the_most_and_one_more_every_six_seconds() {
        let failures = Failures::default();
        for _ in 0..BURST {
            failures.charge(address(1), "a", START).unwrap();
        }
        let wait = failures.charge(address(1), "a", START).unwrap_err();
        assert_eq!(wait, INTERVAL);
        let later = START + INTERVAL;
        failures.charge(address(1), "a", later).unwrap();
        assert!(failures.charge(address(1), "a", later).is_err());
    }

    #[test]
    fn address_and_account_are_counted_apart() {
        let failures = Failures::default();
        for from in 0..10 {
            failures.charge(address(from), "victim", START).unwrap();
        }
        assert!(
            failures.charge(address(99), "VICTIM", START).is_err(),
            "the account"
        );
        failures.charge(address(99), "other", START).unwrap();
        for name in 0..9 {
            failures
                .charge(address(99), &format!("n{name}"), START)
                .unwrap();
        }
        assert!(
            failures.charge(address(99), "n10", START).is_err(),
            "the address"
        );
    }

    #[test]
    fn successes_cost_nothing() {
        let failures = Failures::default();
        for _ in 0..1_000 {
            let charge = failures.charge(address(1), "a", START).unwrap();
            failures.give_back(&charge);
        }
    }

    #[test]
    fn a_flood_of_accounts_shares_what_is_left_and_does_not_grow_the_table() {
        let failures = Failures::default();
        let mut refused = 0;
        for n in 0..30_000u32 {
            let from = IpAddr::from((0x0a00_0000 + n).to_be_bytes());
            refused += u32::from(failures.charge(from, &n.to_string(), START).is_err());
        }
        assert!(refused > 10_000);
        assert!(failures.0.lock().unwrap().len() <= TABLE_ENTRIES_MAX + 2);
        failures
            .charge(address(1), "late", START + Duration::from_secs(120))
            .unwrap();
    }
}
