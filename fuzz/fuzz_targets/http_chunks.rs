//! `cargo fuzz run http_chunks`: see [`tieline_fuzz::http_chunks`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tieline_fuzz::http_chunks(data));
