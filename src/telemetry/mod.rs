//! What operators see: metrics and logs.

pub mod lines;
pub mod logging;
pub mod metrics;
