//! The smallest protocol: bytes pass unread. One connection is one exchange.
//!
//! Owns what happens between a permit and the last byte of a plain TCP (or unix, or TLS pass-through)
//! connection. Refuses to know what the bytes mean. Start with [`Relay`], the whole of it.

mod joined;
mod router;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tieline_base::{Fault, Reason, Stage, Whose};
use tieline_conn::{Connection, Exchange, Outcome, Protocol, Route, Serving};
use tieline_pool::Reuse;
use tieline_registry::Record;
use tieline_transport::{Duplex, Io};
use tieline_wire::proxy;

use crate::joined::Joined;
pub use crate::router::Router;

/// The protocol `tcp`, with the routes of one listener.
#[derive(Debug)]
pub struct Relay {
    router: Router,
}

impl Relay {
    /// The protocol at a listener with these routes.
    pub fn new(router: Router) -> Self {
        Self { router }
    }
}

impl Protocol for Relay {
    fn serve(&self, connection: Connection, io: Io) -> Serving {
        Box::pin(Relaying::Opening(Box::pin(open(connection, io))))
    }

    fn reads_hello(&self) -> bool {
        self.router.asks_server_name()
    }

    fn route_of(&self, record: &Record) -> Option<Arc<Route>> {
        self.router.find(record.sni()).cloned()
    }
}

/// Two states, written out so that the long one is small: what only the opening needs is boxed and freed
/// before bytes flow, and an idle connection carries none of it.
#[allow(clippy::large_enum_variant)] // it is boxed as a whole, and spends its life in the large variant
enum Relaying {
    Opening(Pin<Box<dyn Future<Output = Result<Joined, Fault>>>>),
    Joined(Joined),
}

impl Future for Relaying {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        if let Relaying::Opening(opening) = &mut *self {
            let joined = ready!(opening.as_mut().poll(cx))?;
            *self = Relaying::Joined(joined);
        }
        let Relaying::Joined(joined) = &mut *self else { unreachable!("set in the line above") };
        joined.poll(cx)
    }
}

/// Opens the exchange and joins both sides. A function that returns an async block: what it is given is then
/// held once, not twice.
#[allow(clippy::manual_async_fn)]
fn open(mut connection: Connection, client: Io) -> impl Future<Output = Result<Joined, Fault>> {
    async move {
        let relay = connection.current::<Relay>()?;
        let route = relay.router.find(connection.server_name()).cloned();
        drop(relay);
        let exchange = connection.open(route, Reuse::Alone, &client).await?;
        let opening = opening(&mut connection, &exchange, &client);
        let now = exchange.lease.connected_at();
        let throttles = exchange.route.throttles(connection.record().client());
        let (upstream, loan) = exchange.lease.split();
        let held = connection.into_held();
        held.record.enter(Stage::Relay, now);
        Ok(Joined::new(held, loan, Duplex::new(client, upstream, opening).throttled(throttles), now))
    }
}

/// What the upstream sees before the client's own bytes go on: a PROXY header, and what was read while
/// settling.
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

/// A fault of the relay's own making.
fn broken(whose: Whose, reason: Reason, error: std::io::Error) -> Fault {
    Fault::new(Stage::Relay, whose, reason).because(error)
}
