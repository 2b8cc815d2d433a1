//! A SockJS session over each HTTP transport, written against the specification and not against the broker's code.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

use crate::broker::TOKEN;

/// How long a frame may take to come, debug builds and busy machines included.
const SOON: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Xhr,
    XhrStreaming,
    EventSource,
    HtmlFile,
    Jsonp,
}

pub const KINDS: [Kind; 5] = [
    Kind::Xhr,
    Kind::XhrStreaming,
    Kind::EventSource,
    Kind::HtmlFile,
    Kind::Jsonp,
];

/// A client's half of one session; requests may go to several nodes.
pub struct Session {
    kind: Kind,
    id: String,
    pub base: String,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    response: Option<Incoming>,
    unread: Vec<u8>,
    frames: VecDeque<String>,
    /// Responses that have been opened.
    pub responses: usize,
}

impl Session {
    /// `base` is `http://ADDR:PORT`.
    pub fn new(base: &str, kind: Kind, id: &str) -> Self {
        let anybody = answerback::cli::tls::Trust::Anybody;
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(answerback::cli::tls::client(&anybody).unwrap())
            .https_or_http()
            .enable_http1()
            .build();
        Self {
            kind,
            id: id.to_owned(),
            base: base.to_owned(),
            client: Client::builder(TokioExecutor::new()).build(connector),
            response: None,
            unread: Vec::new(),
            frames: VecDeque::new(),
            responses: 0,
        }
    }

    /// The next frame, over as many responses as it takes.
    pub async fn frame(&mut self) -> String {
        let next = tokio::time::timeout(SOON, async {
            loop {
                if let Some(frame) = self.frames.pop_front() {
                    return frame;
                }
                self.read().await;
            }
        });
        next.await.expect("a frame comes soon")
    }

    /// Drops the response that is being read, as a page that is closed.
    pub fn leave(&mut self) {
        self.response = None;
        self.unread.clear();
    }

    /// Sends messages to this node or balancer; returns the status.
    pub async fn send_to(&self, base: &str, messages: &[Value]) -> u16 {
        let texts: Vec<_> = messages.iter().map(Value::to_string).collect();
        let array = json!(texts).to_string();
        let (endpoint, content_type, body) = match self.kind {
            Kind::Jsonp => {
                let set = percent_encoding::NON_ALPHANUMERIC;
                let d = percent_encoding::utf8_percent_encode(&array, set);
                let form = "application/x-www-form-urlencoded";
                ("jsonp_send", form, format!("d={d}"))
            }
            _ => ("xhr_send", "text/plain", array),
        };
        let headers = [("content-type", content_type)];
        let sent = self.request(base, Method::POST, endpoint, &headers, body.into());
        sent.await.status().as_u16()
    }

    pub async fn send(&self, messages: &[Value]) -> u16 {
        self.send_to(&self.base, messages).await
    }

    /// A request to this session's endpoint and the answer.
    pub async fn request(
        &self,
        base: &str,
        method: Method,
        endpoint: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Response<Incoming> {
        let path = format!("{base}/api/v1/fleet/results/000/{}/{endpoint}", self.id);
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body)).unwrap();
        let asked = self.client.request(request);
        tokio::time::timeout(SOON, asked)
            .await
            .expect("an answer comes soon")
            .unwrap()
    }

    /// The answer to one request for frames, as text.
    pub async fn poll(&self, base: &str, headers: &[(&str, &str)]) -> (u16, String) {
        let answer = self.request(base, Method::POST, "xhr", headers, Bytes::new());
        let answer = answer.await;
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    /// Opens, authenticates, selects, and reads until `finished`; the results' places in the log and hosts.
    pub async fn watch(&mut self, campaign: u64) -> (Vec<u64>, Vec<String>) {
        assert_eq!(self.frame().await, "o");
        let auth = json!({ "type": "auth", "data": { "token": TOKEN } });
        let select = json!({ "type": "select_campaign", "data": { "campaign_id": campaign } });
        assert!(self.send(&[auth]).await < 300);
        assert!(self.send(&[select]).await < 300);
        let (mut seqs, mut hosts) = (Vec::new(), Vec::new());
        loop {
            let frame = self.frame().await;
            let Some(array) = frame.strip_prefix('a') else {
                assert_eq!(frame, "h", "{:?}", self.kind);
                continue;
            };
            let messages: Vec<String> = serde_json::from_str(array).unwrap();
            for message in messages {
                let message: Value = serde_json::from_str(&message).unwrap();
                if message["type"] == "result" {
                    seqs.push(message["data"]["seq"].as_u64().unwrap());
                    let host = message["data"]["host"]["hostname"].as_str().unwrap();
                    hosts.push(host.to_owned());
                }
                if message["type"] == "status" && message["data"]["status"] == "finished" {
                    return (seqs, hosts);
                }
            }
        }
    }

    /// Reads one chunk of the present response, or opens the next.
    async fn read(&mut self) {
        let Some(response) = &mut self.response else {
            self.open().await;
            return;
        };
        match response.frame().await {
            Some(Ok(chunk)) => {
                self.unread
                    .extend_from_slice(&chunk.into_data().unwrap_or_default());
                self.decode();
            }
            Some(Err(error)) => panic!("{:?}: the response broke: {error}", self.kind),
            // What has no end is no frame.
            None => self.leave(),
        }
    }

    async fn open(&mut self) {
        let (method, endpoint) = match self.kind {
            Kind::Xhr => (Method::POST, "xhr"),
            Kind::XhrStreaming => (Method::POST, "xhr_streaming"),
            Kind::EventSource => (Method::GET, "eventsource"),
            Kind::HtmlFile => (Method::GET, "htmlfile?c=_jp.a1"),
            Kind::Jsonp => (Method::GET, "jsonp?c=_jp.a1"),
        };
        let answer = self
            .request(&self.base, method, endpoint, &[], Bytes::new())
            .await;
        assert_eq!(answer.status(), 200, "{:?}", self.kind);
        self.response = Some(answer.into_body());
        self.responses += 1;
    }

    fn decode(&mut self) {
        let end: &[u8] = match self.kind {
            Kind::Xhr | Kind::XhrStreaming => b"\n",
            Kind::EventSource => b"\r\n\r\n",
            Kind::HtmlFile => b"</script>\r\n",
            Kind::Jsonp => b"\r\n",
        };
        while let Some(at) = self
            .unread
            .windows(end.len())
            .position(|bytes| bytes == end)
        {
            let whole: Vec<u8> = self.unread.drain(..at + end.len()).collect();
            let text = std::str::from_utf8(&whole[..at]).unwrap();
            let quoted = |text: &str, before: &str| -> String {
                let (_, script) = text.rsplit_once(before).unwrap();
                serde_json::from_str(script.trim_end().strip_suffix(");").unwrap()).unwrap()
            };
            let frame = match self.kind {
                Kind::Xhr | Kind::XhrStreaming => text.to_owned(),
                Kind::EventSource => {
                    let data = text.trim_start().strip_prefix("data: ").unwrap();
                    let plain = percent_encoding::percent_decode_str(data).decode_utf8();
                    plain.unwrap().into_owned()
                }
                Kind::HtmlFile => quoted(text, "<script>\np("),
                Kind::Jsonp => quoted(text, "/**/_jp.a1("),
            };
            if frame != "h".repeat(2048) {
                self.frames.push_back(frame);
            }
        }
    }
}
