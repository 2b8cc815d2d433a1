//! What fleetctl and its kin ask for beside the documented routes: names to numbers, hosts by filter, roles by spec,
//! a report of hosts.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Api;
use super::call::Call;
use super::csv::write_line;
use super::error::{ApiError, Fault};
use super::finder::{self, Wanted};
use super::hosts::move_hosts;
use super::page::Page;
use super::reply::Reply;
use super::route::{Access, Route, run};
use super::users::keep_an_admin;
use super::wire::campaign::or_default;
use super::wire::host::status;
use super::wire::number::Number;
use super::wire::user::parse_role;
use super::{audit, hosts};
use crate::auth::Action;
use crate::catalog::entity::{Entity, Host, User};
use crate::catalog::{Edit, State};
use crate::results::{HostId, TeamId};

/// Lines of a report that are made at once.
const REPORT_LINES: usize = 1_000;
/// Names that one request may ask the numbers of.
const TRANSLATIONS_MAX: usize = 500;

pub(super) const ROUTES: &[Route] = &[
    Route::post("/translate", Access::To(Action::See), run!(translate))
        .says("The numbers of users (by e-mail), hosts, labels and teams by name. Changes nothing.")
        .takes("{list: [{type: \"user\"|\"host\"|\"label\"|\"team\", payload: {identifier: string, ...}, ...}; 0..500]|null}")
        .gives("{list: [{type: string, payload: {identifier: string, id: int}}]}"),
    Route::post("/hosts/transfer/filter", Access::To(Action::WriteHosts), run!(transfer))
        .says("Moves the hosts that a filter leaves to a team, or out of any with null.")
        .takes("{team_id?: int|null, filters: {query?: string|null, status?: string|null, label_id?: int|null, team_id?: int|null, ...}, ...}"),
    Route::get("/hosts/report", Access::To(Action::See), run!(report))
        .says("The hosts that the filters leave, as CSV.")
        .asks(REPORT_ASKS)
        .gives(""),
    Route::post("/users/roles/spec", Access::To(Action::Users), run!(apply_roles))
        .says("Sets the roles of users by e-mail address, with teams by name; all or none.")
        .takes("{spec: {roles: object|null, ...}, ...}"),
];

const REPORT_ASKS: &[&str] = &[
    "order_key",
    "order_direction",
    "query",
    "status",
    "team_id",
    "label_id",
    "label",
    "format: csv",
    "columns",
];

#[derive(Deserialize)]
struct ListIn {
    #[serde(deserialize_with = "or_default")]
    list: Vec<ItemIn>,
}

#[derive(Deserialize)]
struct ItemIn {
    r#type: String,
    payload: PayloadIn,
}

#[derive(Deserialize)]
struct PayloadIn {
    identifier: String,
}

