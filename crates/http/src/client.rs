//! A client's connection between its exchanges: the state in which it spends most of its life, and what
//! comes behind each exchange.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tieline_base::{Clock, Fault, Generation, Moment, Reason, Stage, Whose};
use tieline_conn::{Connection, Held, Outcome};
use tieline_pool::{Exemption, Loan};
use tieline_transport::{Closed, Duplex, Io, Meter, Side, Throttles, Watch, watch};

use crate::Http;
use crate::buffer::{Buffer, SIZE};
use crate::exchange;
use crate::forward::{self, Origin};
use crate::forwarders::Speaking;
use crate::front::{Front, Http2Front, PREFACE};
use crate::guard::Slot;

/// What comes after an exchange.
pub(crate) enum Turn {
    /// Another exchange, whose first bytes may be there already; this one ended then.
    Next(Moment),
    /// Bytes that are no HTTP any more.
    Tunnel { upstream: Io, held: (Loan, Option<Slot>), throttles: Throttles },
    /// HTTP/2, whose preface begins the bytes that are there.
    Http2(Http2Front),
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
    /// What each of its requests tells alike of where it comes from, by the same config.
    usual: Option<Box<[u8]>>,
    /// The host that it asked last, while requests follow each other closely.
    asked: Box<str>,
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
                (self.http, self.generation, self.usual) = (Some(http.clone()), generation, None);
                Ok(http)
            }
        }
    }
}

impl Client {
    /// Has ready what its requests tell alike, by `http`.
    pub(crate) fn prepare(&mut self, http: &Http) {
        // A stream has one request.
        if self.usual.is_none() && !self.connection.is_inside() {
            let speaking = Speaking::of(self.connection.record().sender());
            self.usual = Some(forward::usual(&self.origin(http, &speaking, "", &[])));
        }
    }

    /// The host that it asked last, if that is known.
    pub(crate) fn asked(&self) -> &str {
        &self.asked
    }

    /// It asks `host`.
    pub(crate) fn asks(&mut self, host: Box<str>) {
        self.asked = host;
    }

