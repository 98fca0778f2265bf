//! Sans-I/O codecs: bytes to meaning and back, without sockets or clocks.
//!
//! Owns the formats that Tieline reads before it knows whom it talks to: [`proxy`] headers, the first bytes
//! of a connection ([`hello`]), and the [`greeting`]s that servers answer a health probe with; and the
//! [`tunnel`], whose streams survive their connections. Refuses to know where bytes come from, what time it
//! is, and what a config looks like. Start with [`Parsed`]: every parser answers with it.
//!
//! All of these bytes come from strangers. Every length is checked, every input is bounded, and what a parser
//! said about some bytes stays true when more of them arrive.

mod cursor;
pub mod greeting;
pub mod hello;
pub mod http1;
mod parsed;
pub mod postgres;
pub mod proxy;
pub mod tunnel;
pub mod websocket;

pub use parsed::Parsed;
