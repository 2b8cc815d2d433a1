//! How often log-ins may fail: charged before a password is looked at, given back when it was right.
//!
//! Guesses at one account from one address are counted together, and refused beyond a few. What one address does to all
//! accounts, and what all addresses do to one, only slows: a guesser must not keep the owner out, nor a colleague behind
//! the same address. Whoever logged in to an account before from where they are is not slowed.
//!
//! [`crate::limits::rate`] cannot give back; with a look before and a charge after, a thousand logins sent at once
//! would all be looked at before the first one had failed.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Timestamp;
use crate::limits::permits::{Permit, Permits};
use crate::limits::rate::{Allowance, address_key};
use crate::limits::{
    FAILED_LOGINS_OF_MANY_RATE, FAILED_LOGINS_RATE, SLOWED_LOGINS, SLOWED_LOGINS_EACH,
};

/// Counts remembered at once. Beyond, all new ones share one allowance.
const TABLE_ENTRIES_MAX: usize = 60_000;
/// Pairs of address and account that are remembered for having logged in.
const KNOWN_MAX: usize = 20_000;
/// Between two looks for what can be forgotten.
const SWEEP_PAUSE: Duration = Duration::from_secs(1);
/// How long a slowed attempt waits before its password is looked at.
const SLOWED_FOR: Duration = Duration::from_secs(2);

/// Whose failures are counted together, as a hash: names may be long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    Pair(u64),
    Address(u64),
    Account(u64),
    /// Everybody for whom the table had no room.
    Rest,
}

impl Key {
    const fn allowance(self) -> Allowance {
        match self {
            Self::Pair(_) => FAILED_LOGINS_RATE,
            Self::Address(_) | Self::Account(_) | Self::Rest => FAILED_LOGINS_OF_MANY_RATE,
        }
    }
}

/// The failures of late.
#[derive(Debug)]
pub(super) struct Failures {
    table: Mutex<Table>,
    hasher: RandomState,
    slowed: Permits<Key>,
}

#[derive(Debug, Default)]
struct Table {
    until: HashMap<Key, Timestamp>,
    /// Pairs that have logged in, and when last.
    known: HashMap<Key, Timestamp>,
    swept: Option<Timestamp>,
}

/// What an attempt has been charged to.
#[derive(Debug)]
pub(super) struct Charge {
    keys: [Key; 3],
    slowed: Option<Permit<Key>>,
}

impl Charge {
    /// How long the attempt waits before its password is looked at.
    pub(super) fn wait(&self) -> Duration {
        match self.slowed {
            Some(_) => SLOWED_FOR,
            None => Duration::ZERO,
        }
    }
}

impl Default for Failures {
    fn default() -> Self {
        Self {
            table: Mutex::default(),
            hasher: RandomState::new(),
            slowed: Permits::new(SLOWED_LOGINS_EACH, SLOWED_LOGINS),
        }
    }
}

impl Failures {
    /// Charges an attempt to the address (IPv6: its /64), the account, and both together.
    ///
    /// # Errors
    /// How long to wait, if guesses from there at this account have failed too often, or too many are slowed already;
    /// then nothing is charged.
    pub(super) fn charge(
        &self,
        address: IpAddr,
        account: &str,
        now: Timestamp,
    ) -> Result<Charge, Duration> {
        let mut table = self.table();
        // To look at all for every attempt of a flood would cost more than the attempt.
        if table.until.len() + 3 > TABLE_ENTRIES_MAX
            && table.swept.is_none_or(|at| at + SWEEP_PAUSE <= now)
        {
            table.swept = Some(now);
            table.until.retain(|_, until| *until > now);
        }
        let address = address_key(address);
        let account = account.to_lowercase();
        let keys = [
            Key::Pair(self.hash(&(address, &account))),
            Key::Address(self.hash(&address)),
            Key::Account(self.hash(&account)),
        ];
        let is_known = table.known.contains_key(&keys[0]);
        let full = table.until.len() + 3 > TABLE_ENTRIES_MAX;
        let keys = keys.map(|key| {
            if full && !table.until.contains_key(&key) {
                Key::Rest
            } else {
                key
            }
        });
        let waits = keys.map(|key| wait(table.until.get(&key), key.allowance(), now));
        if let ([Some(wait), ..], Key::Pair(_)) = (waits, keys[0]) {
            return Err(wait);
        }
        let over = keys.iter().zip(waits).rev();
        let over = over.filter_map(|(key, wait)| Some((*key, wait?))).next();
        let slowed = match over {
            Some((key, wait)) if !is_known => {
                let place = self.slowed.try_enter(key);
                Some(place.map_err(|_| wait.min(SLOWED_FOR))?)
            }
            _ => None,
        };
        for key in keys {
            let until = table.until.entry(key).or_insert(now);
            *until = (*until).max(now) + key.allowance().every;
        }
        Ok(Charge { keys, slowed })
    }

