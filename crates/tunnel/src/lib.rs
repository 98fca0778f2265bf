//! Floor 5: far sites. Agents dial in, and what they offer is reached through their links.
//!
//! Owns what lies between the frames of [`tieline_wire::tunnel`] and the road: the carrying of a link by a
//! connection of TLS, streams as conversations ([`tieline_transport::Stream`]), the listener's side
//! ([`Tunnel`]), the table of agents through which endpoints are dialed ([`Agents`]), the built-in authority
//! and its tokens ([`Authority`]), and the agent itself ([`Agent`]). Refuses to know what the bytes of a
//! stream mean, and who may use it: that was decided before it is opened.
//!
//! Start with `live.rs`, a link that is shared by who carries it and who speaks through it; then
//! `carrier.rs`, `server.rs`, and `life.rs`, which dials.

mod agent;
mod agents;
mod alarm;
mod approvals;
mod attempts;
mod authority;
mod carrier;
mod carrying;
mod connect;
mod ends;
mod enrol;
mod examination;
mod far_sites;
mod far_stream;
mod flow;
mod greeting;
mod host;
mod identity;
mod known;
mod life;
mod live;
mod losses;
mod memory;
mod network;
mod offered;
mod offers;
mod people;
mod probe;
mod roster;
mod seats;
mod server;
mod sha;
mod store;
mod stream;
mod token;
mod turns;
mod visits;
mod ways;
mod websocket;

pub use agent::{Agent, AgentError, Offer, Over, Roused, Server};
pub use agents::{AgentStatus, Agents, LinkStatus};
pub use authority::{AGENT_PREFIX, Authority, AuthorityError, SERVER_NAME};
pub use connect::{ConnectError, LinkState, Person, UserLink};
pub use enrol::{EnrolError, enrol};
pub use examination::{Examination, Findings, Hindrance, Kind, Passage, Step};
pub use far_stream::Way;
pub use flow::LinkFlow;
pub use identity::{Identity, IdentityError, Term};
pub use known::{Good, Known, Standing};
pub use offered::Offered;
pub use people::{People, PersonEntry, PersonToken};
pub use probe::AgentSeen;
pub use server::Tunnel;
pub use store::{Issued, Revoked, Store, StoreError};
pub use token::{Token, TokenError};
pub use ways::Proxy;

pub use tieline_transport::{Sounding, Soundings};

use tieline_transport::tls::Alpn;

/// The application protocol of links (RFC 7301).
pub const ALPN_LINK: &[u8] = b"tieline/1";

/// The application protocol by which agents get their certificates.
pub const ALPN_ENROL: &[u8] = b"tieline-enrol/1";

/// The application protocol of links over QUIC: the frames of a link on one bidirectional stream.
pub const ALPN_QUIC: &[u8] = b"tieline-quic/1";

/// The application protocols of those who only look whether they get here, over TLS and over QUIC.
const ALPN_PROBE: &[u8] = b"tieline-probe/1";
const ALPN_QUIC_PROBE: &[u8] = b"tieline-quic-probe/1";

/// What a listener of tunnels agrees to over QUIC.
pub fn alpn_quic() -> Vec<Alpn> {
    [ALPN_QUIC, ALPN_QUIC_PROBE].into_iter().filter_map(Alpn::new).collect()
}

/// The application protocol of WebSockets (RFC 7301 §6): either of the two above is agreed on inside.
const ALPN_HTTP: &[u8] = b"http/1.1";

/// What a listener of tunnels agrees to.
pub fn alpn() -> Vec<Alpn> {
    [ALPN_LINK, ALPN_ENROL, ALPN_PROBE, ALPN_HTTP].into_iter().filter_map(Alpn::new).collect()
}

/// Under which label a carrier's keying material is exported; it goes into keys and proofs, and nowhere else.
const EXPORTER_LABEL: &[u8] = b"EXPORTER-tieline-rsl-carrier";
