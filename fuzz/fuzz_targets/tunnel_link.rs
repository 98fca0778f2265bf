//! `cargo fuzz run tunnel_link`: see [`tieline_fuzz::tunnel_link`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tieline_fuzz::tunnel_link(data));
