//! SockJS and raw WebSocket over warp: sockets and HTTP bodies around the pure sessions of `sockjs`.

pub mod application;
mod bounds;
mod driver;
mod handle;
mod headers;
mod meters;
mod mount;
mod pages;
mod receiving;
mod registry;
mod sending;
pub mod upgrade;
pub mod websocket;

pub use crate::bell::Bell;
pub use crate::sockjs::Slice;
pub use application::{Application, Conversation, Next, Opened};
pub use bounds::Bounds;
pub use mount::{Mount, Surroundings};
