//! See `targets/session.rs`.

#![no_main]

#[path = "../targets/session.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::check(data));
