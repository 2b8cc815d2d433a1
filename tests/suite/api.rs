//! The operators' API over real HTTP, on the embedded store, with time moved by hand. Every answer is held
//! against the shape that the API's own OpenAPI document promises for it.

mod campaigns;
mod compat;
pub mod documented;
mod dry_run;
mod errors;
mod hosts;
mod precise;
mod prefixes;
mod roles;
pub mod schema;
mod server;
mod sessions;
mod specs;
mod sync;
mod tables;
mod trust;
mod users;
