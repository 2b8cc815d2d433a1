//! Requests for sessions that another node holds: asked for in the directory, sent there, answered as if they were here.

pub mod proof;
pub mod record;
mod stream;
mod upstream;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use dashmap::DashMap;
use http::header::{
    ACCESS_CONTROL_REQUEST_HEADERS, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, DATE, ORIGIN,
    TRAILER, TRANSFER_ENCODING, UPGRADE, USER_AGENT, VIA,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use warp::Reply;

use super::directory::{Directory, DirectoryUnavailable};
use super::pages::answer;
use crate::clock::{Clock, Timestamp};
use crate::names;
use crate::sockjs::Framing;
pub use proof::Secret;
pub use record::NodeAddress;
use stream::Relayed;
use upstream::{Unanswered, Upstreams};

/// Sessions of other nodes that are remembered, and for how long: a poll in a row asks the directory once a minute,
/// and goes on while the directory is away.
const KNOWN_MAX: usize = 100_000;
const KNOWN_FOR: Duration = Duration::from_secs(60);
/// How long a node may take to answer what it answers at once.
const PROMPT: Duration = Duration::from_secs(5);
/// How much later than a node's heartbeat its silence means that it is dead. Clients by JSONP wait 10 s longer.
const SILENCE_SLACK: Duration = Duration::from_secs(5);
/// A poll's answer that is read whole before it is passed on, in bytes, so that a node that dies meanwhile has still
/// a clean end; longer ones are passed on as they come. Somewhat more than the default response limit.
const WHOLE_MAX: u64 = 256 * 1024;
/// What `Via` calls this software; a request that bears it is not relayed again.
const PSEUDONYM: &str = "answerback";
/// What the holder of a session looks at.
const PASSED_ON: [HeaderName; 5] = [
    ORIGIN,
    COOKIE,
    CONTENT_TYPE,
    ACCESS_CONTROL_REQUEST_HEADERS,
    USER_AGENT,
];
/// What belongs to one connection, or is made anew.
const HOP_BY_HOP: [HeaderName; 5] = [CONNECTION, TRANSFER_ENCODING, TRAILER, UPGRADE, DATE];

/// The relay of one node, shared by its mounts.
pub struct Relay {
    directory: Arc<dyn Directory>,
    place: NodeAddress,
    secret: Secret,
    clock: Clock,
    numbers: Numbers,
    known: DashMap<Box<str>, (Arc<str>, Timestamp)>,
    upstreams: Upstreams,
}

/// Numbers that make every record of a process another one.
#[derive(Debug, Default)]
struct Numbers(AtomicU64);

impl Numbers {
    fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// Who has brought a request here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestOrigin {
    /// A client or its proxy.
    Client,
    /// A node: it has proved to be one, and believes that the session is here.
    Node,
    /// Something that has relayed it and cannot prove to be a node: a client, but what it brings goes no further, so
    /// that nodes which do not know each other's secret cannot send a request round for ever.
    Unproved,
}

/// Where another node's session is.
#[derive(Clone, Debug)]
pub(super) struct Owner {
    pub(super) record: Arc<str>,
    place: NodeAddress,
    /// Whether the directory has been asked just now.
    fresh: bool,
}

/// A request as it is sent on.
pub(super) struct ForwardedRequest<'e> {
    pub(super) method: &'e Method,
    /// With the query.
    pub(super) path: &'e str,
    pub(super) headers: &'e HeaderMap,
    pub(super) client: IpAddr,
    pub(super) body: Bytes,
}

/// What has come of sending it on.
pub(super) enum Outcome {
    /// The holder's answer.
    Answer(warp::reply::Response),
    /// The holder is dead or does not know the session any more.
    Lost,
    /// Too many requests are on their way to it.
    Full,
}

impl Relay {
    /// The relay of the node at `place`, which proves to others with `secret` that it is a node.
    #[must_use]
    pub fn new(
        directory: Arc<dyn Directory>,
        place: NodeAddress,
        secret: Secret,
        clock: Clock,
    ) -> Arc<Self> {
        Arc::new(Self {
            directory,
            place,
            secret,
            clock,
            numbers: Numbers::default(),
            known: DashMap::new(),
            upstreams: Upstreams::default(),
        })
    }

