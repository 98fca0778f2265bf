//! `cargo fuzz run proxy`: see [`tieline_fuzz::proxy`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tieline_fuzz::proxy(data));
