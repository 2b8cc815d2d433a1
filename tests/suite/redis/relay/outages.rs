//! Clients, nodes and Redis that go away while sessions are relayed.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt;
use serde_json::json;

use super::session::{KINDS, Kind, Session};
use super::{INTERRUPTED, REFUSED, bases, nodes};
use crate::broker::Broker;
use crate::redis::eventually;
use crate::redis_server::{RedisServer, is_installed};

/// Well below the 5 s after which a session without a receiver ends anyway.
const AT_ONCE: Duration = Duration::from_millis(2_500);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sessions_of_a_node_that_is_killed_end_cleanly_and_free_their_ids() {
    if !is_installed() {
        return;
    }
    let server = RedisServer::start();
    let mut nodes = nodes(&server, 3, &[]).await;
    let bases = bases(&nodes);
    let opened = async |id: &str, kind| {
        let session = Session::new(&bases[0], kind, id);
        assert_eq!(session.poll(&bases[0], &[]).await, (200, "o\n".to_owned()));
        session
    };
    let mut streaming = opened("streaming", Kind::XhrStreaming).await;
    streaming.base.clone_from(&bases[1]);
    let waiting = opened("waiting", Kind::Xhr).await;
    let sending = opened("sending", Kind::Xhr).await;
    let mut asked = Vec::new();
    for kind in KINDS {
        let mut session = opened(&format!("{kind:?}"), kind).await;
        session.base.clone_from(&bases[2]);
        asked.push(session);
    }
    // A stream and a poll that are relayed when it happens.
    let body = streaming
        .request(&bases[1], Method::POST, "xhr_streaming", &[], Bytes::new())
        .await
        .into_body();
    let poll = waiting.poll(&bases[1], &[]);
    let kill = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        nodes[0].crash().await;
        body.collect().await
    };
    let (poll, stream) = tokio::join!(poll, kill);
    assert_eq!(poll, (200, format!("{INTERRUPTED}\n")));
    let stream = stream.expect("the response ends in order").to_bytes();
    assert_eq!(stream.len(), 2049, "nothing but the prelude");
    assert_eq!(streaming.frame().await, INTERRUPTED, "the next one tells");
    assert_eq!(sending.send_to(&bases[2], &[]).await, 404);
    for mut session in asked {
        assert_eq!(session.frame().await, INTERRUPTED);
        session.leave();
        assert_eq!(session.frame().await, "o", "the id is free");
    }
    assert_eq!(sending.poll(&bases[1], &[]).await.1, "o\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_back_does_not_know_the_sessions_of_its_earlier_start() {
    if !is_installed() {
        return;
    }
    let server = RedisServer::start();
    let mut nodes = nodes(&server, 2, &[]).await;
    let bases = bases(&nodes);
    let session = |id| Session::new(&bases[0], Kind::Xhr, id);
    let (here, there, sender) = (session("here"), session("there"), session("sender"));
    for session in [&here, &there, &sender] {
        assert_eq!(session.poll(&bases[0], &[]).await.1, "o\n");
    }
    nodes[0].crash_and_restart().await;
    let interrupted = (200, format!("{INTERRUPTED}\n"));
    assert_eq!(here.poll(&bases[0], &[]).await, interrupted);
    assert_eq!(there.poll(&bases[1], &[]).await, interrupted);
    assert_eq!(sender.send_to(&bases[1], &[]).await, 404);
    assert_eq!(here.poll(&bases[1], &[]).await.1, "o\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_a_relayed_response_ends_its_session_at_once() {
    if !is_installed() {
        return;
    }
    let server = RedisServer::start();
    let nodes = nodes(&server, 2, &[]).await;
    let bases = bases(&nodes);
    for kind in [
        Kind::XhrStreaming,
        Kind::EventSource,
        Kind::Xhr,
        Kind::Jsonp,
    ] {
        let mut session = Session::new(&bases[0], kind, &format!("{kind:?}"));
        assert_eq!(session.poll(&bases[0], &[]).await.1, "o\n");
        session.base.clone_from(&bases[1]);
        let moment = tokio::time::timeout(Duration::from_millis(500), session.frame()).await;
        assert!(moment.is_err(), "there is nothing to hear: {moment:?}");
        // A poll that was waited for in vain has been left by now; a stream is still there.
        if matches!(kind, Kind::XhrStreaming | Kind::EventSource) {
            assert_eq!(session.send_to(&bases[0], &[]).await, 204);
        }
        session.leave();
        let left = Instant::now();
        eventually("the session is over", AT_ONCE, async || {
            session.send_to(&bases[0], &[]).await == 404
        })
        .await;
        assert!(left.elapsed() < AT_ONCE, "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_redis_is_down_known_sessions_go_on_and_unknown_ids_are_told_to_wait() {
    if !is_installed() {
        return;
    }
    let mut server = RedisServer::start();
    let nodes = nodes(&server, 2, &[]).await;
    let bases = bases(&nodes);
    let held = Session::new(&bases[0], Kind::Xhr, "held");
    assert_eq!(held.poll(&bases[0], &[]).await.1, "o\n");
    let known = Session::new(&bases[0], Kind::Xhr, "known");
    assert_eq!(known.poll(&bases[0], &[]).await.1, "o\n");
    assert_eq!(known.send_to(&bases[1], &[]).await, 204);
    server.kill();
    let nonsense = || [json!({ "type": "nonsense" })];
    for (session, base) in [(&held, &bases[0]), (&known, &bases[1])] {
        assert_eq!(session.send_to(base, &nonsense()).await, 204);
        assert_eq!(session.poll(base, &[]).await, (200, format!("{REFUSED}\n")));
    }
    let stranger = Session::new(&bases[0], Kind::Xhr, "stranger");
    let (status, said) = stranger.poll(&bases[0], &[]).await;
    assert_eq!(status, 503);
    assert!(said.contains("which node holds this session"), "{said}");
    assert_eq!(stranger.send_to(&bases[1], &[]).await, 503);
    server.restart();
    eventually(
        "new sessions are opened",
        Duration::from_secs(5),
        async || stranger.poll(&bases[0], &[]).await.1 == "o\n",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_are_gone_with_their_sessions_and_a_stop_says_goodbye_to_relayed_receivers() {
    if !is_installed() {
        return;
    }
    let server = RedisServer::start();
    let mut nodes = nodes(&server, 2, &[]).await;
    let bases = bases(&nodes);
    let records = || server.cli(&["keys", "ab:session:*"]);
    let mut session = Session::new(&bases[0], Kind::XhrStreaming, "short");
    assert_eq!(session.frame().await, "o");
    assert!(
        records().contains("/api/v1/fleet/results/short"),
        "{}",
        records()
    );
    session.leave();
    eventually("the record is gone", AT_ONCE, async || {
        records().trim().is_empty()
    })
    .await;

    let mut session = Session::new(&bases[0], Kind::XhrStreaming, "relayed");
    assert_eq!(session.poll(&bases[0], &[]).await.1, "o\n");
    session.base.clone_from(&bases[1]);
    let stopping: &mut Broker = &mut nodes[1];
    let stop = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        stopping.stop().await
    };
    let (heard, stopped) = tokio::join!(session.frame(), stop);
    assert_eq!(heard, r#"c[3000,"Go away!"]"#);
    assert!(stopped);
}
