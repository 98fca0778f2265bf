//! Datagrams of UDP: a peer that is dialed, and a local address that anybody may send to.
//!
//! What a socket cannot take at once is lost, as on any path of datagrams.

use std::cell::RefCell;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::task::{Context, Poll, ready};

use tieline_base::Address;
use tokio::io::ReadBuf;
use tokio::net::{UdpSocket, lookup_host};

use crate::listen::BindError;

thread_local! {
    /// Where a datagram is received, one at a time: so a socket at rest owns no room for one.
    static RECEIVED: RefCell<Vec<u8>> = RefCell::new(vec![0; RECEIVED_MAX]);
}

/// More than any datagram has.
const RECEIVED_MAX: usize = 64 << 10;

/// One peer, from which alone datagrams are taken.
#[derive(Debug)]
pub struct UdpPeer(UdpSocket);

/// An address of this machine that is bound, and nobody watches yet.
#[derive(Debug)]
pub struct UdpBound {
    socket: std::net::UdpSocket,
    address: SocketAddr,
}

/// An address of this machine that datagrams come to, from anywhere.
#[derive(Debug)]
pub struct UdpListener(UdpSocket);

impl UdpPeer {
    /// A socket towards the first address of `address` that there is a way to, without a deadline for its
    /// name: the caller has one. Nothing is sent yet.
    ///
    /// # Errors
    /// What the kernel or the resolver says.
    pub async fn dial(address: &Address) -> io::Result<UdpPeer> {
        let found: Vec<SocketAddr> = match address {
            Address::Socket(socket) => vec![*socket],
            Address::Name { host, port } => lookup_host((host.as_str(), *port)).await?.collect(),
            Address::Unix(_) | Address::Agent(_) | Address::Group(_) => {
                return Err(io::ErrorKind::Unsupported.into());
            }
        };
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for to in found {
            match connected(to).await {
                Ok(socket) => return Ok(UdpPeer(socket)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Sends a datagram; says whether the kernel took it.
    ///
    /// # Errors
    /// The peer refuses datagrams (ICMP), or there is no way to it.
    pub fn send(&self, datagram: &[u8]) -> io::Result<bool> {
        taken(self.0.try_send(datagram))
    }

    /// Hands the next datagram to `take`.
    ///
    /// # Errors
    /// As [`UdpPeer::send`].
    pub fn poll_receive<T>(
        &self,
        cx: &mut Context<'_>,
        take: impl FnOnce(&[u8]) -> T,
    ) -> Poll<io::Result<T>> {
        RECEIVED.with_borrow_mut(|room| {
            let mut buffer = ReadBuf::new(room);
            ready!(self.0.poll_recv(cx, &mut buffer))?;
            Poll::Ready(Ok(take(buffer.filled())))
        })
    }
}

async fn connected(to: SocketAddr) -> io::Result<UdpSocket> {
    let any = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    socket.connect(to).await?;
    Ok(socket)
}

/// What became of a datagram that was given to a socket.
fn taken(sent: io::Result<usize>) -> io::Result<bool> {
    match sent {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        // Longer than the path takes: it is lost, and the next may be shorter.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::MSGSIZE.raw_os_error()) => Ok(false),
        Err(error) => Err(error),
    }
}

impl UdpBound {
    /// Binds `address`.
    ///
    /// # Errors
    /// [`BindError`], in one line that says what to do.
    pub fn bind(address: SocketAddr) -> Result<UdpBound, BindError> {
        let bound = || {
            let socket = std::net::UdpSocket::bind(address)?;
            socket.set_nonblocking(true)?;
            let address = socket.local_addr()?;
            Ok(UdpBound { socket, address })
        };
        bound().map_err(|source| BindError { address: Address::Socket(address), source })
    }

    /// The address it has.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Has it watched on the current worker.
    ///
    /// # Errors
    /// The kernel cannot: out of descriptors or memory.
    pub fn listen(self) -> io::Result<UdpListener> {
        UdpSocket::from_std(self.socket).map(UdpListener)
    }
}

impl UdpListener {
    /// Hands the next datagram to `take`, with where it came from.
    ///
    /// # Errors
    /// What the kernel says: it is out of memory. Of a sender that takes no answers there is no word here.
    pub fn poll_receive<T>(
        &self,
        cx: &mut Context<'_>,
        take: impl FnOnce(SocketAddr, &[u8]) -> T,
    ) -> Poll<io::Result<T>> {
        RECEIVED.with_borrow_mut(|room| {
            let mut buffer = ReadBuf::new(room);
            let from = ready!(self.0.poll_recv_from(cx, &mut buffer))?;
            Poll::Ready(Ok(take(from, buffer.filled())))
        })
    }

    /// Sends a datagram to `to`; says whether the kernel took it.
    pub fn send(&self, to: SocketAddr, datagram: &[u8]) -> bool {
        self.0.try_send_to(datagram, to).is_ok()
    }
}
