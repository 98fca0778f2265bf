//! `cargo fuzz run openapi`: see [`tieline_fuzz::openapi`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tieline_fuzz::openapi(data));
