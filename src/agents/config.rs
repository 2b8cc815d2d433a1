//! What an agent is to be: the options of its team or of all, and the packs that are for it.

use serde_json::value::RawValue;
use serde_json::{Map, Value as Json, json};
use warp::reply::Response;

use super::http::{Refusal, reply};
use super::request::Request;
use super::{Agents, platform};
use crate::catalog::entity::{Entity, Host, Label, Membership, Pack, PackQuery, Query};
use crate::catalog::state::ALL_HOSTS;
use crate::catalog::{Edit, State};
use crate::clock::Timestamp;
use crate::results::{HostId, TeamId};

/// What agents use unless their options say otherwise: a live query reaches them within 10 s.
const DISTRIBUTED_INTERVAL_S: u32 = 10;
/// The longest interval of a scheduled query, in seconds: a week (spec fleet-live-query, 5.3).
const INTERVAL_S_MAX: u64 = 604_800;

/// What the options say of how often an agent calls, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Intervals {
    distributed: u32,
    /// None if the options leave it to the agent's own flags.
    config_refresh: Option<u32>,
}

impl Agents {
    pub(super) async fn config(
        &self,
        request: &Request<'_>,
        now: Timestamp,
    ) -> Result<Response, Refusal> {
        let host = self.identify(request).await?;
        self.catalog.presence().touch(host.id, now);
        let config = compose(&self.catalog.read(), &host);
        self.record(&host, intervals(&config)).await;
        Ok(reply(Json::Object(config).to_string()))
    }

    /// Keeps how often the host will call, by which it counts as online. Only a change is written; a failure is
    /// made good at the next refresh.
    async fn record(&self, host: &Host, told: Intervals) {
        if is_recorded(host, told) {
            return;
        }
        let id: HostId = host.id;
        let commit = self.catalog.commit(|state| {
            let known = state.hosts.get(id).filter(|host| !is_recorded(host, told));
            let put = known.map(|known| {
                let mut host = Host::clone(known);
                host.distributed_interval = told.distributed;
                host.config_tls_refresh = told.config_refresh.unwrap_or(host.config_tls_refresh);
                Edit::Put(Entity::Host(Box::new(host)))
            });
            Ok::<_, std::convert::Infallible>((put.into_iter().collect(), ()))
        });
        if let Err(error) = commit.await {
            tracing::warn!(host = id.0, %error, "a host's intervals were not kept");
        }
    }
}

fn is_recorded(host: &Host, told: Intervals) -> bool {
    host.distributed_interval == told.distributed
        && told
            .config_refresh
            .is_none_or(|refresh| refresh == host.config_tls_refresh)
}

/// The whole document for a host.
fn compose(state: &State, host: &Host) -> Map<String, Json> {
    let team = host.team.and_then(|team| state.teams.get(&team));
    let team = team.and_then(|(team, _)| team.agent_options.as_deref());
    let options = [team, state.app.agent_options.as_deref()]
        .into_iter()
        .flatten();
    let chosen = options
        .filter_map(|options| chosen(options, &host.details.platform))
        .next();
    let mut config = chosen.unwrap_or_else(builtin);
    let options = config.entry("options").or_insert_with(|| json!({}));
    if !options.is_object() {
        *options = json!({});
    }
    if let Some(options) = options.as_object_mut() {
        let default = Json::from(DISTRIBUTED_INTERVAL_S);
        options.entry("distributed_interval").or_insert(default);
    }
    let packs = packs(state, host);
    if !packs.is_empty() {
        match config.get_mut("packs").and_then(Json::as_object_mut) {
            Some(own) => own.extend(packs),
            None => drop(config.insert("packs".to_owned(), packs.into())),
        }
    }
    config
}

/// The configuration that an options document has for a platform; none if it has none at all. Documents come as
/// `{"config","overrides"}` or, in team specs, with `spec` around it.
fn chosen(options: &RawValue, host_platform: &str) -> Option<Map<String, Json>> {
    let document: Json = serde_json::from_str(options.get()).ok()?;
    let document = document.get("spec").unwrap_or(&document);
    let platforms = &document["overrides"]["platforms"];
    let family = platform::family(host_platform);
    let words = [Some(host_platform), family].into_iter().flatten();
    let mut overrides = words.filter_map(|word| platforms.get(word)?.as_object());
    let config = overrides
        .next()
        .or_else(|| document.get("config")?.as_object())?;
    Some(config.clone())
}

/// The options of a fleet that nobody has configured.
fn builtin() -> Map<String, Json> {
    let config = json!({
        "options": {
            "disable_distributed": false,
            "distributed_interval": DISTRIBUTED_INTERVAL_S,
            "distributed_plugin": "tls",
            "distributed_tls_max_attempts": 3,
            "logger_plugin": "tls",
            "logger_tls_endpoint": "/api/osquery/log",
            "logger_tls_period": 10,
            "pack_delimiter": "/",
        },
        "decorators": {
            "load": [
                "SELECT uuid AS host_uuid FROM system_info;",
                "SELECT hostname AS hostname FROM system_info;",
            ],
        },
    });
    match config {
        Json::Object(config) => config,
        _ => Map::new(),
    }
}

