//! How sessions begin and end over time: heartbeats, disconnects, the server's own stop.

use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use answerback::sockjs::Settings;
use answerback::sockjs::settings::Timing;
use answerback::transport::Mount;
use socket2::{Domain, Socket as Socket2, Type};

use super::client::Client;
use super::server::Server;
use super::services::{Amplify, Echo};
use super::websocket::Socket;

fn echo(timing: Timing) -> Server {
    let settings = Settings {
        timing,
        ..Settings::default()
    };
    Server::start(|around| {
        let mount = Mount::new("/echo", settings, Arc::new(Echo), around.clone());
        let filter = mount.filter();
        (vec![mount], filter)
    })
}

#[test]
fn heartbeats_come_on_streams_and_end_polls() {
    let server = echo(Timing {
        heartbeat: Duration::from_millis(200),
        ..Timing::default()
    });
    let mut client = Client::to(server.address);
    client.open("POST", "/echo/000/a/xhr_streaming");
    assert_eq!(client.chunk().unwrap().len(), 2049);
    let frames: Vec<String> = (0..4).map(|_| client.chunk().unwrap()).collect();
    assert_eq!(frames, ["o\n", "h\n", "h\n", "h\n"]);
    let mut client = Client::to(server.address);
    let poll = || "/echo/000/b/xhr";
    assert_eq!(client.ask("POST", poll(), &[], "").body, "o\n");
    assert_eq!(client.ask("POST", poll(), &[], "").body, "h\n");
    assert_eq!(client.ask("POST", poll(), &[], "").body, "h\n");
}

#[test]
fn a_session_without_a_receiver_ends_and_its_id_is_new_again() {
    let server = echo(Timing {
        disconnect: Duration::from_millis(300),
        ..Timing::default()
    });
    let mut client = Client::to(server.address);
    assert_eq!(client.ask("POST", "/echo/000/a/xhr", &[], "").body, "o\n");
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!(server.mounts[0].sessions(), 0);
    let send = client.ask("POST", "/echo/000/a/xhr_send", &[], "[\"a\"]");
    assert_eq!(send.status(), 404);
    assert_eq!(client.ask("POST", "/echo/000/a/xhr", &[], "").body, "o\n");
}

#[test]
fn a_waiting_receiver_keeps_its_session() {
    let server = echo(Timing {
        disconnect: Duration::from_millis(300),
        ..Timing::default()
    });
    let mut client = Client::to(server.address);
    assert_eq!(client.ask("POST", "/echo/000/a/xhr", &[], "").body, "o\n");
    client.request("POST", "/echo/000/a/xhr", &[], b"");
    std::thread::sleep(Duration::from_millis(700));
    let mut sender = Client::to(server.address);
    let send = sender.ask("POST", "/echo/000/a/xhr_send", &[], "[\"a\"]");
    assert_eq!(send.status(), 204);
    assert_eq!(client.answer().body, "a[\"a\"]\n");
}

