//! The request that starts the campaign.

use anyhow::Context;
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::Query;
use crate::cli::tls::{self, Trust};

/// The largest reply that is read.
const REPLY_BYTES_MAX: usize = 16 << 20;

/// Hosts that are looked up at once.
const LOOKS_AT_ONCE: usize = 16;

/// The broker's REST API.
pub(super) struct Rest {
    base: String,
    token: String,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Rest {
    pub(super) fn new(url: &str, token: &str, trust: &Trust) -> anyhow::Result<Self> {
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls::client(trust)?)
            .https_or_http()
            .enable_http1()
            .build();
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self {
            base: url.trim_end_matches('/').to_owned(),
            token: token.to_owned(),
            client,
        })
    }

    /// Creates the campaign and returns its number.
    pub(super) async fn start(&self, query: &Query) -> anyhow::Result<u64> {
        let mut body = json!({ "selected": { "hosts": query.hosts, "labels": query.labels } });
        if let Some(name) = &query.query_name {
            body["query_id"] = self.saved_query(name).await?.into();
        } else if let Some(sql) = query.sql.as_ref().or(query.query.as_ref()) {
            body["query"] = sql.clone().into();
        }
        let reply = self
            .call(Method::POST, "queries/run_by_identifiers", Some(&body))
            .await?;
        reply["campaign"]["id"]
            .as_u64()
            .context("the broker's reply names no campaign")
    }

    /// Those names that no host answers to, as far as this user may see hosts.
    pub(super) async fn unknown(&self, names: &[String]) -> anyhow::Result<Vec<String>> {
        let looks = names.iter().map(|name| async move {
            let name = utf8_percent_encode(name, NON_ALPHANUMERIC);
            let path = format!("hosts/identifier/{name}");
            let (status, _) = self.send(Method::GET, &path, None).await?;
            anyhow::Ok(status == StatusCode::NOT_FOUND)
        });
        let found: Vec<bool> = stream::iter(looks)
            .buffered(LOOKS_AT_ONCE)
            .try_collect()
            .await?;
        let unknown = names.iter().zip(found).filter(|(_, unknown)| *unknown);
        Ok(unknown.map(|(name, _)| name.clone()).collect())
    }

    /// Stops the campaign.
    pub(super) async fn stop(&self, campaign: u64) -> anyhow::Result<()> {
        let path = format!("campaigns/{campaign}/stop");
        self.call(Method::POST, &path, None).await.map(drop)
    }

    async fn saved_query(&self, name: &str) -> anyhow::Result<u64> {
        let reply = self.call(Method::GET, "queries", None).await?;
        let queries = reply["queries"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let found = queries.iter().find(|query| query["name"] == name);
        found
            .and_then(|query| query["id"].as_u64())
            .with_context(|| format!("there is no query named {name:?}"))
    }

    async fn call(
        &self,
        method: Method,
        what: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        let (status, said) = self.send(method, what, body).await?;
        if status.is_success() {
            return Ok(said);
        }
        let reason = said["errors"][0]["reason"]
            .as_str()
            .or(said["message"].as_str())
            .unwrap_or_default();
        anyhow::bail!("the broker answered {status}: {reason}")
    }

    async fn send(
        &self,
        method: Method,
        what: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<(StatusCode, Value)> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}/api/latest/fleet/{what}", self.base))
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(
                body.map(|body| Bytes::from(body.to_string()))
                    .unwrap_or_default(),
            ))?;
        let reply = self.client.request(request).await;
        let reply = reply.map_err(|error| self.unreachable(error.into()))?;
        let status = reply.status();
        let read = Limited::new(reply.into_body(), REPLY_BYTES_MAX)
            .collect()
            .await;
        let body = read.map_err(anyhow::Error::from_boxed)?.to_bytes();
        Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
    }

    /// Why there is no answer, and what to try.
    fn unreachable(&self, error: anyhow::Error) -> anyhow::Error {
        let chain = format!("{error:#}");
        let hint = if chain.contains("corrupt message") || chain.contains("InvalidContentType") {
            ": it does not speak TLS there; try http://"
        } else if chain.contains("UnknownIssuer") || chain.contains("certificate") {
            ": its certificate is not trusted; name its authority with --rootca FILE"
        } else if self.base.starts_with("http://") && chain.contains("invalid HTTP version") {
            ": it may speak TLS there; try https://"
        } else {
            ""
        };
        error.context(format!("cannot reach {}{hint}", self.base))
    }
}
