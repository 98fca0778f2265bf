//! `cargo fuzz run websocket`: see [`tieline_fuzz::websocket`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tieline_fuzz::websocket(data));
