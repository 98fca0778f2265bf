//! `cargo fuzz run http_target`: see [`tieline_fuzz::http_target`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tieline_fuzz::http_target(data));
