//! How much of something may be taken at once, places or bytes, for one key and in all; a guard gives it back.
//!
//! A key may take more as long as it has less than [`SHARE`] times what is free. So one alone may have most of it, many
//! have less each, and there is nearly always something for one that has nothing yet: whoever takes much finds the door
//! closed before everybody else does.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A key alone may take four fifths; a hundred keys that take what they can leave a four hundredth free.
const SHARE: usize = 4;

/// Whether a key that has `has` may take more of what is `free`.
#[must_use]
pub const fn may_take(has: usize, free: usize) -> bool {
    has < free.saturating_mul(SHARE)
}

/// What there is for each key and in all. Clones share it.
#[derive(Debug)]
pub struct Permits<K: Hash + Eq + Clone> {
    inner: Arc<Inner<K>>,
}

#[derive(Debug)]
struct Inner<K> {
    per_key: usize,
    total: usize,
    taken: Mutex<Taken<K>>,
}

/// The table has a row only for keys that hold something, so `total` bounds it.
#[derive(Debug)]
struct Taken<K> {
    by_key: HashMap<K, usize>,
    all: usize,
}

/// Which bound was hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// This key has all it may have.
    #[error("too many at once from one place")]
    Key,
    /// All together have all there is.
    #[error("too many at once")]
    Total,
}

/// Something taken; dropping it gives it back.
#[derive(Debug)]
pub struct Permit<K: Hash + Eq + Clone> {
    inner: Arc<Inner<K>>,
    key: K,
    count: usize,
}

impl<K: Hash + Eq + Clone> Permits<K> {
    /// At most `per_key` for each key, `total` in all.
    #[must_use]
    pub fn new(per_key: usize, total: usize) -> Self {
        let taken = Taken {
            by_key: HashMap::new(),
            all: 0,
        };
        let inner = Inner {
            per_key,
            total,
            taken: Mutex::new(taken),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// How many `key` has.
    #[must_use]
    pub fn held(&self, key: &K) -> usize {
        let taken = self.inner.taken.lock();
        let taken = taken.unwrap_or_else(PoisonError::into_inner);
        taken.by_key.get(key).copied().unwrap_or_default()
    }

    /// Takes a place for `key`.
    ///
    /// # Errors
    /// [`Full`]; nobody waits here.
    pub fn try_enter(&self, key: K) -> Result<Permit<K>, Full> {
        self.try_take(key, 1)
    }

    /// Takes so much for `key`.
    ///
    /// # Errors
    /// [`Full`]; nobody waits here.
    pub fn try_take(&self, key: K, count: usize) -> Result<Permit<K>, Full> {
        self.inner.take(&key, count)?;
        let inner = Arc::clone(&self.inner);
        Ok(Permit { inner, key, count })
    }

    /// How much is taken in all.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.inner.taken().all
    }
}

impl<K: Hash + Eq + Clone> Clone for Permits<K> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<K: Hash + Eq + Clone> Inner<K> {
    fn take(&self, key: &K, count: usize) -> Result<(), Full> {
        let mut taken = self.taken();
        let free = self.total.saturating_sub(taken.all);
        if count > free {
            return Err(Full::Total);
        }
        let has = taken.by_key.get(key).copied().unwrap_or(0);
        if count > self.per_key.saturating_sub(has) || !may_take(has, free) {
            return Err(Full::Key);
        }
        taken.all += count;
        *taken.by_key.entry(key.clone()).or_default() += count;
        Ok(())
    }
}

impl<K> Inner<K> {
    fn taken(&self) -> MutexGuard<'_, Taken<K>> {
        // The table is whole between any two statements that could panic.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Hash + Eq + Clone> Permit<K> {
    /// Takes more, up to `count` in all.
    ///
    /// # Errors
    /// [`Full`]; then it keeps what it had.
    pub fn grow(&mut self, count: usize) -> Result<(), Full> {
        let more = count.saturating_sub(self.count);
        if more > 0 {
            self.inner.take(&self.key, more)?;
            self.count = count;
        }
        Ok(())
    }
}

impl<K: Hash + Eq + Clone> Drop for Permit<K> {
    fn drop(&mut self) {
        let mut taken = self.inner.taken();
        taken.all -= self.count;
        if let Some(count) = taken.by_key.get_mut(&self.key) {
            *count -= self.count;
            if *count == 0 {
                taken.by_key.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_by_key_and_in_all_and_come_back() {
        let permits = Permits::new(2, 3);
        let first = permits.try_enter("a").unwrap();
        let _second = permits.try_enter("a").unwrap();
        assert_eq!(permits.try_enter("a").err(), Some(Full::Key));
        let third = permits.clone().try_enter("b").unwrap();
        assert_eq!(permits.try_enter("c").err(), Some(Full::Total));
        drop(first);
        assert!(permits.try_enter("a").is_ok(), "given back at once");
        drop(third);
        assert_eq!(permits.taken(), 1);
        assert_eq!(permits.inner.taken().by_key.len(), 1);
    }

    #[test]
    fn no_places_for_a_key_means_none() {
        assert_eq!(Permits::new(0, 3).try_enter(1).err(), Some(Full::Key));
    }

    #[test]
    fn who_takes_all_they_can_leaves_room_for_who_has_nothing() {
        let permits = Permits::new(usize::MAX, 100_000);
        let mut held = Vec::new();
        for key in (0..100).cycle() {
            match permits.try_enter(key) {
                Ok(permit) => held.push(permit),
                Err(_) => break,
            }
        }
        assert!(held.len() > 99_000, "{}", held.len());
        let newcomers = (1000..1100).map_while(|key| permits.try_enter(key).ok());
        assert_eq!(newcomers.collect::<Vec<_>>().len(), 100);
    }

    #[test]
    fn a_share_grows_and_keeps_what_it_had_when_it_may_not() {
        let permits = Permits::new(60, 100);
        let mut permit = permits.try_take('a', 10).unwrap();
        permit.grow(50).unwrap();
        permit.grow(20).unwrap();
        assert_eq!(permits.taken(), 50);
        assert_eq!(permit.grow(61), Err(Full::Key));
        let other = permits.try_take('b', 45).unwrap();
        assert_eq!(permit.grow(60), Err(Full::Total));
        drop((permit, other));
        assert_eq!(permits.taken(), 0);
    }
}
