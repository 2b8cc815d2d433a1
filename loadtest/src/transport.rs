//! The ways a viewer can listen, and a mix of them.

use std::fmt;

use crate::sockjs::Wrapping;

/// A way to receive the stream of results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Transport {
    /// The raw WebSocket.
    Raw,
    /// SockJS framing over a WebSocket.
    Ws,
    XhrStreaming,
    EventSource,
    Xhr,
    Jsonp,
}

impl Transport {
    pub(crate) const ALL: [Transport; 6] = [
        Transport::Raw,
        Transport::Ws,
        Transport::XhrStreaming,
        Transport::EventSource,
        Transport::Xhr,
        Transport::Jsonp,
    ];

    /// The name in options and reports; for SockJS ones also the last segment of the path.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Transport::Raw => "raw",
            Transport::Ws => "ws",
            Transport::XhrStreaming => "xhr_streaming",
            Transport::EventSource => "eventsource",
            Transport::Xhr => "xhr",
            Transport::Jsonp => "jsonp",
        }
    }

    /// How frames stand in response bodies; `None` for WebSockets.
    pub(crate) fn wrapping(self) -> Option<Wrapping> {
        match self {
            Transport::Raw | Transport::Ws => None,
            Transport::XhrStreaming | Transport::Xhr => Some(Wrapping::Lines),
            Transport::EventSource => Some(Wrapping::Events),
            Transport::Jsonp => Some(Wrapping::Call),
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        let name = name.replace('-', "_");
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which share of the viewers uses which transport.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mix(Vec<(Transport, usize)>);

impl Mix {
    /// Reads `raw=10,ws=5,xhr` (a weight of 1 where none is given) or `all`.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self(Transport::ALL.map(|kind| (kind, 1)).to_vec()));
        }
        let mut mix = Vec::new();
        for part in text.split(',') {
            let (name, weight) = part.split_once('=').unwrap_or((part, "1"));
            let kind = Transport::named(name.trim()).ok_or_else(|| {
                let known = Transport::ALL.map(Transport::name).join(", ");
                format!("{name}: no such transport (known: {known}, all)")
            })?;
            let weight = weight.trim().parse();
            let weight = weight.map_err(|_| format!("{part}: the weight is not a number"))?;
            if mix.iter().any(|(other, _)| *other == kind) {
                return Err(format!("{name} is given twice"));
            }
            mix.push((kind, weight));
        }
        if mix.iter().all(|(_, weight)| *weight == 0) {
            return Err("a mix needs a weight above 0".to_owned());
        }
        Ok(Self(mix))
    }

    /// One transport for each of `viewers`, in proportion and evenly interleaved.
    pub(crate) fn deal(&self, viewers: usize) -> Vec<Transport> {
        let total: usize = self.0.iter().map(|(_, weight)| weight).sum();
        let mut dealt = vec![0_usize; self.0.len()];
        let mut order = Vec::with_capacity(viewers);
        for turn in 1..=viewers {
            // The transport that lags furthest behind its share is next.
            let lag =
                |at: usize| (self.0[at].1 * turn).cast_signed() - (dealt[at] * total).cast_signed();
            let next = (0..dealt.len()).rev().max_by_key(|at| lag(*at));
            if let Some(next) = next {
                dealt[next] += 1;
                order.push(self.0[next].0);
            }
        }
        order
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (kind, weight)) in self.0.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            write!(f, "{comma}{kind}={weight}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_is_dealt_in_proportion() {
        let mix = Mix::read("raw=2,xhr-streaming=1,jsonp=0").unwrap();
        let order = mix.deal(9);
        let count = |kind| order.iter().filter(|other| **other == kind).count();
        assert_eq!(count(Transport::Raw), 6);
        assert_eq!(count(Transport::XhrStreaming), 3);
        assert_eq!(count(Transport::Jsonp), 0);
        assert_eq!(Mix::read("all").unwrap().deal(6).len(), 6);
        assert_eq!(Mix::read("raw").unwrap().deal(1), [Transport::Raw]);
        assert_eq!(mix.to_string(), "raw=2,xhr_streaming=1,jsonp=0");
    }

    #[test]
    fn a_wrong_mix_is_refused() {
        for text in ["", "shoe", "raw=x", "raw=0", "raw,raw"] {
            assert!(Mix::read(text).is_err(), "{text}");
        }
    }
}
