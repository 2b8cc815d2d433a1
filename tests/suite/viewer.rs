//! A viewer over the raw WebSocket, written against the specification and not against the broker's code.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use crate::broker::{Broker, TOKEN};

/// How long a message may take to come, debug builds and busy machines included.
const SOON: Duration = Duration::from_secs(30);

/// A connection and what came over it.
pub struct Viewer {
    socket: WebSocketStream<TcpStream>,
    /// `seq` of every result, in the order of arrival.
    pub seqs: Vec<u64>,
    /// Host names of every result, in the order of arrival.
    pub hosts: Vec<String>,
    /// Whether `finished` has been heard.
    pub finished: bool,
}

/// What comes over a connection.
#[derive(Debug)]
pub enum Heard {
    /// A message.
    Message(Value),
    /// The close, with its frame if there was one.
    Closed(Option<(u16, String)>),
}

impl Viewer {
    /// Connects without a word.
    pub async fn connect(broker: &Broker) -> Self {
        Self::connect_to(broker, "/api/v1/fleet/results/websocket").await
    }

    /// Connects to this path without a word.
    pub async fn connect_to(broker: &Broker, path: &str) -> Self {
        let tcp = TcpStream::connect(&broker.address).await.unwrap();
        let target = format!("ws://{}{path}", broker.address);
        let (socket, _) = tokio_tungstenite::client_async(target, tcp).await.unwrap();
        Self {
            socket,
            seqs: vec![],
            hosts: vec![],
            finished: false,
        }
    }

    /// Connects, authenticates and selects.
    pub async fn watch(broker: &Broker, campaign: u64, after: u64) -> Self {
        let mut viewer = Self::connect(broker).await;
        viewer
            .say(&json!({ "type": "auth", "data": { "token": TOKEN } }))
            .await;
        viewer.select(campaign, after).await;
        viewer
    }

    /// Sends `select_campaign`.
    pub async fn select(&mut self, campaign: u64, after: u64) {
        let data = if after == 0 {
            json!({ "campaign_id": campaign })
        } else {
            json!({ "campaign_id": campaign, "after": after })
        };
        self.say(&json!({ "type": "select_campaign", "data": data }))
            .await;
    }

    /// Sends a message.
    pub async fn say(&mut self, message: &Value) {
        self.say_text(&message.to_string()).await;
    }

    /// Sends a text.
    pub async fn say_text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.unwrap();
    }

    /// Sends a frame of any kind; the broker may have closed already.
    pub async fn say_frame(&mut self, message: Message) {
        let _ = self.socket.send(message).await;
    }

    /// The next message or the end.
    pub async fn hear(&mut self) -> Heard {
        tokio::time::timeout(SOON, self.hear_slowly())
            .await
            .expect("a message comes soon")
    }

    /// The next message or the end, however long it takes.
    pub async fn hear_slowly(&mut self) -> Heard {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => {
                    let message: Value = serde_json::from_str(&text).unwrap();
                    self.take(&message);
                    return Heard::Message(message);
                }
                Some(Ok(Message::Close(frame))) => {
                    return Heard::Closed(
                        frame.map(|CloseFrame { code, reason }| (code.into(), reason.to_string())),
                    );
                }
                Some(Ok(_)) => {}
                None | Some(Err(_)) => return Heard::Closed(None),
            }
        }
    }

    /// The next message, which must be one.
    pub async fn message(&mut self) -> Value {
        match self.hear().await {
            Heard::Message(message) => message,
            Heard::Closed(frame) => panic!("closed: {frame:?}"),
        }
    }

    /// Reads until `finished`.
    pub async fn until_finished(&mut self) {
        while !self.finished {
            self.message().await;
        }
    }

    /// Reads until so many results have come.
    pub async fn until_results(&mut self, count: usize) {
        while self.seqs.len() < count {
            self.message().await;
        }
    }

    /// Hears an error and then the close; returns the error's text.
    pub async fn refusal(&mut self) -> String {
        let message = self.message().await;
        assert_eq!(message["type"], "error", "{message}");
        let Heard::Closed(Some(_)) = self.hear().await else {
            panic!("no close after {message}")
        };
        message["data"].as_str().unwrap().to_owned()
    }

    fn take(&mut self, message: &Value) {
        if message["type"] == "result" {
            assert!(!self.finished || message["data"]["seq"].is_u64());
            self.seqs.push(message["data"]["seq"].as_u64().unwrap());
            self.hosts.push(
                message["data"]["host"]["hostname"]
                    .as_str()
                    .unwrap()
                    .to_owned(),
            );
        }
        self.finished |= message["type"] == "status" && message["data"]["status"] == "finished";
    }
}
