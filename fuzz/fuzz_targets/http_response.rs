//! `cargo fuzz run http_response`: see [`tieline_fuzz::http_response`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tieline_fuzz::http_response(data));
