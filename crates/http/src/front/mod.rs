//! HTTP/2 towards clients. The connection is one row, each of its streams another that lives as a connection
//! inside it: a stream is read as HTTP/1.1 and answered in it, so one set of rules holds for both.
//!
//! `head.rs` is the way in, `reply.rs` the way back, `stream.rs` both together; `guard.rs` lies beneath and
//! counts. Here is what drives them, and keeps time: the `h2` crate has no clocks.

mod guard;
mod head;
mod reply;
mod stream;
mod websocket;

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Connection as H2, Handshake, SendResponse};
use h2::{Ping, PingPong, RecvStream};
use http::Request;
use tieline_base::{Clock, Fault, Generation, Moment, Reason, Stage, Whose};
use tieline_conn::{Children, Connection, Outcome};
use tieline_transport::Io;

use crate::Http;
use crate::buffer::Buffer;
use crate::client;
use guard::{Guard, Watched};
use reply::Reply;
use stream::H2Stream;

pub(crate) use guard::PREFACE;
pub(crate) use reply::Unsayable;

/// How HTTP/2 is spoken at a listener.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Http2Front {
    /// Streams of one connection at once. One that its client gave up counts until its work has ended.
    pub streams: u32,
}

/// A client's connection that speaks HTTP/2.
pub(crate) struct Front {
    children: Children,
    http: Arc<Http>,
    generation: Generation,
    streams_max: usize,
    link: Link,
    watched: Rc<Watched>,
    pings: Option<PingPong>,
    pinged_at: Option<Moment>,
    waits: Waits,
    /// Why it was asked to go, once it was told so.
    leaving: Option<Reason>,
    calmed: bool,
}

// One for each connection, and that is boxed.
#[allow(clippy::large_enum_variant)]
enum Link {
    Shaking(Handshake<Guard, Bytes>),
    Open(H2<Guard, Bytes>),
}

/// What it waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Waits {
    /// The preface and the first settings.
    Settings,
    /// The next stream, and there is none.
    Stream,
    /// Those streams that there are, which keep their own time.
    Streams,
    /// Nothing but the other end's goodbye.
    End,
}

/// Windows, in bytes: what a client may send before we read it, on one stream, and at the most on all. They
/// bound what one connection can make us hold; all have room beside each other, so that an upload that nobody
/// reads does not stop another one.
const STREAM_WINDOW: u32 = 128 * 1024;
const CONNECTION_WINDOW_MAX: u32 = 16 * 1024 * 1024;

/// What may wait to be sent on one stream, in bytes.
const SEND_BUFFER: usize = 64 * 1024;

/// Streams that a client may give up before we have looked at them.
const RESETS_UNSEEN: usize = 20;

/// Streams that may break the protocol before the connection ends.
const BROKEN_STREAMS: usize = 64;

/// RFC 9113 §6.5.2: what each field of a list counts beyond its bytes.
const FIELD_OVERHEAD: usize = 32;

/// A client that says nothing for so long while streams are open is asked whether it is there.
const SILENCE: Duration = Duration::from_secs(30);

/// And has so long to say so.
const PONG_WITHIN: Duration = Duration::from_secs(15);

/// More than the coarse clock is ever behind.
const TICK: Duration = Duration::from_millis(20);

/// How long a client may take to close once all is said.
const GOODBYE: Duration = Duration::from_secs(2);

impl Front {
    /// Speaks HTTP/2 over `io`, of which `first` was read already.
    pub(crate) fn new(
        connection: Connection,
        http: Arc<Http>,
        io: Io,
        first: Buffer,
        how: Http2Front,
    ) -> Self {
        let generation = connection.generation();
        let (guard, watched) = Guard::new(io, first);
        connection.expect(http.settings.request_head, Reason::TimeoutRequestHead);
        let link = Link::Shaking(builder(&http, how).handshake(guard));
        Self {
            children: Children::of(connection),
            http,
            generation,
            streams_max: how.streams as usize,
            link,
            watched,
            pings: None,
            pinged_at: None,
            waits: Waits::Settings,
            leaving: None,
            calmed: false,
        }
    }

