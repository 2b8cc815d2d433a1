//! The header recipes of the protocol: caching, cross-origin access, the balancer's cookie.

use std::time::{Duration, SystemTime};

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    CACHE_CONTROL, CONTENT_TYPE, COOKIE, EXPIRES, ORIGIN, SET_COOKIE, VARY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue};

/// How long static answers and preflights may be kept: a year, in seconds.
const YEAR_S: u64 = 31_536_000;

pub(super) const JAVASCRIPT: HeaderValue =
    HeaderValue::from_static("application/javascript; charset=UTF-8");
pub(super) const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=UTF-8");
pub(super) const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=UTF-8");
pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=UTF-8");
/// Without a parameter: some browsers compare the whole value.
pub(super) const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");

/// The headers of one answer, built up recipe by recipe from what the request said.
pub(super) struct Recipes<'r> {
    request: &'r HeaderMap,
    headers: HeaderMap,
}

impl<'r> Recipes<'r> {
    pub(super) fn new(request: &'r HeaderMap) -> Self {
        Self {
            request,
            headers: HeaderMap::new(),
        }
    }

    /// Applies one more, or none.
    pub(super) fn when(self, wanted: bool, recipe: impl FnOnce(Self) -> Self) -> Self {
        if wanted { recipe(self) } else { self }
    }

    pub(super) fn content_type(mut self, value: HeaderValue) -> Self {
        self.headers.insert(CONTENT_TYPE, value);
        self
    }

    /// Nobody may keep or transform the answer. The exact value is compared by the suite.
    pub(super) fn no_cache(mut self) -> Self {
        let value = "no-store, no-cache, no-transform, must-revalidate, max-age=0";
        let value = HeaderValue::from_static(value);
        self.headers.insert(CACHE_CONTROL, value);
        self
    }

    /// Everybody may keep the answer for a year.
    pub(super) fn cache(mut self) -> Self {
        let value = HeaderValue::from_static("public, max-age=31536000");
        self.headers.insert(CACHE_CONTROL, value);
        let expires = httpdate::fmt_http_date(in_a_year());
        if let Ok(value) = HeaderValue::try_from(expires) {
            self.headers.insert(EXPIRES, value);
        }
        self
    }

    /// Pages of any origin may read the answer, and with their credentials. Which origins are served
    /// at all has been decided before.
    pub(super) fn cors(mut self) -> Self {
        let any = HeaderValue::from_static("*");
        let origin = self.request.get(ORIGIN).cloned();
        self.headers
            .insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.unwrap_or(any));
        let yes = HeaderValue::from_static("true");
        self.headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
        let by_origin = HeaderValue::from_static("Origin");
        self.headers.insert(VARY, by_origin);
        let wanted = self.request.get(ACCESS_CONTROL_REQUEST_HEADERS);
        if let Some(wanted) = wanted.filter(|value| !value.is_empty()) {
            self.headers
                .insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
        }
        self
    }

    /// The answer to a preflight, together with [`Recipes::cors`] and [`Recipes::cache`].
    pub(super) fn preflight(mut self, methods: &'static str) -> Self {
        let methods = HeaderValue::from_static(methods);
        self.headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
        self.headers
            .insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from(YEAR_S));
        self
    }

    /// The cookie that sticky balancers look for: the request's own, or a dummy, every time.
    pub(super) fn jsessionid(mut self) -> Self {
        let value = jsessionid(self.request).unwrap_or("dummy");
        if let Ok(cookie) = HeaderValue::try_from(format!("JSESSIONID={value}; path=/")) {
            self.headers.insert(SET_COOKIE, cookie);
        }
        self
    }

    /// Browsers must not take an answer for another type than it says, whatever its transport.
    pub(super) fn done(mut self) -> HeaderMap {
        let value = HeaderValue::from_static("nosniff");
        self.headers.insert(X_CONTENT_TYPE_OPTIONS, value);
        self.headers
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "an expiry date is for caches on other machines; no logic depends on it"
)]
fn in_a_year() -> SystemTime {
    SystemTime::now() + Duration::from_secs(YEAR_S)
}

/// The request's cookie of that name, if it can be echoed.
fn jsessionid(request: &HeaderMap) -> Option<&str> {
    let cookies = request.get_all(COOKIE).into_iter();
    let pairs = cookies
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'));
    let mut values = pairs.filter_map(|pair| pair.trim().strip_prefix("JSESSIONID="));
    // `to_str` lets only visible characters through, and the split took the semicolons.
    values.next().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |&(name, value): &(&'static str, &'static str)| {
            let name = http::HeaderName::from_static(name);
            (name, HeaderValue::from_static(value))
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn cross_origin_headers_mirror_the_request() {
        let asked = request(&[
            ("origin", "null"),
            ("access-control-request-headers", "a, b"),
        ]);
        let headers = Recipes::new(&asked).cors().done();
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_ORIGIN], "null");
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_CREDENTIALS], "true");
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_HEADERS], "a, b");
        assert_eq!(headers[VARY], "Origin");
        let none = request(&[("access-control-request-headers", "")]);
        let headers = Recipes::new(&none).cors().done();
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        assert!(!headers.contains_key(ACCESS_CONTROL_ALLOW_HEADERS));
    }

    #[test]
    fn the_cookie_is_echoed_or_a_dummy() {
        let cookie = |value: &'static str| {
            let asked = request(&[("cookie", value)]);
            let headers = Recipes::new(&asked).jsessionid().done();
            headers[SET_COOKIE].to_str().unwrap().to_owned()
        };
        assert_eq!(cookie("a=b"), "JSESSIONID=dummy; path=/");
        assert_eq!(cookie("JSESSIONID="), "JSESSIONID=dummy; path=/");
        assert_eq!(
            cookie("a=b;  JSESSIONID=abc.n1 ;c"),
            "JSESSIONID=abc.n1; path=/"
        );
    }

    #[test]
    fn what_may_be_cached_expires_in_a_year() {
        let none = HeaderMap::new();
        let headers = Recipes::new(&none).cache().done();
        assert_eq!(headers[CACHE_CONTROL], "public, max-age=31536000");
        let expires = httpdate::parse_http_date(headers[EXPIRES].to_str().unwrap()).unwrap();
        assert!(expires > in_a_year() - Duration::from_secs(60));
        let headers = Recipes::new(&none).no_cache().done();
        assert!(!headers.contains_key(EXPIRES));
    }
}
