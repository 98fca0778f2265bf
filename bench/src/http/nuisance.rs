//! Clients that do harm: slow ones, and floods.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::secure::Trust;
use crate::crowd::connect;

/// What a nuisance does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
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
}

/// How many slow clients there are at once.
pub(crate) const SLOW: usize = 2_000;
/// How many floods flow at once.
const FLOODING: usize = 16;
/// Between two bytes of a slow client: slower than any limit, faster than any gap that is allowed.
const BETWEEN: Duration = Duration::from_secs(5);

impl Nuisance {
    pub(crate) const ALL: [Nuisance; 7] = [
        Nuisance::SlowHead,
        Nuisance::SlowBody,
        Nuisance::SlowReading,
        Nuisance::SlowHandshake,
        Nuisance::Requests,
        Nuisance::Connections,
        Nuisance::Handshakes,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Nuisance::SlowHead => "slow heads",
            Nuisance::SlowBody => "slow bodies",
            Nuisance::SlowReading => "slow readers",
            Nuisance::SlowHandshake => "slow TLS hellos",
            Nuisance::Requests => "flood of small requests",
            Nuisance::Connections => "flood of connections",
            Nuisance::Handshakes => "flood of TLS handshakes",
        }
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
