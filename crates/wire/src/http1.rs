//! HTTP/1.1 heads and chunked bodies (RFC 9110, RFC 9112), for both sides of a proxy.
//!
//! Strict: what two parsers could read differently is an error and never a guess, because a proxy and a
//! server that disagree about where a request ends let one client write the beginning of another's request.
//! So lines end with CRLF, a length is said once, and a field that frames the message is exact or refused.
//!
//! The way of a message: [`HeadScan`] finds where its head ends, [`parse_request`] or [`parse_response`]
//! reads it once into [`Room`] on the caller's stack, and says what every field is to a proxy ([`Kind`])
//! and how long the body is. [`ChunkedDecoder`] takes a chunked body apart. Everything borrows from the
//! input; only trailers are copied.

mod authority;
mod block;
mod bytes;
mod chunked;
mod encode;
mod error;
mod extension;
mod facts;
mod fields;
mod kind;
mod path;
mod quick;
mod request;
mod response;
mod scan;
mod target;
#[cfg(test)]
mod tests;
mod trailers;

pub use chunked::{Chunk, ChunkedDecoder, Progress};
pub use encode::{
    CHUNK_END, LAST_CHUNK, encode_chunk_head, encode_last_chunk, encode_request_line, encode_status_line,
    push_field,
};
pub use error::HttpError;
pub use fields::{FIELDS_MAX, Field, Fields, Room};
pub use kind::Kind;
pub use path::{Path, PathError, PathRules, match_form};
pub use quick::{quick_request, quick_response};
pub use request::{Method, Request, RequestBody, parse_request};
pub use response::{RequestKind, Response, ResponseBody, parse_response};
pub use scan::{HeadScan, Limits};
pub use target::{Scheme, Target};

/// The versions that are spoken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Version {
    /// No chunked bodies, no interim answers, and one exchange a connection unless both sides ask for more.
    Http10,
    /// RFC 9112.
    Http11,
}

impl Version {
    /// As it stands in a first line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Version::Http10 => "HTTP/1.0",
            Version::Http11 => "HTTP/1.1",
        }
    }
}
