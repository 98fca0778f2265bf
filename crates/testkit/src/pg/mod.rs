//! PostgreSQL's protocol, byte by byte: what a client may send, and what a server answers, made comparable.
//!
//! A test says exactly which bytes go out and in which pieces, which no driver lets it do. Start with
//! [`Conversation`].

mod conversation;
pub mod frontend;
mod message;

pub use conversation::Conversation;
pub use message::Message;