    pub(super) fn directory(&self) -> &Arc<dyn Directory> {
        &self.directory
    }

    pub(super) const fn place(&self) -> &NodeAddress {
        &self.place
    }

    pub(super) fn number(&self) -> u64 {
        self.numbers.next()
    }

    /// Who has brought a request, and for which client if it was a node. What anybody says of that without a proof
    /// counts for nothing.
    pub(super) fn bearer(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
    ) -> (RequestOrigin, Option<IpAddr>) {
        let subject = proof::Subject {
            method: method.as_str(),
            path,
        };
        let now = self.clock.now();
        let header = headers.get(proof::HEADER);
        if let Some(proved) =
            header.and_then(|value| proof::check(&self.secret, subject, value, now))
        {
            let place = NodeAddress::of(&proved.record);
            if place.is_none_or(|place| place.url() != self.place.url()) {
                let record = &*proved.record;
                tracing::warn!(
                    record,
                    "a request was relayed to the wrong node; does each --advertise its own address?"
                );
            }
            return (RequestOrigin::Node, Some(proved.client));
        }
        let relayed = headers.get_all(VIA).iter().any(|value| {
            let hops = value.to_str().unwrap_or_default().split(',');
            let mut names = hops.filter_map(|hop| hop.split_whitespace().nth(1));
            names.any(|name| name == PSEUDONYM)
        });
        let bearer = if relayed {
            RequestOrigin::Unproved
        } else {
            RequestOrigin::Client
        };
        (bearer, None)
    }

    /// Who holds a session, by its name in the directory; also if it is this node.
    pub(super) async fn owner(&self, name: &str) -> Result<Option<Owner>, DirectoryUnavailable> {
        let now = self.clock.now();
        let known = self.known.get(name).map(|entry| entry.value().clone());
        let known = known.filter(|(_, since)| now.since(*since) < KNOWN_FOR);
        let fresh = known.is_none();
        let record = match known {
            Some((record, _)) => record,
            None => match self.directory.look_up(name).await? {
                Some(record) => record.into(),
                None => return Ok(None),
            },
        };
        let Some(place) = NodeAddress::of(&record) else {
            tracing::warn!("a session's record cannot be read; it is forgotten");
            self.directory.forget(name, &record).await;
            return Ok(None);
        };
        if fresh && place != self.place {
            self.remember(name, &record, now);
        }
        Ok(Some(Owner {
            record,
            place,
            fresh,
        }))
    }

    /// Whether the owner's session is lost for good; then its record is forgotten, so that the id is free again. If
    /// not, the owner was remembered wrongly, and has to be asked for again.
    pub(super) async fn is_lost(&self, name: &str, owner: &Owner) -> bool {
        self.known.remove(name);
        if !owner.fresh {
            let record = self.directory.look_up(name).await;
            if record.is_ok_and(|record| record.as_deref() != Some(&*owner.record)) {
                return false;
            }
        }
        self.directory.forget(name, &owner.record).await;
        metrics::counter!(names::RELAYED, "outcome" => "lost").increment(1);
        true
    }

    /// Forgets a record of this process's own that has no session.
    pub(super) async fn clear(&self, name: &str, owner: &Owner) {
        self.directory.forget(name, &owner.record).await;
    }

    /// Sends a request for frames to their session's owner. Frames are passed on as they come; once the mount stops,
    /// they end with a goodbye.
    pub(super) async fn fetch(
        &self,
        owner: &Owner,
        errand: ForwardedRequest<'_>,
        framing: &Framing,
        heartbeat: Duration,
        stop: &CancellationToken,
    ) -> Outcome {
        let silence = heartbeat + SILENCE_SLACK;
        let patience = if framing.is_polling() {
            silence
        } else {
            PROMPT
        };
        let (response, place) = match self.send(owner, errand, patience).await {
            Ok(answered) => answered,
            Err(outcome) => return outcome,
        };
        let length = response.headers().get(CONTENT_LENGTH);
        let length = length.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if length.is_some_and(|length| length <= WHOLE_MAX) {
            return whole(response, place).await;
        }
        let (head, body) = response.into_parts();
        // A poll's frame that has begun cannot be ended in other words.
        let stop = match framing.is_polling() {
            true => CancellationToken::new(),
            false => stop.clone(),
        };
        let relayed = Relayed::new(body, framing.clone(), silence, stop, place);
        let mut response = warp::reply::stream(relayed).into_response();
        *response.status_mut() = head.status;
        *response.headers_mut() = end_to_end(head.headers);
        Outcome::Answer(response)
    }

