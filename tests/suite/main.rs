//! Tests over real sockets, in one binary: each module is one face of the broker.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed"
)]
#![allow(
    unreachable_pub,
    reason = "one binary: modules share what they find useful"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "tests own their tasks and clocks"
)]
#![allow(clippy::print_stderr, reason = "a test says what it skips")]

mod agents;
mod api;
mod bad_viewers;
mod balancers;
mod blocks;
mod broker;
mod clients;
mod command_line;
mod console;
mod conversations;
mod document;
mod durability;
mod endings;
mod full;
mod hanging;
mod hosts;
mod http;
mod incomplete;
mod losses;
mod machinery;
mod main_job;
mod messages;
mod migrate;
mod readme;
mod recovery;
mod redis;
mod redis_server;
mod repair;
mod rights;
mod settings;
mod signals;
mod slow;
mod sockjs;
mod strangers;
mod tls;
mod vanishing;
mod viewer;
mod websocket;
mod wire;