    /// The attempt was no failure.
    pub(super) fn give_back(&self, charge: &Charge) {
        let mut table = self.table();
        for key in charge.keys {
            let every = u64::try_from(key.allowance().every.as_millis()).unwrap_or(u64::MAX);
            if let Some(until) = table.until.get_mut(&key) {
                until.0 = until.0.saturating_sub(every);
            }
        }
    }

    /// Who made the attempt has logged in, and is not slowed from now on.
    pub(super) fn remember(&self, charge: &Charge, now: Timestamp) {
        if charge.keys[0] == Key::Rest {
            return;
        }
        let mut table = self.table();
        if table.known.len() >= KNOWN_MAX && !table.known.contains_key(&charge.keys[0]) {
            let oldest = table.known.iter().min_by_key(|(_, at)| at.0);
            if let Some(oldest) = oldest.map(|(key, _)| *key) {
                table.known.remove(&oldest);
            }
        }
        table.known.insert(charge.keys[0], now);
    }

    fn hash(&self, what: &impl Hash) -> u64 {
        self.hasher.hash_one(what)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // The table is whole between any two statements that could panic.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long until another attempt fits, if it does not now.
fn wait(until: Option<&Timestamp>, allowance: Allowance, now: Timestamp) -> Option<Duration> {
    let ahead = until?.since(now);
    let room = allowance.every * (allowance.burst.get() - 1);
    (ahead > room).then(|| ahead.saturating_sub(room))
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_secs(1_000);
    const BURST: u32 = FAILED_LOGINS_RATE.burst.get();
    const INTERVAL: Duration = FAILED_LOGINS_RATE.every;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn ten_failures_are_the_most_and_one_more_every_six_seconds() {
        let failures = Failures::default();
        for _ in 0..BURST {
            failures.charge(address(1), "a", START).unwrap();
        }
        let wait = failures.charge(address(1), "A", START).unwrap_err();
        assert_eq!(wait, INTERVAL);
        let later = START + INTERVAL;
        failures.charge(address(1), "a", later).unwrap();
        assert!(failures.charge(address(1), "a", later).is_err());
    }

    #[test]
    fn a_guesser_keeps_neither_the_owner_out_nor_a_neighbour() {
        let failures = Failures::default();
        while failures.charge(address(1), "owner", START).is_ok() {}
        let owner = failures.charge(address(2), "owner", START).unwrap();
        assert_eq!(owner.wait(), Duration::ZERO);
        failures.charge(address(1), "neighbour", START).unwrap();
    }

    #[test]
    fn guesses_from_everywhere_slow_who_is_not_known() {
        let failures = Failures::default();
        let home = failures.charge(address(200), "owner", START).unwrap();
        failures.give_back(&home);
        failures.remember(&home, START);
        for from in 0..200 {
            // Some are slowed, and too many of them at once are refused.
            let _ = failures.charge(address(from), "owner", START);
        }
        let known = failures.charge(address(200), "owner", START).unwrap();
        assert_eq!(known.wait(), Duration::ZERO);
        let elsewhere = failures.charge(address(201), "owner", START).unwrap();
        assert_eq!(elsewhere.wait(), SLOWED_FOR);
    }

    #[test]
    fn successes_cost_nothing() {
        let failures = Failures::default();
        for _ in 0..1_000 {
            let charge = failures.charge(address(1), "a", START).unwrap();
            assert_eq!(charge.wait(), Duration::ZERO);
            failures.give_back(&charge);
            failures.remember(&charge, START);
        }
        assert_eq!(failures.table().known.len(), 1);
    }

    #[test]
    fn a_flood_of_accounts_does_not_grow_the_table() {
        let failures = Failures::default();
        for n in 0..30_000u32 {
            let from = IpAddr::from((0x0a00_0000 + n).to_be_bytes());
            let _ = failures.charge(from, &n.to_string(), START);
        }
        assert!(failures.table().until.len() <= TABLE_ENTRIES_MAX + 1);
        let charge = failures.charge(address(1), "late", START + Duration::from_secs(120));
        assert_eq!(charge.unwrap().wait(), Duration::ZERO);
    }
}
