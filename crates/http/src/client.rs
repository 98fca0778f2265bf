//! A client's connection between its exchanges: the state in which it spends most of its life, and what it
//! becomes for each exchange.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tieline_base::{Clock, Fault, Generation, Reason, Stage, Whose};
use tieline_conn::{Connection, Held, Outcome};
use tieline_pool::Loan;
use tieline_transport::{Closed, Duplex, Io, Meter, Side, Watch};

use crate::Http;
use crate::buffer::{Buffer, SIZE};
use crate::exchange;

/// What a connection is at any time. Only an exchange takes room, and only while it lasts.
pub(crate) enum Conversation {
    Resting(Client),
    Working(Pin<Box<dyn Future<Output = Turn>>>),
    Upgraded(Box<Tunnel>),
    Over,
}

/// What comes after an exchange.
pub(crate) enum Turn {
    /// Another exchange, whose first bytes may be there already.
    Next(Client, Buffer),
    /// Bytes that are no HTTP any more.
    Tunnel(Box<Tunnel>),
    /// Nothing.
    End(Outcome),
}

/// A client's connection.
pub(crate) struct Client {
    pub(crate) connection: Connection,
    pub(crate) io: Io,
    /// The protocol as the config of `generation` has it.
    http: Option<Arc<Http>>,
    generation: Generation,
    /// Remembers that we asked to look whether it is still there.
    pub(crate) watch: Watch,
}

impl Client {
    /// The protocol as the config in force has it.
    pub(crate) fn http(&mut self) -> Result<Arc<Http>, Fault> {
        let generation = self.connection.generation();
        match &self.http {
            Some(http) if self.generation == generation => Ok(http.clone()),
            _ => {
                let http: Arc<Http> = self.connection.current()?;
                (self.http, self.generation) = (Some(http.clone()), generation);
                Ok(http)
            }
        }
    }
}

impl Conversation {
    pub(crate) fn new(connection: Connection, io: Io) -> Self {
        let generation = connection.generation();
        Self::Resting(Client { connection, io, http: None, generation, watch: Watch::default() })
    }
}

impl Future for Conversation {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        loop {
            *self = match &mut *self {
                Conversation::Resting(client) => {
                    let input = ready!(poll_first(client, cx))?;
                    match (input, std::mem::replace(&mut *self, Conversation::Over)) {
                        (Some(input), Conversation::Resting(client)) => begin(client, input),
                        // The client closed, or was asked to leave and is at a safe point.
                        (_, Conversation::Resting(client)) => {
                            let asked = client.connection.record().leaving();
                            return Poll::Ready(Ok(asked.unwrap_or(Reason::ClientClosed)));
                        }
                        _ => unreachable!("taken in the line above"),
                    }
                }
                Conversation::Working(exchange) => match ready!(exchange.as_mut().poll(cx)) {
                    Turn::Next(client, input) if input.is_empty() => rest(client),
                    Turn::Next(client, input) => begin(client, input),
                    Turn::Tunnel(tunnel) => Conversation::Upgraded(tunnel),
                    Turn::End(outcome) => {
                        *self = Conversation::Over;
                        return Poll::Ready(outcome);
                    }
                },
                Conversation::Upgraded(tunnel) => return tunnel.poll(cx),
                Conversation::Over => return Poll::Pending,
            };
        }
    }
}

/// Waits for the first bytes of a request; `None` if there will be none.
fn poll_first(client: &mut Client, cx: &mut Context<'_>) -> Poll<Result<Option<Buffer>, Fault>> {
    if client.connection.record().leaving().is_some() {
        return Poll::Ready(Ok(None));
    }
    let mut input = Buffer::take();
    match ready!(input.poll_fill(&mut client.io, SIZE, cx)) {
        Ok(0) => Poll::Ready(Ok(None)),
        Ok(_) => Poll::Ready(Ok(Some(input))),
        Err(error) => {
            let fault = Fault::new(Stage::Settle, Whose::Client, Reason::ClientReset);
            Poll::Ready(Err(fault.because(error)))
        }
    }
}

fn begin(client: Client, input: Buffer) -> Conversation {
    Conversation::Working(Box::pin(exchange::run(client, input)))
}

fn rest(mut client: Client) -> Conversation {
    if let Ok(http) = client.http() {
        client.connection.expect(http.settings.idle, Reason::Idle);
    }
    client.connection.record().enter(Stage::Settle, Clock::coarse());
    Conversation::Resting(client)
}

/// A connection that was upgraded: bytes pass unread.
pub(crate) struct Tunnel {
    duplex: Duplex,
    row: Row,
}

struct Row {
    held: Held,
    _loan: Loan,
}

impl Tunnel {
    pub(crate) fn new(client: Client, upstream: Io, loan: Loan, first: Vec<u8>) -> Box<Self> {
        let Client { connection, io, .. } = client;
        let row = Row { held: connection.into_held(), _loan: loan };
        Box::new(Self { duplex: Duplex::new(io, upstream, first), row })
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        let Closed { first, error } = ready!(self.duplex.poll(&self.row, cx));
        let broken = |whose, reason| move |error| Fault::new(Stage::Relay, whose, reason).because(error);
        Poll::Ready(match (first, error) {
            (Side::Client, None) => Ok(Reason::ClientClosed),
            (Side::Upstream, None) => Ok(Reason::UpstreamClosed),
            (Side::Client, Some(error)) => Err(broken(Whose::Client, Reason::ClientReset)(error)),
            (Side::Upstream, Some(error)) => Err(broken(Whose::Upstream, Reason::UpstreamReset)(error)),
        })
    }
}

impl Meter for Row {
    fn moved(&self, from: Side, bytes: usize) {
        self.held.record.moved(from == Side::Client, bytes as u64);
    }
}
