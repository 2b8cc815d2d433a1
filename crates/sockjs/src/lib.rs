//! The SockJS 0.3.3 and WebSocket protocols, pure: bytes and time come in, frames and commands go out.

#![cfg_attr(
    test,
    allow(
        clippy::disallowed_methods,
        reason = "tests own their tasks and clocks"
    )
)]

use answerback_base::clock;

pub mod close;
pub mod codec;
pub mod coding;
pub mod deflate;
pub mod form;
pub mod frame;
pub mod iframe;
pub mod inbound;
pub mod inflate;
pub mod info;
pub mod outbox;
pub mod path;
pub mod payload;
pub mod session;
pub mod settings;

pub use close::Close;
pub use coding::Coding;
pub use form::{Form, Parts, Slice, Transport};
pub use frame::{Frame, Framing};
pub use outbox::Outbox;
pub use session::Session;
pub use settings::Settings;
