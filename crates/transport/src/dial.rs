//! Making connections.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, sockopt};
use tieline_base::{Address, EndpointAddr, FarGroup, FarService};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::Io;

/// What every dialed connection gets.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DialOptions {
    /// TCP keep-alive after so much silence; `None` leaves it off.
    pub keepalive: Option<Duration>,
    /// Who reaches what agents offer; `None`: nobody does.
    pub far: Option<FarSites>,
}

/// Reaches what no socket of this machine does: services behind agents.
pub trait DialFar: fmt::Debug + Send + Sync {
    /// Opens a stream to a service, without a deadline: the caller has one.
    fn dial(&self, far: &FarService) -> Pin<Box<dyn Future<Output = io::Result<Io>> + Send>>;

    /// What `group` stands for now: the service at every agent of it that is linked up, by the agents' names.
    fn members(&self, group: &FarGroup) -> Vec<FarService>;

    /// Whether nothing is known to be in the way of a stream to `far`.
    fn is_there(&self, far: &FarService) -> bool;

    /// Learns when either of the two may say something else.
    fn changes(&self) -> watch::Receiver<()>;
}

/// The far sites of this process. Two are the same if they are one.
#[derive(Clone, Debug)]
pub struct FarSites(pub Arc<dyn DialFar>);

impl PartialEq for FarSites {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for FarSites {}

/// RFC 8305 §5: how long the first address is tried alone before the second joins the race.
const STAGGER: Duration = Duration::from_millis(250);

/// Connects to `address`, without a deadline: the caller has one.
///
/// # Errors
/// What the kernel says: refused, unreachable, out of descriptors or ports.
pub async fn dial(address: &EndpointAddr, options: &DialOptions) -> io::Result<Io> {
    let io = match address {
        EndpointAddr::Socket(socket) => begin_tcp(socket, options)?,
        EndpointAddr::Unix(path) => dial_unix(path)?,
        EndpointAddr::Agent(far) => return dial_far(far, options).await,
    };
    if let Io::Tcp(tcp) = &io {
        poll_fn(|cx| poll_connected(tcp, cx)).await?;
    }
    Ok(io)
}

/// Resolves a name by what the machine has for it and connects, without a deadline: for those who dial now
/// and then, and need no balance.
///
/// # Errors
/// As [`dial`], and that the name does not resolve.
pub async fn dial_named(address: &Address, options: &DialOptions) -> io::Result<Io> {
    let found = match address {
        Address::Socket(socket) => vec![EndpointAddr::Socket(*socket)],
        Address::Unix(path) => vec![EndpointAddr::Unix(path.as_path().into())],
        Address::Agent(far) => vec![EndpointAddr::Agent(Box::new(far.clone()))],
        Address::Name { .. } => resolve(address).await?.into_iter().map(EndpointAddr::Socket).collect(),
        Address::Group(_) => return Err(nothing_far()),
    };
    dial_first(&found, options).await.map(|(_, io)| io)
}

/// The addresses of this moment, by what the machine has for the name; none of what is no address of a
/// network.
///
/// # Errors
/// The name does not resolve.
pub async fn resolve(address: &Address) -> io::Result<Vec<SocketAddr>> {
    match address {
        Address::Socket(socket) => Ok(vec![*socket]),
        Address::Name { host, port } => Ok(tokio::net::lookup_host((host.as_str(), *port)).await?.collect()),
        Address::Unix(_) | Address::Agent(_) | Address::Group(_) => Ok(Vec::new()),
    }
}

async fn dial_far(far: &FarService, options: &DialOptions) -> io::Result<Io> {
    match &options.far {
        Some(FarSites(sites)) => sites.dial(far).await,
        None => Err(nothing_far()),
    }
}

fn nothing_far() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "nothing here leads to agents")
}

fn begin_tcp(socket: &SocketAddr, options: &DialOptions) -> io::Result<Io> {
    let family = if socket.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let fd = Io::open(family)?;
    set_tcp_options(&fd, socket, options)?;
    started(rustix::net::connect(&fd, socket))?;
    Io::adopt(fd, family)
}

/// The kernel connects unix sockets at once or not at all.
fn dial_unix(path: &Path) -> io::Result<Io> {
    let fd = Io::open(AddressFamily::UNIX)?;
    // A full backlog is EAGAIN here, at once: the endpoint's fault, as a refusal would be.
    rustix::net::connect(&fd, &SocketAddrUnix::new(path)?).map_err(|errno| match errno {
        Errno::AGAIN => io::Error::new(io::ErrorKind::ConnectionRefused, "the socket's backlog is full"),
        errno => errno.into(),
    })?;
    Io::adopt(fd, AddressFamily::UNIX)
}

