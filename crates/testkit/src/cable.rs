//! A TCP path between two programs that a test can cut and block.

#![allow(clippy::disallowed_types)] // plain threads of a test's own

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::ports::loopback;

/// Passes the bytes of every connection to its address on to another one, as long as the test lets it.
pub struct Cable {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    to: SocketAddr,
    ending: AtomicBool,
    refusing: AtomicBool,
    accepted: AtomicUsize,
    carried: AtomicU64,
    connections: Mutex<Vec<Arc<Strand>>>,
}

/// One connection.
struct Strand {
    near: TcpStream,
    far: TcpStream,
    /// Nothing passes, and nobody is told.
    blocked: AtomicBool,
    cut: AtomicBool,
}

/// How often a strand looks whether it is still to pass bytes.
const LOOK: Duration = Duration::from_millis(5);

impl Cable {
    /// A cable to `to`.
    ///
    /// # Panics
    /// If there is no free port.
    pub fn to(to: SocketAddr) -> Cable {
        let listener = TcpListener::bind(loopback(0)).expect("there is a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared {
            to,
            ending: AtomicBool::new(false),
            refusing: AtomicBool::new(false),
            accepted: AtomicUsize::new(0),
            carried: AtomicU64::new(0),
            connections: Mutex::default(),
        });
        let accepting = shared.clone();
        std::thread::spawn(move || accept(&listener, &accepting));
        Cable { address, shared }
    }

    /// Where its near end is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it leads.
    pub fn leads_to(&self) -> SocketAddr {
        self.shared.to
    }

    /// How many connections it has carried, those that live among them.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    /// How many bytes have passed, both ways.
    pub fn carried(&self) -> u64 {
        self.shared.carried.load(Ordering::Relaxed)
    }

    /// Cuts every connection that lives, in the middle of whatever it carries; new ones pass.
    pub fn cut(&self) {
        self.shared.living().drain(..).for_each(|strand| strand.cut());
    }

    /// From now on new connections are closed at once or, again, carried.
    pub fn refuse(&self, refusing: bool) {
        self.shared.refusing.store(refusing, Ordering::SeqCst);
    }

    /// From now on nothing passes over the connections that live, and neither end is told; new ones pass.
    pub fn block(&self) {
        self.shared.living().iter().for_each(|strand| strand.blocked.store(true, Ordering::SeqCst));
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address); // wakes the acceptor, which then sees that we end
        self.cut();
    }
}

impl Shared {
    fn living(&self) -> MutexGuard<'_, Vec<Arc<Strand>>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Strand {
    fn cut(&self) {
        self.cut.store(true, Ordering::SeqCst);
        let _ = (self.near.shutdown(Shutdown::Both), self.far.shutdown(Shutdown::Both));
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for near in listener.incoming() {
        if shared.ending.load(Ordering::SeqCst) {
            return;
        }
        let Ok(near) = near else { continue };
        if shared.refusing.load(Ordering::SeqCst) {
            continue;
        }
        // Where nobody listens at the far end, the near one is closed.
        let Ok(far) = TcpStream::connect(shared.to) else { continue };
        let _ = (near.set_nodelay(true), far.set_nodelay(true));
        let (blocked, cut) = Default::default();
        let strand = Arc::new(Strand { near, far, blocked, cut });
        shared.accepted.fetch_add(1, Ordering::Relaxed);
        shared.living().push(strand.clone());
        for forth in [true, false] {
            let (strand, shared) = (strand.clone(), shared.clone());
            std::thread::spawn(move || pass(&strand, forth, &shared));
        }
    }
}

/// Passes one direction on until it ends.
fn pass(strand: &Strand, forth: bool, shared: &Shared) {
    let (mut from, mut to) = if forth { (&strand.near, &strand.far) } else { (&strand.far, &strand.near) };
    let _ = from.set_read_timeout(Some(LOOK));
    let mut piece = vec![0; 64 << 10];
    while !strand.cut.load(Ordering::SeqCst) {
        let read = from.read(&mut piece);
        if read.as_ref().is_err_and(is_early) {
            continue;
        }
        // What comes once it is blocked goes no further, though it was waited for before.
        while strand.blocked.load(Ordering::SeqCst) {
            if strand.cut.load(Ordering::SeqCst) {
                return;
            }
            std::thread::sleep(LOOK);
        }
        let length = match read {
            Ok(0) => break,
            Ok(length) => length,
            Err(_) => return strand.cut(),
        };
        // Counted first: whoever has them may ask.
        shared.carried.fetch_add(length as u64, Ordering::Relaxed);
        if to.write_all(&piece[..length]).is_err() {
            return strand.cut();
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

fn is_early(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::Cable;
    use crate::{PATIENCE, TcpServer};
    use std::io::{ErrorKind, Read, Write};
    use std::net::TcpStream;
    use std::time::Duration;

    fn client(cable: &Cable) -> TcpStream {
        let client = TcpStream::connect(cable.address()).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client
    }

    #[test]
    fn bytes_pass_until_they_are_cut_or_blocked() {
        let echo = TcpServer::echo();
        let cable = Cable::to(echo.address());
        let mut first = client(&cable);
        first.write_all(b"ping").unwrap();
        first.read_exact(&mut [0; 4]).unwrap();
        assert_eq!((cable.accepted(), cable.carried()), (1, 8));
        cable.block();
        first.write_all(b"ping").unwrap();
        first.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        assert_eq!(first.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        let mut second = client(&cable);
        second.write_all(b"pong").unwrap();
        second.read_exact(&mut [0; 4]).unwrap();
        cable.cut();
        assert!(!matches!(second.read(&mut [0]), Ok(1..)));
    }
}
