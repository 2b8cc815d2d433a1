//! See `targets/payload.rs`.

#![no_main]

#[path = "../targets/payload.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::check(data));
