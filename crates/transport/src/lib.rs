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
mod ferry;
mod io;
mod listen;
mod packets;
mod pipe;
mod plain;
mod quic;
mod settle;
mod stall;
mod stream;
mod throttle;
pub mod tls;
mod udp;

pub use descriptors::{FileLimit, is_exhaustion, raise_file_limit};
pub use dial::{DialFar, DialOptions, FarSites, dial, dial_first, dial_named, resolve};
pub use duplex::{Closed, Duplex, Meter, Side};
pub use ferry::Ferry;
pub use io::Io;
pub use listen::{Accepted, Acceptor, Adopted, BindError, Bound, ListenOptions};
pub use packets::Packets;
pub use quic::{
    Family, QuicAcceptor, QuicBound, QuicClient, QuicError, QuicIncoming, QuicServer,
    SIZE_MIN as QUIC_SIZE_MIN, Sounding, Soundings, accept_quic, dial_quic, sound,
};
pub use settle::{Front, Hello, SettleError, settle};
pub use stall::{Watch, rouse_stalled, watch};
pub use stream::Stream;
pub use throttle::{Bucket, Throttle, Throttles};
pub use udp::{UdpBound, UdpListener, UdpPeer};
