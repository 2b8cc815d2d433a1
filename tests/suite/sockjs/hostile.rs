//! Clients that leave, stall, flood or lie.

use std::sync::Arc;
use std::time::{Duration, Instant};

use answerback::clock::Clock;
use answerback::limits::permits::Permits;
use answerback::limits::rate::{Allowance, Rate};
use answerback::sockjs::Settings;
use answerback::transport::{Bounds, Mount};

use super::client::{Client, post};
use super::server::{Server, session};
use super::services::Echo;
use super::streaming::opened_stream;
use super::websocket::Socket;

/// A server of its own with one echo.
fn echo(settings: Settings) -> Server {
    echo_with(settings, |_| {})
}

fn echo_with(settings: Settings, adjust: impl FnOnce(&mut Bounds)) -> Server {
    Server::start(|around| {
        let mut around = around.clone();
        adjust(&mut around.bounds);
        let mount = Mount::new("/echo", settings, Arc::new(Echo), around);
        let filter = mount.filter();
        (vec![mount], filter)
    })
}

/// Waits until a condition holds, which it must before long.
fn eventually(what: &str, holds: impl Fn() -> bool) {
    let patience = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < patience, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_client_that_leaves_ends_its_session_at_once() {
    let server = echo(Settings::default());
    let mut client = Client::to(server.address);
    client.open("POST", "/echo/000/a/xhr_streaming");
    client.chunk().unwrap();
    client.chunk().unwrap();
    assert_eq!(server.mounts[0].sessions(), 1);
    drop(client);
    let left = Instant::now();
    eventually("session gone", || server.mounts[0].sessions() == 0);
    assert!(left.elapsed() < Duration::from_secs(2), "only by a timer");
}

#[test]
fn a_client_that_leaves_within_a_chunk_harms_nobody() {
    let path = session("amplify");
    let mut leaver = Client::connect();
    leaver.open("POST", &format!("{path}/xhr_streaming"));
    leaver.take(2049);
    assert_eq!(
        post(&format!("{path}/xhr_send"), "[\"18\",\"18\",\"18\"]").status(),
        204
    );
    leaver.take(10_000);
    drop(leaver);
    opened_stream(&session("amplify"));
}

#[test]
fn a_body_that_ends_within_a_chunk_delivers_nothing() {
    let path = session("echo");
    assert_eq!(post(&format!("{path}/xhr"), "").body, "o\n");
    let mut leaver = Client::connect();
    leaver.write(format!(
        "POST {path}/xhr_send HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\n[\"a"
    ));
    drop(leaver);
    assert_eq!(post(&format!("{path}/xhr_send"), "[\"b\"]").status(), 204);
    assert_eq!(post(&format!("{path}/xhr"), "").body, "a[\"b\"]\n");
}

#[test]
fn a_receiver_that_never_reads_blocks_nobody_and_its_session_ends() {
    let settings = Settings {
        response_limit: 1 << 30,
        timing: answerback::sockjs::settings::Timing {
            stall: Duration::from_millis(500),
            ..Default::default()
        },
        ..Settings::default()
    };
    let server = echo(settings);
    let mut stuck = Client::to(server.address);
    stuck.open("POST", "/echo/000/stuck/xhr_streaming");
    let mut sender = Client::to(server.address);
    let body = format!("[\"{}\"]", "x".repeat(500_000));
    // More than the kernel's buffers on both sides hold, less than the outbox.
    let mut sent = 0;
    let send = "/echo/000/stuck/xhr_send";
    while sent < 24 && sender.ask("POST", send, &[], &body).status() == 204 {
        sent += 1;
    }
    let mut other = Client::to(server.address);
    assert_eq!(
        other.ask("POST", "/echo/000/other/xhr", &[], "").body,
        "o\n"
    );
    assert_eq!(
        sender
            .ask("POST", "/echo/000/other/xhr_send", &[], "[\"a\"]")
            .status(),
        204
    );
    assert_eq!(
        other.ask("POST", "/echo/000/other/xhr", &[], "").body,
        "a[\"a\"]\n"
    );
    eventually("stuck session gone", || {
        Client::to(server.address)
            .ask("POST", send, &[], "[]")
            .status()
            == 404
    });
}

#[test]
fn ten_thousand_abandoned_sessions_are_forgotten() {
    let settings = Settings {
        timing: answerback::sockjs::settings::Timing {
            disconnect: Duration::from_secs(2),
            ..Default::default()
        },
        ..Settings::default()
    };
    let server = echo_with(settings, |bounds| {
        let allowance = Allowance {
            burst: 20_000.try_into().unwrap(),
            every: Duration::from_millis(1),
        };
        bounds.openings = Arc::new(Rate::new(allowance, 100, &Clock::System));
    });
    let mut client = Client::to(server.address);
    let opened = Instant::now();
    for some in 0..100 {
        let request = |number: u32| {
            format!("POST /echo/000/{number}/xhr HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")
        };
        let numbers = (some * 100)..(some * 100 + 100);
        let batch: String = numbers.clone().map(request).collect();
        client.write(batch);
        for _ in numbers {
            assert_eq!(client.answer().body, "o\n");
        }
    }
    if opened.elapsed() < Duration::from_secs(2) {
        assert_eq!(server.mounts[0].sessions(), 10_000);
    }
    eventually("all forgotten", || server.mounts[0].sessions() == 0);
}

#[test]
fn an_address_may_open_only_so_many_sessions() {
    let server = echo_with(Settings::default(), |bounds| {
        bounds.sessions = Permits::new(3, 100);
    });
    let mut client = Client::to(server.address);
    for number in 0..3 {
        let path = format!("/echo/000/{number}/xhr");
        assert_eq!(client.ask("POST", &path, &[], "").status(), 200);
    }
    let refused = client.ask("POST", "/echo/000/4/xhr", &[], "");
    assert_eq!(refused.status(), 503);
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(
        client
            .ask("POST", "/echo/000/1/xhr_send", &[], "[\"a\"]")
            .status(),
        204
    );
    assert_eq!(client.ask("POST", "/echo/000/1/xhr", &[], "").status(), 200);
    assert!(Socket::refused(server.address, "/echo/websocket", 503));
}

#[test]
fn an_address_may_open_sessions_only_so_fast() {
    let server = echo_with(Settings::default(), |bounds| {
        let allowance = Allowance {
            burst: 2.try_into().unwrap(),
            every: Duration::from_secs(60),
        };
        bounds.openings = Arc::new(Rate::new(allowance, 100, &Clock::System));
    });
    let mut client = Client::to(server.address);
    assert_eq!(client.ask("POST", "/echo/000/1/xhr", &[], "").status(), 200);
    let socket = Socket::open_at(server.address, "/echo/websocket");
    let refused = client.ask("POST", "/echo/000/2/xhr", &[], "");
    assert_eq!(refused.status(), 429);
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait));
    assert!(Socket::refused(server.address, "/echo/websocket", 429));
    drop(socket);
}

