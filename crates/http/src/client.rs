//! A client's connection between its exchanges: the state in which it spends most of its life, and what it
//! becomes for each exchange.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tieline_base::{Clock, Fault, Generation, Reason, Stage, Whose};
use tieline_conn::{Connection, Held, Outcome};
use tieline_pool::{Exemption, Loan};
use tieline_transport::{Closed, Duplex, Io, Meter, Side, Watch};

use crate::Http;
use crate::buffer::{Buffer, SIZE};
use crate::exchange;
use crate::front::{Front, Http2Front, PREFACE};
use crate::guard::Slot;

/// What a connection is at any time. Only an exchange takes room, and only while it lasts.
pub(crate) enum Conversation {
    Resting(Client),
    Working(Pin<Box<dyn Future<Output = Turn>>>),
    Upgraded(Box<Tunnel>),
    /// It speaks HTTP/2: each exchange is in a conversation of its own.
    Multiplexed(Box<Front>),
    Over,
}

/// What comes after an exchange.
pub(crate) enum Turn {
    /// Another exchange, whose first bytes may be there already.
    Next(Client, Buffer),
    /// Bytes that are no HTTP any more.
    Tunnel(Box<Tunnel>),
    /// HTTP/2, whose preface begins the bytes that are there.
    Http2(Client, Buffer, Http2Front),
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

/// What a client that speaks HTTP/2 agrees on in TLS (RFC 9113 §3.2).
const ALPN: &[u8] = b"h2";

/// What of the preface an HTTP/1 parser takes for a head.
const PREFACE_HEAD: usize = 18;

impl Client {
    /// Whether it turns out to speak HTTP/2, without having agreed on it before (RFC 9113 §3.3): `bytes`
    /// begin with a head that is none of HTTP/1.
    pub(crate) fn turns_out(&self, http: &Http, bytes: &[u8], head: usize) -> Option<Http2Front> {
        let known = bytes.len().min(PREFACE.len());
        let says = head == PREFACE_HEAD && bytes[..known] == PREFACE[..known];
        let record = self.connection.record();
        let first = record.exchanges() == 0 && !self.connection.is_inside();
        http.settings.http2.filter(|_| says && first && self.connection.tls().is_none())
    }
}

impl Conversation {
    /// A client's connection.
    pub(crate) fn new(connection: Connection, io: Io) -> Self {
        let agreed = connection.tls().and_then(|tls| tls.alpn.as_ref());
        let speaks = agreed.is_some_and(|alpn| alpn.as_bytes() == ALPN);
        let mut client = Client::of(connection, io, None);
        // Agreed on before a reload that no longer speaks it, it is spoken as little as needs be.
        if speaks && let Ok(http) = client.http() {
            let how = http.settings.http2.unwrap_or(Http2Front { streams: 1 });
            return multiplexed(client, http, Buffer::take(), how);
        }
        Self::Resting(client)
    }

    /// A stream of a connection that speaks HTTP/2: one exchange, by `http` if that is the protocol as the
    /// config in force has it.
    pub(crate) fn inside(connection: Connection, io: Io, http: Option<Arc<Http>>) -> Self {
        Self::Resting(Client::of(connection, io, http))
    }
}

impl Client {
    fn of(connection: Connection, io: Io, http: Option<Arc<Http>>) -> Self {
        let generation = connection.generation();
        Self { connection, io, http, generation, watch: Watch::default() }
    }
}

fn multiplexed(client: Client, http: Arc<Http>, first: Buffer, how: Http2Front) -> Conversation {
    let Client { connection, io, .. } = client;
    Conversation::Multiplexed(Box::new(Front::new(connection, http, io, first, how)))
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
                    Turn::Next(client, _) if client.connection.is_inside() => {
                        *self = Conversation::Over;
                        return Poll::Ready(Ok(Reason::Answered));
                    }
                    Turn::Next(client, input) if input.is_empty() => rest(client),
                    Turn::Next(client, input) => begin(client, input),
                    Turn::Tunnel(tunnel) => Conversation::Upgraded(tunnel),
                    Turn::Http2(mut client, input, how) => {
                        let http = client.http()?;
                        multiplexed(client, http, input, how)
                    }
                    Turn::End(outcome) => {
                        *self = Conversation::Over;
                        return Poll::Ready(outcome);
                    }
                },
                Conversation::Upgraded(tunnel) => return tunnel.poll(cx),
                Conversation::Multiplexed(front) => return Pin::new(&mut **front).poll(cx),
                Conversation::Over => return Poll::Pending,
            };
        }
    }
}

/// Waits for the first bytes of a request; `None` if there will be none.
fn poll_first(client: &mut Client, cx: &mut Context<'_>) -> Poll<Result<Option<Buffer>, Fault>> {
    // A stream has its request already: that is answered.
    if client.connection.record().leaving().is_some() && !client.connection.is_inside() {
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
    // In this order: what it is exempt from must not see it come back first.
    _exemption: Exemption,
    _held: (Loan, Option<Slot>),
}

impl Tunnel {
    /// `held` is given back when it is over.
    pub(crate) fn new(client: Client, upstream: Io, held: (Loan, Option<Slot>), first: Vec<u8>) -> Box<Self> {
        let Client { connection, io, .. } = client;
        let exemption = held.0.exempt();
        let row = Row { held: connection.into_held(), _exemption: exemption, _held: held };
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
