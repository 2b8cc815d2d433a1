//! Answerback: a live-query results broker for osquery fleets.
//!
//! A campaign is a log; a viewer is a cursor. `ARCHITECTURE.md` draws the floors that the
//! modules below stand on, lowest first; `tests/tidy.rs` holds the code to them.

#![cfg_attr(
    test,
    allow(
        clippy::disallowed_methods,
        reason = "tests own their tasks and clocks"
    )
)]

pub use answerback_base::{clock, limits, sampled, text, wake};
pub use answerback_broker as results;
pub use answerback_sockjs as sockjs;
pub use answerback_sockjs_warp::{self as transport, net};
pub use answerback_store as store;
pub use answerback_store::store_contract;

// Floor 0
pub mod telemetry;
// Floor 1
// Floor 2
// Floor 3
pub mod catalog;
// Floor 4
pub mod auth;
// Floor 5
pub mod agents;
pub mod api;
pub mod console;
pub mod control;
pub mod ops;
pub mod viewers;
// Floor 6
pub mod cli;
pub mod config;
pub mod shutdown;
// Floor 7
pub mod app;
