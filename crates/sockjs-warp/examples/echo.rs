//! An echo over SockJS: `cargo run -p answerback-sockjs-warp --example echo`, then connect to http://127.0.0.1:8080/echo.

use std::sync::Arc;

use answerback_sockjs_warp::{
    Application, Clock, Conversation, Form, Mount, MountContext, Next, Opened, Settings, Timestamp,
    net,
};
use bytes::Bytes;

struct Echo;
/// What this client has said and not heard yet.
struct Client(Vec<Bytes>);

impl Application for Echo {
    fn open(&self, _opened: Opened, _now: Timestamp) -> Box<dyn Conversation> {
        Box::new(Client(Vec::new()))
    }
}

impl Conversation for Client {
    fn message(&mut self, text: &str, _now: Timestamp) {
        self.0.push(Bytes::copy_from_slice(text.as_bytes()));
    }

    fn next(&mut self, _form: Form, _budget: usize, _now: Timestamp) -> Next {
        match self.0.is_empty() {
            true => Next::Wait,
            false => Next::Messages(std::mem::take(&mut self.0).into()),
        }
    }
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let around = MountContext::new(Clock::System);
    let echo = Mount::new("/echo", Settings::default(), Arc::new(Echo), around);
    net::serve_filter(([127, 0, 0, 1], 8080).into(), echo.filter()).await
}
