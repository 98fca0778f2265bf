//! Moving bytes both ways between a client and its upstream until both are done.
//!
//! Small messages are read into one buffer that the worker's connections share and written on at once: two
//! system calls, nothing owned in between. When a read fills the buffer the direction turns to bulk: pages
//! are spliced through a kernel pipe and never enter this process. Only bytes that the receiver does not take
//! yet are owned, in a remainder or a pipe that goes back when empty: an idle connection owns neither. Where
//! one side speaks TLS, every byte must pass through this process: it is never spliced.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

use crate::Io;
use crate::pipe::{PIPE_SIZE, Pipe};
use crate::stall::Watch;
use crate::throttle::{Throttle, Throttles};

/// One of the two ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// Who connected to us.
    Client,
    /// Whom we connected to.
    Upstream,
}

/// Is told of every byte moved.
pub trait Meter {
    /// `bytes` (more than 0) that `from` sent were handed on.
    fn moved(&self, from: Side, bytes: usize);

    /// Whether it reads along with what `from` sends: for that long nothing of it is spliced.
    fn reads(&self, _from: Side) -> bool {
        false
    }

    /// What `from` sent next, before it is handed on; only while it reads along.
    fn read(&self, _from: Side, _bytes: &[u8]) {}
}

/// How it ended.
#[derive(Debug)]
pub struct Closed {
    /// Who ended its half first, or broke.
    pub first: Side,
    /// What broke that side, if it was not an orderly close.
    pub error: Option<io::Error>,
}

/// The two sides of one relayed connection, and what lies between them.
#[derive(Debug)]
pub struct Duplex {
    client: Io,
    upstream: Io,
    up: Flow,
    down: Flow,
    first: Option<Side>,
    broken: Option<Broken>,
}

impl Duplex {
    /// Joins `client` and `upstream`; `opening` (what was read of the client's already, or a header of ours)
    /// is sent to the upstream before anything else.
    pub fn new(client: Io, upstream: Io, opening: Vec<u8>) -> Self {
        let up = Flow { held: Held::bytes(opening), ..Flow::default() };
        Self { client, upstream, up, down: Flow::default(), first: None, broken: None }
    }

    /// The same, held back by these.
    #[must_use]
    pub fn throttled(mut self, by: Throttles) -> Self {
        self.up.throttle = by.up.map(Box::new);
        self.down.throttle = by.down.map(Box::new);
        self
    }

    /// Moves bytes until both sides are done, for a future to poll: not again once it is ready. May be
    /// dropped at any time: both sockets then close.
    pub fn poll(&mut self, meter: &impl Meter, cx: &mut Context<'_>) -> Poll<Closed> {
        let mut turn = Turn { meter, cx, first: &mut self.first, broken: &mut self.broken };
        let (client, upstream) = (&mut self.client, &mut self.upstream);
        let up = turn.advance(&mut self.up, Side::Client, client, upstream, self.down.is_done());
        let down = turn.advance(&mut self.down, Side::Upstream, upstream, client, self.up.is_done());
        let over = self.broken.as_ref().is_some_and(|broken| matches!(broken.end, End::Sender));
        if !over && (up.is_pending() || down.is_pending()) {
            return Poll::Pending;
        }
        Poll::Ready(self.close())
    }

    /// Both sides, the client's first, for last words of ours to one of them; `None` while something is on
    /// its way that they would cut in two.
    pub fn sides(&mut self) -> Option<(&mut Io, &mut Io)> {
        let is_quiet = |flow: &Flow| matches!(flow.held, Held::Nothing);
        (is_quiet(&self.up) && is_quiet(&self.down)).then_some((&mut self.client, &mut self.upstream))
    }

    fn close(&mut self) -> Closed {
        let Some(broken) = self.broken.take() else {
            return Closed { first: self.first.unwrap_or(Side::Client), error: None };
        };
        // What was cut short must not look whole: both peers see a reset.
        self.client.abort_on_close();
        self.upstream.abort_on_close();
        Closed { first: broken.side, error: Some(broken.error) }
    }
}

/// What broke the connection first.
#[derive(Debug)]
struct Broken {
    side: Side,
    end: End,
    error: io::Error,
}

