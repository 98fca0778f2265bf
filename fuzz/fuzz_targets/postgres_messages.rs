//! `cargo fuzz run postgres_messages`: see [`tieline_fuzz::postgres_messages`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tieline_fuzz::postgres_messages(data));
