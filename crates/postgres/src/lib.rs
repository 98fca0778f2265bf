//! The protocol `postgres`: sessions of clients over a pool of logged-in servers, a transaction at a time.
//!
//! Owns what happens between a settled connection and its end: clients log in (`login`), every transaction
//! (or session, or statement) is an exchange with a permit and a lease of its own, and a server that is given
//! back is as the next client expects it. Refuses to know sockets' addresses, the config file and how
//! endpoints are chosen. Start with [`Postgres`], then `client.rs` (a client between its exchanges), then
//! `talk.rs` (what moves while it holds a server), `up.rs` and `down.rs`.

mod again;
mod aside;
mod ask;
mod at_once;
mod census;
mod client;
mod cluster;
mod console;
mod custom;
mod denials;
mod down;
mod dressed;
mod errors;
mod fair;
#[doc(hidden)]
pub mod fuzzing;
mod held;
mod in_line;
mod keys;
mod link;
mod listening;
mod login;
mod named;
mod notice;
mod outstanding;
mod pace;
mod patience;
mod placed;
mod reads;
mod recover;
mod refusal;
mod replication;
mod roles;
mod scope;
mod scratch;
mod server;
mod settings;
mod settle;
mod sign_in;
mod site;
mod stand;
mod statements;
mod talk;
mod translate;
mod unhurried;
mod up;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use tieline_conn::{Connection, Protocol, Route, Serving};
use tieline_registry::Record;
use tieline_transport::Io;

pub use crate::census::UserSeats;
pub use crate::cluster::{Cluster, Wants, Watching};
pub use crate::console::{Console, House, NAMES as CONSOLE_NAMES, Reloading, Setting};
pub use crate::fair::share_of;
pub use crate::login::server::ServerLogin;
pub use crate::login::{ALPN, Auth, Encryption, Front, Lookup, LookupSettings, User, Users};
pub use crate::patience::Patience;
pub use crate::reads::ReplicaReads;
pub use crate::roles::{Allowed, MaxLag};
pub use crate::site::{Match, Mode, Site, Target};

/// The protocol at one listener, by one config.
#[derive(Debug)]
pub struct Postgres {
    site: Site,
    settings: Settings,
}

/// What holds for every client of a listener.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How clients log in.
    pub front: Front,
    /// How many clients may be logged in as each user.
    pub seats: UserSeats,
    /// Without a byte from a client that is in no transaction.
    pub idle: Duration,
    /// The console, if there is one.
    pub console: Option<Console>,
}

impl Postgres {
    /// The protocol at a listener with these routes.
    pub fn new(site: Site, settings: Settings) -> Self {
        Self { site, settings }
    }
}

impl Protocol for Postgres {
    fn serve(&self, connection: Connection, io: Io) -> Serving {
        Box::pin(client::Conversation::new(connection, io, self.settings.clone()))
    }

    fn settles_itself(&self) -> bool {
        true
    }

    fn disowns(&self, record: &Record) -> Option<String> {
        self.settings.front.disowns(record.identity()).or_else(|| replication::disowned(&self.site, record))
    }

    fn leaves_when_asked(&self) -> bool {
        true
    }

    fn route_of(&self, record: &Record) -> Option<Arc<Route>> {
        // What it asked for when it logged in is what its route was found by.
        record.route().and_then(|old| self.site.heir(&old)).map(|target| target.route.clone())
    }
}
