//! How many of something may be alive at once, for one key and in all; a guard gives the place back.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Places for each key and in all. Clones share them.
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

/// The table has a row only for keys that hold a place, so `total` bounds it.
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

/// A place taken; dropping it gives it back.
#[derive(Debug)]
pub struct Permit<K: Hash + Eq + Clone> {
    inner: Arc<Inner<K>>,
    key: K,
}

impl<K: Hash + Eq + Clone> Permits<K> {
    /// `per_key` places for each key, `total` in all.
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

    /// Takes a place for `key`.
    ///
    /// # Errors
    /// [`Full`]; nobody waits here.
    pub fn try_enter(&self, key: K) -> Result<Permit<K>, Full> {
        let mut taken = self.inner.taken();
        if taken.all >= self.inner.total {
            return Err(Full::Total);
        }
        match taken.by_key.entry(key.clone()) {
            Entry::Occupied(row) if *row.get() >= self.inner.per_key => return Err(Full::Key),
            Entry::Occupied(mut row) => *row.get_mut() += 1,
            Entry::Vacant(_) if self.inner.per_key == 0 => return Err(Full::Key),
            Entry::Vacant(row) => {
                row.insert(1);
            }
        }
        taken.all += 1;
        drop(taken);
        let inner = Arc::clone(&self.inner);
        Ok(Permit { inner, key })
    }

    /// How many places are taken in all.
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

impl<K> Inner<K> {
    fn taken(&self) -> MutexGuard<'_, Taken<K>> {
        // The table is whole between any two statements that could panic.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Hash + Eq + Clone> Drop for Permit<K> {
    fn drop(&mut self) {
        let mut taken = self.inner.taken();
        taken.all -= 1;
        if let Some(count) = taken.by_key.get_mut(&self.key) {
            *count -= 1;
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
}
