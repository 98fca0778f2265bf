//! `cargo fuzz run postgres_sql`: see [`tieline_fuzz::postgres_sql`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tieline_fuzz::postgres_sql(data));
