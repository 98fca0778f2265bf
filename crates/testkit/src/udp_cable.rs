//! A UDP path between two programs that a test can block, and whose far side can change its address.

#![allow(clippy::disallowed_types)] // plain threads of a test's own

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::Cable;
use crate::ports::loopback;

/// Passes datagrams on, as a router that translates addresses does: each sender gets a socket of its own
/// towards the other end. Closed when it is dropped.
pub struct UdpCable {
    shared: Arc<Shared>,
    passing: Option<JoinHandle<()>>,
}

struct Shared {
    near: UdpSocket,
    to: SocketAddr,
    ending: AtomicBool,
    blocked: AtomicBool,
    /// One datagram in so many is lost; 0: none.
    loses: AtomicU64,
    /// Datagrams that came, both ways.
    came: AtomicU64,
    passed: AtomicU64,
    /// The translation as it stands: by its number, so that the last one's answers end with it.
    translation: AtomicU64,
    senders: Mutex<HashMap<SocketAddr, Arc<UdpSocket>>>,
    /// The address by which senders are seen at the other end.
    seen: Mutex<IpAddr>,
}

/// How often a thread looks whether it is still to pass datagrams.
const LOOK: Duration = Duration::from_millis(20);

impl UdpCable {
    /// Beside `cable`, at the same port and to the same place.
    ///
    /// # Panics
    /// If something else has the port.
    pub fn beside(cable: &Cable) -> UdpCable {
        let near = UdpSocket::bind(cable.address()).expect("nobody else has the port of the cable");
        near.set_read_timeout(Some(LOOK)).expect("a socket takes a timeout");
        let shared = Arc::new(Shared {
            near,
            to: cable.leads_to(),
            ending: AtomicBool::new(false),
            blocked: AtomicBool::new(false),
            loses: AtomicU64::new(0),
            came: AtomicU64::new(0),
            passed: AtomicU64::new(0),
            translation: AtomicU64::new(0),
            senders: Mutex::default(),
            seen: Mutex::new(loopback(0).ip()),
        });
        let passing = shared.clone();
        let passing = Some(std::thread::spawn(move || pass(&passing)));
        UdpCable { shared, passing }
    }

    /// How many datagrams have passed, both ways.
    pub fn passed(&self) -> u64 {
        self.shared.passed.load(Ordering::Relaxed)
    }

    /// From now on, every datagram is dropped or, again, passed.
    pub fn block(&self, blocked: bool) {
        self.shared.blocked.store(blocked, Ordering::SeqCst);
    }

    /// From now on one datagram in `one_in` is lost; 0: none.
    pub fn lose(&self, one_in: u64) {
        self.shared.loses.store(one_in, Ordering::SeqCst);
    }

    /// The other end sees every sender at another address from now on; what comes to the old one is lost.
    pub fn rebind(&self) {
        self.shared.translation.fetch_add(1, Ordering::SeqCst);
        self.shared.senders.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// [`UdpCable::rebind`] to `address`, one of this machine.
    pub fn rebind_to(&self, address: IpAddr) {
        *self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner) = address;
        self.rebind();
    }
}

impl Drop for UdpCable {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::SeqCst);
        let _ = self.passing.take().map(JoinHandle::join);
        // Its port is free when nobody else holds the socket: they look again and again.
        while Arc::strong_count(&self.shared) > 1 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Shared {
    fn ends(&self) -> bool {
        self.ending.load(Ordering::SeqCst)
    }

    fn count_unless_blocked(&self) -> bool {
        let number = self.came.fetch_add(1, Ordering::Relaxed);
        let lost = number.checked_rem(self.loses.load(Ordering::SeqCst)) == Some(0);
        let passes = !lost && !self.blocked.load(Ordering::SeqCst);
        self.passed.fetch_add(u64::from(passes), Ordering::Relaxed);
        passes
    }

    /// The socket that speaks for `sender`.
    fn translated(self: &Arc<Self>, sender: SocketAddr) -> Option<Arc<UdpSocket>> {
        let mut senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(socket) = senders.get(&sender) {
            return Some(socket.clone());
        }
        let seen = *self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let socket = UdpSocket::bind((seen, 0)).and_then(|socket| {
            socket.connect(self.to)?;
            socket.set_read_timeout(Some(LOOK))?;
            Ok(socket)
        });
        let socket = Arc::new(socket.ok()?);
        senders.insert(sender, socket.clone());
        let (shared, back, number) = (self.clone(), socket.clone(), self.translation.load(Ordering::SeqCst));
        std::thread::spawn(move || answer(&shared, &back, sender, number));
        Some(socket)
    }
}

/// The largest datagram.
const DATAGRAM: usize = 64 << 10;

fn pass(shared: &Arc<Shared>) {
    let mut datagram = vec![0; DATAGRAM];
    while !shared.ends() {
        // An error is the answer of somebody who is gone, or nothing came.
        let Ok((length, sender)) = shared.near.recv_from(&mut datagram) else { continue };
        if shared.count_unless_blocked()
            && let Some(socket) = shared.translated(sender)
        {
            let _ = socket.send(&datagram[..length]);
        }
    }
}

/// Passes on what comes back for `sender`, while that translation stands.
fn answer(shared: &Shared, from: &UdpSocket, sender: SocketAddr, number: u64) {
    let mut datagram = vec![0; DATAGRAM];
    while !shared.ends() && shared.translation.load(Ordering::SeqCst) == number {
        let Ok(length) = from.recv(&mut datagram) else { continue };
        if shared.count_unless_blocked() {
            let _ = shared.near.send_to(&datagram[..length], sender);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::UdpCable;
    use crate::{Cable, PATIENCE};
    use std::net::UdpSocket;
    use std::time::Duration;

    #[test]
    fn datagrams_pass_both_ways_until_they_are_blocked() {
        let far = UdpSocket::bind("127.0.0.1:0").unwrap();
        let near = UdpSocket::bind("127.0.0.1:0").unwrap();
        [&far, &near].into_iter().for_each(|one| one.set_read_timeout(Some(PATIENCE)).unwrap());
        let cable = Cable::to(far.local_addr().unwrap());
        let udp = UdpCable::beside(&cable);
        near.connect(cable.address()).unwrap();
        let mut datagram = [0; 8];
        let exchange = |datagram: &mut [u8]| {
            near.send(b"ping").unwrap();
            let (length, seen) = far.recv_from(datagram).unwrap();
            assert_eq!(&datagram[..length], b"ping");
            far.send_to(b"pong", seen).unwrap();
            assert_eq!(near.recv(datagram).unwrap(), 4);
            seen
        };
        let first = exchange(&mut datagram);
        assert_eq!(udp.passed(), 2);
        udp.rebind();
        assert_ne!(exchange(&mut datagram), first);
        udp.block(true);
        near.send(b"lost").unwrap();
        far.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        far.recv(&mut datagram).unwrap_err();
        drop(udp);
        UdpSocket::bind(cable.address()).unwrap();
    }
}
