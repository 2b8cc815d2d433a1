//! Shapes of JSON in a short notation, for the table of routes, and as JSON Schema for the OpenAPI document.
//!
//! `{name: string, hosts?: [int]|null, ...}`: fields, `?` for those that may be missing, `...` for objects that may
//! hold more. Words: `string`, `int`, `number`, `bool`, `time`, `null`, `any`, `object`; a quoted word stands for
//! itself; a word with a capital is one of [`NAMED`].

use serde_json::{Map, Value, json};

/// Shapes that several routes share.
pub(super) const NAMED: &[(&str, &str)] = &[
    (
        "Error",
        r#"{message: string, errors: [{name: string, reason: string}]|null, uuid?: string}"#,
    ),
    (
        "PageMeta",
        "{has_next_results: bool, has_previous_results: bool}",
    ),
    (
        "SelectedIds",
        "{hosts?: [int]|null, labels?: [int]|null, teams?: [int]|null}",
    ),
    (
        "SelectedNames",
        "{hosts?: [string]|null, labels?: [string]|null, teams?: [string]|null}",
    ),
    (
        "RunByIds",
        "{query?: string|null, query_id?: int|null, selected: SelectedIds|null}",
    ),
    (
        "RunByNames",
        "{query?: string|null, query_id?: int|null, selected: SelectedNames|null}",
    ),
    (
        "CreatedCampaign",
        "{created_at: time, updated_at: time, Metrics: Metrics, id: int, query_id: int, status: int, user_id: int}",
    ),
    (
        "Metrics",
        "{TotalHosts: int, OnlineHosts: int, OfflineHosts: int, MissingInActionHosts: int, NewHosts: int}",
    ),
    (
        "Campaign",
        r#"{id: int, created_at: time, updated_at: time, query_id: int, query_name: string|null, query: string, user_id: int, status: int, state: "waiting"|"running"|"complete", ended_at: time|null, ending: "unclaimed"|"unwatched"|"stopped"|"expired"|null, targets_count: int, counts?: CampaignCounts}"#,
    ),
    (
        "CampaignCounts",
        "{answered: int, failed: int, waiting: int, offline: int}",
    ),
    (
        "CampaignHost",
        r#"{id: int, hostname: string, display_name: string, state: "answered"|"failed"|"waiting"|"offline", handed_out: bool, status: "online"|"offline", seen_time: time}"#,
    ),
    ("Row", "object"),
    (
        "HostAnswer",
        "{host_id: int, rows: [Row], error: string|null}",
    ),
    (
        "LiveQueryResult",
        "{query_id: int, error?: string, results: [HostAnswer]}",
    ),
    (
        "LiveQueryOnHosts",
        "{query_id: int, targeted_host_count: int, responded_host_count: int, results: [HostAnswer]}",
    ),
    (
        "LiveQueryOnHost",
        r#"{host_id: int, rows: [Row], query: string, status: "online"|"offline", error?: string}"#,
    ),
    ("Role", r#""admin"|"maintainer"|"observer"|"observer_plus""#),
    (
        "User",
        "{created_at: time, updated_at: time, id: int, name: string, email: string, force_password_reset: bool, gravatar_url: string, sso_enabled: bool, mfa_enabled: bool, api_only: bool, global_role: Role|null, teams: [TeamRole]}",
    ),
    ("TeamRole", "{id: int, name: string, role: Role}"),
    (
        "UserIn",
        "{name?: string, email?: string, password?: string, global_role?: Role|null, teams?: [{id: int, role: Role}], api_only?: bool, admin_forced_password_reset?: bool}",
    ),
    (
        "TeamSummary",
        "{id: int, name: string, description: string}",
    ),
    (
        "Team",
        "{created_at: time, id: int, name: string, description: string, agent_options: object|null, user_count: int, host_count: int, secrets?: [Secret]}",
    ),
    (
        "TargetTeam",
        "{id: int, name: string, description: string, display_text: string, count: int}",
    ),
    (
        "TeamSpec",
        "{name: string, agent_options?: object|null, secrets?: [SecretIn]|null}",
    ),
    (
        "Secret",
        "{secret: string, created_at: time, team_id?: int}",
    ),
    ("SecretIn", "{secret: string}|string"),
    (
        "Host",
        r#"{created_at: time, updated_at: time, id: int, detail_updated_at: time, label_updated_at: time, last_enrolled_at: time, seen_time: time, hostname: string, display_name: string, display_text: string, osquery_host_id: string, uuid: string, platform: string, platform_like: string, osquery_version: string, os_version: string, uptime: int, memory: int, cpu_type: string, cpu_brand: string, cpu_physical_cores: int, cpu_logical_cores: int, hardware_vendor: string, hardware_model: string, hardware_version: string, hardware_serial: string, computer_name: string, primary_ip: string, primary_mac: string, distributed_interval: int, config_tls_refresh: int, team_id: int|null, team_name: string|null, status: "online"|"offline", labels?: [{id: int, name: string, description: string}]}"#,
    ),
    ("Membership", r#""dynamic"|"manual""#),
    ("LabelType", r#""builtin"|"regular""#),
    (
        "Label",
        "{created_at: time, updated_at: time, id: int, name: string, description: string, query: string, platform: string, label_type: LabelType, label_membership_type: Membership, display_text: string, count: int, host_count: int}",
    ),
    (
        "LabelSpec",
        "{id?: int, name: string, description?: string, query?: string, platform?: string, label_type?: LabelType, label_membership_type?: Membership, hosts?: [string]|null}",
    ),
    (
        "Query",
        "{created_at: time, updated_at: time, id: int, name: string, description: string, query: string, team_id: int|null, saved: bool, observer_can_run: bool, author_id: int|null, author_name: string, author_email: string, packs: [object], interval?: int, platform?: string, min_osquery_version?: string, automations_enabled?: bool, logging?: string, discard_data?: bool}",
    ),
    (
        "QueryIn",
        "{name?: string, description?: string, query?: string, observer_can_run?: bool, team_id?: int|null, interval?: int, platform?: string, min_osquery_version?: string, automations_enabled?: bool, logging?: string, discard_data?: bool}",
    ),
    (
        "QuerySpec",
        "{name: string, description?: string, query: string, team?: string, observer_can_run?: bool, interval?: int, platform?: string, min_osquery_version?: string, automations_enabled?: bool, logging?: string, discard_data?: bool}",
    ),
    (
        "PackSpec",
        "{id?: int, name: string, description?: string, platform?: string, disabled?: bool, targets?: {labels: [string]|null, teams?: [string]|null}, queries?: [PackQuerySpec]|null}",
    ),
    (
        "PackQuerySpec",
        "{query: string, name?: string, description?: string, interval: int, snapshot?: bool|null, removed?: bool|null, shard?: int|null, platform?: string|null, version?: string|null, denylist?: bool|null}",
    ),
    (
        "Activity",
        "{created_at: time, id: int, actor_full_name: string, actor_id: int|null, actor_gravatar: string, actor_email: string, type: string, details: any}",
    ),
    (
        "Config",
        "{agent_options: object|null, server_settings: {live_query_disabled: bool, server_url: string, ...}, org_info: object, ...}",
    ),
];

/// Why a shape makes no sense, and where.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} at byte {1}")]
pub(super) struct Nonsense(&'static str, usize);

/// The JSON Schema of a shape.
///
/// # Errors
/// When it is not in the notation; a test reads all that there are.
pub(super) fn schema(shape: &str) -> Result<Value, Nonsense> {
    let mut reader = Reader { text: shape, at: 0 };
    let schema = reader.union()?;
    reader.space();
    if reader.at < shape.len() {
        return Err(Nonsense("more than a shape", reader.at));
    }
    Ok(schema)
}

/// The schemas of all named shapes.
pub(super) fn components() -> Map<String, Value> {
    let named = NAMED.iter();
    named
        .map(|(name, shape)| {
            (
                (*name).to_owned(),
                schema(shape).unwrap_or_else(|_| json!({})),
            )
        })
        .collect()
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn space(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
    }

    /// Takes a sign if it comes next.
    fn take(&mut self, sign: &str) -> bool {
        self.space();
        let comes = self.text[self.at..].starts_with(sign);
        if comes {
            self.at += sign.len();
        }
        comes
    }

    fn must(&mut self, sign: &str, what: &'static str) -> Result<(), Nonsense> {
        if self.take(sign) {
            Ok(())
        } else {
            Err(Nonsense(what, self.at))
        }
    }

    fn word(&mut self) -> &'a str {
        self.space();
        let rest = &self.text[self.at..];
        let end = rest.find(|each: char| !each.is_alphanumeric() && each != '_');
        let word = &rest[..end.unwrap_or(rest.len())];
        self.at += word.len();
        word
    }

    fn union(&mut self) -> Result<Value, Nonsense> {
        let mut members = vec![self.one()?];
        while self.take("|") {
            members.push(self.one()?);
        }
        if members.len() == 1 {
            return Ok(members.remove(0));
        }
        let words: Option<Vec<Value>> = members
            .iter()
            .map(|member| member.get("const").cloned())
            .collect();
        Ok(match words {
            Some(words) => json!({"type": "string", "enum": words}),
            None => json!({"anyOf": members}),
        })
    }

    fn one(&mut self) -> Result<Value, Nonsense> {
        if self.take("[") {
            let items = self.union()?;
            self.must("]", "a list without its end")?;
            return Ok(json!({"type": "array", "items": items}));
        }
        if self.take("{") {
            return self.fields();
        }
        if self.take("\"") {
            let word = self.word();
            self.must("\"", "a word without its end")?;
            return Ok(json!({"const": word}));
        }
        let start = self.at;
        Ok(match self.word() {
            "string" => json!({"type": "string"}),
            "int" => json!({"type": "integer", "minimum": 0}),
            "number" => json!({"type": "number"}),
            "bool" => json!({"type": "boolean"}),
            "time" => json!({"type": "string", "format": "date-time"}),
            "null" => json!({"type": "null"}),
            "object" => json!({"type": "object", "additionalProperties": true}),
            "any" => json!({}),
            name if NAMED.iter().any(|(known, _)| *known == name) => {
                json!({"$ref": format!("#/components/schemas/{name}")})
            }
            _ => return Err(Nonsense("an unknown word", start)),
        })
    }

    fn fields(&mut self) -> Result<Value, Nonsense> {
        let (mut properties, mut required) = (Map::new(), Vec::new());
        let mut open = false;
        while !self.take("}") {
            if self.take("...") {
                open = true;
            } else {
                let name = self.word().to_owned();
                if name.is_empty() {
                    return Err(Nonsense("a field without a name", self.at));
                }
                if !self.take("?") {
                    required.push(Value::String(name.clone()));
                }
                self.must(":", "a field without a shape")?;
                properties.insert(name, self.union()?);
            }
            if !self.take(",") {
                self.must("}", "an object without its end")?;
                break;
            }
        }
        let mut schema = json!({"type": "object", "properties": properties});
        if !required.is_empty() {
            schema["required"] = Value::Array(required);
        }
        if open {
            schema["additionalProperties"] = Value::Bool(true);
        }
        Ok(schema)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_become_schemas() {
        let read = schema(r#"{a: [int]|null, b?: "x"|"y", c: {...}, d: Error}"#).unwrap();
        assert_eq!(read["required"], json!(["a", "c", "d"]));
        assert_eq!(read["properties"]["a"]["anyOf"][1], json!({"type": "null"}));
        assert_eq!(read["properties"]["b"]["enum"], json!(["x", "y"]));
        assert_eq!(read["properties"]["c"]["additionalProperties"], json!(true));
        assert_eq!(
            read["properties"]["d"]["$ref"],
            "#/components/schemas/Error"
        );
        for bad in ["", "{", "{a}", "[int", "strin", "int int", "{a: int", "\"x"] {
            assert!(schema(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn every_shape_of_the_table_can_be_read() {
        for (name, shape) in NAMED {
            assert_eq!(schema(shape).err(), None, "{name}");
        }
        for route in super::super::table().into_iter().flatten() {
            for shape in [route.takes, route.gives] {
                if !shape.is_empty() {
                    let at = format!("{} {}: {shape}", route.method, route.path);
                    assert_eq!(schema(shape).err(), None, "{at}");
                }
            }
            assert!(
                route.summary.ends_with('.'),
                "{} {}",
                route.method,
                route.path
            );
        }
    }
}
