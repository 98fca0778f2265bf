//! Small TCP services that behave well, badly or not at all. Blocking threads, nothing else.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

use crate::ports::loopback;

/// What a service of a test's own does with one connection.
type Script = Arc<dyn Fn(&TcpStream) -> io::Result<()> + Send + Sync>;

/// What a service does with each connection.
#[derive(Clone)]
enum Behaviour {
    /// Sends everything back; after the client's end of stream, sends its own.
    Echo,
    /// Says its name, then echoes: tells a balancer's choices apart.
    Named(String),
    /// Reads everything, says nothing.
    Sink,
    /// Echoes, but waits before each piece.
    Slow(Duration),
    /// Reads this many bytes, then resets the connection.
    ResetAfter(usize),
    /// Accepts and then neither reads nor writes.
    Mute,
    /// Whatever the test wants.
    Scripted(Script),
}

/// A TCP service on `127.0.0.1`. Dropping it closes its port and all its connections.
pub struct TcpServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

impl TcpServer {
    /// Sends everything back, half-close included.
    pub fn echo() -> TcpServer {
        TcpServer::listen(Behaviour::Echo, loopback(0))
    }

    /// [`TcpServer::echo`] at a given address: a service that comes back where it was.
    pub fn echo_at(address: SocketAddr) -> TcpServer {
        TcpServer::listen(Behaviour::Echo, address)
    }

    /// Says `name` first, then echoes.
    pub fn named(name: &str) -> TcpServer {
        TcpServer::listen(Behaviour::Named(name.to_owned()), loopback(0))
    }

    /// Reads everything, says nothing.
    pub fn sink() -> TcpServer {
        TcpServer::listen(Behaviour::Sink, loopback(0))
    }

    /// Echoes each piece `delay` late.
    pub fn slow(delay: Duration) -> TcpServer {
        TcpServer::listen(Behaviour::Slow(delay), loopback(0))
    }

    /// Reads `bytes` of each connection, then resets it; 0 resets at once.
    pub fn resetting_after(bytes: usize) -> TcpServer {
        TcpServer::listen(Behaviour::ResetAfter(bytes), loopback(0))
    }

    /// Accepts, then neither reads nor writes: the peer's buffers fill up.
    pub fn mute() -> TcpServer {
        TcpServer::listen(Behaviour::Mute, loopback(0))
    }

    /// Does as `script` says with each connection, on a thread of its own, and closes it when that returns.
    pub fn scripted(script: impl Fn(&TcpStream) -> io::Result<()> + Send + Sync + 'static) -> TcpServer {
        TcpServer::listen(Behaviour::Scripted(Arc::new(script)), loopback(0))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections accepted since it started.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    /// Connections that are open now.
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::Relaxed)
    }

    /// Closes every connection as a crash would, with a reset, and keeps listening.
    pub fn reset_all(&self) {
        self.shared.end_all(true);
    }

    fn listen(behaviour: Behaviour, address: SocketAddr) -> TcpServer {
        let listener =
            TcpListener::bind(address).unwrap_or_else(|error| panic!("cannot bind {address}: {error}"));
        let address = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared::default());
        let for_thread = Arc::clone(&shared);
        let acceptor = Some(std::thread::spawn(move || accept(&listener, &behaviour, &for_thread)));
        TcpServer { address, shared, acceptor }
    }
}

impl Drop for TcpServer {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address); // wakes the acceptor, which then sees that we end
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        self.shared.end_all(false);
    }
}

#[derive(Default)]
struct Shared {
    ending: AtomicBool,
    accepted: AtomicUsize,
    open: AtomicUsize,
    // Test servers run on plain threads; the lock is held for a push or a sweep, never while waiting.
    #[allow(clippy::disallowed_types)]
    connections: std::sync::Mutex<Vec<Arc<TcpStream>>>,
}

impl Shared {
    fn enter(&self, connection: &Arc<TcpStream>) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
        self.connections.lock().expect("no holder of this lock panics").push(Arc::clone(connection));
    }

    /// Closes the connection: ours is the last hold on it.
    fn leave(&self, connection: Arc<TcpStream>) {
        let mut connections = self.connections.lock().expect("no holder of this lock panics");
        connections.retain(|other| !Arc::ptr_eq(other, &connection));
        drop(connection);
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    fn end_all(&self, by_reset: bool) {
        for connection in self.connections.lock().expect("no holder of this lock panics").drain(..) {
            let mut how = Shutdown::Both;
            if by_reset {
                how = Shutdown::Read; // the other half would send a FIN before the reset
                let _ = SockRef::from(&*connection).set_linger(Some(Duration::ZERO)); // it may be gone
            }
            let _ = connection.shutdown(how); // wakes the serving thread, which closes
        }
    }
}

fn accept(listener: &TcpListener, behaviour: &Behaviour, shared: &Arc<Shared>) {
    for connection in listener.incoming() {
        if shared.ending.load(Ordering::SeqCst) {
            return;
        }
        let Ok(connection) = connection else { continue };
        let connection = Arc::new(connection);
        shared.enter(&connection);
        let (behaviour, shared) = (behaviour.clone(), Arc::clone(shared));
        std::thread::spawn(move || {
            let _ = serve(&connection, &behaviour); // the peer may end it in any way
            shared.leave(connection);
        });
    }
}