async fn translate(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let actor = call.actor()?;
    let ListIn { list } = call.json()?;
    if list.len() > TRANSLATIONS_MAX {
        let reason = format!("must not have more than {TRANSLATIONS_MAX} names");
        return Err(ApiError::invalid("list", reason));
    }
    let state = api.parts.catalog.read();
    let mut out = Vec::with_capacity(list.len());
    for ItemIn { r#type, payload } in list {
        let name = payload.identifier;
        let missing = || ApiError::not_found(format_args!("{type} {name:?}"));
        let id = match r#type.as_str() {
            "user" => {
                let user = state.user_by_email(&name);
                let user = user.filter(|user| user.id == actor.user.id || actor.may(Action::Users));
                user.ok_or_else(missing)?.id.0
            }
            "host" => hosts::named(&state, actor, &name)?.id.0,
            "label" => state.label(&name).ok_or_else(missing)?.id.0,
            "team" | "fleet" => {
                let team = state.team(&name);
                let team = team.filter(|team| actor.may_in(Action::See, Some(team.id)));
                team.ok_or_else(missing)?.id.0
            }
            other => {
                let reason = format!("must be user, host, label or team, and is {other:?}");
                return Err(ApiError::invalid("type", reason));
            }
        };
        out.push(json!({"type": r#type, "payload": {"identifier": name, "id": id}}));
    }
    Ok(Reply::json(&json!({ "list": out })))
}

#[derive(Deserialize)]
struct FilterIn {
    #[serde(alias = "fleet_id")]
    team_id: Option<Number>,
    filters: Map<String, Value>,
}

/// The filters as the parameters that lists of hosts take.
fn parameters(filters: &Map<String, Value>) -> Result<Vec<(String, String)>, ApiError> {
    let mut query = Vec::new();
    for (name, value) in filters {
        let name = if name == "fleet_id" { "team_id" } else { name };
        if !["query", "status", "label_id", "team_id"].contains(&name) {
            let reason = "is no filter: there are query, status, label_id and team_id";
            return Err(ApiError::invalid(name.to_owned(), reason));
        }
        match value {
            Value::Null => {}
            Value::String(text) if !name.ends_with("_id") => {
                query.push((name.to_owned(), text.clone()));
            }
            Value::Number(number) if name.ends_with("_id") => {
                query.push((name.to_owned(), number.to_string()));
            }
            _ => {
                return Err(ApiError::invalid(
                    name.to_owned(),
                    "must be a text, or a number where it is an id",
                ));
            }
        }
    }
    Ok(query)
}

async fn transfer(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let FilterIn { team_id, filters } = call.json()?;
    let team = team_id.map(Number::narrow).filter(|team| *team != 0);
    let team = team.map(TeamId);
    let asked = Call {
        actor: call.actor.clone(),
        params: Vec::new(),
        query: parameters(&filters)?,
        body: Bytes::new(),
        now: call.now,
        address: call.address,
    };
    let actor = call.actor()?;
    if !actor.may_in(Action::WriteHosts, team) {
        return Err(ApiError::Forbidden);
    }
    let found = all(&api, &asked).await?;
    let hosts: Vec<HostId> = found.iter().map(|host| host.id).collect();
    let moved = move_hosts(&api, &hosts, team, Some(actor)).await?;
    let details = json!({"team_id": team, "filters": filters, "moved": moved});
    audit::record(&api, actor, "transferred_hosts", details, call.now).await;
    Ok(Reply::empty())
}

/// All hosts that the filters of a request leave.
async fn all(api: &Api, call: &Call) -> Result<Vec<Arc<Host>>, ApiError> {
    let wanted = Wanted::of(call)?;
    let set = finder::filtered(api, call.actor()?, call)?;
    let page = Page {
        number: 0,
        size: set.len(),
    };
    let (hosts, _) = finder::find(api, &set, &wanted, page).await;
    Ok(hosts)
}

/// A column of the report.
type Column = (&'static str, fn(&Api, &State, &Host, &Call) -> String);

/// The columns of a report, in their order.
const COLUMNS: [Column; 14] = [
    ("id", |_, _, host, _| host.id.to_string()),
    ("hostname", |_, _, host, _| host.hostname().to_owned()),
    ("display_name", |_, _, host, _| {
        host.display_name().to_owned()
    }),
    ("computer_name", |_, _, host, _| {
        host.details.computer_name.clone()
    }),
    ("uuid", |_, _, host, _| host.details.uuid.clone()),
    ("osquery_host_id", |_, _, host, _| host.identifier.clone()),
    ("hardware_serial", |_, _, host, _| {
        host.details.hardware_serial.clone()
    }),
    ("platform", |_, _, host, _| host.details.platform.clone()),
    ("os_version", |_, _, host, _| {
        host.details.os_version.clone()
    }),
    ("osquery_version", |_, _, host, _| {
        host.details.osquery_version.clone()
    }),
    ("primary_ip", |_, _, host, _| {
        host.details.primary_ip.clone()
    }),
    ("team_id", |_, _, host, _| {
        host.team.map_or_else(String::new, |team| team.to_string())
    }),
    ("team_name", |_, state, host, _| {
        let team = host.team.and_then(|team| state.teams.get(&team));
        team.map_or_else(String::new, |(team, _)| team.name.clone())
    }),
    ("status", |api, _, host, call| {
        let presence = api.parts.catalog.presence();
        status(presence.is_online(host.id, call.now)).to_owned()
    }),
];

/// The columns that a request names, or all.
fn columns(call: &Call) -> Result<Vec<Column>, ApiError> {
    let Some(names) = call.asked("columns") else {
        return Ok(COLUMNS.to_vec());
    };
    let named = names.split(',').map(|name| {
        let column = COLUMNS.iter().find(|(known, _)| *known == name.trim());
        column.copied().ok_or_else(|| {
            let known: Vec<&str> = COLUMNS.iter().map(|(name, _)| *name).collect();
            let reason = format!("must be of {}, and has {name:?}", known.join(", "));
            ApiError::invalid("columns", reason)
        })
    });
    named.collect()
}

async fn report(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    match call.asked("format") {
        None | Some("csv") => {}
        Some(other) => {
            let reason = format!("format must be csv, and is {other:?}");
            return Err(ApiError::BadRequest(reason));
        }
    }
    let columns = columns(&call)?;
    let mut found = all(&api, &call).await?.into_iter().peekable();
    let mut head = BytesMut::new();
    write_line(columns.iter().map(|(name, _)| *name), &mut head);
    let lines = std::iter::from_fn(move || {
        found.peek()?;
        let state = api.parts.catalog.read();
        let mut out = BytesMut::new();
        for host in found.by_ref().take(REPORT_LINES) {
            let cells = columns
                .iter()
                .map(|(_, cell)| cell(&api, &state, &host, &call));
            let cells: Vec<String> = cells.collect();
            write_line(cells.iter().map(String::as_str), &mut out);
        }
        Some(out.freeze())
    });
    let parts = std::iter::once(head.freeze()).chain(lines).map(Ok);
    Ok(Reply::stream(
        "text/csv; charset=utf-8",
        "hosts.csv",
        stream::iter(parts),
    ))
}

#[derive(Deserialize)]
struct RolesIn {
    spec: SpecIn,
}

#[derive(Deserialize)]
struct SpecIn {
    #[serde(deserialize_with = "or_default")]
    roles: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
struct RoleIn {
    #[serde(default)]
    global_role: Option<String>,
    #[serde(default, alias = "fleets", deserialize_with = "or_default")]
    teams: Vec<TeamRoleIn>,
}

#[derive(Deserialize)]
struct TeamRoleIn {
    #[serde(alias = "team", alias = "fleet")]
    name: String,
    role: String,
}

async fn apply_roles(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let RolesIn { spec } = call.json()?;
    let plan = |state: &State| {
        let (mut edits, mut faults) = (Vec::new(), Vec::new());
        for (email, roles) in &spec.roles {
            match with_roles(state, email, roles) {
                Ok(user) => edits.push(Edit::Put(Entity::User(user))),
                Err(reason) => faults.push(Fault {
                    name: format!("roles[{email}]"),
                    reason,
                }),
            }
        }
        if !faults.is_empty() {
            return Err(ApiError::Invalid(faults));
        }
        for edit in &edits {
            if let Edit::Put(Entity::User(next)) = edit
                && let Some((user, _)) = state.users.get(&next.id)
            {
                keep_an_admin(state, user, next.global_role)?;
            }
        }
        Ok((edits, ()))
    };
    api.parts.catalog.commit(plan).await?;
    let emails: Vec<&String> = spec.roles.keys().collect();
    let details = json!({"users": emails});
    audit::record(
        &api,
        call.actor()?,
        "applied_spec_user_roles",
        details,
        call.now,
    )
    .await;
    Ok(Reply::empty())
}

/// The user with these roles and no others.
fn with_roles(state: &State, email: &str, roles: &Value) -> Result<User, String> {
    let roles = RoleIn::deserialize(roles).map_err(|error| error.to_string())?;
    let user = state.user_by_email(email);
    let mut next = User::clone(user.ok_or("there is no user of this address")?);
    let role =
        |word: &str| parse_role(word).ok_or_else(|| format!("{word:?} is none of the roles"));
    let global = roles.global_role.as_deref().filter(|word| !word.is_empty());
    next.global_role = global.map(role).transpose()?;
    next.teams.clear();
    for team in &roles.teams {
        let known = state.team(&team.name);
        let known = known.ok_or_else(|| format!("there is no team {:?}", team.name))?;
        next.teams.insert(known.id, role(&team.role)?);
    }
    if next.global_role.is_some() && !next.teams.is_empty() {
        return Err("a user has a global role or roles in teams, not both".to_owned());
    }
    if next.global_role.is_none() && next.teams.is_empty() {
        return Err("a user must have a role".to_owned());
    }
    Ok(next)
}
