//! The OpenAPI document, made of the table of routes.

use serde_json::{Map, Value, json};

use super::call::DRY_RUN;
use super::route::{Access, Route};
use super::serve::VERSIONS;
use super::shape;

/// The document.
pub(super) fn document(table: &[&'static [Route]]) -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for route in table.iter().copied().flatten() {
        let template = template(&paths, route.path);
        let operation = operation(route, &template);
        let item = paths.entry(template).or_insert_with(|| json!({}));
        item[route.method.to_lowercase()] = operation;
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Answerback",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Live queries of osquery fleets: the operators' API.",
            "description": "Every version in the path means the same. Results are streamed over WebSocket and SockJS below /api/{version}/fleet/results; /api/schema/viewer.json describes the messages.",
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
        },
        "servers": [{
            "url": "/api/{version}/fleet",
            "variables": {"version": {"enum": VERSIONS, "default": VERSIONS[0]}},
        }],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": shape::components(),
            "responses": refusals(),
        },
    })
}

/// The path as OpenAPI wants it: paths that differ in the names of their parameters only are one.
fn template(paths: &Map<String, Value>, path: &str) -> String {
    let same = |known: &&String| {
        let pairs = known.split('/').zip(path.split('/'));
        let fits = |(one, other): (&str, &str)| {
            one == other || (one.starts_with('{') && other.starts_with('{'))
        };
        known.split('/').count() == path.split('/').count() && pairs.into_iter().all(fits)
    };
    paths
        .keys()
        .find(same)
        .cloned()
        .unwrap_or_else(|| path.to_owned())
}

fn operation(route: &Route, template: &str) -> Value {
    let words = route
        .path
        .split(['/', '{', '}'])
        .filter(|word| !word.is_empty());
    let id = words.fold(route.method.to_lowercase(), |id, word| {
        format!("{id}_{word}")
    });
    let mut operation = json!({
        "operationId": id,
        "summary": route.summary,
        "description": description(route),
        "parameters": parameters(route, template),
        "responses": responses(route),
    });
    if !route.takes.is_empty() {
        operation["requestBody"] = json!({"required": true, "content": content(route.takes)});
    }
    if route.access == Access::Open {
        operation["security"] = json!([]);
    }
    operation
}

/// Refusals by status, each with what it means and the header that comes with it, if any.
const REFUSALS: [(&str, &str, Option<&str>); 12] = [
    (
        "400",
        "The request makes no sense: its JSON, a number in its path, a parameter, or nobody is meant.",
        None,
    ),
    (
        "401",
        "No token, an unknown one, or a wrong password.",
        Some("WWW-Authenticate"),
    ),
    (
        "403",
        "The user's roles do not allow it, or it is switched off.",
        None,
    ),
    (
        "404",
        "What is named is not there, or not to be seen.",
        None,
    ),
    ("408", "The body did not come in time.", None),
    ("409", "Something of this name exists.", None),
    ("413", "The body is too long.", None),
    (
        "415",
        "The body is compressed in a way that is not known.",
        None,
    ),
    ("422", "Fields are wrong; each is named.", None),
    (
        "429",
        "Too many; `Retry-After` says in how many seconds to come back.",
        Some("Retry-After"),
    ),
    ("500", "Our fault; the log has the reference.", None),
    (
        "503",
        "The store does not answer, or there is too much to do; worth another try.",
        None,
    ),
];

