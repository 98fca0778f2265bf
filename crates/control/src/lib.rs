//! Floor 6: what operators see and do.
//!
//! Owns the admin API and its two doors (a unix socket and a TCP address), `/metrics`, the access log, live
//! events and the admin token. Refuses to know the config's syntax, sockets of the data plane and every
//! protocol: it reads the registry and the snapshot, and gives orders. It runs on a runtime of its own, so
//! that nothing here can stall a connection; what connections tell it (a row that ended) goes into bounded
//! queues that never wait.
//!
//! Start with [`Plane`], then `api/routes.rs`: every route and its description in one table.

mod access_log;
mod acts;
mod api;
mod events;
mod listen;
mod metrics;
mod plane;
#[cfg(test)]
mod testing;
mod token;

pub use access_log::{AccessLog, AccessLogTarget};
pub use acts::{ActError, Acted, Words};
pub use api::openapi;
pub use events::{Event, Events};
pub use listen::{Doors, SOCKET_NAME, serve};
pub use plane::{Parts, Plane, Reload, Reloaded, Reloading, Stop};
pub use token::{TOKEN_NAME, TokenError, admin_token};
