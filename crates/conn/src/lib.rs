//! Floor 4: the road that every connection walks, and the life of the workers on which it does.
//!
//! Owns the path from accept to release, routing, admission, the compiled config ([`Snapshot`]) and the life
//! cycle. Refuses to know any protocol by name: bytes get their meaning from a [`Protocol`] that somebody
//! above plugs in. Start with `path.rs`, and read it downwards.

mod acquire;
mod admission;
mod bandwidth;
mod children;
mod connection;
mod handshakes;
mod lifecycle;
mod lifetime;
mod loads;
mod path;
mod quic_doors;
mod snapshot;
mod sweep;
mod turns;
mod worker;

pub use admission::{Admission, Limits};
pub use bandwidth::{Bandwidth, SharedBy};
pub use children::Children;
pub use connection::{Connection, Exchange, Held, Outcome, Protocol, Serving};
pub use lifecycle::{Phase, Server, Stopped};
pub use snapshot::{HashBy, Listener, Quic, Route, Snapshot, Timeouts};
pub use sweep::Swept;
pub use worker::Worker;
