//! The smallest protocol: bytes pass unread. One connection is one exchange.
//!
//! Owns what happens between a permit and the last byte of a plain TCP (or unix, or TLS pass-through) connection.
//! Refuses to know what the bytes mean. Start with [`Relay`], the whole of it.

use std::io;

use tieline_base::{Fault, Reason, Stage, Whose};
use tieline_conn::{Connection, Exchange, Outcome, Protocol, Serving};
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
    let record = connection.record();
    record.enter(Stage::Relay);
    let closed = Duplex::new(client, lease.take_io(), opening).run(&Row(record)).await;
    if closed.error.is_some() && closed.first == Side::Upstream && record.bytes().1 == 0 {
        lease.upstream_failed();
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

/// Counts moved bytes in the connection's row.
struct Row<'r>(&'r Record);

impl Meter for Row<'_> {
    fn moved(&self, from: Side, bytes: usize) {
        self.0.moved(from == Side::Client, bytes as u64);
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
