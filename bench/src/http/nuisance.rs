//! Clients that do harm: slow ones, and floods.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use clap::ValueEnum;

use super::h2_frames::{
    CONTINUATION, DATA, END, END_HEADERS, HEADERS, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE, begin, fields,
    frame, read, request,
};
use super::secure::Trust;
use crate::crowd::connect;

/// What a nuisance does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Nuisance {
    /// A byte of a head now and then.
    SlowHead,
    /// A byte of a body now and then.
    SlowBody,
    /// A large answer that nobody reads.
    SlowReading,
    /// A byte of a TLS hello now and then.
    SlowHandshake,
    /// Requests as fast as they are answered.
    Requests,
    /// Connections that close at once.
    Connections,
    /// Full TLS handshakes, as fast as they come.
    Handshakes,
    /// Streams of HTTP/2 that are given up as soon as they are opened.
    Resets,
    /// A head of HTTP/2 that never ends.
    Continuations,
    /// Frames of HTTP/2 that bring nothing: pings, settings, empty data.
    Frames,
    /// A hundred large answers on each connection, and no window for any of them.
    ClosedWindows,
    /// A large answer that is taken byte by byte, each with a window of its own.
    TinyWindows,
}

/// How many slow clients there are at once.
pub(crate) const SLOW: usize = 2_000;
/// How many floods flow at once.
const FLOODING: usize = 16;
/// Between two bytes of a slow client: slower than any limit, faster than any gap that is allowed.
const BETWEEN: Duration = Duration::from_secs(5);

impl Nuisance {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Nuisance::SlowHead => "slow heads",
            Nuisance::SlowBody => "slow bodies",
            Nuisance::SlowReading => "slow readers",
            Nuisance::SlowHandshake => "slow TLS hellos",
            Nuisance::Requests => "flood of small requests",
            Nuisance::Connections => "flood of connections",
            Nuisance::Handshakes => "flood of TLS handshakes",
            Nuisance::Resets => "HTTP/2: streams given up at once",
            Nuisance::Continuations => "HTTP/2: heads without an end",
            Nuisance::Frames => "HTTP/2: frames that bring nothing",
            Nuisance::ClosedWindows => "HTTP/2: windows kept closed",
            Nuisance::TinyWindows => "HTTP/2: windows of one byte",
        }
    }

    /// Whether it speaks HTTP/2, by prior knowledge.
    pub(crate) fn speaks_http2(self) -> bool {
        use Nuisance::{ClosedWindows, Continuations, Frames, Resets, TinyWindows};
        matches!(self, Resets | Continuations | Frames | ClosedWindows | TinyWindows)
    }

    /// Goes on until `over`; how often it did what it does.
    pub(crate) fn go_on(
        self,
        plain: SocketAddr,
        secure: SocketAddr,
        trust: &Trust,
        over: &AtomicBool,
    ) -> u64 {
        let done = AtomicU64::new(0);
        match self {
            Nuisance::SlowHead => {
                slow(plain, b"GET / HTTP/1.1\r\nHost: bench.test\r\nX-Slow: ", b"x", over, &done)
            }
            Nuisance::SlowBody => {
                let head = b"POST /patient HTTP/1.1\r\nHost: bench.test\r\nContent-Length: 1000000\r\n\r\n";
                slow(plain, head, b"x", over, &done);
            }
            Nuisance::SlowReading => {
                let request = format!("GET /{LARGE} HTTP/1.1\r\nHost: bench.test\r\n\r\n");
                slow(plain, request.as_bytes(), b"", over, &done);
            }
            Nuisance::SlowHandshake => {
                let hello = trust.hello().unwrap_or_default();
                slow(secure, &hello[..hello.len() / 2], b"", over, &done);
            }
            Nuisance::Requests => flood(over, &done, |source| requests(plain, source, over, &done)),
            Nuisance::Connections => flood(over, &done, |source| connect(plain, source).map(drop)),
            Nuisance::Handshakes => {
                flood(over, &done, |source| trust.over(connect(secure, source)?).map(drop));
            }
            Nuisance::Resets => flood(over, &done, |source| resets(plain, source, over, &done)),
            Nuisance::Continuations => flood(over, &done, |source| continuations(plain, source, over, &done)),
            Nuisance::Frames => flood(over, &done, |source| frames(plain, source, over, &done)),
            Nuisance::ClosedWindows => flood(over, &done, |source| closed_windows(plain, source, over)),
            Nuisance::TinyWindows => flood(over, &done, |source| tiny_windows(plain, source, over, &done)),
        }
        done.into_inner()
    }
}

/// The size of the answer that slow readers ask for: more than all buffers between hold.
pub(crate) const LARGE: usize = 16 << 20;

/// [`SLOW`] clients that say `first`, and then `next` every [`BETWEEN`]. One that is cut off comes again.
fn slow(to: SocketAddr, first: &[u8], next: &[u8], over: &AtomicBool, done: &AtomicU64) {
    let mut clients: Vec<Option<TcpStream>> = (0..SLOW).map(|_| None).collect();
    give_way();
    let step = BETWEEN / u32::try_from(SLOW).unwrap_or(1);
    for at in (0..SLOW).cycle() {
        if over.load(Ordering::Relaxed) {
            return;
        }
        let stays =
            clients[at].as_mut().is_some_and(|client| is_open(client) && client.write_all(next).is_ok());
        if !stays {
            clients[at] = open(to, at, first).ok();
            done.fetch_add(1, Ordering::Relaxed);
        }
        std::thread::sleep(step);
    }
}

