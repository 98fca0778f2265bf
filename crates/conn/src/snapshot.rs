//! All that one config compiled to: what a worker decides by. Replaced as a whole, never changed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tieline_base::{ClientAddr, Generation, Priority, WorkerId};
use tieline_config::Schedule;
use tieline_policy::{Networks, Rule};
use tieline_pool::Upstream;
use tieline_registry::{ListenerRow, RouteRow};
use tieline_transport::tls::ServerTls;
use tieline_transport::{Bound, Front, QuicBound, QuicServer, Throttles};
use tieline_wire::proxy;

use crate::admission::{Admission, Limits};
use crate::bandwidth::Bandwidth;
use crate::connection::Protocol;

/// One compiled config.
pub struct Snapshot {
    /// Which one it is.
    pub generation: Generation,
    /// The listeners, by name.
    pub listeners: BTreeMap<Arc<str>, Arc<Listener>>,
    /// The upstreams, by name. They outlive snapshots.
    pub upstreams: BTreeMap<Arc<str>, Arc<Upstream>>,
}

/// Where we accept, and what holds there.
pub struct Listener {
    /// Its row and counters. They outlive snapshots.
    pub row: Arc<ListenerRow>,
    /// Its sockets, each with the worker that accepts there. They outlive snapshots.
    pub doors: Vec<(Bound, WorkerId)>,
    /// Who is counted at it. Outlives snapshots.
    pub admission: Arc<Admission>,
    /// How many it lets in.
    pub limits: Limits,
    /// Whether a PROXY header must come first.
    pub proxy: bool,
    /// From whom such a header is believed.
    pub trusted: Networks,
    /// How TLS ends here, if it does.
    pub tls: Option<Arc<ServerTls>>,
    /// How QUIC ends here beside it, if it does.
    pub quic: Option<Quic>,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// What its bytes mean, and which way they go.
    pub protocol: Arc<dyn Protocol>,
}

/// Where a listener takes clients of QUIC, and how it proves itself to them.
#[derive(Clone, Debug)]
pub struct Quic {
    /// By [`Listener::tls`], for other application protocols.
    pub server: QuicServer,
    /// Its sockets, each with the worker that accepts there. They outlive snapshots.
    pub doors: Vec<(QuicBound, WorkerId)>,
}

impl Listener {
    /// What it reads before it serves.
    pub(crate) fn front(&self) -> Front {
        let hello = self.protocol.reads_hello();
        Front { proxy: self.proxy, hello, handshake: self.timeouts.handshake }
    }
}

/// How long things may take at a listener.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timeouts {
    /// The PROXY header and the first bytes together.
    pub handshake: Duration,
    /// No byte either way.
    pub idle: Option<Duration>,
    /// A connection's whole life, give or take 10 %.
    pub max_age: Option<Duration>,
    /// What a drained connection may still take.
    pub drain: Duration,
}

/// A match, its rules, and where it leads.
pub struct Route {
    /// Its row.
    pub row: Arc<RouteRow>,
    /// Who may use it.
    pub rule: Rule,
    /// Where it leads; `None` if its protocol answers by itself.
    pub upstream: Option<Arc<Upstream>>,
    /// How important its exchanges are, where there is not enough for all.
    pub priority: Priority,
    /// When it may be used; always, if there is none.
    pub schedule: Option<Schedule>,
    /// What the `hash` balance goes by.
    pub hash_by: HashBy,
    /// How fast its bytes may go; `None`: as fast as they can.
    pub bandwidth: Option<Arc<Bandwidth>>,
    /// The PROXY header that the upstream gets first.
    pub announce: Option<proxy::Version>,
}

/// What the `hash` balance goes by.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HashBy {
    /// Another balance: nothing is hashed.
    Nothing,
    /// The client's IP address.
    Remote,
    /// The TLS hello's server name.
    ServerName,
    /// The value of this field of a request; the client's IP address where it has none.
    Field(Box<str>),
    /// The value of this cookie of a request; the client's IP address where it has none.
    Cookie(Box<str>),
}

impl Route {
    /// What holds back an exchange for `client`: in sending, and in being answered.
    pub fn throttles(&self, client: ClientAddr) -> Throttles {
        match &self.bandwidth {
            Some(bandwidth) => Throttles { up: bandwidth.up(client), down: bandwidth.down(client) },
            None => Throttles::default(),
        }
    }
}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Route").field("row", &self.row).finish_non_exhaustive()
    }
}