    /// Who `speaking` comes from, as upstreams are told: it asks for `host`, and is called `request_id`.
    pub(crate) fn origin<'a>(
        &'a self,
        http: &'a Http,
        speaking: &'a Speaking<'a>,
        host: &'a str,
        request_id: &'a [u8],
    ) -> Origin<'a> {
        Origin {
            speaking,
            sender: self.connection.record().sender(),
            identity: self.connection.identity().name(),
            tell: http.settings.tell,
            scheme: if self.connection.tls().is_some() { "https" } else { "http" },
            host,
            request_id,
            node: &http.settings.node,
            http2: self.connection.is_inside(),
            usual: self.usual.as_deref(),
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

/// Serves a client's connection to its end.
pub(crate) fn converse(connection: Connection, io: Io) -> impl Future<Output = Outcome> {
    let agreed = connection.tls().and_then(|tls| tls.alpn.as_ref());
    let speaks = agreed.is_some_and(|alpn| alpn.as_bytes() == ALPN);
    let client = Client::of(connection, io, None);
    serve(client, speaks)
}

/// Serves a stream of a connection that speaks HTTP/2: one exchange, by `http` if that is the protocol as the
/// config in force has it.
pub(crate) fn inside(
    connection: Connection,
    io: Io,
    http: Option<Arc<Http>>,
) -> impl Future<Output = Outcome> {
    serve(Client::of(connection, io, http), false)
}

/// A function that returns an async block: what it is given is then held once, not twice.
#[allow(clippy::manual_async_fn)]
fn serve(mut client: Client, speaks_http2: bool) -> impl Future<Output = Outcome> {
    async move {
        // Agreed on before a reload that no longer speaks it, it is spoken as little as needs be.
        if speaks_http2 && let Ok(http) = client.http() {
            let how = http.settings.http2.unwrap_or(Http2Front { streams: 1 });
            return multiplexed(client, http, Buffer::take(), how).await;
        }
        let mut input = Buffer::take();
        loop {
            if input.is_empty() && !first(&mut client, &mut input).await? {
                return Ok(over(&client));
            }
            // Boxed: it takes its room only while requests follow each other.
            match Box::pin(busy(&mut client, &mut input)).await {
                Turn::Next(_) if client.connection.is_inside() => return Ok(Reason::Answered),
                // Who is at rest owns nothing.
                Turn::Next(_) => (client.usual, client.asked) = (None, "".into()),
                Turn::Tunnel { upstream, held, throttles } => {
                    let first = input.bytes().to_vec();
                    let mut tunnel = Tunnel::new(client, upstream, held, first, throttles);
                    drop(input);
                    return poll_fn(|cx| tunnel.poll(cx)).await;
                }
                Turn::Http2(how) => {
                    let http = client.http()?;
                    return multiplexed(client, http, input, how).await;
                }
                Turn::End(outcome) => return outcome,
            }
        }
    }
}

/// Serves the requests that follow each other closely, of which the first has begun: what one needs room for,
/// the next one uses.
async fn busy(client: &mut Client, input: &mut Buffer) -> Turn {
    loop {
        let ended = match exchange::run(client, input).await {
            Turn::Next(ended) if !client.connection.is_inside() => ended,
            turn => return turn,
        };
        if !input.is_empty() {
            continue;
        }
        rest(client, ended);
        match soon(client, input, ended).await {
            None => return Turn::Next(ended),
            Some(Ok(true)) => {}
            Some(Ok(false)) => return Turn::End(Ok(over(client))),
            Some(Err(fault)) => return Turn::End(Err(fault)),
        }
    }
}

/// For how long the room of an exchange is kept for the next one at least, and by how many connections of a
/// worker: those that rest longer, and all beyond, give it back.
const KEPT_FOR: Duration = Duration::from_millis(500);
const KEPT_MAX: u32 = 128;

thread_local! {
    static KEPT: Cell<u32> = const { Cell::new(0) };
}

/// The room of an exchange, kept although there is none.
struct Kept;

impl Kept {
    fn room() -> Option<Kept> {
        let kept = KEPT.get();
        (kept < KEPT_MAX).then(|| {
            KEPT.set(kept + 1);
            Kept
        })
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        KEPT.set(KEPT.get().saturating_sub(1));
    }
}

/// [`first`], if that comes within a second or so; else `None`.
async fn soon(client: &mut Client, input: &mut Buffer, ended: Moment) -> Option<Result<bool, Fault>> {
    let _kept = Kept::room()?;
    poll_fn(|cx| {
        if let Poll::Ready(came) = poll_first(client, input, cx) {
            return Poll::Ready(Some(came));
        }
        // Once in each second or so it is woken, to look how late it is.
        let late = watch(&mut client.watch, cx) && Clock::coarse().since(ended) >= KEPT_FOR;
        if late { Poll::Ready(None) } else { Poll::Pending }
    })
    .await
}

/// Waits for the first bytes of a request; false if there will be none.
async fn first(client: &mut Client, input: &mut Buffer) -> Result<bool, Fault> {
    poll_fn(|cx| poll_first(client, input, cx)).await
}

/// The client closed, or was asked to leave and is at a safe point.
fn over(client: &Client) -> Reason {
    client.connection.record().leaving().unwrap_or(Reason::ClientClosed)
}

impl Client {
    fn of(connection: Connection, io: Io, http: Option<Arc<Http>>) -> Self {
        let generation = connection.generation();
        let watch = Watch::default();
        Self { connection, io, http, generation, usual: None, asked: "".into(), watch }
    }
}

fn multiplexed(client: Client, http: Arc<Http>, first: Buffer, how: Http2Front) -> Box<Front> {
    let Client { connection, io, .. } = client;
    Box::new(Front::new(connection, http, io, first, how))
}

fn poll_first(client: &mut Client, input: &mut Buffer, cx: &mut Context<'_>) -> Poll<Result<bool, Fault>> {
    // A stream has its request already: that is answered.
    if client.connection.is_leaving() {
        return Poll::Ready(Ok(false));
    }
    match ready!(input.poll_fill(&mut client.io, SIZE, cx)) {
        Ok(count) => Poll::Ready(Ok(count > 0)),
        Err(error) => {
            let fault = Fault::new(Stage::Settle, Whose::Client, Reason::ClientReset);
            Poll::Ready(Err(fault.because(error)))
        }
    }
}

/// Nothing is under way since `now`.
fn rest(client: &Client, now: Moment) {
    // An exchange ended, so it was looked up; what a reload changed meanwhile holds from the next one on.
    if let Some(http) = &client.http {
        client.connection.expect_from(now, http.settings.idle, Reason::Idle);
    }
    client.connection.record().enter(Stage::Settle, now);
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
    pub(crate) fn new(
        client: Client,
        upstream: Io,
        held: (Loan, Option<Slot>),
        first: Vec<u8>,
        throttles: Throttles,
    ) -> Box<Self> {
        let Client { connection, io, .. } = client;
        let exemption = held.0.exempt();
        let row = Row { held: connection.into_held(), _exemption: exemption, _held: held };
        Box::new(Self { duplex: Duplex::new(io, upstream, first).throttled(throttles), row })
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
