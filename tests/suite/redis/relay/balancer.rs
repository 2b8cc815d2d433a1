//! A balancer without any memory: every request, not every connection, goes to the next node.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::broker::Broker;

/// A proxy on a free port; stops when dropped.
pub struct Balancer {
    pub address: String,
    accepting: JoinHandle<()>,
}

struct Turns {
    nodes: Vec<String>,
    next: AtomicUsize,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Balancer {
    pub async fn over(nodes: &[Broker]) -> Self {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))
            .await
            .unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let turns = Arc::new(Turns {
            nodes: nodes.iter().map(|node| node.address.clone()).collect(),
            next: AtomicUsize::new(0),
            client: Client::builder(TokioExecutor::new()).build(HttpConnector::new()),
        });
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                let turns = Arc::clone(&turns);
                let service = service_fn(move |request| {
                    let turns = Arc::clone(&turns);
                    async move { Ok::<_, std::convert::Infallible>(turns.pass_on(request).await) }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self { address, accepting }
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Turns {
    async fn pass_on(&self, request: Request<Incoming>) -> Response<BoxBody<Bytes, hyper::Error>> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        // As balancers do: a node that refuses the connection is passed over.
        for _ in &self.nodes {
            let turn = self.next.fetch_add(1, Ordering::Relaxed);
            let node = &self.nodes[turn % self.nodes.len()];
            let mut sent = Request::new(Full::new(body.clone()));
            *sent.method_mut() = head.method.clone();
            *sent.headers_mut() = head.headers.clone();
            *sent.uri_mut() = format!("http://{node}{}", head.uri).parse().unwrap();
            match self.client.request(sent).await {
                Ok(response) => return response.map(BodyExt::boxed),
                Err(error) if error.is_connect() => {}
                Err(_) => break,
            }
        }
        let empty = Empty::new().map_err(|never| match never {}).boxed();
        let mut response = Response::new(empty);
        *response.status_mut() = StatusCode::BAD_GATEWAY;
        response
    }
}
