//! Free loopback ports, for programs that cannot bind port 0 and tell.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// Below the range from which Linux picks source ports, so that no outgoing connection takes the port
/// meanwhile.
const FIRST: u16 = 10_000;
const LAST: u16 = 32_000;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// `127.0.0.1` with `port`.
pub fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// A TCP and UDP port of `127.0.0.1` that nothing listens on and that no other test process gets while this
/// one lives.
///
/// # Panics
/// If no port is free.
pub fn free_port() -> u16 {
    let span = u32::from(LAST - FIRST);
    // Each process begins elsewhere, so that parallel tests seldom try the same port.
    let begin = std::process::id().wrapping_mul(2_654_435_761);
    for _ in 0..span {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let offset = begin.wrapping_add(step) % span;
        let port = FIRST + u16::try_from(offset).unwrap_or(0);
        if reserve(port) && is_unused(port) {
            return port;
        }
    }
    panic!("no port between {FIRST} and {LAST} is free on 127.0.0.1");
}

/// Claims the port among test processes: an abstract unix socket is exclusive and vanishes with its process.
fn reserve(port: u16) -> bool {
    let name = format!("tieline-testkit-port-{port}");
    let claim = UnixAddr::from_abstract_name(name).and_then(|name| UnixListener::bind_addr(&name));
    // Kept open on purpose: the claim lasts as long as the process.
    claim.map(std::mem::forget).is_ok()
}

fn is_unused(port: u16) -> bool {
    TcpListener::bind(loopback(port)).is_ok() && UdpSocket::bind(loopback(port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::{free_port, loopback};
    use std::collections::HashSet;
    use std::net::TcpListener;

    #[test]
    fn ports_are_never_handed_out_twice_and_can_be_bound() {
        let ports: Vec<u16> = (0..50).map(|_| free_port()).collect();
        assert_eq!(ports.iter().collect::<HashSet<_>>().len(), 50);
        for port in ports {
            TcpListener::bind(loopback(port)).unwrap();
        }
    }
}
