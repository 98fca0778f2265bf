//! `cargo fuzz run filter`: see [`tieline_fuzz::filter`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tieline_fuzz::filter(data));
