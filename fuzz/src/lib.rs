//! Fuzz targets as plain functions: each takes any bytes and panics when a promise is broken.
//!
//! `cargo fuzz run NAME` drives them for hours (README.md); `tests/replay.rs` drives them over the corpus
//! and some thousand mutations of it in every test run. A target checks invariants, not only the absence of
//! panics: an answer is final, what is written reads back, no length leaves its bounds.

mod config;
mod filter;
mod greeting;
mod hello;
mod http_chunks;
mod http_request;
mod http_response;
mod http_target;
mod openapi;
mod prefixes;
mod proxy;

pub use config::config;
pub use filter::filter;
pub use greeting::greeting;
pub use hello::hello;
pub use http_chunks::http_chunks;
pub use http_request::http_request;
pub use http_response::http_response;
pub use http_target::http_target;
pub use openapi::openapi;
pub use proxy::proxy;

/// A target: any bytes in, a panic when a promise is broken.
pub type Target = fn(&[u8]);

/// Every target by the name of its corpus folder.
pub const TARGETS: [(&str, Target); 10] = [
    ("config", config),
    ("filter", filter),
    ("greeting", greeting),
    ("hello", hello),
    ("http_chunks", http_chunks),
    ("http_request", http_request),
    ("http_response", http_response),
    ("http_target", http_target),
    ("openapi", openapi),
    ("proxy", proxy),
];
