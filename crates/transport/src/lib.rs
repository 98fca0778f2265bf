//! Floor 2: how bytes travel.
//!
//! Owns sockets: listening, accepting, dialing, the first bytes (PROXY header, TLS hello), [`tls`], and
//! [`Duplex`], which moves bytes both ways in the kernel where it can. Refuses to know routes, policy, pools
//! and what bytes mean. It is the only user of `tokio::net` and the only home of `unsafe`. Start with [`Io`],
//! then [`Duplex`].
#![allow(clippy::disallowed_types)] // the home of tokio::net

mod descriptors;
mod dial;
mod duplex;
mod io;
mod listen;
mod pipe;
mod settle;
mod stall;
mod stream;
pub mod tls;

pub use descriptors::{FileLimit, is_exhaustion, raise_file_limit};
pub use dial::{DialOptions, dial, dial_first};
pub use duplex::{Closed, Duplex, Meter, Side};
pub use io::Io;
pub use listen::{Accepted, Acceptor, BindError, Bound, ListenOptions};
pub use settle::{Front, Hello, SettleError, settle};
pub use stall::{Watch, rouse_stalled};
pub use stream::Stream;
