//! The OpenAPI document, made of the table of routes.

use serde_json::{Map, Value, json};

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
            "responses": {"Error": {
                "description": "What went wrong; the status says of which kind.",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
            }},
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
        "responses": {
            "200": {"description": "Done.", "content": content(route.gives)},
            "default": {"$ref": "#/components/responses/Error"},
        },
    });
    if !route.takes.is_empty() {
        operation["requestBody"] = json!({"required": true, "content": content(route.takes)});
    }
    if route.access == Access::Open {
        operation["security"] = json!([]);
    }
    operation
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
    let asked = route
        .asks
        .iter()
        .map(|name| json!({"name": name, "in": "query", "schema": asked_schema(name)}));
    in_path.chain(asked).collect()
}

fn asked_schema(name: &str) -> Value {
    match name {
        "per_page" => {
            json!({"type": "integer", "minimum": 0, "maximum": super::page::PER_PAGE_MAX})
        }
        "page" | "after" | "team_id" | "label_id" => json!({"type": "integer", "minimum": 0}),
        "order_direction" => json!({"enum": ["asc", "desc"]}),
        "status" => json!({"enum": ["online", "offline", "mia", "missing", "new"]}),
        "state" => json!({"enum": ["answered", "failed", "waiting", "offline"]}),
        "format" => json!({"enum": ["ndjson", "json", "csv"]}),
        _ => json!({"type": "string"}),
    }
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
