//! A server of UDP, and clients of it.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::ports::loopback;

/// Sends every datagram back to whom it came from. Closed when it is dropped.
pub struct UdpEcho {
    address: SocketAddr,
    ending: Arc<AtomicBool>,
    echoing: Option<JoinHandle<()>>,
}

/// How often it looks whether it is to end.
const LOOK: Duration = Duration::from_millis(20);

/// The longest datagram, and more.
const DATAGRAM_MAX: usize = 64 << 10;

impl UdpEcho {
    /// At a free port.
    ///
    /// # Panics
    /// If there is none.
    #[track_caller]
    pub fn start() -> UdpEcho {
        let socket = UdpSocket::bind(loopback(0)).expect("a free port");
        socket.set_read_timeout(Some(LOOK)).expect("a socket takes a timeout");
        let address = socket.local_addr().expect("it is bound");
        let ending = Arc::new(AtomicBool::new(false));
        let ends = ending.clone();
        let echoing = std::thread::spawn(move || {
            let mut datagram = vec![0; DATAGRAM_MAX];
            while !ends.load(Ordering::SeqCst) {
                if let Ok((length, from)) = socket.recv_from(&mut datagram) {
                    let _ = socket.send_to(&datagram[..length], from); // a client may be gone
                }
            }
        });
        UdpEcho { address, ending, echoing: Some(echoing) }
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for UdpEcho {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::SeqCst);
        let _ = self.echoing.take().map(JoinHandle::join);
    }
}

/// A client that sends to one address and hears from it alone.
pub struct UdpClient(UdpSocket);

/// How long an answer may take before it counts as lost.
const ANSWER_MAX: Duration = Duration::from_millis(500);

impl UdpClient {
    /// From a free port.
    ///
    /// # Panics
    /// If there is none.
    #[track_caller]
    pub fn to(server: SocketAddr) -> UdpClient {
        let socket = UdpSocket::bind(loopback(0)).expect("a free port");
        socket.connect(server).expect("loopback has a way there");
        socket.set_read_timeout(Some(ANSWER_MAX)).expect("a socket takes a timeout");
        UdpClient(socket)
    }

    /// Sends a datagram, which may be lost.
    pub fn send(&self, datagram: &[u8]) {
        let _ = self.0.send(datagram);
    }

    /// The next datagram that comes soon, if one does.
    pub fn hear(&self) -> Option<Vec<u8>> {
        let mut room = vec![0; DATAGRAM_MAX];
        let length = self.0.recv(&mut room).ok()?;
        room.truncate(length);
        Some(room)
    }

    /// Whether `datagram` comes back, sent once.
    pub fn echoes(&self, datagram: &[u8]) -> bool {
        self.send(datagram);
        std::iter::from_fn(|| self.hear()).any(|heard| heard == datagram)
    }
}
