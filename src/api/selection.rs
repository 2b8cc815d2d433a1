//! From the hosts, labels and teams that a request names to the hosts that it means.

use serde::{Deserialize, Deserializer};

use super::error::ApiError;
use super::wire::campaign::Selected;
use super::wire::number::Number;
use crate::auth::{Actor, Reach};
use crate::catalog::State;
use crate::catalog::entity::Label;
use crate::catalog::state::ALL_HOSTS;
use crate::results::{LabelId, LabelKind, Targets, TeamId};
use roaring::RoaringBitmap;

/// A name in a selection; numbers are taken as they are written.
#[derive(Clone, Debug)]
pub(super) struct Name(pub String);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Text(String),
            Number(u64),
        }
        Ok(match Written::deserialize(deserializer)? {
            Written::Text(text) => Self(text),
            Written::Number(number) => Self(number.to_string()),
        })
    }
}

/// A selection by numbers. Hosts and teams that do not exist add nobody.
#[must_use]
pub(super) fn by_ids(state: &State, selected: &Selected<Number>) -> Targets {
    let mut selection = Targets::default();
    for host in &selected.hosts {
        selection.add_host(host.narrow());
    }
    for label in &selected.labels {
        let id = LabelId(label.narrow());
        let label = state.labels.get(&id).map(|(label, _)| &**label);
        add_label(&mut selection, state, label);
    }
    for team in team_ids(selected) {
        let members = state.hosts.of_team(team).cloned();
        selection.add_team(&members.unwrap_or_default());
    }
    selection
}

/// A selection by names: hosts by hostname, UUID, serial number or identifier, labels and teams by name.
/// Unknown hosts add nobody.
///
/// # Errors
/// 400 with the labels or teams that do not exist.
pub(super) fn by_names(
    state: &State,
    selected: &Selected<Name>,
) -> Result<(Targets, Vec<TeamId>), ApiError> {
    let mut selection = Targets::default();
    for Name(host) in &selected.hosts {
        for id in state.hosts.named(host) {
            selection.add_host(id.0);
        }
    }
    let mut unknown = Vec::new();
    for Name(name) in &selected.labels {
        match state.label(name) {
            Some(label) => add_label(&mut selection, state, Some(label)),
            None => unknown.push(name.as_str()),
        }
    }
    refuse("label", &unknown)?;
    let mut teams = Vec::new();
    for Name(name) in &selected.teams {
        match team_named(state, name) {
            Some(team) => teams.push(team),
            None => unknown.push(name.as_str()),
        }
    }
    refuse("team", &unknown)?;
    for team in &teams {
        let members = state.hosts.of_team(*team).cloned();
        selection.add_team(&members.unwrap_or_default());
    }
    Ok((selection, teams))
}

/// The teams of a selection by numbers; those beyond any number of ours become one that does not exist.
pub(super) fn team_ids(selected: &Selected<Number>) -> impl Iterator<Item = TeamId> {
    let ids = selected.teams.iter();
    ids.map(|team| TeamId(team.narrow()))
}

/// Every team that is selected must be one where the actor may do it. Team 0, "no team", is everybody's and so
/// takes a global role.
///
/// # Errors
/// 403.
pub(super) fn allow_teams(
    actor: &Actor,
    reach: &Reach,
    teams: impl IntoIterator<Item = TeamId>,
) -> Result<(), ApiError> {
    for team in teams {
        if !reach.holds(Some(team).filter(|team| team.0 != 0)) {
            tracing::debug!(user = actor.user.id.0, team = team.0, "a team was refused");
            return Err(ApiError::Forbidden);
        }
    }
    Ok(())
}

fn add_label(selection: &mut Targets, state: &State, label: Option<&Label>) {
    match label {
        None => selection.add_label(LabelKind::Regular, &RoaringBitmap::new()),
        Some(label) if label.builtin && label.name == ALL_HOSTS => {
            selection.add_label(LabelKind::Everything, &RoaringBitmap::new());
        }
        Some(label) => {
            let kind = if label.builtin {
                LabelKind::Builtin
            } else {
                LabelKind::Regular
            };
            selection.add_label(kind, &state.members(label));
        }
    }
}

fn team_named(state: &State, name: &str) -> Option<TeamId> {
    if let Some(team) = state.team(name) {
        return Some(team.id);
    }
    let id = TeamId(name.parse().ok()?);
    (id.0 == 0 || state.teams.contains_key(&id)).then_some(id)
}

fn refuse(kind: &str, unknown: &[&str]) -> Result<(), ApiError> {
    if unknown.is_empty() {
        return Ok(());
    }
    let names = unknown.join(", ");
    Err(ApiError::BadRequest(format!(
        "Invalid {kind} names: {names}"
    )))
}
