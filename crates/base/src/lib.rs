//! What every part stands on: time as a value, bounds, wake-ups, and the names of metrics. No I/O, no runtime.

#![cfg_attr(
    test,
    allow(
        clippy::disallowed_methods,
        reason = "tests own their tasks and clocks"
    )
)]

pub mod clock;
pub mod limits;
pub mod names;
pub mod sampled;
pub mod text;
pub mod wake;