fn serve(connection: &TcpStream, behaviour: &Behaviour) -> io::Result<()> {
    match behaviour {
        Behaviour::Echo => echo(connection, Duration::ZERO),
        Behaviour::Slow(delay) => echo(connection, *delay),
        Behaviour::Named(name) => {
            let mut writer = connection;
            writer.write_all(name.as_bytes())?;
            echo(connection, Duration::ZERO)
        }
        Behaviour::Sink => io::copy(&mut &*connection, &mut io::sink()).map(drop),
        Behaviour::ResetAfter(bytes) => {
            let mut reader = connection;
            reader.read_exact(&mut vec![0; *bytes])?;
            SockRef::from(connection).set_linger(Some(Duration::ZERO))
        }
        Behaviour::Mute => wait_for_shutdown(connection),
        Behaviour::Scripted(script) => {
            let served = script(connection);
            // Clones of it may live on with what the script left behind; the peer is to see its end.
            let _ = connection.shutdown(Shutdown::Write);
            served
        }
    }
}

fn echo(connection: &TcpStream, delay: Duration) -> io::Result<()> {
    let (mut reader, mut writer) = (connection, connection);
    let mut piece = vec![0; 64 << 10];
    loop {
        let length = reader.read(&mut piece)?;
        if length == 0 {
            let is_being_reset = SockRef::from(connection).linger()?.is_some();
            return if is_being_reset { Ok(()) } else { connection.shutdown(Shutdown::Write) };
        }
        if !delay.is_zero() {
            std::thread::sleep(delay);
        }
        writer.write_all(&piece[..length])?;
    }
}

/// Peeking takes nothing out of the socket's buffer, so the peer sees a reader that never reads.
fn wait_for_shutdown(connection: &TcpStream) -> io::Result<()> {
    while connection.peek(&mut [0])? > 0 {
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// A port that stays bound and refuses every connection.
pub struct Refusing {
    address: SocketAddr,
    _bound: Socket,
}

impl Refusing {
    /// Binds a port without listening on it.
    pub fn start() -> Refusing {
        let bound = bound_socket();
        Refusing { address: address_of(&bound), _bound: bound }
    }

    /// The address that refuses.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// A port that answers nothing: connecting hangs, as behind a firewall that drops packets.
pub struct BlackHole {
    address: SocketAddr,
    _full: (Socket, Vec<Socket>),
}

impl BlackHole {
    /// Listens with the smallest backlog, never accepts, and fills it: Linux then drops every further SYN.
    pub fn start() -> BlackHole {
        let listening = bound_socket();
        listening.listen(0).expect("a bound socket can listen");
        let address = address_of(&listening);
        let connect = || {
            let filler = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket can be made");
            filler.connect_timeout(&address.into(), Duration::from_millis(200)).map(|()| filler)
        };
        // One that fails may have been held up: full is what three find full.
        let (mut fillers, mut full) = (Vec::new(), 0);
        while full < 3 {
            connect().map_or_else(|_| full += 1, |filler| fillers.push(filler));
            assert!(fillers.len() < 16, "the smallest backlog is never full");
        }
        BlackHole { address, _full: (listening, fillers) }
    }

    /// The address that swallows every attempt.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

fn bound_socket() -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket can be made");
    socket.bind(&loopback(0).into()).expect("port 0 can be bound");
    socket
}

fn address_of(socket: &Socket) -> SocketAddr {
    let address = socket.local_addr().expect("a bound socket has an address");
    address.as_socket().expect("an IPv4 socket has an IP address")
}

#[cfg(test)]
mod tests {
    use super::{BlackHole, Refusing, TcpServer};
    use crate::wait::{PATIENCE, wait_until};
    use std::io::{ErrorKind, Read, Write};
    use std::net::{Shutdown, TcpStream};
    use std::time::Duration;

    fn converse(server: &TcpServer, words: &[u8]) -> Vec<u8> {
        let mut client = TcpStream::connect(server.address()).unwrap();
        client.write_all(words).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).unwrap();
        heard
    }

    #[test]
    fn echo_answers_after_the_client_has_shut_its_half() {
        let server = TcpServer::echo();
        assert_eq!(converse(&server, b"hello"), b"hello");
        assert_eq!(converse(&TcpServer::slow(Duration::from_millis(1)), b"later"), b"later");
        assert_eq!(converse(&TcpServer::named("a:"), b"x"), b"a:x");
        assert!(converse(&TcpServer::sink(), b"lost").is_empty());
        assert_eq!(server.accepted(), 1);
        assert!(wait_until(PATIENCE, || server.open() == 0));
    }

    #[test]
    fn a_dropped_server_refuses_and_ends_its_connections_and_can_come_back() {
        let server = TcpServer::echo();
        let address = server.address();
        let mut client = TcpStream::connect(address).unwrap();
        assert!(wait_until(PATIENCE, || server.open() == 1));
        drop(server);
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        drop(client);
        assert_eq!(converse(&TcpServer::echo_at(address), b"again"), b"again");
    }

    #[test]
    fn a_resetting_server_resets_and_a_refusing_one_refuses() {
        let server = TcpServer::resetting_after(4);
        let mut client = TcpStream::connect(server.address()).unwrap();
        client.write_all(b"1234").unwrap();
        assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        let refused = TcpStream::connect(Refusing::start().address()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    }

    #[test]
    fn a_black_hole_lets_connecting_hang() {
        let hole = BlackHole::start();
        let error = TcpStream::connect_timeout(&hole.address(), Duration::from_millis(300)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }

    #[test]
    fn a_mute_server_lets_the_clients_buffers_fill() {
        let server = TcpServer::mute();
        let mut client = TcpStream::connect(server.address()).unwrap();
        client.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
        let block = vec![0; 1 << 20];
        let error = (0..256).find_map(|_| client.write_all(&block).err()).unwrap();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
    }

    #[test]
    fn resetting_all_cuts_what_is_open() {
        let server = TcpServer::echo();
        let mut client = TcpStream::connect(server.address()).unwrap();
        assert!(wait_until(PATIENCE, || server.open() == 1));
        server.reset_all();
        assert!(wait_until(PATIENCE, || server.open() == 0));
        assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert_eq!(converse(&server, b"still here"), b"still here");
    }
}
