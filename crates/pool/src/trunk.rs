//! Trunks: connections that carry many leases at once, as those of HTTP/2 do. What they speak is plugged in
//! from above; here is kept which of them are open, and who shares them.
//!
//! Each worker has its own, as it has its own connections at rest ([`idle`](crate::idle)). A lease is one
//! conversation of a trunk, so the caps of the upstream count conversations; trunks have a bound of their
//! own. The first with room is taken, so that a surplus empties and closes.

mod join;
mod line;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use tieline_base::Moment;
use tieline_transport::Io;
use tieline_transport::tls::Alpn;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::endpoint::Endpoint;
use crate::idle::{Making, Reuse};
use crate::settings::Settings;
use crate::state::EndpointId;
use line::Line;

pub(crate) use join::{NoRoom, Reached, join, reach};

/// Makes trunks of connections.
pub trait Trunks: fmt::Debug + Send + Sync {
    /// What endpoints agree to by TLS where they have trunks.
    fn alpn(&self) -> Alpn;

    /// What they agree to where a connection carries one lease at a time.
    fn alone(&self) -> Alpn;

    /// Makes a trunk of `io`. `secure` says that TLS protects it. `changed` is notified once whenever a
    /// conversation ends, and for all who wait when the trunk is over or its peer was heard after
    /// [`Trunk::ask`].
    fn begin(&self, io: Io, secure: bool, changed: Arc<Notify>) -> Beginning;
}

/// A trunk in the making: ready when the endpoint has said what it allows. An error if it speaks otherwise.
pub type Beginning = Pin<Box<dyn Future<Output = io::Result<(Arc<dyn Trunk>, Driver)>> + Send>>;

/// Moves a trunk's bytes: to be polled until it is ready, which is when the trunk is over.
pub type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A connection that carries many conversations.
pub trait Trunk: fmt::Debug + Send + Sync {
    /// A conversation of its own; `None` if there is no room now, or for good.
    fn open(&self) -> Option<Io>;

    /// How many it carries.
    fn carried(&self) -> usize;

    /// Whether it takes no more for good. Those that it carries may go on.
    fn is_over(&self) -> bool;

    /// When its peer was heard last.
    fn heard(&self) -> Moment;

    /// Asks its peer whether it is there.
    fn ask(&self);

    /// Whether nothing was heard since it was asked.
    fn owes_answer(&self) -> bool;

    /// Ends it now, with all that it carries.
    fn cut(&self);
}

/// Whether the leases of an upstream share connections.
#[derive(Clone, Copy, Debug)]
pub struct Trunking {
    /// Who makes trunks.
    pub trunks: &'static dyn Trunks,
    /// Whether the endpoints have nothing else; otherwise TLS agrees on it with each.
    pub only: bool,
}

impl PartialEq for Trunking {
    fn eq(&self, other: &Self) -> bool {
        self.only == other.only && std::ptr::addr_eq(self.trunks, other.trunks)
    }
}

impl Trunking {
    /// Whether a lease may be a conversation of a trunk.
    pub(crate) fn serves(&self, reuse: Reuse) -> bool {
        match reuse {
            Reuse::Alone => false,
            Reuse::Switching => self.only,
            Reuse::Never | Reuse::Young | Reuse::Any | Reuse::Anywhere => true,
        }
    }

    /// What an endpoint is offered by TLS for a lease that is no conversation of a trunk.
    pub(crate) fn offered_alone(&self, reuse: Reuse) -> Vec<Alpn> {
        // Of bytes that are passed on unread nobody knows what they are.
        if reuse == Reuse::Alone { Vec::new() } else { vec![self.trunks.alone()] }
    }
}

thread_local! {
    /// By endpoint, as those at rest are.
    static LINES: RefCell<BTreeMap<EndpointId, Line>> = RefCell::default();
    /// What moves the bytes of this worker's trunks. They end with its runtime.
    static DRIVERS: RefCell<JoinSet<()>> = RefCell::default();
}

fn with_line<T>(id: EndpointId, work: impl FnOnce(&mut Line) -> T) -> T {
    LINES.with_borrow_mut(|lines| work(lines.entry(id).or_default()))
}

/// A conversation of a trunk to `endpoint` that is open and has room.
pub(crate) fn take(endpoint: &Endpoint, settings: &Settings, now: Moment) -> Option<(Io, Making)> {
    LINES.with_borrow_mut(|lines| lines.get_mut(&endpoint.id)?.take(settings, now))
}

/// Closes the trunks that rested too long, that are too old, or whose endpoints are out of use; asks those
/// that are silent while they carry something whether anybody is there.
pub(crate) fn tidy(now: Moment) {
    LINES.with_borrow_mut(|lines| {
        lines.retain(|_, line| {
            line.tidy(now);
            !line.is_unused()
        });
    });
    DRIVERS.with_borrow_mut(|drivers| {
        while let Some(ended) = drivers.try_join_next() {
            if ended.is_err_and(|error| error.is_panic()) {
                tracing::error!("a connection shared by many leases died of a defect");
            }
        }
    });
}

/// Moves the bytes of a trunk from now on.
fn drive(driver: Driver) {
    DRIVERS.with_borrow_mut(|drivers| drop(drivers.spawn(driver)));
}
