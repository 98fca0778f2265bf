//! `cargo fuzz run http_request`: see [`tieline_fuzz::http_request`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tieline_fuzz::http_request(data));
