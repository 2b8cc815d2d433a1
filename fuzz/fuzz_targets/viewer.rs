//! See `targets/viewer.rs`.

#![no_main]

#[path = "../targets/viewer.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::check(data));
