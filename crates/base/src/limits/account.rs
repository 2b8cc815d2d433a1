//! The account of bytes: whatever a request's body becomes is taken from it, until the request is answered.

use std::net::IpAddr;

use super::permits::{Full, Permit, Permits};
use super::rate::address_key;
use super::{BODIES_BYTES, BODIES_BYTES_EACH, BODY_FREE_BYTES, STRANGERS_BODIES_BYTES};

/// Who takes, as far as is known when the first byte is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Party {
    /// Somebody unknown, at this address.
    Address(IpAddr),
    /// The host of this number.
    Host(u32),
    /// The user of this number.
    User(u32),
}

/// Bytes taken; dropping it gives them back.
pub type Taken = Permit<Party>;

/// The account. Strangers have a part of their own, so that whatever they send, known hosts and users find room. Clones
/// share it.
#[derive(Clone, Debug)]
pub struct Account {
    strangers: Permits<Party>,
    known: Permits<Party>,
    free: usize,
}

impl Default for Account {
    fn default() -> Self {
        Self {
            strangers: Permits::new(STRANGERS_BODIES_BYTES, STRANGERS_BODIES_BYTES),
            known: Permits::new(BODIES_BYTES_EACH, BODIES_BYTES),
            free: BODY_FREE_BYTES,
        }
    }
}

impl Account {
    /// Of so many bytes for strangers and for those who are known; `free` of each body are not counted.
    #[must_use]
    pub fn new(strangers: usize, known: usize, free: usize) -> Self {
        Self {
            strangers: Permits::new(strangers, strangers),
            known: Permits::new(known, known),
            free,
        }
    }

    /// Bytes of each body that are not counted.
    #[must_use]
    pub const fn free(&self) -> usize {
        self.free
    }

    /// Takes so many bytes.
    ///
    /// # Errors
    /// [`Full`] when the party has its share, or all is taken.
    pub fn take(&self, party: Party, bytes: usize) -> Result<Taken, Full> {
        match party {
            Party::Address(address) => {
                let party = Party::Address(address_key(address));
                self.strangers.try_take(party, bytes)
            }
            Party::Host(_) | Party::User(_) => self.known.try_take(party, bytes),
        }
    }

    /// Bytes taken by strangers and by the known.
    #[must_use]
    pub fn taken(&self) -> (usize, usize) {
        (self.strangers.taken(), self.known.taken())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_take_nothing_from_the_known() {
        let account = Account::new(100, 100, 0);
        let address = |last| Party::Address(IpAddr::from([192, 0, 2, last]));
        let first = account.take(address(1), 90).unwrap();
        assert_eq!(account.take(address(1), 5).err(), Some(Full::Key));
        let _second = account.take(address(2), 10).unwrap();
        assert_eq!(account.take(address(3), 1).err(), Some(Full::Total));
        let _host = account.take(Party::Host(1), 50).unwrap();
        let _user = account.take(Party::User(1), 10).unwrap();
        assert_eq!(account.taken(), (100, 60));
        drop(first);
        assert_eq!(account.taken(), (10, 60));
    }

    #[test]
    fn a_network_of_one_site_is_one_party() {
        let account = Account::new(100, 100, 0);
        let party = |text: &str| Party::Address(text.parse().unwrap());
        let _first = account.take(party("2001:db8::1"), 90).unwrap();
        assert_eq!(account.take(party("2001:db8::2"), 5).err(), Some(Full::Key));
        assert!(account.take(party("2001:db8:0:1::1"), 5).is_ok());
    }
}
