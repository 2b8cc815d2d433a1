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

// Floor 0
pub mod bell;
pub mod clock;
pub mod limits;
pub mod sockjs;
pub mod telemetry;
pub mod text;
// Floor 1
pub mod net;
pub mod results;
// Floor 2
pub mod store;
pub mod transport;
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
