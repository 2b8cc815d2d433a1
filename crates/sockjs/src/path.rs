//! The URL space of a mount as data: what answers which path and method.

use super::form::Transport;
use super::settings::Transports;

/// The longest session id that is served, in bytes. Clients make ids of eight characters.
pub const SESSION_ID_MAX: usize = 256;

/// What a path is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route<'p> {
    /// `Welcome to SockJS!`
    Greeting,
    /// What this server can do.
    Info,
    /// The page for transports that need an iframe.
    Iframe,
    /// The script of that page.
    IframeScript,
    /// A WebSocket without SockJS framing.
    RawWebSocket,
    /// A framed WebSocket; its ids mean nothing.
    WebSocket,
    /// A receiver of an HTTP session: xhr, xhr_streaming, eventsource, htmlfile or jsonp.
    Receive {
        /// Which of the five.
        transport: Transport,
        /// The session's id, and its only credential: never log it.
        session: &'p str,
    },
    /// `xhr_send` of an HTTP session.
    XhrSend {
        /// The session's id.
        session: &'p str,
    },
    /// `jsonp_send` of an HTTP session.
    JsonpSend {
        /// The session's id.
        session: &'p str,
    },
    /// OPTIONS on an endpoint that browsers call across origins.
    Preflight {
        /// The value of `Access-Control-Allow-Methods`.
        methods: &'static str,
        /// Whether the endpoint belongs to a session, and so to the cookie recipe.
        of_session: bool,
    },
}

/// How a request is to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict<'p> {
    /// By this route.
    Serve(Route<'p>),
    /// 405, with this value of `Allow`.
    MethodNotAllowed(&'static str),
    /// 404.
    NotFound,
}

/// Routes the raw path behind a mount's prefix: `/` and whatever follows, or nothing. Nothing is
/// decoded, collapsed or resolved; a transport that is off does not exist.
#[must_use]
pub fn route<'p>(path: &'p str, method: &str, on: &Transports) -> Verdict<'p> {
    let Some((endpoint, session)) = endpoint(path, on) else {
        return Verdict::NotFound;
    };
    let allow = match endpoint {
        Endpoint::Page(_) => "GET",
        Endpoint::Info => "OPTIONS, GET",
        Endpoint::Post(_) => "OPTIONS, POST",
        Endpoint::JsonpSend => "POST",
    };
    if method == "OPTIONS" && allow.starts_with("OPTIONS") {
        return Verdict::Serve(Route::Preflight {
            methods: allow,
            of_session: !session.is_empty(),
        });
    }
    if allow.rsplit(", ").next() != Some(method) {
        return Verdict::MethodNotAllowed(allow);
    }
    Verdict::Serve(match endpoint {
        Endpoint::Info => Route::Info,
        Endpoint::Page(page) => page,
        Endpoint::Post(route) => route,
        Endpoint::JsonpSend => Route::JsonpSend { session },
    })
}

enum Endpoint<'p> {
    /// Something that is fetched.
    Page(Route<'p>),
    /// The server's information, fetched across origins.
    Info,
    /// Something that is posted to across origins.
    Post(Route<'p>),
    /// The target of a form.
    JsonpSend,
}

/// The endpoint at a path and its session, which is empty outside of sessions.
fn endpoint<'p>(path: &'p str, on: &Transports) -> Option<(Endpoint<'p>, &'p str)> {
    if path.is_empty() || path == "/" {
        return Some((Endpoint::Page(Route::Greeting), ""));
    }
    let mut segments = path.strip_prefix('/')?.split('/');
    let first = segments.next()?;
    let Some(session) = segments.next() else {
        let endpoint = match first {
            "info" => Endpoint::Info,
            "websocket" if on.raw_websocket => Endpoint::Page(Route::RawWebSocket),
            "iframe.js" => Endpoint::Page(Route::IframeScript),
            page if is_iframe(page) => Endpoint::Page(Route::Iframe),
            _ => return None,
        };
        return Some((endpoint, ""));
    };
    let last = segments.next()?;
    if segments.next().is_some() || !is_part(first) || !is_part(session) {
        return None;
    }
    session_endpoint(last, session, on).map(|endpoint| (endpoint, session))
}

fn session_endpoint<'p>(last: &str, session: &'p str, on: &Transports) -> Option<Endpoint<'p>> {
    let receive = |transport| Route::Receive { transport, session };
    Some(match last {
        "websocket" if on.websocket => Endpoint::Page(Route::WebSocket),
        "xhr" if on.xhr => Endpoint::Post(receive(Transport::Xhr)),
        "xhr_streaming" if on.xhr_streaming => Endpoint::Post(receive(Transport::XhrStreaming)),
        "eventsource" if on.eventsource => Endpoint::Page(receive(Transport::EventSource)),
        "htmlfile" if on.htmlfile => Endpoint::Page(receive(Transport::HtmlFile)),
        "jsonp" if on.jsonp => Endpoint::Page(receive(Transport::Jsonp)),
        "xhr_send" if on.uses_xhr_send() => Endpoint::Post(Route::XhrSend { session }),
        "jsonp_send" if on.jsonp => Endpoint::JsonpSend,
        _ => return None,
    })
}

/// A server or session id: anything but nothing and anything without a dot.
fn is_part(segment: &str) -> bool {
    !segment.is_empty() && segment.len() <= SESSION_ID_MAX && !segment.contains('.')
}

