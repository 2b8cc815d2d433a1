//! The WebSocket that results come on.

use std::sync::Arc;

use anyhow::Context;
use futures_util::{SinkExt, StreamExt};
use http::Uri;
use rustls_pki_types::ServerName;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::cli::tls::{self, Trust};
use crate::results::StreamError;

/// Plain or encrypted.
trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

/// A message of the broker.
#[derive(Debug, Deserialize)]
pub(super) struct Said {
    pub(super) r#type: String,
    #[serde(default)]
    pub(super) data: Value,
    /// Set in messages of type `error`.
    #[serde(skip)]
    pub(super) error: Option<StreamError>,
}

/// How far a viewer has come in a campaign's log.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    /// The last position that it has.
    pub(super) seq: u64,
    /// The epoch of that position, if the broker has told one.
    pub(super) epoch: Option<u64>,
}

/// An open connection.
pub(super) struct Stream(WebSocketStream<Box<dyn Wire>>);

impl Stream {
    pub(super) async fn open(url: &str, trust: &Trust) -> anyhow::Result<Self> {
        let uri: Uri = url
            .parse()
            .with_context(|| format!("`{url}` is not a URL"))?;
        let host = uri.host().context("the URL names no host")?;
        let secure = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let bare = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let tcp = TcpStream::connect((bare.as_str(), port))
            .await
            .with_context(|| format!("cannot reach {url}"))?;
        tcp.set_nodelay(true)?;
        let wire: Box<dyn Wire> = if secure {
            let name = ServerName::try_from(bare)?;
            Box::new(
                TlsConnector::from(Arc::new(tls::client(trust)?))
                    .connect(name, tcp)
                    .await?,
            )
        } else {
            Box::new(tcp)
        };
        let scheme = if secure { "wss" } else { "ws" };
        let prefix = uri.path().trim_end_matches('/');
        let target = format!("{scheme}://{host}:{port}{prefix}/api/latest/fleet/results/websocket");
        let (socket, _) = tokio_tungstenite::client_async(target, wire).await?;
        Ok(Self(socket))
    }

    /// Authenticates and selects, without waiting in between.
    pub(super) async fn select(
        &mut self,
        token: &str,
        campaign: u64,
        place: Place,
    ) -> anyhow::Result<()> {
        let auth = json!({ "type": "auth", "data": { "token": token } });
        let mut data = json!({ "campaign_id": campaign, "after": place.seq });
        if let Some(epoch) = place.epoch {
            data["epoch"] = epoch.into();
        }
        let select = json!({ "type": "select_campaign", "data": data });
        self.0.feed(Message::text(auth.to_string())).await?;
        self.0.feed(Message::text(select.to_string())).await?;
        Ok(self.0.flush().await?)
    }

    pub(super) async fn next(&mut self) -> anyhow::Result<Said> {
        loop {
            let message = self
                .0
                .next()
                .await
                .context("the broker closed the connection")??;
            match message {
                Message::Text(text) => {
                    let mut said: Said = serde_json::from_str(&text)?;
                    if said.r#type == "error" {
                        said.error = Some(serde_json::from_str(&text)?);
                    }
                    return Ok(said);
                }
                Message::Close(_) => anyhow::bail!("the broker closed the connection"),
                _ => {}
            }
        }
    }

    pub(super) async fn close(&mut self) {
        // The answers are complete: a failing goodbye changes nothing.
        let _ = self.0.close(None).await;
    }
}
