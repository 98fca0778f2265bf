//! The protocol `http`: every request is an exchange with a route, a permit and a lease of its own.
//!
//! Owns what happens between a settled connection and its end: heads are read strictly and written anew,
//! bodies stream both ways, upstream connections go back to the pool. Refuses to know sockets' addresses,
//! the config file and how endpoints are chosen. Start with [`Http`], then `client.rs` (a connection
//! between its exchanges), then `exchange.rs`, one exchange read downwards.

mod answer;
mod attempt;
mod buffer;
mod client;
mod cookies;
mod ending;
mod exchange;
mod forward;
mod forwarders;
mod front;
mod guard;
mod heads;
mod heard;
mod local;
mod mirror;
mod outward;
mod patience;
mod plan;
mod race;
mod rewrite;
#[cfg(test)]
mod same_way;
mod session;
mod site;
mod source;
mod spare;
mod split;
mod story;
mod transfer;
mod tries;
mod unwanted;
mod websocket;

use std::sync::Arc;
use std::time::Duration;

use tieline_conn::{Connection, Protocol, Route, Serving};
use tieline_policy::Networks;
use tieline_registry::Record;
use tieline_transport::Io;
pub use tieline_wire::http1::Limits;

use crate::answer::Form;
use crate::patience::Expected;
use crate::story::Story;

pub use crate::forward::Tell;
pub use crate::front::Http2Front;
pub use crate::guard::{Concurrent, Guards, Interface, Mode, Per, RateLimit, Room};
pub use crate::mirror::Mirror;
pub use crate::outward::Http2;
pub use crate::patience::MinRate;
pub use crate::rewrite::{Edits, PathPart, PathRewrite, Rewrite};
pub use crate::session::{SESSION_KEY_BYTES, Session, SessionKeys};
pub use crate::site::{Action, Match, Part, PathMatch, Site, Target};
pub use crate::split::{Share, Split};
pub use crate::tries::Retry;

/// The protocol at one listener, by one config.
#[derive(Debug)]
pub struct Http {
    site: Site,
    settings: Settings,
}

/// What holds for every request at a listener.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How large heads may be.
    pub limits: Limits,
    /// How large a request's body may be.
    pub body: Option<u64>,
    /// How large it may be where an interface looks at it.
    pub validated_body: u64,
    /// From a head's first byte to its last.
    pub request_head: Duration,
    /// Between two bytes of a request's body.
    pub body_gap: Duration,
    /// How slowly a client may send a request's body or take an answer's; `None`: as slowly as it likes.
    pub min_rate: Option<MinRate>,
    /// Between two requests.
    pub idle: Duration,
    /// Without a byte either way, once a connection was upgraded.
    pub tunnel_idle: Duration,
    /// Whose word on where a request comes from is believed.
    pub trusted: Networks,
    /// How upstreams are told where a request comes from.
    pub tell: Tell,
    /// How HTTP/2 is spoken; `None`: it is not.
    pub http2: Option<Http2Front>,
    /// Our name in `Via`; a request that bears it already goes in a circle.
    pub node: Arc<str>,
}

impl Http {
    /// The protocol at a listener with these routes.
    pub fn new(site: Site, settings: Settings) -> Self {
        Self { site, settings }
    }

    /// What is expected of a client that sends the body of a request. A call may go on for as long as its two
    /// ends have little to say to each other.
    pub(crate) fn of_body(&self, story: &Story) -> Expected {
        let least = self.settings.min_rate.filter(|_| story.form != Form::Grpc);
        Expected { gap: self.settings.body_gap, least }
    }
}

impl Protocol for Http {
    fn serve(&self, connection: Connection, io: Io) -> Serving {
        Box::pin(client::converse(connection, io))
    }

    fn leaves_when_asked(&self) -> bool {
        true
    }

    fn route_of(&self, record: &Record) -> Option<Arc<Route>> {
        // The request itself is gone, so its route is known by what it was.
        record.route().and_then(|old| self.site.heir(&old)).map(|target| target.route.clone())
    }
}
