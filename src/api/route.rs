//! Routes as data: one row says how a request is matched, who may send it, what it takes and what it gives.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use http::Method;
use percent_encoding::percent_decode_str;

use super::Api;
use super::call::{Call, Params};
use super::error::ApiError;
use super::reply::Reply;
use crate::auth::Action;
use crate::limits::{API_BODY_BYTES, API_HOSTS_BODY_BYTES, API_SPECS_BODY_BYTES, LOGIN_BODY_BYTES};

/// What serves a route.
pub(super) type Handler = fn(Arc<Api>, Call) -> BoxFuture<'static, Result<Reply, ApiError>>;

/// Makes a [`Handler`] of an async function.
macro_rules! run {
    ($handler:path) => {
        |api, call| Box::pin($handler(api, call))
    };
}
pub(super) use run;

/// Who may send it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Everybody.
    Open,
    /// Who has a token, even if all they may do is change their password.
    Pending,
    /// Who has a token.
    SignedIn,
    /// Who may do this, everywhere or in some team; the handler looks at which.
    To(Action),
}

/// One row of the table.
#[derive(Clone, Copy)]
pub(super) struct Route {
    /// GET, POST, PATCH or DELETE; HEAD is served where GET is.
    pub method: &'static str,
    /// Below `/api/{version}/fleet`; `{name}` is one segment.
    pub path: &'static str,
    /// Other paths that mean the same.
    pub aliases: &'static [&'static str],
    /// Who may send it.
    pub access: Access,
    /// What serves it.
    pub handler: Handler,
    /// One sentence.
    pub summary: &'static str,
    /// The parameters after `?`: a name, or `name: word|word` for those that take certain words.
    pub asks: &'static [&'static str],
    /// The request body's shape in the notation of [`super::shape`]; empty for none.
    pub takes: &'static str,
    /// The answer's shape; empty for what is not JSON.
    pub gives: &'static str,
    /// Whether a sender may do it only so often.
    pub limited: bool,
}

impl Route {
    /// A row for this method.
    pub(super) const fn new(
        method: &'static str,
        path: &'static str,
        access: Access,
        handler: Handler,
    ) -> Self {
        Self {
            method,
            path,
            aliases: &[],
            access,
            handler,
            summary: "",
            asks: &[],
            takes: "",
            gives: "{}",
            limited: false,
        }
    }

    /// The longest body, in bytes as sent and as inflated.
    pub(super) fn body_bytes(&self) -> usize {
        let names_hosts = [
            "Selected",
            "host_ids",
            "hosts:",
            "RunBy",
            "Query",
            "AgentOptions",
        ];
        match self.path {
            "/login" => LOGIN_BODY_BYTES,
            path if path.starts_with("/spec/") || path.starts_with("/labels") => {
                API_SPECS_BODY_BYTES
            }
            _ if names_hosts.iter().any(|part| self.takes.contains(part))
                || self.takes.contains("query") =>
            {
                API_HOSTS_BODY_BYTES
            }
            _ => API_BODY_BYTES,
        }
    }

    /// Whether serving it changes anything; else a dry run is no different.
    pub(super) fn changes(&self) -> bool {
        self.method != "GET" || self.limited
    }

    /// A row for GET.
    pub(super) const fn get(path: &'static str, access: Access, handler: Handler) -> Self {
        Self::new("GET", path, access, handler)
    }

    /// A row for POST.
    pub(super) const fn post(path: &'static str, access: Access, handler: Handler) -> Self {
        Self::new("POST", path, access, handler)
    }

    /// A row for PATCH.
    pub(super) const fn patch(path: &'static str, access: Access, handler: Handler) -> Self {
        Self::new("PATCH", path, access, handler)
    }

    /// A row for DELETE.
    pub(super) const fn delete(path: &'static str, access: Access, handler: Handler) -> Self {
        Self::new("DELETE", path, access, handler)
    }

    /// The row with other paths.
    #[must_use]
    pub(super) const fn also(mut self, aliases: &'static [&'static str]) -> Self {
        self.aliases = aliases;
        self
    }

    /// The row with its sentence.
    #[must_use]
    pub(super) const fn says(mut self, summary: &'static str) -> Self {
        self.summary = summary;
        self
    }

    /// The row with its parameters after `?`.
    #[must_use]
    pub(super) const fn asks(mut self, names: &'static [&'static str]) -> Self {
        self.asks = names;
        self
    }

    /// The row, allowed only so often.
    #[must_use]
    pub(super) const fn limited(mut self) -> Self {
        self.limited = true;
        self
    }

    /// The row with its body's shape.
    #[must_use]
    pub(super) const fn takes(mut self, shape: &'static str) -> Self {
        self.takes = shape;
        self
    }

    /// The row with its answer's shape.
    #[must_use]
    pub(super) const fn gives(mut self, shape: &'static str) -> Self {
        self.gives = shape;
        self
    }
}

