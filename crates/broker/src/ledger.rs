//! Which hosts of one campaign were handed the query, have answered, or failed.

use std::collections::HashMap;
use std::sync::Arc;

use roaring::RoaringBitmap;

use super::campaign::Rules;
use super::ids::HostId;
use crate::clock::Timestamp;

/// What a host that checks in is to be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandOut {
    /// The query.
    Give,
    /// Nothing: it has the query, and is not overdue before then.
    Pending(Timestamp),
    /// Nothing ever again: it has answered, was asked often enough, is no target, or the campaign is over.
    Never,
}

/// Whether an answer is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The first answer of a targeted host.
    Accept,
    /// This host has answered before.
    Duplicate,
    /// This host was not asked.
    NotTargeted,
}

/// One host's hand-outs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandedOut {
    /// When the query was last handed out.
    pub at: Timestamp,
    /// How often it was handed out.
    pub times: u8,
}

/// The hand-outs and answers of one campaign. Costs nothing per target until something happens.
#[derive(Clone, Debug)]
pub struct Ledger {
    rules: Rules,
    targets: Arc<RoaringBitmap>,
    handed: HashMap<HostId, HandedOut>,
    answered: RoaringBitmap,
    failed: RoaringBitmap,
}

impl Ledger {
    /// A ledger in which nothing has happened.
    #[must_use]
    pub fn new(rules: Rules, targets: Arc<RoaringBitmap>) -> Self {
        Self {
            rules,
            targets,
            handed: HashMap::new(),
            answered: RoaringBitmap::new(),
            failed: RoaringBitmap::new(),
        }
    }

    /// A host checks in: decides whether it gets the query, and records that it did.
    pub fn hand_out(&mut self, host: HostId, now: Timestamp) -> HandOut {
        if !self.targets.contains(host.0) || self.answered.contains(host.0) {
            return HandOut::Never;
        }
        let before = self.handed.get(&host).copied();
        match before {
            Some(handed) if now < handed.at + self.rules.overdue => {
                HandOut::Pending(handed.at + self.rules.overdue)
            }
            Some(handed) if handed.times >= self.rules.hand_outs_max => HandOut::Never,
            _ => {
                let times = before.map_or(0, |handed| handed.times) + 1;
                self.handed.insert(host, HandedOut { at: now, times });
                HandOut::Give
            }
        }
    }

    /// The host's answer could not be taken (the store was down): it keeps it and will send it again, so
    /// this hand-out does not count.
    pub fn take_back(&mut self, host: HostId) {
        if let Some(handed) = self.handed.get_mut(&host) {
            handed.times = handed.times.saturating_sub(1);
        }
    }

    /// Whether this host's answer would be taken.
    #[must_use]
    pub fn judge(&self, host: HostId) -> Verdict {
        if !self.targets.contains(host.0) {
            Verdict::NotTargeted
        } else if self.answered.contains(host.0) {
            Verdict::Duplicate
        } else {
            Verdict::Accept
        }
    }

    /// Records an accepted answer.
    pub fn answer(&mut self, host: HostId, failed: bool) {
        self.answered.insert(host.0);
        self.handed.remove(&host);
        if failed {
            self.failed.insert(host.0);
        }
    }

    /// Records a hand-out read back from a file.
    pub fn restore(&mut self, host: HostId, handed: HandedOut) {
        if !self.answered.contains(host.0) {
            self.handed.insert(host, handed);
        }
    }

    /// A host's hand-outs so far.
    #[must_use]
    pub fn handed_out(&self, host: HostId) -> Option<HandedOut> {
        self.handed.get(&host).copied()
    }

    /// The sets of hosts as they stand.
    #[must_use]
    pub fn progress(&self) -> Progress {
        Progress {
            answered: self.answered.clone(),
            failed: self.failed.clone(),
            handed: self.handed.keys().map(|host| host.0).collect(),
        }
    }

    /// How many hosts have answered.
    #[must_use]
    pub fn answers(&self) -> u64 {
        self.answered.len()
    }
}

/// The hosts of a campaign by what they have done, as raw [`HostId`]s.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// Have answered, failures included.
    pub answered: RoaringBitmap,
    /// Have answered that the query failed.
    pub failed: RoaringBitmap,
    /// Have the query and have not answered.
    pub handed: RoaringBitmap,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const HOST: HostId = HostId(7);

    fn ledger() -> Ledger {
        Ledger::new(
            Rules::default(),
            Arc::new(RoaringBitmap::from_iter([7u32, 8])),
        )
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_secs(1_000 + seconds)
    }

    #[test]
    fn a_host_gets_the_query_once_and_again_only_when_overdue_at_most_three_times() {
        let mut ledger = ledger();
        assert_eq!(ledger.hand_out(HOST, at(0)), HandOut::Give);
        assert_eq!(ledger.hand_out(HOST, at(59)), HandOut::Pending(at(60)));
        assert_eq!(ledger.hand_out(HOST, at(60)), HandOut::Give);
        assert_eq!(ledger.hand_out(HOST, at(120)), HandOut::Give);
        assert_eq!(ledger.hand_out(HOST, at(180)), HandOut::Never);
        assert_eq!(
            ledger.judge(HOST),
            Verdict::Accept,
            "a late answer is still taken"
        );
    }

    #[test]
    fn only_the_first_answer_of_a_target_counts() {
        let mut ledger = ledger();
        assert_eq!(ledger.judge(HostId(9)), Verdict::NotTargeted);
        assert_eq!(ledger.hand_out(HostId(9), at(0)), HandOut::Never);
        ledger.answer(HOST, true);
        assert_eq!(ledger.judge(HOST), Verdict::Duplicate);
        assert_eq!(ledger.hand_out(HOST, at(500)), HandOut::Never);
        let progress = ledger.progress();
        assert!(
            progress.answered.contains(7)
                && progress.failed.contains(7)
                && progress.handed.is_empty()
        );
    }

    #[test]
    fn a_refused_answer_does_not_use_up_a_hand_out() {
        let mut ledger = ledger();
        for round in 0..10 {
            assert_eq!(ledger.hand_out(HOST, at(60 * round)), HandOut::Give);
            ledger.take_back(HOST);
        }
        assert_eq!(
            ledger.hand_out(HOST, at(600) + Duration::from_secs(60)),
            HandOut::Give
        );
    }
}
