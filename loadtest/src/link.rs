//! A viewer's connection on any transport: opens it, keeps it receiving, hands messages on.

use anyhow::{Context, bail, ensure};

use crate::exchange::once;
use crate::frame::{self, FrameReader, Kind};
use crate::http1::{ResponseReader, Step};
use crate::sockjs::{self, Depth, Frame, Splitter};
use crate::stream::Stream;
use crate::target::Target;
use crate::transport::Transport;

/// The handshake's nonce. It proves nothing to a load tester, so it is the one of RFC 6455,
/// whose answer is known.
const NONCE: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const NONCE_ACCEPTED: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// Takes the messages of a stream, still quoted.
pub(crate) type Sink<'a> = dyn FnMut(&[u8], Depth) + 'a;

/// What a read brought beside messages.
#[derive(Debug, Default)]
pub(crate) struct Brought {
    /// The session is open: the viewer may speak.
    pub(crate) opened: bool,
    /// The server closed the session, and what it said.
    pub(crate) closed: Option<String>,
    ended: bool,
    pong: Option<Vec<u8>>,
    fault: Option<String>,
}

#[derive(Debug)]
enum Wire {
    /// Waiting for 101.
    Handshake(ResponseReader),
    Frames(FrameReader),
    Body {
        reader: ResponseReader,
        splitter: Splitter,
    },
}

/// A viewer's connection.
#[derive(Debug)]
pub(crate) struct Link {
    transport: Transport,
    stream: Stream,
    wire: Wire,
    /// Path of the SockJS session, up to and without the transport's name.
    session: String,
    /// Whether the server lets the connection live behind the current response.
    keep_alive: bool,
}

impl Link {
    /// Connects and asks for the stream. `session` is a name no other session has.
    pub(crate) async fn open(
        transport: Transport,
        target: &Target,
        session: &str,
    ) -> anyhow::Result<Self> {
        let stream = target.connect().await?;
        let prefix = format!("/api/{}/fleet/results", target.version);
        let session = match transport {
            Transport::Raw => prefix,
            _ => format!("{prefix}/000/{session}"),
        };
        let wire = match transport.wrapping() {
            None => Wire::Handshake(ResponseReader::default()),
            Some(wrapping) => Wire::Body {
                reader: ResponseReader::default(),
                splitter: Splitter::new(wrapping),
            },
        };
        let mut link = Self {
            transport,
            stream,
            wire,
            session,
            keep_alive: true,
        };
        link.ask(target).await?;
        Ok(link)
    }

    /// Sends the request for the stream, or for the next piece of it.
    async fn ask(&mut self, target: &Target) -> anyhow::Result<()> {
        let session = &self.session;
        let request = match self.transport {
            Transport::Raw | Transport::Ws => {
                let headers = format!(
                    "Connection: Upgrade\r\nUpgrade: websocket\r\n\
                     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {NONCE}\r\n"
                );
                target.request("GET", &format!("{session}/websocket"), &headers, b"")
            }
            Transport::XhrStreaming => {
                target.request("POST", &format!("{session}/xhr_streaming"), "", b"")
            }
            Transport::Xhr => target.request("POST", &format!("{session}/xhr"), "", b""),
            Transport::EventSource => {
                let headers = "Accept: text/event-stream\r\n";
                target.request("GET", &format!("{session}/eventsource"), headers, b"")
            }
            Transport::Jsonp => {
                target.request("GET", &format!("{session}/jsonp?c=_jp.a1"), "", b"")
            }
        };
        self.stream.write_all(&request).await?;
        Ok(())
    }

    /// Sends messages upstream.
    pub(crate) async fn say(&mut self, target: &Target, messages: &[String]) -> anyhow::Result<()> {
        let (path, headers, body) = match self.transport {
            Transport::Raw => {
                let frames = messages
                    .iter()
                    .map(|message| frame::masked(frame::TEXT, message.as_bytes()));
                let bytes = frames.collect::<Vec<_>>().concat();
                return Ok(self.stream.write_all(&bytes).await?);
            }
            Transport::Ws => {
                let bytes = frame::masked(frame::TEXT, sockjs::upstream(messages).as_bytes());
                return Ok(self.stream.write_all(&bytes).await?);
            }
            Transport::Jsonp => (
                "jsonp_send",
                "Content-Type: application/x-www-form-urlencoded\r\n",
                format!("d={}", form_escaped(&sockjs::upstream(messages))),
            ),
            Transport::XhrStreaming | Transport::EventSource | Transport::Xhr => (
                "xhr_send",
                "Content-Type: text/plain;charset=UTF-8\r\n",
                sockjs::upstream(messages),
            ),
        };
        let path = format!("{}/{path}", self.session);
        let reply = once(target, "POST", &path, headers, body.as_bytes()).await?;
        ensure!(
            matches!(reply.status, 200 | 204),
            "{path} answered {}",
            reply.status
        );
        Ok(())
    }