/// One direction.
#[derive(Debug, Default)]
struct Flow {
    held: Held,
    bulk: bool,
    small_fills: u8,
    watched: Watch,
    stage: FlowStage,
    /// Boxed: hardly any has one.
    throttle: Option<Box<Throttle>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum FlowStage {
    #[default]
    Open,
    /// The sender is done; what is held must still go out.
    Ending,
    Done,
}

/// What was taken from the sender and not yet by the receiver.
#[derive(Debug, Default)]
enum Held {
    #[default]
    Nothing,
    /// Boxed: the common case is nothing, and it should cost little.
    Bytes(Box<Remainder>),
    Pipe(Pipe),
}

#[derive(Debug)]
struct Remainder {
    bytes: Vec<u8>,
    sent: usize,
}

impl Held {
    fn bytes(bytes: Vec<u8>) -> Self {
        if bytes.is_empty() { Held::Nothing } else { Held::Bytes(Box::new(Remainder { bytes, sent: 0 })) }
    }
}

/// The worker's shared buffer, in bytes: what fills it is a bulk transfer.
const SCRATCH: usize = 16 * 1024;

/// A splice that moves less than this, in bytes, would have been cheaper as a read.
const SMALL_FILL: usize = 4 * 1024;

/// So many small splices in a row turn a direction back to reads.
const SMALL_FILLS_MAX: u8 = 4;

/// So many steps of one direction before its neighbours get their turn.
const STEPS_PER_TURN: u32 = 16;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into());
}

/// One poll's view: what both directions need.
struct Turn<'t, 'c, M> {
    meter: &'t M,
    cx: &'t mut Context<'c>,
    first: &'t mut Option<Side>,
    broken: &'t mut Option<Broken>,
}

/// Why a step ended in an error: which end it was.
type Step<T> = Poll<Result<T, (End, io::Error)>>;

#[derive(Clone, Copy, Debug)]
enum End {
    Sender,
    Receiver,
}

impl<M: Meter> Turn<'_, '_, M> {
    fn advance(&mut self, flow: &mut Flow, sender: Side, from: &mut Io, to: &mut Io, last: bool) -> Poll<()> {
        for _ in 0..STEPS_PER_TURN {
            if flow.is_done() {
                return Poll::Ready(());
            }
            if let Err((end, error)) = ready!(self.step(flow, sender, from, to, last)) {
                self.note_break(end, sender, error);
                flow.held = Held::Nothing;
                flow.stage = FlowStage::Done;
            }
        }
        self.cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn step(&mut self, flow: &mut Flow, sender: Side, from: &mut Io, to: &mut Io, last: bool) -> Step<()> {
        if flow.flush(to, self.cx)?.is_pending() {
            // Nobody reads the sender now, so nobody hears of it either.
            if let Some(error) = from.poll_broken(&mut flow.watched, self.cx) {
                return Poll::Ready(Err((End::Sender, error)));
            }
            return Poll::Pending;
        }
        if flow.stage == FlowStage::Ending {
            // The sockets are closed next, which says the same without a system call of its own; but TLS has
            // words for it.
            if !last || !to.is_plain() {
                ready!(Pin::new(to).poll_shutdown(self.cx)).map_err(|error| (End::Receiver, error))?;
            }
            flow.stage = FlowStage::Done;
            return Poll::Ready(Ok(()));
        }
        let moved = ready!(flow.receive(from, to, (self.meter, sender), self.cx))?;
        if moved == 0 {
            flow.stage = FlowStage::Ending;
            self.first.get_or_insert(sender);
        } else {
            self.meter.moved(sender, moved);
        }
        Poll::Ready(Ok(()))
    }

    /// A sender that broke ends both directions: nothing more can come. A receiver that broke ends this one
    /// alone: it may have sent its last words before, and the other direction still brings them.
    fn note_break(&mut self, end: End, sender: Side, error: io::Error) {
        let side = match end {
            End::Sender => sender,
            End::Receiver => other(sender),
        };
        // A receiver that closed in order before it broke has ended in order: it just no longer listens.
        if matches!(end, End::Receiver) && *self.first == Some(side) {
            return;
        }
        self.first.get_or_insert(side);
        self.broken.get_or_insert(Broken { side, end, error });
    }
}

fn other(side: Side) -> Side {
    match side {
        Side::Client => Side::Upstream,
        Side::Upstream => Side::Client,
    }
}

impl Flow {
    fn is_done(&self) -> bool {
        self.stage == FlowStage::Done
    }

    /// Sends on what is held, until nothing is.
    fn flush(&mut self, to: &mut Io, cx: &mut Context<'_>) -> Step<()> {
        loop {
            let sent = match &mut self.held {
                // TLS may hold what it has encrypted; a plain socket holds nothing.
                Held::Nothing => {
                    let flushed = Pin::new(to).poll_flush(cx);
                    return flushed.map_err(|error| (End::Receiver, error));
                }
                Held::Bytes(left) => {
                    let sent = ready!(Pin::new(&mut *to).poll_write(cx, &left.bytes[left.sent..]));
                    sent.map(|sent| left.sent += sent)
                }
                Held::Pipe(pipe) => ready!(pipe.poll_drain(to, cx)).map(drop),
            };
            sent.map_err(|error| (End::Receiver, error))?;
            self.release_if_empty();
        }
    }

