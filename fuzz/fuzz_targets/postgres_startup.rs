//! `cargo fuzz run postgres_startup`: see [`tieline_fuzz::postgres_startup`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tieline_fuzz::postgres_startup(data));
