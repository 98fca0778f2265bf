//! `cargo fuzz run hello`: see [`tieline_fuzz::hello`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tieline_fuzz::hello(data));
