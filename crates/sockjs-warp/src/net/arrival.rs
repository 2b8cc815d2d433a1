//! A request together with the connection it came by.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::Request;
use hyper::body::Incoming;
use tower_service::Service;

use super::ConnInfo;

/// What `serve` hands to its service. The connection is no extension of the request, because an extension costs three
/// allocations, and the commonest requests do not ask for it.
#[derive(Debug)]
pub struct IncomingRequest<B = Incoming> {
    /// How it came.
    pub connection: ConnInfo,
    /// What is wanted.
    pub request: Request<B>,
}

/// An answer to come. In a box, because a connection keeps room for the largest future it may have to drive, and moves it.
/// The services of arrivals all give this, so that one in front of another hands its answer on as it is.
pub type ResponseFuture<R, E = Infallible> = Pin<Box<dyn Future<Output = Result<R, E>> + Send>>;

/// What `warp::service(filter)` gives, as a service for arrivals: filters find the [`ConnInfo`] among the request's
/// extensions.
#[derive(Clone, Debug)]
pub struct Filtered<S>(pub S);

impl<S, B> Service<IncomingRequest<B>> for Filtered<S>
where
    S: Service<Request<B>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Response, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, arrival: IncomingRequest<B>) -> Self::Future {
        let IncomingRequest {
            connection,
            mut request,
        } = arrival;
        request.extensions_mut().insert(connection);
        Box::pin(self.0.call(request))
    }
}
