//! What one viewer has received of one campaign, and what is wrong with it. Pure.

/// A set of small numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Set {
    words: Vec<u64>,
}

impl Set {
    /// Adds `member`; whether it was new.
    pub(crate) fn insert(&mut self, member: u32) -> bool {
        let word = member as usize / 64;
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let bit = 1 << (member % 64);
        let new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        new
    }

    pub(crate) fn len(&self) -> u64 {
        let ones = self.words.iter().map(|word| u64::from(word.count_ones()));
        ones.sum()
    }

    /// How many members `other` lacks.
    pub(crate) fn missing_from(&self, other: &Set) -> u64 {
        let theirs = other.words.iter().copied().chain(std::iter::repeat(0));
        let pairs = self.words.iter().zip(theirs);
        pairs
            .map(|(mine, theirs)| u64::from((mine & !theirs).count_ones()))
            .sum()
    }

    /// Forgets every member, keeping the memory.
    pub(crate) fn clear(&mut self) {
        self.words.fill(0);
    }

    pub(crate) fn merge(&mut self, other: &Set) {
        if self.words.len() < other.words.len() {
            self.words.resize(other.words.len(), 0);
        }
        for (mine, theirs) in self.words.iter_mut().zip(&other.words) {
            *mine |= theirs;
        }
    }
}

/// Counts of what went wrong, summed over viewers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Faults {
    /// Results received again.
    pub(crate) duplicates: u64,
    /// Results whose position is not the one after the last.
    pub(crate) misordered: u64,
    /// Messages that are not what the protocol or the sender says.
    pub(crate) malformed: u64,
    /// `status` that claims more results than the viewer has been sent.
    pub(crate) premature: u64,
    /// `error` messages of the stream.
    pub(crate) errors: u64,
    /// Connections that ended though the viewer did not end them.
    pub(crate) closed: u64,
    /// Connections that could not be made.
    pub(crate) refused: u64,
}

impl std::ops::AddAssign for Faults {
    fn add_assign(&mut self, other: Self) {
        self.duplicates += other.duplicates;
        self.misordered += other.misordered;
        self.malformed += other.malformed;
        self.premature += other.premature;
        self.errors += other.errors;
        self.closed += other.closed;
        self.refused += other.refused;
    }
}

/// One viewer's account of one campaign.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// Hosts whose answer has come.
    pub(crate) seen: Set,
    /// Results of ours, duplicates included.
    pub(crate) results: u64,
    /// Results of other hosts: counted only where the server counts.
    pub(crate) foreign: u64,
    /// The highest position received; what a resuming viewer names as `after`.
    last_seq: u64,
    /// Whether the server tells positions at all.
    numbered: bool,
    pub(crate) faults: Faults,
}

impl Tally {
    /// Takes a result of a host of ours; whether it is the first of this host.
    pub(crate) fn result(&mut self, host: u32, seq: Option<u64>) -> bool {
        self.results += 1;
        let new = self.seen.insert(host);
        if !new {
            self.faults.duplicates += 1;
        }
        self.position(seq, new);
        new
    }

    /// Takes a result of somebody else's host.
    pub(crate) fn foreign(&mut self, seq: Option<u64>) {
        self.foreign += 1;
        self.position(seq, true);
    }

    fn position(&mut self, seq: Option<u64>, new: bool) {
        let Some(seq) = seq else {
            return;
        };
        self.numbered = true;
        // A duplicate is one fault, not two.
        if seq != self.last_seq + 1 && new {
            self.faults.misordered += 1;
        }
        self.last_seq = self.last_seq.max(seq);
    }

    /// Takes a `status`.
    pub(crate) fn status(&mut self, actual: u64) {
        if actual > self.results + self.foreign {
            self.faults.premature += 1;
        }
    }

    /// What the viewer names as `after` when it connects again, where the server tells positions.
    pub(crate) fn resume(&self) -> Option<u64> {
        self.numbered.then_some(self.last_seq)
    }

    /// The viewer selects again from the beginning: everything is new to it.
    pub(crate) fn restart(&mut self) {
        self.seen.clear();
        self.results = 0;
        self.foreign = 0;
        self.last_seq = 0;
    }

    /// Answers that the server took and this viewer never got.
    pub(crate) fn lost(&self, accepted: &Set) -> u64 {
        accepted.missing_from(&self.seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(members: &[u32]) -> Set {
        let mut set = Set::default();
        for member in members {
            set.insert(*member);
        }
        set
    }

    #[test]
    fn a_gapless_stream_has_no_faults() {
        let mut tally = Tally::default();
        for (seq, host) in [(1, 70), (2, 3), (3, 500)] {
            tally.result(host, Some(seq));
        }
        tally.status(3);
        assert_eq!(tally.faults, Faults::default());
        assert_eq!(tally.lost(&set(&[3, 70, 500])), 0);
        assert_eq!(tally.lost(&set(&[3, 4, 70, 9000])), 2);
        assert_eq!(tally.resume(), Some(3));
    }

    #[test]
    fn duplicates_gaps_and_swaps_are_counted_once_each() {
        let mut tally = Tally::default();
        tally.result(1, Some(1));
        tally.result(1, Some(1));
        assert_eq!((tally.faults.duplicates, tally.faults.misordered), (1, 0));
        tally.result(2, Some(3));
        tally.result(3, Some(2));
        assert_eq!((tally.faults.duplicates, tally.faults.misordered), (1, 2));
        tally.result(4, Some(4));
        assert_eq!(tally.faults.misordered, 2);
        assert_eq!(tally.seen.len(), 4);
    }

    #[test]
    fn without_positions_each_host_counts_once() {
        let mut tally = Tally::default();
        tally.result(5, None);
        tally.result(6, None);
        tally.result(5, None);
        assert_eq!((tally.faults.duplicates, tally.faults.misordered), (1, 0));
        assert_eq!(tally.resume(), None);
        tally.restart();
        tally.result(5, None);
        assert_eq!(tally.faults.duplicates, 1);
        assert_eq!(tally.lost(&set(&[5, 6])), 1);
    }

    #[test]
    fn a_status_may_not_overtake_results() {
        let mut tally = Tally::default();
        tally.result(1, Some(1));
        tally.foreign(Some(2));
        tally.status(2);
        assert_eq!(tally.faults.premature, 0);
        tally.status(3);
        assert_eq!(tally.faults.premature, 1);
    }

    #[test]
    fn sets_of_different_sizes_compare_and_merge() {
        let mut small = set(&[1]);
        let large = set(&[1, 1000]);
        assert_eq!(large.missing_from(&small), 1);
        assert_eq!(small.missing_from(&large), 0);
        small.merge(&large);
        assert_eq!(small, large);
        assert_eq!(small.len(), 2);
    }
}
