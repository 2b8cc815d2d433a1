//! SockJS and raw WebSocket over warp: sockets and HTTP bodies around the pure sessions of `sockjs`.

#![cfg_attr(
    test,
    allow(
        clippy::disallowed_methods,
        reason = "tests own their tasks and clocks"
    )
)]

pub mod net;

use answerback_base::{clock, limits, names, text, wake};
use answerback_sockjs as sockjs;

mod alarm;
pub mod application;
mod attached;
mod bounds;
mod call;
pub mod directory;
mod frames;
mod handle;
mod headers;
mod location;
mod meters;
mod mount;
mod outbound;
mod pages;
mod receiving;
mod records;
mod registry;
pub mod relay;
mod renewal;
mod sending;
mod streaming;
pub mod upgrade;
pub mod websocket;

pub use crate::clock::{Clock, Timestamp};
pub use crate::sockjs::{Form, Settings, Slice};
pub use crate::wake::{WakeSlot, WakeSlots};
pub use application::{Application, Conversation, Next, Opened};
pub use bounds::Bounds;
pub use directory::Directory;
pub use mount::{Mount, MountContext, SockJsService};
pub use relay::Relay;
