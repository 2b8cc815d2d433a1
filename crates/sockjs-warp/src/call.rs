//! A request to a session, as the answering parts see it: whose it is, and how it has come.

use std::borrow::Cow;
use std::net::IpAddr;

use bytes::Bytes;
use http::{HeaderMap, Method};

use super::relay::{ForwardedRequest, Relay, RequestOrigin};

/// A request to a session but for its body.
pub(super) struct Call<'r> {
    method: &'r Method,
    path: Cow<'r, str>,
    pub(super) query: &'r str,
    pub(super) headers: &'r HeaderMap,
    /// The client's address, also if another node has brought the request.
    pub(super) address: IpAddr,
    pub(super) bearer: RequestOrigin,
    /// See [`ConnInfo::hands_over`](crate::net::ConnInfo::hands_over).
    pub(super) hands_over: bool,
}

impl<'r> Call<'r> {
    /// A request that has come from `address`; without a relay nobody but clients is known.
    pub(super) fn new(
        (method, path, query): (&'r Method, &'r str, &'r str),
        headers: &'r HeaderMap,
        (address, hands_over): (IpAddr, bool),
        relay: Option<&Relay>,
    ) -> Self {
        let mut call = Self {
            method,
            path: path.into(),
            query,
            headers,
            address,
            bearer: RequestOrigin::Client,
            hands_over,
        };
        if let Some(relay) = relay {
            if !query.is_empty() {
                call.path = format!("{path}?{query}").into();
            }
            let (bearer, client) = relay.bearer(method, &call.path, headers);
            call.bearer = bearer;
            call.address = client.unwrap_or(address);
        }
        call
    }

    /// The request as it is sent on.
    pub(super) fn errand(&self, body: Bytes) -> ForwardedRequest<'_> {
        ForwardedRequest {
            method: self.method,
            path: &self.path,
            headers: self.headers,
            client: self.address,
            body,
        }
    }
}
