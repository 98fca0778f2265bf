//! Where we accept.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketAddrAny, SocketAddrUnix, SocketFlags, sockopt};
use tieline_base::{Address, ClientAddr};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::Io;
use crate::quic::QuicIncoming;

/// How a listening socket is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ListenOptions {
    /// TCP keep-alive of accepted connections after so much silence; `None` leaves it off.
    pub keepalive: Option<Duration>,
    /// The permission bits of a unix socket's path.
    pub unix_mode: u32,
}

/// The kernel cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 65_535;

/// A socket that listens. It is bound once and shared: closing it would lose the connections in its queue.
#[derive(Clone, Debug)]
pub struct Bound {
    socket: Arc<OwnedFd>,
    family: AddressFamily,
    address: Address,
    _path: Option<Arc<UnixPath>>,
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}{}", hint(.source))]
pub struct BindError {
    /// The address.
    pub address: Address,
    /// What the kernel says.
    pub source: io::Error,
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; another process listens there: `ss -ltnp` names it",
        io::ErrorKind::PermissionDenied => {
            "; ports below 1024 need CAP_NET_BIND_SERVICE, paths a writable folder"
        }
        io::ErrorKind::AddrNotAvailable => "; this machine has no such address",
        _ => "",
    }
}

impl Bound {
    /// Listens on `address`. Not with `SO_REUSEPORT`: a second server on the same port is an error, not a
    /// thief.
    ///
    /// # Errors
    /// [`BindError`], in one line that says what to do.
    pub fn bind(address: &Address, options: &ListenOptions) -> Result<Bound, BindError> {
        let bound = match address {
            Address::Socket(socket) => bind_tcp(*socket, options),
            Address::Unix(path) => bind_unix(path, options),
            Address::Name { .. } | Address::Agent(_) | Address::Group(_) => {
                Err(io::Error::new(io::ErrorKind::InvalidInput, "a listener needs an IP address, not a name"))
            }
        };
        bound.map_err(|source| BindError { address: address.clone(), source })
    }

    /// Takes over options that a reload changed: for connections to come. What the kernel refuses stays as it
    /// was.
    pub fn set_options(&self, options: &ListenOptions) {
        if let Address::Unix(path) = &self.address {
            let _ = std::fs::set_permissions(path, std::fs::Permissions::from_mode(options.unix_mode));
        } else {
            let _ = set_keepalive(&self.socket, options.keepalive);
        }
    }

    /// The address it has: where 0 was asked for, the port that the kernel chose.
    pub fn address(&self) -> &Address {
        &self.address
    }
}

fn bind_tcp(address: SocketAddr, options: &ListenOptions) -> io::Result<Bound> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = Io::open(family)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if family == AddressFamily::INET6 {
        // [::] means IPv6 and nothing else, so that 0.0.0.0 can stand beside it on the same port.
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    // Linux hands these down to what is accepted, which saves system calls for each connection.
    sockopt::set_tcp_nodelay(&socket, true)?;
    set_keepalive(&socket, options.keepalive)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    let address = Address::Socket(rustix::net::getsockname(&socket)?.try_into()?);
    Ok(Bound { socket: Arc::new(socket), family, address, _path: None })
}

fn set_keepalive(socket: &OwnedFd, keepalive: Option<Duration>) -> io::Result<()> {
    sockopt::set_socket_keepalive(socket, keepalive.is_some())?;
    if let Some(idle) = keepalive {
        sockopt::set_tcp_keepidle(socket, idle)?;
    }
    Ok(())
}

fn bind_unix(path: &Path, options: &ListenOptions) -> io::Result<Bound> {
    let address = SocketAddrUnix::new(path)?;
    remove_stale(path, &address)?;
    let socket = Io::open(AddressFamily::UNIX)?;
    rustix::net::bind(&socket, &address)?;
    let owned = UnixPath(path.into());
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(options.unix_mode))?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(Bound {
        socket: Arc::new(socket),
        family: AddressFamily::UNIX,
        address: Address::Unix(path.into()),
        _path: Some(Arc::new(owned)),
    })
}

/// Removes a socket that nobody listens on any more, as a killed process leaves it; never a file, never a
/// live one.
fn remove_stale(path: &Path, address: &SocketAddrUnix) -> io::Result<()> {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    let probe = Io::open(AddressFamily::UNIX)?;
    match rustix::net::connect(&probe, address) {
        Err(rustix::io::Errno::CONNREFUSED) if is_socket => std::fs::remove_file(path),
        _ => Ok(()),
    }
}

/// Removes the path when the last owner of its socket is gone.
#[derive(Debug)]
struct UnixPath(PathBuf);

