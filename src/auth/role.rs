//! Who may do what: one table of actions by roles, and nothing else decides.

use crate::catalog::entity::{Role, User};
use crate::results::TeamId;

/// Something that needs a permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// See hosts, labels, queries, packs, teams, counts and the state of the installation.
    See,
    /// Run saved queries that observers may run, and watch one's own campaigns.
    RunSaved,
    /// Run any saved query and SQL of one's own.
    RunAny,
    /// Make, change and delete saved queries.
    WriteQueries,
    /// Make, change and delete packs.
    WritePacks,
    /// Make, change and delete labels.
    WriteLabels,
    /// Delete hosts and move them between teams.
    WriteHosts,
    /// Make and delete teams.
    WriteTeams,
    /// Change the options and the name of a team.
    WriteTeam,
    /// Read and replace enroll secrets, global ones or a team's.
    Secrets,
    /// See, make, change and delete users, their roles and tokens.
    Users,
    /// Read the audit trail.
    SeeActivities,
    /// Change the installation's settings.
    WriteConfig,
    /// Watch, export and stop campaigns of others.
    WatchAll,
}

/// One row: the roles that may do it everywhere, and the roles that may do it within their team.
struct Rule {
    action: Action,
    everywhere: &'static [Role],
    in_team: &'static [Role],
}

const ALL: &[Role] = &[
    Role::Admin,
    Role::Maintainer,
    Role::Observer,
    Role::ObserverPlus,
];
const RUNNERS: &[Role] = &[Role::Admin, Role::Maintainer, Role::ObserverPlus];
const WRITERS: &[Role] = &[Role::Admin, Role::Maintainer];
const ADMIN: &[Role] = &[Role::Admin];
const NOBODY: &[Role] = &[];

const TABLE: &[Rule] = &[
    rule(Action::See, ALL, ALL),
    rule(Action::RunSaved, ALL, ALL),
    rule(Action::RunAny, RUNNERS, RUNNERS),
    rule(Action::WriteQueries, WRITERS, WRITERS),
    rule(Action::WritePacks, WRITERS, NOBODY),
    rule(Action::WriteLabels, WRITERS, NOBODY),
    rule(Action::WriteHosts, WRITERS, WRITERS),
    rule(Action::WriteTeams, ADMIN, NOBODY),
    rule(Action::WriteTeam, ADMIN, ADMIN),
    rule(Action::Secrets, ADMIN, ADMIN),
    rule(Action::Users, ADMIN, NOBODY),
    rule(Action::SeeActivities, ALL, NOBODY),
    rule(Action::WriteConfig, ADMIN, NOBODY),
    rule(Action::WatchAll, ADMIN, NOBODY),
];

const fn rule(action: Action, everywhere: &'static [Role], in_team: &'static [Role]) -> Rule {
    Rule {
        action,
        everywhere,
        in_team,
    }
}

/// Where a user may do something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Everywhere.
    Everywhere,
    /// In these teams, sorted; nowhere if there is none.
    Teams(Vec<TeamId>),
}

impl Reach {
    /// Whether it is anywhere at all.
    #[must_use]
    pub fn is_nowhere(&self) -> bool {
        matches!(self, Self::Teams(teams) if teams.is_empty())
    }

    /// Whether it holds this team; none stands for what belongs to no team, and so to everybody's.
    #[must_use]
    pub fn holds(&self, team: Option<TeamId>) -> bool {
        match self {
            Self::Everywhere => true,
            Self::Teams(teams) => team.is_some_and(|team| teams.contains(&team)),
        }
    }
}

/// Where this user may do it. A global role counts everywhere; roles in teams add to it.
#[must_use]
pub fn reach(user: &User, action: Action) -> Reach {
    let Some(rule) = TABLE.iter().find(|rule| rule.action == action) else {
        return Reach::Teams(Vec::new());
    };
    if user
        .global_role
        .is_some_and(|role| rule.everywhere.contains(&role))
    {
        return Reach::Everywhere;
    }
    let teams = user.teams.iter();
    let may = teams.filter(|(_, role)| rule.in_team.contains(role));
    Reach::Teams(may.map(|(team, _)| *team).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::UserId;

    /// Written apart from the table, in another form: a column a role (admin, maintainer, observer, observer_plus),
    /// first where the role is global, then where it is a team's.
    const EXPECTED: &[(Action, &str, &str)] = &[
        (Action::See, "AMOP", "AMOP"),
        (Action::RunSaved, "AMOP", "AMOP"),
        (Action::RunAny, "AM.P", "AM.P"),
        (Action::WriteQueries, "AM..", "AM.."),
        (Action::WritePacks, "AM..", "...."),
        (Action::WriteLabels, "AM..", "...."),
        (Action::WriteHosts, "AM..", "AM.."),
        (Action::WriteTeams, "A...", "...."),
        (Action::WriteTeam, "A...", "A..."),
        (Action::Secrets, "A...", "A..."),
        (Action::Users, "A...", "...."),
        (Action::SeeActivities, "AMOP", "...."),
        (Action::WriteConfig, "A...", "...."),
        (Action::WatchAll, "A...", "...."),
    ];

    fn user(global: Option<Role>, teams: &[(u32, Role)]) -> User {
        User {
            id: UserId(1),
            name: "U".into(),
            email: "u@example.com".into(),
            password_hash: None,
            must_change_password: false,
            api_only: false,
            global_role: global,
            teams: teams
                .iter()
                .map(|(id, role)| (TeamId(*id), *role))
                .collect(),
            created_at: 0,
        }
    }

    #[test]
    fn every_action_by_every_role_is_as_written() {
        assert_eq!(EXPECTED.len(), TABLE.len(), "a row each");
        for (action, everywhere, in_team) in EXPECTED {
            for (at, role) in ALL.iter().enumerate() {
                let may = |columns: &str| columns.as_bytes()[at] != b'.';
                let global = reach(&user(Some(*role), &[]), *action);
                assert_eq!(
                    global == Reach::Everywhere,
                    may(everywhere),
                    "{action:?} {role:?}"
                );
                assert_eq!(global.is_nowhere(), !may(everywhere), "{action:?} {role:?}");
                let team = reach(&user(None, &[(7, *role)]), *action);
                assert_eq!(
                    team.holds(Some(TeamId(7))),
                    may(in_team),
                    "{action:?} {role:?}"
                );
                assert!(!team.holds(Some(TeamId(8))), "{action:?}: another's team");
                assert!(!team.holds(None), "{action:?}: what belongs to no team");
            }
        }
    }

    #[test]
    fn roles_in_teams_add_to_a_global_one() {
        let mixed = user(
            Some(Role::Observer),
            &[(1, Role::Maintainer), (2, Role::Observer)],
        );
        assert_eq!(reach(&mixed, Action::RunAny), Reach::Teams(vec![TeamId(1)]));
        assert_eq!(reach(&mixed, Action::See), Reach::Everywhere);
        assert!(reach(&user(None, &[]), Action::See).is_nowhere());
    }
}