fn refusals() -> Map<String, Value> {
    let json = json!({"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}});
    let refusals = REFUSALS.into_iter().map(|(status, meaning, header)| {
        let mut refusal = json!({"description": meaning, "content": json});
        if let Some(header) = header {
            refusal["headers"] = json!({header: {"required": true, "schema": {"type": "string"}}});
        }
        (format!("Error{status}"), refusal)
    });
    refusals.collect()
}

/// What a route may answer. Every request has a body that may be broken, and a store that may be away.
fn responses(route: &Route) -> Map<String, Value> {
    let named = route.path.contains('{') || route.asks.iter().any(|name| name.ends_with("_id"));
    let takes = !route.takes.is_empty();
    // Built-in labels and the last admin stay; columns may be unknown; programs' tokens do not log out.
    let refuses = takes
        || route.method == "DELETE"
        || route.asks.contains(&"columns")
        || route.path == "/logout";
    let may = |status: &str| match status {
        "403" => route.access != Access::Open,
        "404" => named || takes,
        "409" => takes,
        "422" => refuses,
        "429" => route.limited,
        _ => true,
    };
    let done = json!({"description": "Done.", "content": content(route.gives)});
    let refusals = REFUSALS.iter().filter(|(status, ..)| may(status));
    let refusals = refusals.map(|(status, ..)| {
        let refusal = json!({"$ref": format!("#/components/responses/Error{status}")});
        ((*status).to_owned(), refusal)
    });
    std::iter::once(("200".to_owned(), done))
        .chain(refusals)
        .collect()
}

fn description(route: &Route) -> String {
    let who = access(route.access);
    if route.aliases.is_empty() {
        return format!("Access: {who}.");
    }
    format!("Access: {who}. Also at: {}.", route.aliases.join(", "))
}

/// Who may send it, for people.
pub(super) fn access(access: Access) -> String {
    match access {
        Access::Open => "everybody".to_owned(),
        Access::Pending => "a token, even of a user who must change the password".to_owned(),
        Access::SignedIn => "a token".to_owned(),
        Access::To(action) => format!("a token whose user may {action:?}"),
    }
}

fn parameters(route: &Route, template: &str) -> Vec<Value> {
    let segments = template.split('/').zip(route.path.split('/'));
    let in_path = segments.filter_map(|(shown, own)| {
        let name = shown.strip_prefix('{')?.strip_suffix('}')?;
        let schema = if own == "{id}" {
            json!({"type": "integer", "minimum": 1})
        } else {
            json!({"type": "string", "minLength": 1})
        };
        Some(json!({
            "name": name,
            "in": "path",
            "required": true,
            "description": own.trim_matches(['{', '}']),
            "schema": schema,
        }))
    });
    let asked = route.asks.iter().map(|asked| {
        let (name, words) = asked.split_once(": ").unwrap_or((asked, ""));
        json!({"name": name, "in": "query", "schema": asked_schema(name, words)})
    });
    let dry_run = route.changes().then(|| {
        json!({
            "name": DRY_RUN,
            "in": "query",
            "description": "Whether to check and answer only, and to change nothing.",
            "schema": {"type": "boolean"},
        })
    });
    in_path.chain(asked).chain(dry_run).collect()
}

/// What may stand after `?` under a name. Fleet's clients send empty values for what they do not ask.
fn asked_schema(name: &str, words: &str) -> Value {
    let words = match name {
        _ if !words.is_empty() => words,
        "order_direction" => "asc|desc",
        "status" => "online|offline|mia|missing|new",
        "state" => "answered|failed|waiting|offline",
        "format" => "ndjson|json|csv",
        _ => words,
    };
    if !words.is_empty() {
        let words: Vec<&str> = words.split('|').chain([""]).collect();
        return json!({"type": "string", "enum": words});
    }
    let most = match name {
        "per_page" => super::page::PER_PAGE_MAX,
        "page" | "after" | "epoch" | "team_id" | "label_id" => u64::MAX,
        _ => return json!({"type": "string"}),
    };
    let number = json!({"type": "integer", "minimum": 0, "maximum": most});
    json!({"anyOf": [number, {"type": "string", "maxLength": 0}]})
}

fn content(shape: &str) -> Value {
    if shape.is_empty() {
        return json!({
            "application/x-ndjson": {},
            "application/json": {},
            "text/csv": {},
        });
    }
    // A test reads every shape of the table.
    let schema = shape::schema(shape).unwrap_or_else(|_| json!({}));
    json!({"application/json": {"schema": schema}})
}
