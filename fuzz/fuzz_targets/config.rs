//! `cargo fuzz run config`: see [`tieline_fuzz::config`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tieline_fuzz::config(data));
