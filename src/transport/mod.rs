//! SockJS and raw WebSocket over warp: sockets and HTTP bodies around the pure sessions of `sockjs`.

pub mod application;
mod bounds;
mod call;
pub mod directory;
mod driver;
mod handle;
mod headers;
mod meters;
mod mount;
mod pages;
mod receiving;
mod records;
mod registry;
pub mod relay;
mod renewal;
mod sending;
pub mod upgrade;
pub mod websocket;
mod whereabouts;

pub use crate::bell::Bell;
pub use crate::sockjs::Slice;
pub use application::{Application, Conversation, Next, Opened};
pub use bounds::Bounds;
pub use directory::Directory;
pub use mount::{Mount, Surroundings};
pub use relay::Relay;