impl Drop for UnixPath {
    fn drop(&mut self) {
        // Nothing to tell: the next start removes what is left.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Takes connections from a [`Bound`] socket, on the worker that it was made on.
#[derive(Debug)]
pub struct Acceptor {
    socket: AsyncFd<Arc<OwnedFd>>,
    family: AddressFamily,
}

/// A connection just taken from the kernel, not yet tied to a worker: it may be handed to another.
#[derive(Debug)]
pub struct Accepted {
    carrier: Taken,
    /// The peer of the socket.
    pub client: ClientAddr,
}

#[derive(Debug)]
enum Taken {
    Socket(OwnedFd, AddressFamily),
    Quic(QuicIncoming),
}

/// A connection tied to a worker.
#[derive(Debug)]
pub enum Adopted {
    /// Bytes can be read.
    Io(Io),
    /// Its handshake is to come.
    Quic(QuicIncoming),
}

impl Acceptor {
    /// Watches `bound` on the current worker.
    ///
    /// # Errors
    /// When the kernel cannot watch it: out of descriptors or memory.
    #[allow(unsafe_code)]
    pub fn new(bound: &Bound) -> io::Result<Acceptor> {
        let socket = bound.socket.clone();
        // SAFETY: the `AsyncFd` owns a share of the `OwnedFd`, which nobody can close or replace while it
        // does.
        let watched = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
        Ok(Acceptor { socket: watched.map_err(io::Error::from)?, family: bound.family })
    }

    /// The next connection. May be dropped: a connection is either still in the queue or returned.
    ///
    /// # Errors
    /// Out of descriptors or memory ([`crate::is_exhaustion`]): wait before asking again. Connections that
    /// were reset while they queued are passed over.
    pub async fn accept(&self) -> io::Result<Accepted> {
        loop {
            let mut ready = self.socket.readable().await?;
            match ready.try_io(|socket| self.take(socket)) {
                Err(_would_block) => {}
                Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Ok(taken) => return taken,
            }
        }
    }

    /// A connection that waits in the queue, if one does: for emptying it before the socket is closed.
    ///
    /// # Errors
    /// As [`Acceptor::accept`].
    pub fn take_queued(&self) -> io::Result<Option<Accepted>> {
        match self.take(&self.socket) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            taken => taken.map(Some),
        }
    }

    /// Stops listening, whoever else holds the socket: from now on the kernel refuses clients instead of
    /// queueing them for nobody. It resets what still queues; see [`Acceptor::take_queued`].
    pub fn close(&self) {
        // It fails only on a socket that does not listen, which is what is wanted.
        let _ = rustix::net::shutdown(self.socket.get_ref(), rustix::net::Shutdown::Read);
    }

    fn take(&self, socket: &AsyncFd<Arc<OwnedFd>>) -> io::Result<Accepted> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let (socket, peer) = rustix::net::acceptfrom_with(socket.get_ref(), flags)?;
        Ok(Accepted { carrier: Taken::Socket(socket, self.family), client: client_of(peer) })
    }
}

fn client_of(peer: Option<SocketAddrAny>) -> ClientAddr {
    let socket = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
    socket.map_or(ClientAddr::Unix, ClientAddr::from_socket)
}

impl Accepted {
    pub(crate) fn quic(incoming: QuicIncoming, client: ClientAddr) -> Accepted {
        Accepted { carrier: Taken::Quic(incoming), client }
    }

    /// Ties the connection to the current worker.
    ///
    /// # Errors
    /// When the kernel cannot watch it.
    pub fn adopt(self) -> io::Result<Adopted> {
        match self.carrier {
            Taken::Socket(socket, family) => Io::adopt(socket, family).map(Adopted::Io),
            Taken::Quic(incoming) => Ok(Adopted::Quic(incoming)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const OPTIONS: ListenOptions = ListenOptions { keepalive: None, unix_mode: 0o600 };

    #[tokio::test]
    async fn accepts_over_ipv4_and_ipv6() {
        for text in ["127.0.0.1:0", "[::1]:0"] {
            let bound = Bound::bind(&text.parse().unwrap(), &OPTIONS).unwrap();
            let Address::Socket(address) = *bound.address() else { panic!("no socket address") };
            let client = std::net::TcpStream::connect(address).unwrap();
            let accepted = Acceptor::new(&bound).unwrap().accept().await.unwrap();
            assert_eq!(accepted.client, ClientAddr::Socket(client.local_addr().unwrap()));
        }
    }

    #[tokio::test]
    async fn a_closed_acceptor_refuses_clients_though_its_socket_is_still_held() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.sock");
        let tcp = Bound::bind(&"127.0.0.1:0".parse().unwrap(), &OPTIONS).unwrap();
        let unix = Bound::bind(&Address::Unix(path.clone()), &OPTIONS).unwrap();
        for bound in [&tcp, &unix] {
            Acceptor::new(bound).unwrap().close();
        }
        let Address::Socket(address) = *tcp.address() else { panic!("no socket address") };
        let errors = [
            std::net::TcpStream::connect(address).unwrap_err(),
            std::os::unix::net::UnixStream::connect(&path).unwrap_err(),
        ];
        assert!(errors.iter().all(|error| error.kind() == io::ErrorKind::ConnectionRefused), "{errors:?}");
    }

    #[test]
    fn a_second_listener_on_the_port_is_refused_with_a_hint() {
        let bound = Bound::bind(&"127.0.0.1:0".parse().unwrap(), &OPTIONS).unwrap();
        let error = Bound::bind(bound.address(), &OPTIONS).unwrap_err().to_string();
        assert!(error.contains("another process listens there"), "{error}");
    }

    #[tokio::test]
    async fn a_unix_socket_is_private_and_leaves_with_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.sock");
        let bound = Bound::bind(&Address::Unix(path.clone()), &OPTIONS).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let mut client = std::os::unix::net::UnixStream::connect(&path).unwrap();
        client.write_all(b"x").unwrap();
        let accepted = Acceptor::new(&bound).unwrap().accept().await.unwrap();
        assert_eq!(accepted.client, ClientAddr::Unix);
        drop(bound);
        assert!(!path.exists());
    }

    #[test]
    fn a_stale_unix_socket_is_replaced_but_a_live_one_or_a_file_never() {
        let folder = tempfile::tempdir().unwrap();
        let stale = folder.path().join("stale.sock");
        drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
        assert!(Bound::bind(&Address::Unix(stale), &OPTIONS).is_ok());
        let live = folder.path().join("live.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&live).unwrap();
        assert!(Bound::bind(&Address::Unix(live), &OPTIONS).is_err());
        let file = folder.path().join("file");
        std::fs::write(&file, "precious").unwrap();
        assert!(Bound::bind(&Address::Unix(file.clone()), &OPTIONS).is_err());
        assert_eq!(std::fs::read_to_string(file).unwrap(), "precious");
    }
}
