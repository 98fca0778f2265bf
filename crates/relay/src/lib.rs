//! The smallest protocol: bytes pass unread. One connection is one exchange.
//!
//! Owns what happens between a permit and the last byte of a plain TCP (or unix, or TLS pass-through) connection.
//! Refuses to know what the bytes mean. Start with [`Relay`], the whole of it.

use std::cell::Cell;
use std::io;

use tieline_base::{Clock, Fault, Moment, Reason, Stage, Whose};
use tieline_conn::{Connection, Exchange, Outcome, Protocol, Serving};
use tieline_pool::Lease;
use tieline_registry::Record;
use tieline_transport::{Closed, Duplex, Io, Meter, Side};
use tieline_wire::proxy;

/// The protocol `tcp`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Relay;

impl Protocol for Relay {
    fn serve(&self, connection: Connection, io: Io) -> Serving {
        Box::pin(relay(connection, io))
    }
}

async fn relay(mut connection: Connection, client: Io) -> Outcome {
    // Boxed and freed before bytes flow, so that an idle connection does not carry what only its start needed.
    let exchange = Box::pin(connection.open(&client)).await?;
    let opening = opening(&mut connection, &exchange, &client);
    // The route and the permit have done their work: an idle connection keeps its lease alone.
    let mut lease = exchange.lease;
    let lent = || Fault::new(Stage::Relay, Whose::Us, Reason::Internal).because("the lease was taken twice");
    let upstream = lease.take_io().ok_or_else(lent)?;
    connection.record().enter(Stage::Relay);
    let row = Row::new(connection.record(), &lease);
    let closed = Duplex::new(client, upstream, opening).run(&row).await;
    if closed.first == Side::Upstream
        && let (Some(error), false) = (&closed.error, row.answered.get())
    {
        lease.upstream_failed(error);
    }
    outcome(closed)
}

/// What the upstream sees before the client's own bytes go on: a PROXY header, and what was read while settling.
fn opening(connection: &mut Connection, exchange: &Exchange, client: &Io) -> Vec<u8> {
    let mut opening = Vec::new();
    if let Some(version) = exchange.route.announce {
        let (source, destination) = connection.addresses(client).unzip();
        proxy::encode(version, source, destination, &mut opening);
    }
    if opening.is_empty() {
        return connection.take_first_bytes();
    }
    opening.append(&mut connection.take_first_bytes());
    opening
}

/// Counts moved bytes in the connection's row, and tells its lease how long the first answer took.
struct Row<'r> {
    record: &'r Record,
    lease: &'r Lease,
    /// When the upstream was first asked, or connected to if it speaks first.
    asked: Cell<Moment>,
    was_asked: Cell<bool>,
    answered: Cell<bool>,
}

impl<'r> Row<'r> {
    fn new(record: &'r Record, lease: &'r Lease) -> Self {
        let asked = Cell::new(Clock::now());
        Self { record, lease, asked, was_asked: Cell::new(false), answered: Cell::new(false) }
    }
}

impl Meter for Row<'_> {
    fn moved(&self, from: Side, bytes: usize) {
        self.record.moved(from == Side::Client, bytes as u64);
        if self.answered.get() {
            return;
        }
        match from {
            Side::Client if !self.was_asked.replace(true) => self.asked.set(Clock::now()),
            Side::Client => {}
            Side::Upstream => {
                self.answered.set(true);
                self.lease.first_byte(Clock::now().since(self.asked.get()));
            }
        }
    }
}

fn outcome(closed: Closed) -> Outcome {
    let broken = |whose, reason, error: io::Error| Err(Fault::new(Stage::Relay, whose, reason).because(error));
    match (closed.first, closed.error) {
        (Side::Client, None) => Ok(Reason::ClientClosed),
        (Side::Upstream, None) => Ok(Reason::UpstreamClosed),
        (Side::Client, Some(error)) => broken(Whose::Client, Reason::ClientReset, error),
        (Side::Upstream, Some(error)) => broken(Whose::Upstream, Reason::UpstreamReset, error),
    }
}
