//! See `targets/inbound.rs`.

#![no_main]

#[path = "../targets/inbound.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::check(data));
