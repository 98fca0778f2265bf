//! `cargo fuzz run postgres_answers`: see [`tieline_fuzz::postgres_answers`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tieline_fuzz::postgres_answers(data));
