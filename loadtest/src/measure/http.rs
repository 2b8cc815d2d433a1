//! A small HTTP client for setting up and for agents' requests.

use anyhow::{Context, bail};
use memchr::memmem;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// One keep-alive connection.
pub(super) struct Http {
    pub(super) stream: TcpStream,
    read: Vec<u8>,
}

/// The bytes of a request.
pub(super) fn post(path: &str, token: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!(
        "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
         User-Agent: osquery/5.16.0\r\n{token}Content-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// The same for one that has no body.
pub(super) fn get(path: &str, token: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n{token}\r\n").into_bytes()
}

impl Http {
    pub(super) async fn open(server: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            read: Vec::new(),
        })
    }

    /// Sends a request and gives its reply's body; an error if it is no success.
    pub(super) async fn call(&mut self, request: &[u8]) -> anyhow::Result<Vec<u8>> {
        self.stream.write_all(request).await?;
        self.reply().await
    }

    pub(super) async fn json(&mut self, request: &[u8]) -> anyhow::Result<Value> {
        Ok(serde_json::from_slice(&self.call(request).await?)?)
    }

    /// The next reply, pipelined or not.
    pub(super) async fn reply(&mut self) -> anyhow::Result<Vec<u8>> {
        loop {
            if let Some(end) = memmem::find(&self.read, b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.read[..end]).to_ascii_lowercase();
                let length = head.split("content-length: ").nth(1);
                let length = length.and_then(|rest| rest.lines().next()?.parse().ok());
                let whole = end + 4 + length.unwrap_or(0);
                if self.read.len() >= whole {
                    let body = self.read[end + 4..whole].to_vec();
                    self.read.drain(..whole);
                    if !head.starts_with("http/1.1 20") {
                        bail!("{head}\n{}", String::from_utf8_lossy(&body));
                    }
                    return Ok(body);
                }
            }
            let count = self.stream.read_buf(&mut self.read).await;
            if count.context("reading a reply")? == 0 {
                bail!("the server closed the connection");
            }
        }
    }
}
