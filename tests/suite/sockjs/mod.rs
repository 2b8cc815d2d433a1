//! The SockJS protocol over real sockets: the suite's cases under their own names, and what it leaves out.

mod bodies;
mod client;
mod connections;
mod hostile;
mod lifecycle;
mod pages;
mod polling;
mod scripts;
mod server;
#[path = "../../../crates/sockjs-warp/examples/sockjs_test_server/services.rs"]
mod services;
mod streaming;
mod websocket;
