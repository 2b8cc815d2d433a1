//! Which hosts a selection of hosts, labels and teams means.
//!
//! Kinds combine as in Fleet (spec fleet-live-query, 2.2): hosts named one by one are always in; `All Hosts` means
//! all; otherwise a host is in if it belongs to one of the platform labels, one of the other labels and one of the
//! teams, where a kind that nothing was selected of does not count. Nobody's selection reaches beyond the hosts
//! that they may see.

use roaring::RoaringBitmap;

/// What kind of set a label is in a selection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelKind {
    /// `All Hosts`.
    Everything,
    /// A builtin label, which stands for a platform.
    Builtin,
    /// Any other label.
    Regular,
}

/// A selection, as the sets it names. Sets hold raw [`super::HostId`]s.
#[derive(Clone, Debug, Default)]
pub struct Targets {
    hosts: RoaringBitmap,
    everything: bool,
    builtin: Option<RoaringBitmap>,
    regular: Option<RoaringBitmap>,
    teams: Option<RoaringBitmap>,
}

impl Targets {
    /// Adds a host by itself.
    pub fn add_host(&mut self, host: u32) {
        self.hosts.insert(host);
    }

    /// Adds a label. One that does not exist is a regular one without members: it narrows, and adds nobody.
    pub fn add_label(&mut self, kind: LabelKind, members: &RoaringBitmap) {
        match kind {
            LabelKind::Everything => self.everything = true,
            LabelKind::Builtin => *self.builtin.get_or_insert_default() |= members,
            LabelKind::Regular => *self.regular.get_or_insert_default() |= members,
        }
    }

    /// Adds a team.
    pub fn add_team(&mut self, members: &RoaringBitmap) {
        *self.teams.get_or_insert_default() |= members;
    }

    /// The hosts that are meant, of those that may be.
    #[must_use]
    pub fn resolve(&self, visible: &RoaringBitmap) -> RoaringBitmap {
        if self.everything {
            return visible.clone();
        }
        let kinds = [&self.builtin, &self.regular, &self.teams];
        let mut sets = kinds.into_iter().flatten();
        let mut meant = sets.next().cloned().unwrap_or_default();
        for set in sets {
            meant &= set;
        }
        meant |= &self.hosts;
        meant &= visible;
        meant
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_set, vec};
    use proptest::prelude::*;

    use super::*;

    type Set = std::collections::BTreeSet<u32>;

    fn set() -> impl Strategy<Value = Set> {
        btree_set(0u32..40, 0..20)
    }

    fn bitmap(set: &Set) -> RoaringBitmap {
        set.iter().copied().collect()
    }

    /// The rule as one host sees it.
    fn is_meant(host: u32, hosts: &Set, labels: &[(u8, Set)], teams: &[Set]) -> bool {
        let fits = |kind: u8| {
            let mut of_kind = labels.iter().filter(|(other, _)| *other == kind).peekable();
            of_kind.peek().is_none() || of_kind.any(|(_, members)| members.contains(&host))
        };
        let in_teams = teams.is_empty() || teams.iter().any(|members| members.contains(&host));
        let filtered = !labels.is_empty() || !teams.is_empty();
        hosts.contains(&host)
            || labels.iter().any(|(kind, _)| *kind == 0)
            || (filtered && fits(1) && fits(2) && in_teams)
    }

    proptest! {
        #[test]
        fn a_host_is_targeted_if_and_only_if_the_rule_says_so(
            hosts in set(),
            labels in vec((0u8..6, set()), 0..5),
            teams in vec(set(), 0..3),
            visible in set(),
        ) {
            // `All Hosts` is rarer than the other kinds, or it would hide them.
            let labels: Vec<(u8, Set)> = labels
                .into_iter()
                .map(|(kind, members)| (if kind == 0 { 0 } else { 1 + kind % 2 }, members))
                .collect();
            let mut selection = Targets::default();
            hosts.iter().for_each(|host| selection.add_host(*host));
            for (kind, members) in &labels {
                let kind = [LabelKind::Everything, LabelKind::Builtin, LabelKind::Regular][usize::from(*kind)];
                selection.add_label(kind, &bitmap(members));
            }
            teams.iter().for_each(|members| selection.add_team(&bitmap(members)));
            let meant = selection.resolve(&bitmap(&visible));
            for host in 0..40 {
                let expected = visible.contains(&host) && is_meant(host, &hosts, &labels, &teams);
                prop_assert_eq!(meant.contains(host), expected, "host {}", host);
            }
        }
    }

    #[test]
    fn nothing_selected_means_nobody_and_an_unknown_label_does_not_mean_everybody() {
        let visible = RoaringBitmap::from_iter(1u32..10);
        assert!(Targets::default().resolve(&visible).is_empty());
        let mut unknown = Targets::default();
        unknown.add_label(LabelKind::Regular, &RoaringBitmap::new());
        assert!(unknown.resolve(&visible).is_empty());
        unknown.add_team(&visible);
        assert!(
            unknown.resolve(&visible).is_empty(),
            "a filter that nobody passes"
        );
    }
}
