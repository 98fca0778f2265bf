//! `cargo fuzz run tunnel_frame`: see [`tieline_fuzz::tunnel_frame`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tieline_fuzz::tunnel_frame(data));
