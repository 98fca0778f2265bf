//! A connection of HTTP/2 to an endpoint.

use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Ping, PingPong};
use tieline_base::{Clock, Moment};
use tieline_pool::Trunk;
use tieline_transport::Io;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

use super::Wire;
use super::frames::Frames;
use super::stream::Stream;

/// The most streams on one connection, whatever its endpoint allows.
pub(super) const STREAMS_MAX: usize = 128;

/// What a connection's parts share: who moves its bytes, its streams, and the pool. All on one thread; the
/// atomics are there because a stream could be on another, for all that its type says.
#[derive(Debug)]
pub(super) struct Line {
    streams: AtomicUsize,
    heard: AtomicU64,
    asked: AtomicBool,
    over: AtomicBool,
    /// The last stream that the endpoint may process, once it has said goodbye.
    last: AtomicU32,
    changed: Arc<Notify>,
    ask: Notify,
    cut: Notify,
}

/// The endpoint has not said goodbye: above every stream.
const NO_LAST: u32 = u32::MAX;

impl Line {
    pub(super) fn new(changed: Arc<Notify>) -> Line {
        Line {
            streams: AtomicUsize::new(0),
            heard: AtomicU64::new(Clock::coarse().0),
            asked: AtomicBool::new(false),
            over: AtomicBool::new(false),
            last: AtomicU32::new(NO_LAST),
            changed,
            ask: Notify::new(),
            cut: Notify::new(),
        }
    }

    /// Whether the endpoint has promised not to process this stream.
    pub(super) fn spares(&self, stream: u32) -> bool {
        stream > self.last.load(Ordering::Relaxed)
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed) || self.last.load(Ordering::Relaxed) != NO_LAST
    }

    fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
        self.changed.notify_waiters();
    }

    fn hear(&self, last: Option<u32>) {
        self.heard.store(Clock::coarse().0, Ordering::Relaxed);
        if let Some(last) = last {
            // The first of two says goodbye before it is decided what is still taken.
            self.last.fetch_min(last, Ordering::Relaxed);
        }
        if self.asked.swap(false, Ordering::Relaxed) || last.is_some() {
            self.changed.notify_waiters();
        }
    }
}

/// One stream's place; dropping it gives the place to another.
#[derive(Debug)]
pub(super) struct Slot(pub(super) Arc<Line>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
        self.0.changed.notify_one();
    }
}

/// The pool's handle. While it lives, the connection does not close for want of streams.
struct Handle {
    send: SendRequest<Bytes>,
    line: Arc<Line>,
    secure: bool,
}

pub(super) fn trunk(send: SendRequest<Bytes>, line: Arc<Line>, secure: bool) -> Arc<dyn Trunk> {
    Arc::new(Handle { send, line, secure })
}

impl Trunk for Handle {
    fn open(&self) -> Option<Io> {
        let most = self.send.current_max_send_streams().min(STREAMS_MAX);
        if self.line.is_over() || self.carried() >= most {
            return None;
        }
        let mut send = self.send.clone();
        match send.poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(_)) => {
                self.line.over.store(true, Ordering::Relaxed);
                return None;
            }
            Poll::Pending => return None,
        }
        self.line.streams.fetch_add(1, Ordering::Relaxed);
        let slot = Slot(self.line.clone());
        Some(Io::Stream(Box::new(Stream::new(send, slot, self.secure))))
    }

    fn carried(&self) -> usize {
        self.line.streams.load(Ordering::Relaxed)
    }

    fn is_over(&self) -> bool {
        self.line.is_over()
    }

    fn heard(&self) -> Moment {
        Moment(self.line.heard.load(Ordering::Relaxed))
    }

    fn ask(&self) {
        self.line.asked.store(true, Ordering::Relaxed);
        self.line.ask.notify_one();
    }

    fn owes_answer(&self) -> bool {
        self.line.asked.load(Ordering::Relaxed)
    }

    fn cut(&self) {
        self.line.cut.notify_one();
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("line", &self.line).finish_non_exhaustive()
    }
}

/// Moves the bytes of `connection` until it is over.
pub(super) async fn drive(connection: Wire, mut pings: PingPong, line: Arc<Line>) {
    let mut connection = pin!(connection);
    // Dropping the connection breaks its streams, which is what a cut is for; the other arms hold nothing.
    tokio::select! {
        // Its streams know why.
        _ = &mut connection => {}
        () = line.cut.notified() => {}
        () = ask_when_told(&mut pings, &line) => {}
    }
    line.end();
}

async fn ask_when_told(pings: &mut PingPong, line: &Line) {
    loop {
        line.ask.notified().await;
        // The answer to the last one is taken off, or no other may be sent. That one is still out is no harm:
        // its answer is as good.
        let _ = pings.poll_pong(&mut Context::from_waker(Waker::noop()));
        let _ = pings.send_ping(Ping::opaque());
    }
}

/// The connection's bytes, with an eye on those that come.
#[derive(Debug)]
pub(super) struct Watched {
    io: Io,
    frames: Frames,
    line: Arc<Line>,
}

impl Watched {
    pub(super) fn new(io: Io, line: Arc<Line>) -> Watched {
        Watched { io, frames: Frames::default(), line }
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(cx, buffer))?;
        let new = &buffer.filled()[before..];
        if !new.is_empty() {
            this.line.hear(this.frames.pass(new));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    /// A frame's head and its payload in one system call.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
