//! A chat room over SockJS: `cargo run -p answerback-sockjs-warp --example chat`, then connect to http://127.0.0.1:8080/chat.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use answerback_sockjs_warp::{
    Application, Clock, Conversation, Form, Mount, MountContext, Next, Opened, Settings, Timestamp,
    WakeSlot, WakeSlots, net,
};
use bytes::Bytes;
use warp::Filter;

/// What has been said lately, how much was said before, and the wake slots of all who listen.
#[derive(Default)]
struct Room(VecDeque<Bytes>, usize, WakeSlots);

struct Chat(Arc<Mutex<Room>>);

/// A guest is a position in the talk, from the first line kept on.
struct Guest(Arc<Mutex<Room>>, usize, WakeSlot);

impl Application for Chat {
    fn open(&self, opened: Opened, _now: Timestamp) -> Box<dyn Conversation> {
        let mut room = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        room.2.add(&opened.wake_slot);
        Box::new(Guest(Arc::clone(&self.0), room.1, opened.wake_slot))
    }
}

impl Conversation for Guest {
    fn message(&mut self, text: &str, _now: Timestamp) {
        let mut room = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        room.0.push_back(Bytes::copy_from_slice(text.as_bytes()));
        if room.0.len() > 1000 {
            room.0.pop_front();
            room.1 += 1;
        }
        room.2.notify();
    }

    fn next(&mut self, _form: Form, _budget: usize, _now: Timestamp) -> Next {
        let room = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let unheard = room.0.iter().skip(self.1.saturating_sub(room.1));
        let lines: Vec<Bytes> = unheard.take(50).cloned().collect();
        self.1 = self.1.max(room.1) + lines.len();
        match lines.is_empty() {
            true => Next::Wait,
            false => Next::Messages(lines.into()),
        }
    }

    fn closed(&mut self, _now: Timestamp) {
        let mut room = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        room.2.remove(&self.2);
    }
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let (application, around) = (Chat(Arc::default()), MountContext::new(Clock::System));
    let chat = Mount::new("/chat", Settings::default(), Arc::new(application), around);
    let routes = chat
        .filter()
        .or(warp::path::end().map(|| "SockJS at /chat"));
    net::serve_filter(([127, 0, 0, 1], 8080).into(), routes).await
}