#[test]
fn a_stream_that_takes_nothing_is_given_up_with_its_connection() {
    let settings = Settings {
        timing: Timing {
            stall: Duration::from_millis(300),
            ..Timing::default()
        },
        response_limit: usize::MAX,
        ..Settings::default()
    };
    let server = Server::start(|around| {
        let mount = Mount::new("/amplify", settings, Arc::new(Amplify), around.clone());
        let filter = mount.filter();
        (vec![mount], filter)
    });
    // With a fixed buffer, because Linux lets others grow to megabytes.
    let socket = Socket2::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&server.address.into()).unwrap();
    let mut stalled = TcpStream::from(socket);
    let request = b"POST /amplify/000/a/xhr_streaming HTTP/1.1\r\nhost: x\r\n\r\n";
    stalled.write_all(request).unwrap();
    stalled.peek(&mut [0]).unwrap();
    let mut sender = Client::to(server.address);
    let deadline = Instant::now() + Duration::from_secs(20);
    while server.mounts[0].sessions() > 0 {
        assert!(Instant::now() < deadline, "the session is still there");
        sender.ask("POST", "/amplify/000/a/xhr_send", &[], "[\"18\"]");
    }
    // What the server still had for it is gone. Were it read now, the response might still end in order.
    let error = loop {
        assert!(Instant::now() < deadline, "the connection is still there");
        match stalled.take_error().unwrap() {
            Some(error) => break error.kind(),
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    assert_eq!(error, ErrorKind::ConnectionReset);
}

#[test]
fn everybody_is_told_when_the_server_stops() {
    let server = echo(Timing::default());
    let mut stream = Client::to(server.address);
    stream.open("POST", "/echo/000/a/xhr_streaming");
    assert!(stream.chunk().is_some() && stream.chunk().is_some());
    let mut poll = Client::to(server.address);
    assert_eq!(poll.ask("POST", "/echo/000/b/xhr", &[], "").body, "o\n");
    poll.request("POST", "/echo/000/b/xhr", &[], b"");
    assert!(poll.is_silent());
    let mut socket = Socket::open_at(server.address, "/echo/000/c/websocket");
    assert_eq!(socket.text(), "o");
    let closing = server.mounts[0].close_all(3000, "Go away!");
    server.runtime.block_on(closing);
    assert_eq!(stream.chunk().unwrap(), "c[3000,\"Go away!\"]\n");
    assert_eq!(stream.chunk(), None);
    assert_eq!(poll.answer().body, "c[3000,\"Go away!\"]\n");
    assert_eq!(socket.text(), "c[3000,\"Go away!\"]");
    assert!(socket.is_closed());
    let refused = Client::to(server.address).ask("POST", "/echo/000/d/xhr", &[], "");
    assert_eq!(refused.status(), 503);
}

/// Reads a response's body at this many bytes a tenth of a second; returns its length.
fn read_slowly(socket: &mut TcpStream, step: usize, until: &[u8]) -> usize {
    use std::io::Read;
    let (mut seen, mut buffer) = (Vec::new(), vec![0; step]);
    loop {
        let count = socket.read(&mut buffer).unwrap();
        assert!(count > 0, "the server has closed");
        seen.extend_from_slice(&buffer[..count]);
        if seen.windows(until.len()).any(|window| window == until) {
            return seen.len();
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A socket whose kernel takes little at a time.
fn narrow(server: &Server) -> TcpStream {
    let socket = Socket2::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4 * 1024).unwrap();
    socket.connect(&server.address.into()).unwrap();
    let socket: TcpStream = socket.into();
    socket
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    socket
}

/// Receives a message of 119 kB at 60 kB/s, four times as long as the delay; then the session must be there.
fn receive_slowly(server: &Server, transport: &str) {
    let message = format!("[\"{}~\"]", "x".repeat(119_000));
    let (path, callback) = transport.split_once('?').unwrap_or((transport, ""));
    let session = format!("/echo/000/slow{path}");
    let method = if path.starts_with("xhr") {
        "POST"
    } else {
        "GET"
    };
    let request = format!(
        "{method} {session}/{path}?{callback} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
    );
    let mut slow = narrow(server);
    slow.write_all(request.as_bytes()).unwrap();
    let mut quick = Client::to(server.address);
    let mut send = |message: &str| {
        let sent = quick.ask("POST", &format!("{session}/xhr_send"), &[], message);
        assert_eq!(sent.status(), 204, "{transport}: the session is lost");
    };
    // A poll ends with its open frame; a stream goes on, and its session is there when its head is.
    let is_poll = ["xhr", "jsonp"].contains(&path);
    read_slowly(&mut slow, 4096, if is_poll { b"o" } else { b"\r\n\r\n" });
    std::thread::sleep(Duration::from_millis(100));
    send(&message);
    if is_poll {
        slow.write_all(request.as_bytes()).unwrap();
    }
    let since = Instant::now();
    let read = read_slowly(&mut slow, 6_000, b"~");
    assert!(read >= 119_000, "{transport}: {read}");
    assert!(since.elapsed() > Duration::from_secs(1), "{transport}");
    send("[\"a\"]");
}

#[test]
fn a_receiver_that_reads_slower_than_the_disconnect_delay_keeps_its_session() {
    let server = echo(Timing {
        disconnect: Duration::from_millis(500),
        ..Timing::default()
    });
    for transport in [
        "xhr",
        "xhr_streaming",
        "jsonp?c=f",
        "eventsource",
        "htmlfile?c=f",
    ] {
        receive_slowly(&server, transport);
    }
}
