//! Names that others keep: packs name queries, labels and teams, and follow when one of these is renamed.

use crate::catalog::entity::{Entity, Pack};
use crate::catalog::{Edit, State};
use crate::results::TeamId;

/// What packs name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Renamed {
    /// A saved query, of this team or of none. Packs run only those of none.
    Query(Option<TeamId>),
    /// A label.
    Label,
    /// A team.
    Team,
}

/// The packs that name `old`, naming `new` instead: part of the commit that renames it.
pub(super) fn carried_over(state: &State, what: Renamed, old: &str, new: &str) -> Vec<Edit> {
    let packs = state.packs.values().map(|(pack, _)| pack);
    let changed = packs.filter_map(|pack| {
        let mut next = Pack::clone(pack);
        let rename = |names: &mut Option<Vec<String>>| {
            let named = names.iter_mut().flatten().filter(|name| *name == old);
            named.for_each(|name| new.clone_into(name));
        };
        match what {
            Renamed::Query(Some(_)) => {}
            Renamed::Query(None) => {
                let queries = next.queries.iter_mut();
                let named = queries.filter(|query| query.query == old);
                named.for_each(|query| new.clone_into(&mut query.query));
            }
            Renamed::Label => rename(&mut next.target_labels),
            Renamed::Team => rename(&mut next.target_teams),
        }
        (next != **pack).then_some(Edit::Put(Entity::Pack(next)))
    });
    changed.collect()
}