fn intervals(config: &Map<String, Json>) -> Intervals {
    let option = |name: &str| {
        let value = config.get("options")?.get(name)?;
        let number = value.as_u64().or_else(|| value.as_str()?.parse().ok());
        u32::try_from(number?).ok().filter(|seconds| *seconds > 0)
    };
    Intervals {
        distributed: option("distributed_interval").unwrap_or(DISTRIBUTED_INTERVAL_S),
        config_refresh: option("config_refresh").or_else(|| option("config_tls_refresh")),
    }
}

/// The packs for a host, and what is scheduled without a pack, in packs that are named as Fleet names them. A query of a pack that no saved query has the name of is left out until there is one.
fn packs(state: &State, host: &Host) -> Map<String, Json> {
    let packs = state.packs.values().map(|(pack, _)| pack);
    let own = packs.filter(|pack| is_for(state, pack, host));
    let own = own.map(|pack| {
        let queries = pack
            .queries
            .iter()
            .filter_map(|query| scheduled(state, query));
        let queries: Map<String, Json> = queries.collect();
        (pack.name.clone(), json!({ "queries": queries }))
    });
    let mut packs = Map::new();
    for team in std::iter::once(None).chain(host.team.map(Some)) {
        let queries = of_schedule(state, team);
        if !queries.is_empty() {
            let name = team.map_or_else(|| "Global".to_owned(), |team| format!("team-{team}"));
            packs.insert(name, json!({ "queries": queries }));
        }
    }
    // An operator's pack of one of these names stands.
    packs.extend(own);
    packs
}

/// The saved queries of a team, or the global ones, that have a schedule of their own: an interval, and automations
/// switched on.
fn of_schedule(state: &State, team: Option<TeamId>) -> Map<String, Json> {
    let queries = state.queries.values().map(|(query, _)| query);
    let own = queries.filter(|query| query.saved && query.team == team);
    own.filter_map(|query| Some((query.name.clone(), by_itself(query)?)))
        .collect()
}

/// A saved query as osquery schedules it; none if it has no schedule.
fn by_itself(query: &Query) -> Option<Json> {
    let schedule = &query.schedule;
    let interval = schedule.get("interval")?.as_u64()?;
    let sent = schedule.get("automations_enabled") == Some(&Json::Bool(true));
    if interval == 0 || !sent {
        return None;
    }
    let text = |field: &str| schedule.get(field).and_then(Json::as_str).unwrap_or("");
    let logging = text("logging");
    let mut out = json!({
        "query": query.sql,
        "interval": interval.min(INTERVAL_S_MAX),
        // Fleet's words: snapshot unless it is one of the differential kinds.
        "snapshot": !logging.starts_with("differential"),
        "removed": logging == "differential",
    });
    for (field, name) in [("platform", "platform"), ("min_osquery_version", "version")] {
        let value = text(field);
        if !value.is_empty() {
            out[name] = value.into();
        }
    }
    Some(out)
}

/// Whether a pack's platform fits a host, and any of its labels or teams has it.
fn is_for(state: &State, pack: &Pack, host: &Host) -> bool {
    if pack.disabled || !platform::fits(&pack.platform, &host.details.platform) {
        return false;
    }
    let mut teams = pack.target_teams.iter().flatten();
    let mut labels = pack.target_labels.iter().flatten();
    let team = host.team.unwrap_or(TeamId(0));
    teams.any(|name| state.team(name).is_some_and(|named| named.id == team))
        || labels.any(|name| {
            state
                .label(name)
                .is_some_and(|label| has(state, label, host))
        })
}

fn has(state: &State, label: &Label, host: &Host) -> bool {
    if label.builtin && label.name == ALL_HOSTS {
        return true;
    }
    match label.membership {
        Membership::Dynamic => host.labels.contains(&label.id),
        Membership::Manual => label
            .hosts
            .iter()
            .any(|name| state.hosts.named(name).contains(&host.id)),
    }
}

/// A text that says something.
fn said(text: Option<&str>) -> Option<Json> {
    text.filter(|text| !text.is_empty()).map(Json::from)
}

fn scheduled(state: &State, entry: &PackQuery) -> Option<(String, Json)> {
    let query = state.query(None, &entry.query)?;
    let mut out = Map::new();
    out.insert("query".to_owned(), query.sql.clone().into());
    out.insert("interval".to_owned(), entry.interval.into());
    let optional = [
        ("description", said(Some(&entry.description))),
        ("snapshot", entry.snapshot.map(Json::from)),
        ("removed", entry.removed.map(Json::from)),
        ("platform", said(entry.platform.as_deref())),
        ("version", said(entry.version.as_deref())),
        ("shard", entry.shard.map(Json::from)),
        ("denylist", entry.denylist.map(Json::from)),
    ];
    let told = optional
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)));
    out.extend(told);
    let name = if entry.name.is_empty() {
        &entry.query
    } else {
        &entry.name
    };
    Some((name.clone(), out.into()))
}
