//! The ways one application message lies on the wire, named so that a log can keep each of them once.

use bytes::Bytes;
use smallvec::SmallVec;

/// How a client is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// WebSocket without SockJS framing.
    RawWebSocket,
    /// SockJS frames in WebSocket messages.
    WebSocket,
    /// One frame a response, by POST.
    Xhr,
    /// Frames in one long response, by POST.
    XhrStreaming,
    /// Server-sent events.
    EventSource,
    /// Script blocks in a page that never ends.
    HtmlFile,
    /// One frame a response, by a script tag.
    Jsonp,
}

/// A wire representation of a message that is the same for every client that uses it.
///
/// Concatenating the encodings of consecutive messages in one form is always legal on its
/// transport, so a run of messages can be sent as one contiguous slice. `htmlfile` and `jsonp`
/// quote twice and depend on the request, so they have no form: they are encoded per response
/// from [`Form::Piece`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Form {
    /// An unmasked WebSocket text frame that holds the message as it is.
    RawFrame,
    /// The same with permessage-deflate (RFC 7692), no context takeover; small messages stay plain.
    RawDeflated,
    /// An unmasked WebSocket text frame that holds `a["..."]`.
    SockJsFrame,
    /// The same with permessage-deflate.
    SockJsDeflated,
    /// `a["..."]` and a line feed, for xhr_streaming.
    Line,
    /// `data: a["..."]` and two CRLF with `%`, CR, LF and NUL escaped, for eventsource.
    Event,
    /// The same as [`Form::Line`], as one chunk of HTTP/1.1.
    ChunkedLine,
    /// The same as [`Form::Event`], as one chunk of HTTP/1.1.
    ChunkedEvent,
    /// `"...",` for polls: the transport wraps a run of them in `a[` and `]` and drops the last comma.
    Piece,
}

impl Form {
    /// Every form, in the order of their indexes.
    pub const ALL: [Form; 9] = [
        Form::RawFrame,
        Form::RawDeflated,
        Form::SockJsFrame,
        Form::SockJsDeflated,
        Form::Line,
        Form::Event,
        Form::ChunkedLine,
        Form::ChunkedEvent,
        Form::Piece,
    ];

    /// A small number for tables with one entry a form.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// What is handed out at once; a boundary between parts is one between frames. Mostly it is one part, because a log
/// joins what comes in one burst, so there is room for no more in place: slices are moved about for every delivery.
pub type Parts = SmallVec<[Bytes; 2]>;

/// A contiguous run of a log in one [`Form`].
#[derive(Debug, Default)]
pub struct Slice {
    /// The bytes in order; every boundary between parts is a boundary between messages.
    pub parts: Parts,
    /// The sum of the parts' lengths, in bytes.
    pub len: usize,
    /// How many messages the slice holds.
    pub messages: usize,
    /// Whether nothing follows for now: asking again is of use only after the wake slot's next wake-up.
    pub drained: bool,
}
