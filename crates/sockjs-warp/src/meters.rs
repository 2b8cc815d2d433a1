//! What is counted of HTTP sessions, by transport.

use metrics::{Counter, Gauge};

use crate::names;
use crate::sockjs::Transport;

/// The counters of one transport.
pub(super) struct Meters {
    label: &'static str,
    alive: Gauge,
    opened: Counter,
    bytes: Counter,
    messages: Counter,
}

/// The counters of every transport that is a session by HTTP requests.
pub(super) struct AllMeters([Meters; 5]);

impl AllMeters {
    /// Whatever recorder there is must have been installed before.
    pub(super) fn new() -> Self {
        let labels = ["xhr", "xhr_streaming", "eventsource", "htmlfile", "jsonp"];
        Self(labels.map(Meters::of))
    }

    pub(super) const fn of(&self, transport: Transport) -> &Meters {
        let [xhr, xhr_streaming, event_source, html_file, jsonp] = &self.0;
        match transport {
            Transport::XhrStreaming => xhr_streaming,
            Transport::EventSource => event_source,
            Transport::HtmlFile => html_file,
            Transport::Jsonp => jsonp,
            // Sockets count for themselves.
            Transport::Xhr | Transport::WebSocket | Transport::RawWebSocket => xhr,
        }
    }
}

impl Meters {
    fn of(label: &'static str) -> Self {
        Self {
            label,
            alive: metrics::gauge!(names::SESSIONS, "transport" => label),
            opened: metrics::counter!(names::SESSIONS_OPENED, "transport" => label),
            bytes: metrics::counter!(names::SESSION_BYTES, "transport" => label),
            messages: metrics::counter!(names::SESSION_MESSAGES, "transport" => label),
        }
    }

    /// A session has been opened by a request of this transport.
    pub(super) fn opened(&self) {
        self.opened.increment(1);
        self.alive.increment(1);
    }

    /// Such a session has ended.
    pub(super) fn closed(&self, reason: &'static str) {
        self.alive.decrement(1);
        let transport = self.label;
        let labels = [("transport", transport), ("reason", reason)];
        metrics::counter!(names::SESSIONS_CLOSED, &labels).increment(1);
    }

    /// A receiver of this transport has been handed something.
    pub(super) fn handed_out(&self, bytes: usize, messages: usize) {
        self.bytes.increment(bytes as u64);
        self.messages.increment(messages as u64);
    }
}
