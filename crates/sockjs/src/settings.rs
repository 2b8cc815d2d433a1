//! What an operator may set for one mount, with the protocol's defaults.

use std::time::Duration;

/// Settings of one mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Which transports exist.
    pub transports: Transports,
    /// A second path below the prefix for WebSockets without SockJS framing, e.g. `/websockets`.
    pub raw_alias: Option<&'static str>,
    /// Bytes of frames after which a streaming response ends and the client opens the next.
    pub response_limit: usize,
    /// Timers of a session.
    pub timing: Timing,
    /// Whether responses carry the cookie that sticky balancers look for.
    pub jsessionid: bool,
    /// Where the iframe page finds the client library, which must be the embedding page's own version; `#sha384-...` at the
    /// end is its integrity. None: the page loads this server's own script, which serves every version.
    pub sockjs_url: Option<String>,
    /// What `info` tells clients to use instead of the mount's own address.
    pub base_url: Option<String>,
    /// From which pages browsers may connect.
    pub origins: Origins,
    /// The longest body of a send, in bytes.
    pub body_bytes_max: usize,
    /// How long a client may take over such a body.
    pub body_timeout: Duration,
    /// The longest WebSocket message a client may send, in bytes, as sent and as inflated.
    pub message_bytes_max: usize,
    /// Whether WebSockets may agree on permessage-deflate.
    pub deflate: bool,
    /// How long a WebSocket's client may take to answer a close.
    pub close_wait: Duration,
    /// When the server stops, sessions are told over this time, so that their reconnecting does not
    /// hit the other nodes at once.
    pub goodbye_spread: Duration,
    /// How long a receiver that seems attached is given to go away before a second one is refused:
    /// a client that drops a connection and opens the next can be faster than the news of the drop.
    pub abort_grace: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            transports: Transports::default(),
            raw_alias: None,
            response_limit: 131_072,
            timing: Timing::default(),
            jsessionid: false,
            sockjs_url: None,
            base_url: None,
            origins: Origins::Any,
            body_bytes_max: 1 << 20,
            body_timeout: Duration::from_secs(30),
            message_bytes_max: 1 << 20,
            deflate: true,
            close_wait: Duration::from_secs(5),
            goodbye_spread: Duration::ZERO,
            abort_grace: Duration::from_millis(50),
        }
    }
}

/// Timers of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// An attached receiver that has heard nothing for so long gets a heartbeat. Under 35 s, which
    /// is where the JSONP client gives up.
    pub heartbeat: Duration,
    /// A session without a receiver ends after this, counted from when the last response may have arrived over the slowest
    /// line that is served. Clients leave up to 200 ms between receivers.
    pub disconnect: Duration,
    /// A receiver that has not taken what it was handed for so long has stalled, and its session ends.
    pub stall: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(25),
            disconnect: Duration::from_secs(5),
            stall: Duration::from_secs(300),
        }
    }
}

/// Which transports exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "seven independent switches, not a state"
)]
pub struct Transports {
    /// Framed WebSocket.
    pub websocket: bool,
    /// WebSocket without framing.
    pub raw_websocket: bool,
    /// Long polling.
    pub xhr: bool,
    /// Streaming by POST.
    pub xhr_streaming: bool,
    /// Server-sent events.
    pub eventsource: bool,
    /// The forever frame.
    pub htmlfile: bool,
    /// Polling by script tags.
    pub jsonp: bool,
}

impl Transports {
    /// Whether a receiver is on whose clients send by `xhr_send`.
    #[must_use]
    pub const fn uses_xhr_send(&self) -> bool {
        self.xhr || self.xhr_streaming || self.eventsource || self.htmlfile
    }
}

impl Default for Transports {
    fn default() -> Self {
        Self {
            websocket: true,
            raw_websocket: true,
            xhr: true,
            xhr_streaming: true,
            eventsource: true,
            htmlfile: true,
            jsonp: true,
        }
    }
}

/// From which pages browsers may connect. Requests without an `Origin` come from no page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origins {
    /// From all of them: right where messages carry their own credential.
    Any,
    /// From these, compared as text, e.g. `https://console.example`.
    Only(Vec<String>),
}

impl Origins {
    /// Whether a request with this `Origin` is served.
    #[must_use]
    pub fn allow(&self, origin: Option<&str>) -> bool {
        match (self, origin) {
            (Origins::Any, _) | (_, None) => true,
            (Origins::Only(list), Some(origin)) => list.iter().any(|one| one == origin),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_the_protocols() {
        let settings = Settings::default();
        assert_eq!(settings.response_limit, 131_072);
        assert_eq!(settings.timing.heartbeat, Duration::from_secs(25));
        assert_eq!(settings.timing.disconnect, Duration::from_secs(5));
        assert!(!settings.jsessionid && settings.transports.websocket);
    }

    #[test]
    fn a_list_of_origins_lets_only_its_own_through() {
        let only = Origins::Only(vec!["https://a.example".into()]);
        assert!(only.allow(Some("https://a.example")) && only.allow(None));
        assert!(!only.allow(Some("https://b.example")) && !only.allow(Some("null")));
        assert!(Origins::Any.allow(Some("null")));
    }
}