/// Connects to the first of `addresses` that answers, each starting 250 ms after the one before it or as
/// soon as that one failed ("happy eyeballs", RFC 8305 §5). Tells which one it was.
///
/// # Errors
/// The last address's error when all failed.
pub async fn dial_first(addresses: &[EndpointAddr], options: &DialOptions) -> io::Result<(usize, Io)> {
    match addresses {
        [] => Err(io::Error::new(io::ErrorKind::AddrNotAvailable, "the endpoint has no address")),
        [only] => Ok((0, dial(only, options).await?)),
        [first, rest @ ..] => {
            let mut head = pin!(dial(first, options));
            // Both arms may be dropped: a dial holds nothing but its socket.
            let early = tokio::select! {
                biased;
                done = &mut head => Some(done),
                () = tokio::time::sleep(STAGGER) => None,
            };
            let late = || async {
                let (index, io) = Box::pin(dial_first(rest, options)).await?;
                Ok((index + 1, io))
            };
            match early {
                Some(Ok(io)) => Ok((0, io)),
                Some(Err(_)) => late().await,
                None => {
                    let mut tail = pin!(late());
                    tokio::select! {
                        biased;
                        done = &mut head => match done {
                            Ok(io) => Ok((0, io)),
                            Err(_) => tail.await,
                        },
                        done = &mut tail => match done {
                            Ok(found) => Ok(found),
                            Err(_) => Ok((0, head.await?)),
                        },
                    }
                }
            }
        }
    }
}

fn set_tcp_options(fd: &OwnedFd, peer: &SocketAddr, options: &DialOptions) -> io::Result<()> {
    // What one side wrote, the other gets now: Nagle's algorithm belongs to the two ends, not to the middle.
    sockopt::set_tcp_nodelay(fd, true)?;
    // A peer on this machine cannot vanish without the kernel noticing.
    if let Some(idle) = options.keepalive.filter(|_| !peer.ip().is_loopback()) {
        sockopt::set_socket_keepalive(fd, true)?;
        sockopt::set_tcp_keepidle(fd, idle)?;
    }
    Ok(())
}

fn started(result: rustix::io::Result<()>) -> io::Result<()> {
    match result {
        Err(Errno::INPROGRESS) => Ok(()),
        result => Ok(result?),
    }
}

/// Waits until the handshake is over. The poller's error flag saves asking each good socket for its error.
fn poll_connected(tcp: &TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    ready!(tcp.poll_write_ready(cx))?;
    // Asked once it is known to be ready, this answers at once, and needs no room while the dial waits.
    let ready = ready!(pin!(tcp.ready(Interest::WRITABLE | Interest::ERROR)).poll(cx))?;
    if ready.is_error() || ready.is_write_closed() {
        let unnamed = || io::Error::from(io::ErrorKind::ConnectionRefused);
        return Poll::Ready(Err(tcp.take_error()?.unwrap_or_else(unnamed)));
    }
    Poll::Ready(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn listening() -> (TcpListener, EndpointAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = EndpointAddr::Socket(listener.local_addr().unwrap());
        (listener, address)
    }

    fn refusing() -> EndpointAddr {
        listening().1 // its socket is closed on return
    }

    /// Accepts the handshake of nobody: its queue of one is full.
    fn silent() -> (Vec<std::net::TcpStream>, TcpListener, EndpointAddr) {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        socket.listen(0).unwrap();
        let listener = TcpListener::from(socket);
        let address = listener.local_addr().unwrap();
        let fill = |_| {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            let _ = socket.connect(&address.into());
            std::net::TcpStream::from(socket)
        };
        ((0..4).map(fill).collect(), listener, EndpointAddr::Socket(address))
    }

    #[tokio::test]
    async fn a_refusal_is_told_as_one() {
        let error = dial(&refusing(), &DialOptions::default()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn the_second_address_wins_when_the_first_refuses() {
        let (_listener, good) = listening();
        let (index, _io) = dial_first(&[refusing(), good], &DialOptions::default()).await.unwrap();
        assert_eq!(index, 1);
    }

    #[tokio::test]
    async fn the_second_address_wins_when_the_first_is_silent() {
        let (_full, _silent, black_hole) = silent();
        let (_listener, good) = listening();
        let (index, _io) = dial_first(&[black_hole, good], &DialOptions::default()).await.unwrap();
        assert_eq!(index, 1);
    }

    #[tokio::test]
    async fn all_refusing_is_a_refusal() {
        let error = dial_first(&[refusing(), refusing()], &DialOptions::default()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn a_missing_unix_socket_is_an_error_at_once() {
        let path = EndpointAddr::Unix(std::path::Path::new("/nonexistent/socket").into());
        assert_eq!(dial(&path, &DialOptions::default()).await.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
