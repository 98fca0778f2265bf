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
mod postgres_answers;
mod postgres_login;
mod postgres_messages;
mod postgres_sql;
mod postgres_startup;
mod prefixes;
mod proxy;
mod tunnel_frame;
mod tunnel_link;
mod websocket;

pub use config::config;
pub use filter::filter;
pub use greeting::greeting;
pub use hello::hello;
pub use http_chunks::http_chunks;
pub use http_request::http_request;
pub use http_response::http_response;
pub use http_target::http_target;
pub use openapi::openapi;
pub use postgres_answers::postgres_answers;
pub use postgres_login::postgres_login;
pub use postgres_messages::postgres_messages;
pub use postgres_sql::postgres_sql;
pub use postgres_startup::postgres_startup;
pub use proxy::proxy;
pub use tunnel_frame::tunnel_frame;
pub use tunnel_link::tunnel_link;
pub use websocket::websocket;

/// A target: any bytes in, a panic when a promise is broken.
pub type Target = fn(&[u8]);

/// Every target by the name of its corpus folder.
pub const TARGETS: [(&str, Target); 18] = [
    ("config", config),
    ("filter", filter),
    ("greeting", greeting),
    ("hello", hello),
    ("http_chunks", http_chunks),
    ("http_request", http_request),
    ("http_response", http_response),
    ("http_target", http_target),
    ("openapi", openapi),
    ("postgres_answers", postgres_answers),
    ("postgres_login", postgres_login),
    ("postgres_messages", postgres_messages),
    ("postgres_sql", postgres_sql),
    ("postgres_startup", postgres_startup),
    ("proxy", proxy),
    ("tunnel_frame", tunnel_frame),
    ("tunnel_link", tunnel_link),
    ("websocket", websocket),
];