    fn release_if_empty(&mut self) {
        let empty = match &self.held {
            Held::Nothing => false,
            Held::Bytes(left) => left.sent == left.bytes.len(),
            Held::Pipe(pipe) => pipe.held() == 0,
        };
        if empty && let Held::Pipe(pipe) = std::mem::take(&mut self.held) {
            pipe.give_back();
        }
    }

    /// Takes what the sender has, by the cheaper way for what it sends: 0 at its end.
    fn receive(
        &mut self,
        from: &mut Io,
        to: &mut Io,
        told: (&impl Meter, Side),
        cx: &mut Context<'_>,
    ) -> Step<usize> {
        let (meter, sender) = told;
        let most = match &mut self.throttle {
            None => SCRATCH,
            Some(throttle) => {
                // Before its turn is taken: who has nothing to send needs none.
                ready!(from.poll_ready(Interest::READABLE, cx)).map_err(|error| (End::Sender, error))?;
                ready!(throttle.poll_grant(SCRATCH, cx))
            }
        };
        if self.bulk && self.throttle.is_none() && from.is_plain() && to.is_plain() && !meter.reads(sender) {
            ready!(from.poll_ready(Interest::READABLE, cx)).map_err(|error| (End::Sender, error))?;
            // Without a descriptor left for a pipe, reading needs none.
            if let Ok(pipe) = Pipe::take() {
                return self.splice(pipe, from, cx);
            }
        }
        let copied = self.copy(from, to, most, told, cx);
        if let (Some(throttle), Poll::Ready(Ok(count))) = (&mut self.throttle, &copied) {
            throttle.went(*count);
        }
        copied
    }

    /// Reads `most` bytes at most into the shared buffer and writes them on; keeps what the receiver does not
    /// take.
    fn copy(
        &mut self,
        from: &mut Io,
        to: &mut Io,
        most: usize,
        (meter, sender): (&impl Meter, Side),
        cx: &mut Context<'_>,
    ) -> Step<usize> {
        BUFFER.with_borrow_mut(|buffer| {
            let mut space = ReadBuf::new(&mut buffer[..most]);
            ready!(Pin::new(from).poll_read(cx, &mut space)).map_err(|error| (End::Sender, error))?;
            let bytes = space.filled();
            self.bulk = bytes.len() == SCRATCH;
            if meter.reads(sender) {
                meter.read(sender, bytes);
            }
            let sent = match bytes {
                [] => 0,
                _ => match Pin::new(to).poll_write(cx, bytes) {
                    Poll::Ready(sent) => sent.map_err(|error| (End::Receiver, error))?,
                    Poll::Pending => 0,
                },
            };
            self.held = Held::bytes(bytes[sent..].to_vec());
            Poll::Ready(Ok(bytes.len()))
        })
    }

    /// Moves pages into a pipe, from which [`Flow::flush`] moves them on.
    fn splice(&mut self, mut pipe: Pipe, from: &Io, cx: &mut Context<'_>) -> Step<usize> {
        let Poll::Ready(moved) = pipe.poll_fill(from, PIPE_SIZE, cx) else {
            pipe.give_back();
            return Poll::Pending;
        };
        let moved = moved.map_err(|error| (End::Sender, error))?;
        self.small_fills = if moved < SMALL_FILL { self.small_fills + 1 } else { 0 };
        self.bulk = self.small_fills < SMALL_FILLS_MAX;
        self.held = Held::Pipe(pipe);
        self.release_if_empty();
        Poll::Ready(Ok(moved))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::thread::JoinHandle;

    #[derive(Default)]
    struct Counts {
        up: Cell<usize>,
        down: Cell<usize>,
    }

    impl Meter for Counts {
        fn moved(&self, from: Side, bytes: usize) {
            let count = if from == Side::Client { &self.up } else { &self.down };
            count.set(count.get() + bytes);
        }
    }

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (ours, listener.accept().unwrap().0)
    }

    fn io(stream: TcpStream) -> Io {
        stream.set_nonblocking(true).unwrap();
        Io::Tcp(tokio::net::TcpStream::from_std(stream).unwrap())
    }

