//! OpenAPI documents, compiled to what requests must be.
//!
//! Owns how a document is read ([`Api::load`]: OpenAPI 3.0 and 3.1, YAML or JSON, one file) and how a request
//! is held against it ([`Api::inspect`] for its head, [`BodyRule::check`] for its body). Refuses to know
//! files, sockets and the clock: text and bytes go in, verdicts come out, and reading a document opens
//! nothing.
//!
//! What a request may cost is bounded: patterns run in linear time, JSON is read to a fixed depth, and what
//! is told of a request is cut short. What is told repeats nothing of a request but the names in it.
//!
//! Start with `api.rs` (a request against a document), then `load.rs` (from text to that).

mod api;
mod body;
mod decode;
mod json;
mod load;
mod parameter;
mod problem;
mod refs;
mod schema;
mod shape;
mod source;
mod template;
mod violation;

pub use api::{Api, Ask, HasField, Inspected, Refusal};
pub use body::{BodyError, BodyRule};
pub use json::JSON_DEPTH_MAX;
pub use load::Options;
pub use problem::{Place, Problem};
pub use source::DOCUMENT_BYTES_MAX;
pub use violation::{Part, Violation};