    /// Sends a client's messages to their session's owner.
    pub(super) async fn deliver(&self, owner: &Owner, errand: ForwardedRequest<'_>) -> Outcome {
        match self.send(owner, errand, PROMPT).await {
            Ok((response, place)) => whole(response, place).await,
            Err(outcome) => outcome,
        }
    }

    async fn send(
        &self,
        owner: &Owner,
        errand: ForwardedRequest<'_>,
        patience: Duration,
    ) -> Result<(Response<Incoming>, OwnedSemaphorePermit), Outcome> {
        if owner.place.url() == self.place.url() {
            // An earlier start of this node.
            return Err(Outcome::Lost);
        }
        let request = self.request(owner, errand).ok_or(Outcome::Lost)?;
        let upstream = self.upstreams.of(&owner.place).map_err(untold)?;
        let deadline = Instant::now() + patience;
        let answered = timeout_at(deadline, upstream.send(request)).await;
        let answered = answered.unwrap_or(Err(Unanswered::Dead)).map_err(untold)?;
        if answered.0.headers().contains_key(proof::HEADER) {
            return Err(Outcome::Lost);
        }
        metrics::counter!(names::RELAYED, "outcome" => "answered").increment(1);
        Ok(answered)
    }

    fn request(&self, owner: &Owner, errand: ForwardedRequest<'_>) -> Option<Request<Full<Bytes>>> {
        let subject = proof::Subject {
            method: errand.method.as_str(),
            path: errand.path,
        };
        let now = self.clock.now();
        let proof = proof::make(&self.secret, subject, errand.client, &owner.record, now)?;
        let mut request = Request::new(Full::new(errand.body));
        *request.method_mut() = errand.method.clone();
        *request.uri_mut() = format!("{}{}", owner.place.url(), errand.path)
            .parse()
            .ok()?;
        let headers = request.headers_mut();
        for name in PASSED_ON {
            for value in errand.headers.get_all(&name) {
                headers.append(name.clone(), value.clone());
            }
        }
        headers.insert(proof::HEADER, proof);
        headers.insert(VIA, HeaderValue::from_static("1.1 answerback"));
        Some(request)
    }

    fn remember(&self, name: &str, record: &Arc<str>, now: Timestamp) {
        if self.known.len() >= KNOWN_MAX {
            self.known
                .retain(|_, (_, since)| now.since(*since) < KNOWN_FOR);
        }
        if self.known.len() < KNOWN_MAX {
            self.known.insert(name.into(), (Arc::clone(record), now));
        }
    }
}

fn untold(unanswered: Unanswered) -> Outcome {
    match unanswered {
        Unanswered::Full => {
            metrics::counter!(names::RELAYED, "outcome" => "full").increment(1);
            Outcome::Full
        }
        Unanswered::Dead => Outcome::Lost,
    }
}

/// An answer that is read to its end before any of it is passed on.
async fn whole(response: Response<Incoming>, place: OwnedSemaphorePermit) -> Outcome {
    let (head, body) = response.into_parts();
    let most = usize::try_from(WHOLE_MAX).unwrap_or(usize::MAX);
    let body = timeout_at(Instant::now() + PROMPT, Limited::new(body, most).collect()).await;
    drop(place);
    let Ok(Ok(body)) = body else {
        return Outcome::Lost;
    };
    let headers = end_to_end(head.headers);
    Outcome::Answer(answer(head.status, headers, body.to_bytes()))
}

fn end_to_end(mut headers: HeaderMap) -> HeaderMap {
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    headers.remove("keep-alive");
    headers
}

#[cfg(test)]
mod tests;
