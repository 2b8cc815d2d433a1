//! The API's description for people and programs: pages that need nothing from elsewhere, and no script.

use std::fmt::Write;

use super::named::NAMED;
use super::openapi::{access, document};
use super::reply::Reply;
use super::route::Route;

/// What viewers say and hear, as JSON Schema.
const VIEWER_SCHEMA: &str = include_str!("viewer.schema.json");
const STYLE: &str = include_str!("docs.css");
const POLICY: &str =
    "default-src 'none'; style-src 'self'; frame-ancestors 'none'; base-uri 'none'";

/// What is not in the table of routes: where viewers and agents connect.
const BESIDE: &str = "<h2>Viewers</h2>\n<p>Results come by a raw WebSocket at \
    <code>/api/v1/fleet/results/websocket</code> (also <code>results/websockets</code>), or by any SockJS 0.3.3 transport below \
    <code>/api/v1/fleet/results</code>. Send <code>{\"type\": \"auth\", \"data\": {\"token\": TOKEN}}</code>, then \
    <code>{\"type\": \"select_campaign\", \"data\": {\"campaign_id\": ID}}</code>, each as one message; with \
    <code>after</code> and <code>epoch</code> beside the number, a viewer goes on where it was.</p>\n\
    <h2>Agents</h2>\n<p>osquery's TLS plugins post to <code>/api/osquery/enroll</code>, <code>/api/osquery/config</code>, \
    <code>/api/osquery/distributed/read</code>, <code>/api/osquery/distributed/write</code> and \
    <code>/api/osquery/log</code> (also below <code>/api/v1/osquery</code>), with an enroll secret and then a node \
    key instead of a token.</p>\n";

/// The documents, made once.
pub(super) struct Docs {
    openapi: String,
    page: String,
}

impl Docs {
    /// The documents of a table.
    pub(super) fn of(table: &[&'static [Route]]) -> Self {
        // Strings in maps: it serializes.
        let openapi = serde_json::to_string_pretty(&document(table)).unwrap_or_default();
        Self {
            openapi,
            page: page(table),
        }
    }

    /// The document at a path, if there is one.
    pub(super) fn at(&self, path: &str) -> Option<Reply> {
        use http::header::CONTENT_SECURITY_POLICY;
        const JSON: &str = "application/json; charset=utf-8";
        match path {
            "/api/openapi.json" => Some(Reply::fixed(JSON, self.openapi.clone())),
            "/api/schema/viewer.json" => {
                Some(Reply::fixed("application/schema+json", VIEWER_SCHEMA))
            }
            "/api/docs" => {
                let page = Reply::fixed("text/html; charset=utf-8", self.page.clone());
                Some(page.with(CONTENT_SECURITY_POLICY, POLICY))
            }
            "/api/docs.css" => Some(Reply::fixed("text/css; charset=utf-8", STYLE)),
            _ => None,
        }
    }
}

fn page(table: &[&'static [Route]]) -> String {
    let mut out = String::from(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Answerback API</title>\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <link rel=\"stylesheet\" href=\"/api/docs.css\"></head><body><main><h1>Answerback API</h1>\
         <p>Paths stand below <code>/api/v1/fleet</code>; <code>2022-04</code> and <code>latest</code> mean the \
         same as <code>v1</code>. Requests carry <code>Authorization: Bearer TOKEN</code>. \
         The same as data: <a href=\"/api/openapi.json\">OpenAPI</a>, \
         <a href=\"/api/schema/viewer.json\">messages of viewers</a>.</p>\n",
    );
    out.push_str(BESIDE);
    out.push_str("<h2>Routes</h2>\n");
    for route in table.iter().copied().flatten() {
        write_route(route, &mut out);
    }
    out.push_str("<h2>Shapes</h2>\n<dl>\n");
    for (name, shape) in NAMED {
        // Writing to a string cannot fail; nor can it below.
        let _ = writeln!(
            out,
            "<dt id=\"{name}\">{name}</dt><dd><code>{}</code></dd>",
            escaped(shape)
        );
    }
    out.push_str("</dl>\n</main></body></html>\n");
    out
}

fn write_route(route: &Route, out: &mut String) {
    let _ = write!(
        out,
        "<section><h3><b>{}</b> <code>{}</code></h3><p>{}</p><dl>",
        route.method,
        escaped(route.path),
        escaped(route.summary)
    );
    let rows = [
        ("for", access(route.access)),
        ("also at", route.aliases.join(", ")),
        ("asks", route.asks.join(", ")),
        ("takes", route.takes.to_owned()),
        ("gives", route.gives.to_owned()),
    ];
    for (name, text) in rows.iter().filter(|(_, text)| !text.is_empty()) {
        let _ = write!(
            out,
            "<dt>{name}</dt><dd><code>{}</code></dd>",
            escaped(text)
        );
    }
    out.push_str("</dl></section>\n");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