    /// Reads once, hands messages to `sink`, and does what keeps the stream going.
    ///
    /// # Errors
    /// When the stream ended or is broken.
    pub(crate) async fn pump(
        &mut self,
        target: &Target,
        sink: &mut Sink<'_>,
    ) -> anyhow::Result<Brought> {
        let wire = &mut self.wire;
        let keep_alive = &mut self.keep_alive;
        let transport = self.transport;
        let read = self
            .stream
            .read_with(|bytes| {
                let mut brought = Brought::default();
                wire.feed(transport, bytes, keep_alive, &mut brought, sink)
                    .map(|()| brought)
            })
            .await?;
        let Some(brought) = read else {
            bail!("the connection ended");
        };
        let mut brought = brought?;
        if let Some(fault) = brought.fault.take() {
            bail!(fault);
        }
        if let Some(payload) = brought.pong.take() {
            let pong = frame::masked(frame::PONG, &payload);
            self.stream.write_all(&pong).await?;
        }
        if brought.ended && brought.closed.is_none() {
            if !self.keep_alive {
                self.stream = target.connect().await?;
                self.keep_alive = true;
            }
            self.ask(target).await?;
        }
        Ok(brought)
    }

    /// Makes the coming drop a reset instead of a close.
    pub(crate) fn reset_on_drop(&self) {
        self.stream.reset_on_drop();
    }
}

impl Wire {
    fn feed(
        &mut self,
        transport: Transport,
        mut bytes: &[u8],
        keep_alive: &mut bool,
        brought: &mut Brought,
        sink: &mut Sink<'_>,
    ) -> anyhow::Result<()> {
        if let Wire::Handshake(reader) = self {
            if !shaken(reader, &mut bytes)? {
                return Ok(());
            }
            brought.opened = transport == Transport::Raw;
            *self = Wire::Frames(FrameReader::default());
        }
        match self {
            Wire::Handshake(_) => Ok(()),
            Wire::Frames(reader) => {
                let mut take = |kind, payload: &[u8]| match kind {
                    Kind::Message if transport == Transport::Raw => sink(payload, Depth::Bare),
                    Kind::Message => brought.take(payload, Depth::Quoted, sink),
                    Kind::Ping => brought.pong = Some(payload.to_vec()),
                    Kind::Pong => {}
                    Kind::Close => {
                        brought.closed.get_or_insert_with(|| close_text(payload));
                    }
                };
                Ok(reader.feed(bytes, &mut take)?)
            }
            Wire::Body { reader, splitter } => loop {
                match reader.next(&mut bytes)? {
                    Step::More => return Ok(()),
                    Step::Head(head) => {
                        ensure!(head.status == 200, "the server answered {}", head.status);
                        *keep_alive = head.keep_alive;
                    }
                    Step::Body(body) => {
                        let depth = splitter.depth();
                        splitter.feed(body, &mut |frame| brought.take(frame, depth, sink))?;
                    }
                    Step::End => {
                        splitter.reset();
                        brought.ended = true;
                    }
                }
            },
        }
    }
}

impl Brought {
    /// Takes one SockJS frame.
    fn take(&mut self, bytes: &[u8], depth: Depth, sink: &mut Sink<'_>) {
        match sockjs::frame(bytes) {
            Frame::Open => self.opened = true,
            Frame::Heartbeat => {}
            Frame::Messages(inside) => {
                sockjs::messages(inside, depth).for_each(|message| sink(message, depth));
            }
            Frame::Close(inside) => {
                self.closed = Some(format!("c[{}]", String::from_utf8_lossy(inside)));
            }
            Frame::Unknown => {
                let start = &bytes[..bytes.len().min(40)];
                let start = String::from_utf8_lossy(start);
                self.fault = Some(format!("not a SockJS frame: {start}"));
            }
        }
    }
}

/// Whether the handshake is over.
fn shaken(reader: &mut ResponseReader, bytes: &mut &[u8]) -> anyhow::Result<bool> {
    loop {
        match reader.next(bytes)? {
            Step::More => return Ok(false),
            Step::Head(head) => {
                ensure!(head.status == 101, "no upgrade: status {}", head.status);
                let accept = head.accept.context("no Sec-WebSocket-Accept")?;
                ensure!(accept == NONCE_ACCEPTED, "wrong Sec-WebSocket-Accept");
            }
            Step::Body(_) => {}
            Step::End => return Ok(true),
        }
    }
}

fn close_text(payload: &[u8]) -> String {
    match payload {
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            format!("close {code} {}", String::from_utf8_lossy(reason))
        }
        _ => "close without a code".to_owned(),
    }
}

/// Escapes a value for a form.
fn form_escaped(text: &str) -> String {
    use std::fmt::Write;
    let mut escaped = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            // Writing into a string cannot fail.
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_escaped_byte_by_byte() {
        assert_eq!(form_escaped(r#"["a b"]"#), "%5B%22a%20b%22%5D");
        assert_eq!(form_escaped("ü-1_2."), "%C3%BC-1_2.");
    }

    #[test]
    fn closes_are_told_in_words() {
        assert_eq!(
            close_text(&[0x03, 0xe8, b'b', b'y', b'e']),
            "close 1000 bye"
        );
        assert_eq!(close_text(&[]), "close without a code");
    }
}
