//! How far commits have been applied in order, and which ones beyond that.

use std::collections::BTreeSet;

use crate::store::Revision;

/// More commits than this are not applied ahead of one that is missing: whoever made that one is gone, and the store
/// has to be asked.
const AHEAD_MAX: usize = 1_024;

/// Which commits a view has in it.
#[derive(Clone, Debug, Default)]
pub(super) struct Applied {
    upto: Revision,
    /// Own commits, applied before one that is still missing.
    ahead: BTreeSet<Revision>,
}

impl Applied {
    /// All commits up to this one have been applied.
    pub(super) const fn upto(&self) -> Revision {
        self.upto
    }

    /// Whether a later commit than this one has been applied already.
    pub(super) fn is_past(&self, revision: Revision) -> bool {
        self.ahead.last().is_some_and(|last| *last > revision)
    }

    /// This one has been applied too. False if one has been missing for long.
    pub(super) fn add(&mut self, revision: Revision) -> bool {
        self.ahead.insert(revision);
        self.advance();
        self.ahead.len() <= AHEAD_MAX
    }

    /// All up to this one have been applied.
    pub(super) fn reach(&mut self, revision: Revision) {
        self.upto = self.upto.max(revision);
        self.ahead = self.ahead.split_off(&(self.upto + 1));
        self.advance();
    }

    fn advance(&mut self) {
        while self.ahead.remove(&(self.upto + 1)) {
            self.upto += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on_where_no_commit_is_missing() {
        let mut applied = Applied::default();
        assert!(applied.add(1) && applied.add(3) && applied.add(4));
        assert_eq!(applied.upto(), 1);
        assert!(applied.is_past(2) && !applied.is_past(4));
        assert!(applied.add(2));
        assert_eq!(applied.upto(), 4);
        applied.add(6);
        applied.add(9);
        applied.reach(5);
        assert_eq!(applied.upto(), 6);
        applied.reach(3);
        assert_eq!(applied.upto(), 6);
    }

    #[test]
    fn it_does_not_wait_for_ever() {
        let mut applied = Applied::default();
        let last = 2 + AHEAD_MAX as u64;
        assert!((2..last).all(|revision| applied.add(revision)));
        assert!(!applied.add(last));
        applied.reach(1);
        assert_eq!(applied.upto(), last);
    }
}
