//! All enrolled hosts in memory, with the indexes by which they are found and targeted.

use std::collections::HashMap;
use std::sync::Arc;

use roaring::RoaringBitmap;
use smallvec::SmallVec;

use super::entity::Host;
use crate::results::{HostId, LabelId, TeamId};
use crate::store::Revision;

/// Hosts by number and by everything else they are looked up by.
#[derive(Clone, Debug, Default)]
pub struct Hosts {
    by_id: Vec<Option<(Arc<Host>, Revision)>>,
    by_node_key: HashMap<[u8; 32], HostId>,
    /// Identifiers as agents give them; machines that give the same are told apart by [`Host::twin`].
    by_identifier: HashMap<String, SmallVec<[HostId; 1]>>,
    /// Lower-case hostname, UUID and serial number; names need not be unique.
    by_name: HashMap<String, SmallVec<[HostId; 1]>>,
    all: RoaringBitmap,
    /// Team 0 is "no team".
    by_team: HashMap<TeamId, RoaringBitmap>,
    by_label: HashMap<LabelId, RoaringBitmap>,
    departures: u64,
}

impl Hosts {
    /// The host of this number.
    #[must_use]
    pub fn get(&self, id: HostId) -> Option<&Arc<Host>> {
        self.slot(id).map(|(host, _)| host)
    }

    /// The revision of the host's record.
    #[must_use]
    pub fn revision(&self, id: HostId) -> Option<Revision> {
        self.slot(id).map(|(_, revision)| *revision)
    }

    /// The host whose node key has this SHA-256.
    #[must_use]
    pub fn by_node_key(&self, hash: &[u8; 32]) -> Option<&Arc<Host>> {
        self.by_node_key.get(hash).and_then(|id| self.get(*id))
    }

    /// The hosts that identify themselves by this, oldest first.
    pub fn by_identifier(&self, identifier: &str) -> impl Iterator<Item = &Arc<Host>> {
        let ids = self.by_identifier.get(identifier);
        ids.into_iter().flatten().filter_map(|id| self.get(*id))
    }

    /// The hosts with this identifier, then those with this hostname, UUID or serial number, where case does not
    /// matter; of each the oldest first. A host may call itself what it likes, its identifier is its own.
    #[must_use]
    pub fn named(&self, name: &str) -> SmallVec<[HostId; 1]> {
        let mut found = self.by_identifier.get(name).cloned().unwrap_or_default();
        let others = self.by_name.get(&name.to_lowercase());
        for id in others.into_iter().flatten() {
            if !found.contains(id) {
                found.push(*id);
            }
        }
        found
    }

    /// How often hosts were deleted or have changed their team.
    #[must_use]
    pub const fn departures(&self) -> u64 {
        self.departures
    }

    /// All hosts, as raw numbers.
    #[must_use]
    pub const fn all(&self) -> &RoaringBitmap {
        &self.all
    }

    /// The hosts of a team; team 0 holds those without one.
    #[must_use]
    pub fn of_team(&self, team: TeamId) -> Option<&RoaringBitmap> {
        self.by_team.get(&team)
    }

    /// The teams of these hosts; `None` stands for hosts without one.
    #[must_use]
    pub fn teams_of(&self, hosts: &RoaringBitmap) -> Vec<Option<TeamId>> {
        let teams = self.by_team.iter();
        let theirs = teams.filter(|(_, members)| !members.is_disjoint(hosts));
        theirs
            .map(|(team, _)| (team.0 > 0).then_some(*team))
            .collect()
    }

    /// The members of a dynamic label.
    #[must_use]
    pub fn of_label(&self, label: LabelId) -> Option<&RoaringBitmap> {
        self.by_label.get(&label)
    }