    fn advance(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        self.obey();
        loop {
            let link = match &mut self.link {
                Link::Shaking(handshake) => {
                    let shaken = ready!(Pin::new(handshake).poll(cx));
                    self.link = Link::Open(shaken.map_err(|error| self.fault(&error))?);
                    self.obey();
                    continue;
                }
                Link::Open(link) => link,
            };
            let full = self.children.living() >= self.streams_max;
            let accepted = match full {
                false => link.poll_accept(cx),
                true => link.poll_closed(cx).map(|closed| closed.err().map(Err)),
            };
            if self.watched.is_broke() && !self.calmed {
                self.calmed = true;
                link.abrupt_shutdown(h2::Reason::ENHANCE_YOUR_CALM);
                continue;
            }
            match accepted {
                Poll::Ready(Some(Ok((request, respond)))) => self.open(request, respond),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(self.fault(&error))),
                Poll::Ready(None) if self.calmed => return Poll::Ready(Err(flood())),
                Poll::Ready(None) => return Poll::Ready(Ok(self.why())),
                Poll::Pending => return self.keep_time(cx),
            }
        }
    }

    /// Says goodbye when somebody wants it to end: streams that there are may end in their time.
    fn obey(&mut self) {
        if let (None, Some(reason)) = (self.leaving, self.children.parent().record().leaving()) {
            self.leave(reason);
        }
    }

    fn leave(&mut self, reason: Reason) {
        if let Link::Open(link) = &mut self.link {
            self.leaving = Some(reason);
            // RFC 9113 §6.8, in two steps: streams that are on their way are not lost.
            link.graceful_shutdown();
        }
    }

    fn why(&self) -> Reason {
        self.leaving.unwrap_or(Reason::ClientClosed)
    }

    fn open(&mut self, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
        let (parts, body) = request.into_parts();
        let mut head = head::translate(&parts, body.is_end_stream());
        let reply = Reply::new(respond, head.bodyless, head.key.take());
        let io = Io::Stream(Box::new(H2Stream::new(head, body, reply)));
        let http = self.http();
        self.children.open(io, |connection, io| Box::pin(client::inside(connection, io, http)));
    }

    /// The protocol as the config in force has it.
    fn http(&mut self) -> Option<Arc<Http>> {
        let connection = self.children.parent();
        let generation = connection.generation();
        if self.generation != generation {
            // A listener that is gone refuses the stream, as it refuses any other request.
            self.http = connection.current().ok()?;
            self.generation = generation;
        }
        Some(self.http.clone())
    }

    /// Expects what is due next; ready when it did not come.
    fn keep_time(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        self.count();
        let living = self.children.living();
        if living > 0 {
            self.children.watch(cx);
        }
        let waits = match self.waits {
            _ if self.watched.is_closing() => Waits::End,
            Waits::Settings if !self.watched.is_settled() => Waits::Settings,
            _ if living == 0 => Waits::Stream,
            _ => Waits::Streams,
        };
        let connection = self.children.parent();
        if waits != self.waits {
            self.waits = waits;
            let (within, reason, stage) = match waits {
                Waits::Settings => return Poll::Pending,
                Waits::Stream => (self.http.settings.idle, Reason::Idle, Stage::Settle),
                Waits::Streams => (self.silence(), Reason::TimeoutGap, Stage::Relay),
                Waits::End => (GOODBYE, self.why(), Stage::Relay),
            };
            connection.expect(within, reason);
            connection.record().enter(stage, Clock::coarse());
        }
        if connection.overdue().is_some() { self.on_overdue(cx) } else { Poll::Pending }
    }

    fn on_overdue(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        match self.waits {
            Waits::Settings => Poll::Ready(Err(overdue(Reason::TimeoutRequestHead))),
            Waits::End => Poll::Ready(Ok(self.why())),
            Waits::Stream if self.leaving.is_some() => Poll::Ready(Ok(self.why())),
            Waits::Stream => {
                self.leave(Reason::Idle);
                self.children.parent().expect(GOODBYE, Reason::Idle);
                // The goodbye is sent by the next poll.
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Waits::Streams => self.listen(cx),
        }
    }

    /// Finds out whether a silent client is there.
    fn listen(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        let silence = self.silence();
        let Link::Open(link) = &mut self.link else { return Poll::Pending };
        if self.pings.is_none() {
            self.pings = link.ping_pong();
        }
        let Some(pings) = &mut self.pings else { return Poll::Pending };
        // Whatever came since then answers as well as a pong; taking that makes room for the next question.
        let _ = pings.poll_pong(cx);
        let heard = self.watched.heard();
        let connection = self.children.parent();
        match self.pinged_at {
            // Both by the coarse clock, and what was heard before is a second older.
            Some(asked) if heard < asked => return Poll::Ready(Err(overdue(Reason::TimeoutGap))),
            _ => self.pinged_at = None,
        }
        let silent = Clock::now().since(heard);
        match silence.checked_sub(silent) {
            // What is expected sooner than the coarse clock ticks would be overdue already.
            Some(left) => connection.expect(left.max(TICK), Reason::TimeoutGap),
            None => {
                // One that is still unanswered is question enough.
                let _ = pings.send_ping(Ping::opaque());
                self.pinged_at = Some(Clock::coarse());
                connection.expect(PONG_WITHIN.min(self.http.settings.idle), Reason::TimeoutGap);
                cx.waker().wake_by_ref();
            }
        }
        Poll::Pending
    }

    /// How long a client may be silent while streams are open; no longer than while none are.
    fn silence(&self) -> Duration {
        SILENCE.min(self.http.settings.idle)
    }

    fn count(&self) {
        if let Some(moved) = self.watched.take_moved() {
            self.note(moved);
        }
    }

    fn note(&self, (up, down): (u64, u64)) {
        let record = self.children.parent().record();
        if up > 0 {
            record.moved(true, up);
        }
        if down > 0 {
            record.moved(false, down);
        }
    }

    fn fault(&self, error: &h2::Error) -> Fault {
        if self.calmed {
            return flood();
        }
        let fault = |reason| Fault::new(Stage::Relay, Whose::Client, reason);
        if error.is_io() || error.is_remote() {
            return fault(Reason::ClientReset).because(error.to_string());
        }
        fault(Reason::ProtocolError).because(error.to_string())
    }
}