/// What a path and a method lead to.
pub(super) enum Found {
    /// This row, with the path's parameters.
    Route(&'static Route, Params),
    /// Rows with other methods: the `Allow` header.
    OtherMethods(String),
    /// Nothing.
    Nothing,
}

/// Looks a path below `/api/{version}/fleet` up. Where several patterns fit, the one with the most words wins,
/// whatever its methods: `/hosts/count` is never the host of the name `count`.
pub(super) fn find(table: &[&'static [Route]], method: &Method, path: &str) -> Found {
    let wanted = if method == Method::HEAD {
        "GET"
    } else {
        method.as_str()
    };
    let mut most_words = 0;
    let mut fitting: Vec<(&'static Route, &'static str)> = Vec::new();
    for route in table.iter().copied().flatten() {
        for pattern in std::iter::once(&route.path).chain(route.aliases) {
            let Some(words) = words_in_common(pattern, path) else {
                continue;
            };
            if words > most_words {
                most_words = words;
                fitting.clear();
            }
            if words == most_words {
                fitting.push((route, *pattern));
            }
        }
    }
    match fitting.iter().find(|(route, _)| route.method == wanted) {
        Some((route, pattern)) => Found::Route(route, params(pattern, path)),
        None if fitting.is_empty() => Found::Nothing,
        None => {
            let mut methods: Vec<&str> = fitting.iter().map(|(route, _)| route.method).collect();
            if methods.contains(&"GET") {
                methods.push("HEAD");
            }
            methods.sort_unstable();
            methods.dedup();
            Found::OtherMethods(methods.join(", "))
        }
    }
}

/// How many segments of a fitting path are words of the pattern; none if it does not fit.
fn words_in_common(pattern: &str, path: &str) -> Option<usize> {
    let mut words = 0;
    let (mut patterns, mut segments) = (pattern.split('/'), path.split('/'));
    loop {
        match (patterns.next(), segments.next()) {
            (None, None) => return Some(words),
            (Some(pattern), Some(segment)) if pattern.starts_with('{') => {
                if segment.is_empty() {
                    return None;
                }
            }
            (Some(pattern), Some(segment)) if pattern == segment => words += 1,
            _ => return None,
        }
    }
}

/// The path's parameters, each decoded on its own: a name may hold an escaped slash.
fn params(pattern: &'static str, path: &str) -> Params {
    let pairs = pattern.split('/').zip(path.split('/'));
    pairs
        .filter_map(|(pattern, segment)| {
            let name = pattern.strip_prefix('{')?.strip_suffix('}')?;
            let value = percent_decode_str(segment).decode_utf8_lossy();
            Some((name, value.into_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn nothing(_: Arc<Api>, _: Call) -> Result<Reply, ApiError> {
        Ok(Reply::empty())
    }

    const TABLE: &[&[Route]] = &[&[
        Route::get("/hosts/{id}", Access::Open, run!(nothing)),
        Route::get("/hosts/count", Access::Open, run!(nothing)),
        Route::delete("/hosts/{id}", Access::Open, run!(nothing)),
        Route::post("/queries/run", Access::Open, run!(nothing)).also(&["/reports/run"]),
        Route::get("/spec/queries/{name}", Access::Open, run!(nothing)),
    ]];

    fn found(method: Method, path: &str) -> String {
        match find(TABLE, &method, path) {
            Found::Route(route, params) => format!("{} {} {params:?}", route.method, route.path),
            Found::OtherMethods(allow) => format!("405 {allow}"),
            Found::Nothing => "404".to_owned(),
        }
    }

    #[test]
    fn words_win_over_parameters_whatever_the_method() {
        assert_eq!(found(Method::GET, "/hosts/count"), "GET /hosts/count []");
        assert_eq!(
            found(Method::GET, "/hosts/7"),
            r#"GET /hosts/{id} [("id", "7")]"#
        );
        assert_eq!(found(Method::DELETE, "/hosts/count"), "405 GET, HEAD");
        assert_eq!(found(Method::PUT, "/hosts/7"), "405 DELETE, GET, HEAD");
        assert_eq!(
            found(Method::HEAD, "/hosts/7"),
            r#"GET /hosts/{id} [("id", "7")]"#
        );
        assert_eq!(found(Method::POST, "/reports/run"), "POST /queries/run []");
    }

    #[test]
    fn nothing_else_fits() {
        for path in [
            "/hosts",
            "/hosts/",
            "/hosts/1/",
            "/hosts/1/2",
            "",
            "/",
            "hosts/1",
        ] {
            assert_eq!(found(Method::GET, path), "404", "{path:?}");
        }
    }

    #[test]
    fn names_are_decoded_after_the_path_is_split() {
        assert_eq!(
            found(Method::GET, "/spec/queries/a%2Fb%20%22%F0%9F%90%99%22%25"),
            "GET /spec/queries/{name} [(\"name\", \"a/b \\\"🐙\\\"%\")]"
        );
    }
}
