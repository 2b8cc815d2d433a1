//! The API's own JSON, apart from the catalog's stored form.

pub(super) mod campaign;
pub(super) mod host;
pub(super) mod label;
pub(super) mod number;
pub(super) mod object;
pub(super) mod pack;
pub(super) mod query;
pub(super) mod rows;
pub(super) mod team;
pub(super) mod time;
pub(super) mod user;
