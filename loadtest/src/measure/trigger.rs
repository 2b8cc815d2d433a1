//! What servers without campaigns are told: by their viewers before they listen, and by whoever publishes.

use clap::ValueEnum;

use super::counter::Via;
use crate::frame::{BINARY, TEXT, masked};

/// What viewers subscribe to and messages are published to.
const SUBJECT: &str = "viewers";
/// What a client of NATS begins with.
const NATS_CONNECT: &str = "CONNECT {\"verbose\":false,\"pedantic\":false}\r\n";

/// What makes a server without campaigns publish one more message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Trigger {
    /// A byte on a connection to /publish
    Byte,
    /// A byte of a WebSocket message to /publish
    FramedByte,
    /// The message itself over a WebSocket to /publish, as nchan wants it
    Message,
    /// NATS over WebSocket
    Nats,
}

impl Trigger {
    /// The head of the request that opens a publisher's connection.
    pub(super) fn request(self) -> String {
        match self {
            Self::Byte => "GET /publish HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\n\
                 Upgrade: publish\r\n\r\n"
                .to_owned(),
            Self::FramedByte | Self::Message | Self::Nats => websocket("/publish"),
        }
    }

    /// What is said behind it.
    pub(super) fn hello(self) -> Vec<u8> {
        match self {
            Self::Byte | Self::FramedByte | Self::Message => Vec::new(),
            Self::Nats => masked(BINARY, NATS_CONNECT.as_bytes()),
        }
    }

    /// The bytes that publish `count` messages, each of `bytes` bytes where the publisher makes them.
    pub(super) fn publish(self, count: usize, bytes: usize) -> Vec<u8> {
        let message = vec![b'x'; bytes];
        match self {
            Self::Byte => vec![1; count],
            Self::FramedByte => masked(BINARY, &vec![1; count]),
            Self::Message => masked(TEXT, &message).repeat(count),
            Self::Nats => {
                let mut one = format!("PUB {SUBJECT} {bytes}\r\n").into_bytes();
                one.extend_from_slice(&message);
                one.extend_from_slice(b"\r\n");
                masked(BINARY, &one.repeat(count))
            }
        }
    }
}

/// The head of a WebSocket handshake.
pub(super) fn websocket(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// What viewers of a server without campaigns say before they listen: nothing where connecting is enough.
pub(super) fn subscription(via: Via) -> Vec<u8> {
    match via {
        Via::Nats => {
            let both = format!("{NATS_CONNECT}SUB {SUBJECT} 1\r\n");
            masked(BINARY, both.as_bytes())
        }
        Via::Raw | Via::Ws | Via::XhrStreaming | Via::Eventsource | Via::Xhr => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a frame of ours says.
    fn unmasked(frame: &[u8]) -> Vec<u8> {
        let start = match frame[1] & 0x7f {
            126 => 4,
            127 => 10,
            _ => 2,
        };
        let mask = &frame[start..start + 4];
        let hidden = frame[start + 4..].iter().zip(mask.iter().cycle());
        hidden.map(|(byte, mask)| byte ^ mask).collect()
    }

    #[test]
    fn as_many_messages_are_published_as_are_due() {
        assert_eq!(Trigger::Byte.publish(3, 400).len(), 3);
        let frame = Trigger::FramedByte.publish(3, 400);
        assert_eq!(unmasked(&frame).len(), 3);
        let one = Trigger::Message.publish(1, 400);
        assert_eq!(unmasked(&one), vec![b'x'; 400]);
        assert_eq!(Trigger::Message.publish(3, 400), one.repeat(3));
        let nats = unmasked(&Trigger::Nats.publish(2, 4));
        assert_eq!(nats, b"PUB viewers 4\r\nxxxx\r\n".repeat(2));
    }

    #[test]
    fn viewers_subscribe_to_what_is_published() {
        assert!(subscription(Via::Raw).is_empty());
        let nats = unmasked(&subscription(Via::Nats));
        assert!(nats.ends_with(b"\r\nSUB viewers 1\r\n"));
    }
}
