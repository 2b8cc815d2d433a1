//! What a relayed request takes along, and whose word counts.

use std::net::Ipv4Addr;

use async_trait::async_trait;

use super::*;
use crate::clock::Timestamp;

/// A directory that knows nothing.
struct Empty;

#[async_trait]
impl Directory for Empty {
    async fn claim(&self, _: &str, _: &str) -> Result<bool, DirectoryUnavailable> {
        Ok(true)
    }
    async fn look_up(&self, _: &str) -> Result<Option<String>, DirectoryUnavailable> {
        Ok(None)
    }
    async fn forget(&self, _: &str, _: &str) {}
    fn lifetime(&self) -> Duration {
        Duration::from_secs(90)
    }
}

const PATH: &str = "/echo/000/abc/xhr_send?t=1";
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

fn relay(url: &str, secret: &str) -> Arc<Relay> {
    let clock = Clock::manual(Timestamp::from_secs(1_000));
    let place = NodeAddress::plain(url, 1).unwrap();
    Relay::new(Arc::new(Empty), place, Secret::new(secret), clock)
}

/// A request with these headers as node `a` sends it on to node `b`.
fn sent_on(headers: &HeaderMap) -> Request<Full<Bytes>> {
    let place = NodeAddress::plain("http://b:2", 2).unwrap();
    let owner = Owner {
        record: place.record(5).into(),
        place,
        fresh: true,
    };
    let errand = ForwardedRequest {
        method: &Method::POST,
        path: PATH,
        headers,
        client: CLIENT,
        body: Bytes::from_static(b"[]"),
    };
    relay("http://a:1", "s").request(&owner, errand).unwrap()
}

fn client_headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("origin", "https://page.example"),
        ("cookie", "JSESSIONID=x"),
        ("content-type", "text/plain"),
        ("x-forwarded-for", "198.51.100.1"),
        ("authorization", "Bearer t"),
        ("content-encoding", "gzip"),
        ("connection", "close"),
        ("transfer-encoding", "chunked"),
        ("host", "elsewhere"),
        ("via", "1.1 other"),
        (
            "answerback-relay",
            "1 1000000 198.51.100.1 http://c:3#0000000000000001.1 00",
        ),
    ] {
        headers.append(name, HeaderValue::from_static(value));
    }
    headers
}

#[test]
fn only_what_a_holder_looks_at_is_sent_on_and_nothing_that_pretends_to_be_a_proof() {
    let request = sent_on(&client_headers());
    assert_eq!(request.uri().to_string(), format!("http://b:2{PATH}"));
    let mut names: Vec<_> = request.headers().keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "answerback-relay",
            "content-type",
            "cookie",
            "origin",
            "via"
        ]
    );
    let proofs = request.headers().get_all(proof::HEADER).iter().count();
    assert_eq!(proofs, 1);
}

#[test]
fn a_node_is_believed_and_speaks_for_its_client() {
    let request = sent_on(&HeaderMap::new());
    let holder = relay("http://b:2", "s");
    let said = holder.bearer(&Method::POST, PATH, request.headers());
    assert_eq!(said, (RequestOrigin::Node, Some(CLIENT)));
    let other = holder.bearer(&Method::POST, "/echo/000/abd/xhr_send", request.headers());
    assert_eq!(other, (RequestOrigin::Unproved, None));
    let stranger = relay("http://b:2", "t");
    let said = stranger.bearer(&Method::POST, PATH, request.headers());
    assert_eq!(said, (RequestOrigin::Unproved, None));
}

#[test]
fn whoever_forges_a_header_is_a_client_without_a_word_in_it() {
    let holder = relay("http://b:2", "s");
    let said = holder.bearer(&Method::POST, PATH, &client_headers());
    assert_eq!(said, (RequestOrigin::Client, None));
}

#[test]
fn an_answer_is_passed_on_without_what_belongs_to_the_connection() {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("content-type", "text/plain"),
        ("set-cookie", "JSESSIONID=dummy; path=/"),
        ("connection", "close"),
        ("keep-alive", "timeout=5"),
        ("transfer-encoding", "chunked"),
        ("date", "now"),
    ] {
        headers.append(name, HeaderValue::from_static(value));
    }
    let left = end_to_end(headers);
    let names: Vec<_> = left.keys().map(HeaderName::as_str).collect();
    assert_eq!(names, ["content-type", "set-cookie"]);
}

#[tokio::test]
async fn remembered_owners_are_bounded_in_time_and_number() {
    let relay = relay("http://a:1", "s");
    let now = relay.clock.now();
    let record: Arc<str> = NodeAddress::plain("http://b:2", 2)
        .unwrap()
        .record(5)
        .into();
    for number in 0..KNOWN_MAX + 10 {
        relay.remember(&number.to_string(), &record, now);
    }
    assert_eq!(relay.known.len(), KNOWN_MAX);
    assert!(
        relay
            .owner("1")
            .await
            .unwrap()
            .is_some_and(|owner| !owner.fresh)
    );
    relay.clock.advance(KNOWN_FOR);
    assert!(
        relay.owner("1").await.unwrap().is_none(),
        "the directory is asked again"
    );
    relay.remember("new", &record, relay.clock.now());
    assert_eq!(relay.known.len(), 1);
}