fn open(to: SocketAddr, source: usize, first: &[u8]) -> io::Result<TcpStream> {
    let mut client = connect(to, source)?;
    // Who would not take a byte must not hold up the others.
    client.set_write_timeout(Some(Duration::from_millis(10)))?;
    client.write_all(first)?;
    Ok(client)
}

fn is_open(client: &TcpStream) -> bool {
    let looked = client.set_nonblocking(true).and_then(|()| client.peek(&mut [0]));
    let restored = client.set_nonblocking(false).is_ok();
    restored
        && match looked {
            Ok(length) => length > 0,
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        }
}

/// Does `once` again and again, in [`FLOODING`] threads.
fn flood(over: &AtomicBool, done: &AtomicU64, once: impl Fn(usize) -> io::Result<()> + Sync) {
    std::thread::scope(|scope| {
        for thread in 0..FLOODING {
            let once = &once;
            scope.spawn(move || {
                give_way();
                for turn in 0.. {
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                    // A refusal is an answer, too.
                    let _ = once(thread + turn);
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
}

/// Makes the calling thread take what others leave of its CPU: whoever floods from elsewhere takes nothing of
/// the clients' CPUs.
fn give_way() {
    // Linux counts niceness by the thread; a kernel that refuses leaves things as they were.
    let _ = rustix::process::nice(39);
}

/// Requests without a pause, sixteen at a time in one write, over one connection until it breaks.
fn requests(to: SocketAddr, source: usize, over: &AtomicBool, done: &AtomicU64) -> io::Result<()> {
    let mut client = connect(to, source)?;
    let many = b"GET /128 HTTP/1.1\r\nHost: bench.test\r\n\r\n".repeat(16);
    let mut place = vec![0; 64 << 10];
    while !over.load(Ordering::Relaxed) {
        client.write_all(&many)?;
        if client.read(&mut place)? == 0 {
            return Ok(());
        }
        done.fetch_add(16, Ordering::Relaxed);
    }
    Ok(())
}

/// Streams that are opened and given up in one write, until the connection is ended for it.
fn resets(to: SocketAddr, source: usize, over: &AtomicBool, done: &AtomicU64) -> io::Result<()> {
    const CANCEL: u32 = 8;
    let mut client = begin(to, source, 65_535)?;
    for round in 0..1 << 26 {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let streams = (0..16).map(|at| 2 * (16 * round + at) + 1);
        let each =
            |stream| [request(stream, "/128"), frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())].concat();
        client.write_all(&streams.flat_map(each).collect::<Vec<u8>>())?;
        done.fetch_add(16, Ordering::Relaxed);
    }
    Ok(())
}

/// A head that goes on and on, until the connection is ended for it.
fn continuations(to: SocketAddr, source: usize, over: &AtomicBool, done: &AtomicU64) -> io::Result<()> {
    let mut client = begin(to, source, 65_535)?;
    client.write_all(&frame(HEADERS, END, 1, &fields("GET", "/128")))?;
    let more = frame(CONTINUATION, 0, 1, b"\0\x01x\x01y").repeat(64);
    while !over.load(Ordering::Relaxed) {
        client.write_all(&more)?;
        done.fetch_add(64, Ordering::Relaxed);
    }
    Ok(())
}

/// Pings, settings and data without a byte, until the connection is ended for it.
fn frames(to: SocketAddr, source: usize, over: &AtomicBool, done: &AtomicU64) -> io::Result<()> {
    let mut client = begin(to, source, 65_535)?;
    client.write_all(&frame(HEADERS, END_HEADERS, 1, &fields("POST", "/patient")))?;
    let three = [frame(PING, 0, 0, &[0; 8]), frame(SETTINGS, 0, 0, &[]), frame(DATA, 0, 1, &[])].concat();
    while !over.load(Ordering::Relaxed) {
        client.write_all(&three.repeat(16))?;
        done.fetch_add(48, Ordering::Relaxed);
    }
    Ok(())
}

/// Many large answers of which not a byte may come, for a while.
fn closed_windows(to: SocketAddr, source: usize, over: &AtomicBool) -> io::Result<()> {
    let mut client = begin(to, source, 0)?;
    let path = format!("/{LARGE}");
    client.write_all(&(0..100).flat_map(|at| request(2 * at + 1, &path)).collect::<Vec<u8>>())?;
    for _ in 0..CLOSED_FOR {
        if over.load(Ordering::Relaxed) || !is_open(&client) {
            break;
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    Ok(())
}

/// So many seconds.
const CLOSED_FOR: usize = 20;

/// A large answer, one byte at a time.
fn tiny_windows(to: SocketAddr, source: usize, over: &AtomicBool, done: &AtomicU64) -> io::Result<()> {
    let mut client = begin(to, source, 1)?;
    client.write_all(&request(1, &format!("/{LARGE}")))?;
    let one = 1_u32.to_be_bytes();
    let more = [frame(WINDOW_UPDATE, 0, 0, &one), frame(WINDOW_UPDATE, 0, 1, &one)].concat();
    while !over.load(Ordering::Relaxed) {
        if let (DATA, _, payload) = read(&mut client)?
            && !payload.is_empty()
        {
            client.write_all(&more)?;
            done.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}