    /// Runs a duplex between `client` and `upstream`, each played by a thread at the far end.
    fn relay<C: Send + 'static, U: Send + 'static>(
        opening: &[u8],
        client: impl FnOnce(TcpStream) -> C + Send + 'static,
        upstream: impl FnOnce(TcpStream) -> U + Send + 'static,
    ) -> (Closed, Counts, C, U) {
        let ((client_far, client_near), (upstream_near, upstream_far)) = (pair(), pair());
        let client: JoinHandle<C> = std::thread::spawn(move || client(client_far));
        let upstream: JoinHandle<U> = std::thread::spawn(move || upstream(upstream_far));
        let counts = Counts::default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let closed = runtime.block_on(async {
            let mut duplex = Duplex::new(io(client_near), io(upstream_near), opening.to_vec());
            std::future::poll_fn(|cx| duplex.poll(&counts, cx)).await
        });
        (closed, counts, client.join().unwrap(), upstream.join().unwrap())
    }

    fn pattern(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at * 31 / 7) as u8).collect()
    }

    fn read_all(mut stream: &TcpStream) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).map(|_| bytes)
    }

    #[test]
    fn half_close_is_kept_exactly() {
        let (closed, counts, answer, question) = relay(
            b"",
            |mut stream| {
                stream.write_all(b"question").unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
                read_all(&stream).unwrap()
            },
            |mut stream| {
                // The answer begins only after the end of the question was seen.
                let question = read_all(&stream).unwrap();
                stream.write_all(b"late answer").unwrap();
                question
            },
        );
        assert_eq!((question.as_slice(), answer.as_slice()), (&b"question"[..], &b"late answer"[..]));
        assert_eq!((counts.up.get(), counts.down.get()), (8, 11));
        assert!(closed.error.is_none() && closed.first == Side::Client);
    }

    #[test]
    fn bulk_both_ways_arrives_whole() {
        const LENGTH: usize = 24 << 20;
        let talk = |stream: TcpStream| {
            let mut writer = stream.try_clone().unwrap();
            let writing = std::thread::spawn(move || {
                writer.write_all(&pattern(LENGTH)).unwrap();
                writer.shutdown(Shutdown::Write).unwrap();
            });
            let read = read_all(&stream).unwrap();
            writing.join().unwrap();
            read
        };
        let (closed, counts, down, up) = relay(b"", talk, talk);
        assert!(down == pattern(LENGTH) && up == pattern(LENGTH));
        assert_eq!((counts.up.get(), counts.down.get()), (LENGTH, LENGTH));
        assert!(closed.error.is_none());
    }

    #[test]
    fn sizes_around_the_switch_to_bulk_arrive_whole() {
        let sizes = [1, SCRATCH - 1, SCRATCH, 3, SCRATCH + 1, 200_000, 1, 2, 3, 4, 5, 70_000];
        let (_, _, (), up) = relay(
            b"opening ",
            move |mut stream| {
                for size in sizes {
                    stream.write_all(&pattern(size)).unwrap();
                    // The echo of each size keeps them apart.
                    stream.read_exact(&mut [0]).unwrap();
                }
            },
            move |mut stream| {
                let mut opening = [0; 8];
                stream.read_exact(&mut opening).unwrap();
                for size in sizes {
                    let mut bytes = vec![0; size];
                    stream.read_exact(&mut bytes).unwrap();
                    assert!(bytes == pattern(size), "{size}");
                    stream.write_all(b"k").unwrap();
                }
                opening
            },
        );
        assert_eq!(&up, b"opening ");
    }

    fn reset(stream: TcpStream) {
        socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    }

    #[test]
    fn an_upstream_reset_reaches_the_client_as_a_reset() {
        let (closed, _, error, ()) = relay(
            b"",
            |mut stream| {
                stream.write_all(b"x").unwrap();
                read_all(&stream).unwrap_err()
            },
            |mut stream| {
                stream.read_exact(&mut [0]).unwrap();
                reset(stream);
            },
        );
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert!(closed.error.is_some() && closed.first == Side::Upstream);
    }

    #[test]
    fn a_client_reset_ends_a_silent_upstream() {
        let (closed, _, (), error) = relay(
            b"",
            |mut stream| {
                stream.read_exact(&mut [0]).unwrap();
                reset(stream);
            },
            |mut stream| {
                stream.write_all(b"x").unwrap();
                read_all(&stream).unwrap_err()
            },
        );
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert!(closed.error.is_some() && closed.first == Side::Client);
    }

    #[test]
    fn last_words_of_an_upstream_that_stopped_listening_arrive() {
        let (closed, _, words, ()) = relay(
            b"",
            |mut stream| {
                let mut words = vec![0; 10];
                stream.read_exact(&mut words).unwrap();
                // Keep sending to an upstream that has closed, until the relay gives up.
                while stream.write_all(&[0; 1_000]).is_ok() {}
                words
            },
            |mut stream| stream.write_all(b"last words").unwrap(),
        );
        assert_eq!(words, b"last words");
        assert_eq!(closed.first, Side::Upstream);
    }
}