fn is_iframe(page: &str) -> bool {
    let version = |byte: u8| {
        byte.is_ascii_digit() || byte.is_ascii_lowercase() || matches!(byte, b'-' | b'.' | b'_')
    };
    page.strip_prefix("iframe")
        .and_then(|rest| rest.strip_suffix(".html"))
        .is_some_and(|between| between.bytes().all(version))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(path: &str) -> Verdict<'_> {
        route(path, "GET", &Transports::default())
    }

    fn post(path: &str) -> Verdict<'_> {
        route(path, "POST", &Transports::default())
    }

    #[test]
    fn the_prefix_greets_with_and_without_a_slash() {
        assert_eq!(get(""), Verdict::Serve(Route::Greeting));
        assert_eq!(get("/"), Verdict::Serve(Route::Greeting));
        assert_eq!(post("/"), Verdict::MethodNotAllowed("GET"));
    }

    #[test]
    fn odd_paths_are_not_found_by_any_method() {
        let long = format!("/a/{}/xhr", "b".repeat(SESSION_ID_MAX + 1));
        for path in [
            "/a",
            "/a.html",
            "//",
            "///",
            "/a/a",
            "/a/a/",
            "/a/",
            "///xhr",
            "/a./a/xhr",
            "/a/a./xhr",
            "/./a/xhr",
            "/././xhr",
            "//xhr",
            "////xhr",
            "/xhr",
            "/a/websocket",
            "/a/b/c/xhr",
            "/a/b/xhr/",
            "/a/b/",
            "/a/b/xhr_",
            "/a/b/XHR",
            "/INFO",
            "/info/",
            "x",
            "/websocket/",
            &long,
        ] {
            assert_eq!(get(path), Verdict::NotFound, "GET {path}");
            assert_eq!(post(path), Verdict::NotFound, "POST {path}");
        }
    }

    #[test]
    fn any_id_without_a_dot_is_a_session() {
        for id in ["a", "1", "_", "-", "%20", "abc_i123", "%2e", "a=b;c"] {
            let path = format!("/{id}/{id}/xhr");
            let expected = Route::Receive {
                transport: Transport::Xhr,
                session: id,
            };
            assert_eq!(
                route(&path, "POST", &Transports::default()),
                Verdict::Serve(expected)
            );
        }
    }

    #[test]
    fn the_iframe_page_has_many_names() {
        for page in [
            "/iframe.html",
            "/iframe-.html",
            "/iframe-0.1.2abc-dirty.2144.html",
        ] {
            assert_eq!(get(page), Verdict::Serve(Route::Iframe), "{page}");
        }
        for other in [
            "/iframe",
            "/iframe.htm",
            "/IFRAME.HTML",
            "/IFRAME",
            "/iframe.HTML",
            "/iframe.xml",
            "/iframe-/.html",
            "/iframe-A.html",
        ] {
            assert_eq!(get(other), Verdict::NotFound, "{other}");
        }
    }

    #[test]
    fn wrong_methods_hear_the_right_ones() {
        for (path, method, allow) in [
            ("/a/b/websocket", "POST", "GET"),
            ("/websocket", "POST", "GET"),
            ("/websocket", "OPTIONS", "GET"),
            ("/a/b/xhr", "GET", "OPTIONS, POST"),
            ("/a/b/xhr_send", "PUT", "OPTIONS, POST"),
            ("/a/b/xhr_send", "ST", "OPTIONS, POST"),
            ("/a/b/eventsource", "POST", "GET"),
            ("/a/b/jsonp_send", "GET", "POST"),
            ("/a/b/jsonp_send", "OPTIONS", "POST"),
            ("/info", "POST", "OPTIONS, GET"),
            ("/info", "", "OPTIONS, GET"),
        ] {
            let verdict = route(path, method, &Transports::default());
            assert_eq!(verdict, Verdict::MethodNotAllowed(allow), "{method} {path}");
        }
    }

    #[test]
    fn preflights_know_whether_they_belong_to_a_session() {
        let preflight = |path| route(path, "OPTIONS", &Transports::default());
        assert_eq!(
            preflight("/info"),
            Verdict::Serve(Route::Preflight {
                methods: "OPTIONS, GET",
                of_session: false
            })
        );
        assert_eq!(
            preflight("/a/b/xhr"),
            Verdict::Serve(Route::Preflight {
                methods: "OPTIONS, POST",
                of_session: true
            })
        );
    }

    #[test]
    fn a_transport_that_is_off_is_not_there() {
        let mut on = Transports {
            websocket: false,
            raw_websocket: false,
            ..Transports::default()
        };
        assert_eq!(route("/a/b/websocket", "GET", &on), Verdict::NotFound);
        assert_eq!(route("/websocket", "POST", &on), Verdict::NotFound);
        on.xhr = false;
        assert_eq!(route("/a/b/xhr", "POST", &on), Verdict::NotFound);
        assert_ne!(route("/a/b/xhr_send", "POST", &on), Verdict::NotFound);
        (on.xhr_streaming, on.eventsource, on.htmlfile, on.jsonp) = (false, false, false, false);
        assert_eq!(route("/a/b/xhr_send", "POST", &on), Verdict::NotFound);
        assert_eq!(route("/a/b/jsonp_send", "POST", &on), Verdict::NotFound);
    }
}
