//! A request together with the connection it came by.

use std::task::{Context, Poll};

use http::Request;
use hyper::body::Incoming;
use tower_service::Service;

use super::ConnInfo;

/// What `serve` hands to its service. The connection is no extension of the request, because an extension costs three
/// allocations, and the commonest requests do not ask for it.
#[derive(Debug)]
pub struct Arrival<B = Incoming> {
    /// How it came.
    pub connection: ConnInfo,
    /// What is wanted.
    pub request: Request<B>,
}

/// What `warp::service(filter)` gives, as a service for arrivals: filters find the [`ConnInfo`] among the request's
/// extensions.
#[derive(Clone, Debug)]
pub struct Filtered<S>(pub S);

impl<S, B> Service<Arrival<B>> for Filtered<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, arrival: Arrival<B>) -> S::Future {
        let Arrival {
            connection,
            mut request,
        } = arrival;
        request.extensions_mut().insert(connection);
        self.0.call(request)
    }
}
