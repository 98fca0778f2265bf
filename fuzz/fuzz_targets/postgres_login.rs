//! `cargo fuzz run postgres_login`: see [`tieline_fuzz::postgres_login`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tieline_fuzz::postgres_login(data));