#[test]
fn a_socket_gives_its_place_back() {
    let server = echo_with(Settings::default(), |bounds| {
        bounds.sessions = Permits::new(1, 100);
    });
    let socket = Socket::open_at(server.address, "/echo/websocket");
    assert!(Socket::refused(server.address, "/echo/websocket", 503));
    drop(socket);
    eventually("place given back", || {
        !Socket::refused(server.address, "/echo/websocket", 503)
    });
}

#[test]
fn pages_that_are_on_no_list_are_refused() {
    let server = echo(Settings {
        origins: answerback::sockjs::settings::Origins::Only(vec!["http://a.example".into()]),
        ..Settings::default()
    });
    let ask = |origin: &str| {
        let headers = [("origin", origin)];
        Client::to(server.address).ask("GET", "/echo/info", &headers, "")
    };
    assert_eq!(ask("http://a.example").status(), 200);
    let refused = ask("http://b.example");
    assert_eq!(refused.status(), 403);
    assert_eq!(refused.header("access-control-allow-origin"), None);
    assert_eq!(ask("null").status(), 403);
    // The server's own pages are never shut out.
    for own in ["http://localhost", "https://LocalHost:443"] {
        assert_eq!(ask(own).status(), 200, "{own}");
    }
    for other in ["http://localhost:81", "http://localhost.example"] {
        assert_eq!(ask(other).status(), 403, "{other}");
    }
    let none = Client::to(server.address).ask("GET", "/echo/info", &[], "");
    assert_eq!(none.status(), 200);
}

#[test]
fn header_values_that_are_no_text_are_survived() {
    let mut client = Client::connect();
    client.write(b"GET /echo/info HTTP/1.1\r\nhost: x\r\norigin: \xff\xfe\r\ncookie: \xff\r\n\r\n");
    assert_eq!(client.head().status, 200);
}