    /// Every host, by number.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<Host>> {
        self.by_id.iter().flatten().map(|(host, _)| host)
    }

    /// Puts a host in, over the one of its number.
    pub(super) fn put(&mut self, host: Host, revision: Revision) {
        let slot = host.id.0 as usize;
        if self.by_id.len() <= slot {
            self.by_id.resize_with(slot + 1, || None);
        }
        let before = self.by_id[slot].take();
        match &before {
            Some((before, _)) => {
                self.departures += u64::from(before.team != host.team);
                self.unindex(before, Some(&host));
            }
            None => {
                self.all.insert(host.id.0);
            }
        }
        self.index(&host, before.as_ref().map(|(host, _)| &**host));
        self.by_id[slot] = Some((Arc::new(host), revision));
    }

    /// Takes a host out.
    pub(super) fn remove(&mut self, id: HostId) {
        let Some((host, _)) = self.by_id.get_mut(id.0 as usize).and_then(Option::take) else {
            return;
        };
        self.departures += 1;
        self.all.remove(id.0);
        self.unindex(&host, None);
    }

    /// Forgets a label's members; called when the label is deleted.
    pub(super) fn forget_label(&mut self, label: LabelId) {
        self.by_label.remove(&label);
    }

    fn slot(&self, id: HostId) -> Option<&(Arc<Host>, Revision)> {
        self.by_id.get(id.0 as usize).and_then(Option::as_ref)
    }

    /// Adds what `before` did not have.
    fn index(&mut self, host: &Host, before: Option<&Host>) {
        let id = host.id;
        if before.is_none_or(|before| before.node_key_hash != host.node_key_hash)
            && let Some(hash) = hash_bytes(&host.node_key_hash)
        {
            self.by_node_key.insert(hash, id);
        }
        if before.is_none_or(|before| before.identifier != host.identifier) {
            let ids = self.by_identifier.entry(host.identifier.clone());
            insert(ids.or_default(), id);
        }
        let had = before.map(names).unwrap_or_default();
        for name in names(host) {
            if !had.contains(&name) {
                insert(self.by_name.entry(name).or_default(), id);
            }
        }
        self.by_team
            .entry(host.team.unwrap_or_default())
            .or_default()
            .insert(id.0);
        for label in &host.labels {
            self.by_label.entry(*label).or_default().insert(id.0);
        }
    }

    /// Removes what `after` does not have any more.
    fn unindex(&mut self, host: &Host, after: Option<&Host>) {
        let id = host.id;
        if after.is_none_or(|after| after.node_key_hash != host.node_key_hash)
            && let Some(hash) = hash_bytes(&host.node_key_hash)
            && self.by_node_key.get(&hash) == Some(&id)
        {
            self.by_node_key.remove(&hash);
        }
        if after.is_none_or(|after| after.identifier != host.identifier) {
            remove(&mut self.by_identifier, &host.identifier, id);
        }
        let keeps = after.map(names).unwrap_or_default();
        for name in names(host) {
            if !keeps.contains(&name) {
                remove(&mut self.by_name, &name, id);
            }
        }
        if after.is_none_or(|after| after.team != host.team)
            && let Some(hosts) = self.by_team.get_mut(&host.team.unwrap_or_default())
        {
            hosts.remove(id.0);
        }
        for label in &host.labels {
            if after.is_none_or(|after| !after.labels.contains(label))
                && let Some(hosts) = self.by_label.get_mut(label)
            {
                hosts.remove(id.0);
            }
        }
    }
}

/// Keeps the oldest first.
fn insert(ids: &mut SmallVec<[HostId; 1]>, id: HostId) {
    if let Err(at) = ids.binary_search(&id) {
        ids.insert(at, id);
    }
}

fn remove(index: &mut HashMap<String, SmallVec<[HostId; 1]>>, name: &str, id: HostId) {
    if let Some(ids) = index.get_mut(name) {
        ids.retain(|other| *other != id);
        if ids.is_empty() {
            index.remove(name);
        }
    }
}

/// The names a host is found by, lower case, each once.
fn names(host: &Host) -> SmallVec<[String; 3]> {
    let mut found: SmallVec<[String; 3]> = SmallVec::new();
    for name in [
        &host.details.hostname,
        &host.details.uuid,
        &host.details.hardware_serial,
    ] {
        let name = name.to_lowercase();
        if !name.is_empty() && !found.contains(&name) {
            found.push(name);
        }
    }
    found
}

/// 64 hex digits as 32 bytes.
pub(super) fn hash_bytes(hex: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if hex.len() != 64 || !hex.is_ascii() {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16).ok()?;
    }
    Some(bytes)
}
