//! `cargo fuzz run greeting`: see [`tieline_fuzz::greeting`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tieline_fuzz::greeting(data));