impl Future for Front {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let outcome = ready!(self.advance(cx));
        self.note(self.watched.take_rest());
        Poll::Ready(outcome)
    }
}

fn builder(http: &Http, how: Http2Front) -> h2::server::Builder {
    let limits = &http.settings.limits;
    let list = limits.head + limits.fields * FIELD_OVERHEAD;
    let mut builder = h2::server::Builder::new();
    builder
        .max_concurrent_streams(how.streams)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(
            STREAM_WINDOW.saturating_mul(how.streams).clamp(2 * STREAM_WINDOW, CONNECTION_WINDOW_MAX),
        )
        .max_header_list_size(u32::try_from(list).unwrap_or(u32::MAX))
        .max_send_buffer_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(RESETS_UNSEEN)
        .max_local_error_reset_streams(Some(BROKEN_STREAMS))
        .enable_connect_protocol();
    builder
}

fn flood() -> Fault {
    let error = "it sends frames that bring nothing, or gives streams up, faster than is allowed";
    Fault::new(Stage::Relay, Whose::Client, Reason::ProtocolError).because(error)
}

fn overdue(reason: Reason) -> Fault {
    let error = io::Error::from(io::ErrorKind::TimedOut);
    Fault::new(Stage::Relay, Whose::Client, reason).because(error)
}
