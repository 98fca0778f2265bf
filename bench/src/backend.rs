//! What stands behind the proxies: an echo for many connections, and a source and sink for bulk.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use rustix::event::{Timespec, epoll};
use socket2::{Domain, Socket, Type};
use tieline_testkit::loopback;

use crate::bulk_load;

/// The system's largest accept queue by default (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;

/// Sends small messages back on any number of connections, with one thread; closes after the other side did.
/// A request to become a WebSocket is granted, and what comes behind it sent back.
pub(crate) struct Echo {
    addresses: Vec<SocketAddr>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    ending: AtomicBool,
    open: AtomicUsize,
}

impl Echo {
    /// Listens on `ports` free ports: proxies have one source address, and ports to spend for each backend
    /// port.
    pub(crate) fn start(ports: usize) -> io::Result<Echo> {
        let listeners: Vec<TcpListener> = (0..ports).map(|_| listen()).collect::<io::Result<_>>()?;
        let addresses = listeners.iter().map(TcpListener::local_addr).collect::<io::Result<_>>()?;
        let shared = Arc::new(Shared::default());
        let mut events = Events::watch(listeners, Arc::clone(&shared))?;
        let thread = Some(std::thread::spawn(move || events.serve()));
        Ok(Echo { addresses, shared, thread })
    }

    /// Where it listens.
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Connections open now.
    pub(crate) fn open(&self) -> usize {
        self.shared.open.load(Ordering::Relaxed)
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // it sees the flag within one wait
        }
    }
}

pub(crate) fn listen() -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&loopback(0).into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// The thread of an [`Echo`]: level-triggered epoll; a file descriptor is its own token.
struct Events {
    epoll: OwnedFd,
    listeners: HashMap<u64, TcpListener>,
    connections: HashMap<u64, TcpStream>,
    shared: Arc<Shared>,
}

impl Events {
    fn watch(listeners: Vec<TcpListener>, shared: Arc<Shared>) -> io::Result<Events> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let listeners: HashMap<_, _> =
            listeners.into_iter().map(|listener| (token(&listener), listener)).collect();
        for (&token, listener) in &listeners {
            epoll::add(&epoll, listener, epoll::EventData::new_u64(token), epoll::EventFlags::IN)?;
        }
        Ok(Events { epoll, listeners, connections: HashMap::new(), shared })
    }

    fn serve(&mut self) {
        let mut ready = Vec::with_capacity(512);
        let look_up = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
        while !self.shared.ending.load(Ordering::Relaxed) {
            ready.clear();
            let waited = epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut ready), Some(&look_up));
            if waited.is_err() {
                continue; // interrupted
            }
            for event in &ready {
                let token = event.data.u64();
                if self.listeners.contains_key(&token) { self.accept(token) } else { self.answer(token) }
            }
        }
    }

    fn accept(&mut self, listener: u64) {
        while let Ok((connection, _)) = self.listeners[&listener].accept() {
            let token = token(&connection);
            let data = epoll::EventData::new_u64(token);
            if epoll::add(&self.epoll, &connection, data, epoll::EventFlags::IN).is_ok() {
                self.connections.insert(token, connection);
                self.shared.open.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Reads once, as epoll promised that there is something; messages are small, so writing does not block.
    fn answer(&mut self, token: u64) {
        let Some(connection) = self.connections.get_mut(&token) else { return };
        let mut message = [0; 4096];
        let echoed = connection.read(&mut message).and_then(|length| {
            let asks = message[..length].starts_with(b"GET /") && message[..length].ends_with(b"\r\n\r\n");
            connection.write_all(if asks { SWITCHING } else { &message[..length] })?;
            Ok(length > 0)
        });
        if !echoed.unwrap_or(false) {
            self.connections.remove(&token); // closing takes it out of epoll
            self.shared.open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// RFC 6455 §1.3: the answer to the key that its example, and every client here, sends.
const SWITCHING: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

pub(crate) fn token(descriptor: &impl AsRawFd) -> u64 {
    u64::from(descriptor.as_raw_fd().unsigned_abs())
}

/// Sends or takes `bytes` on each connection, as the first byte asks: see [`bulk_load`].
pub(crate) struct Bulk {
    address: SocketAddr,
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Bulk {
    pub(crate) fn start(bytes: u64) -> io::Result<Bulk> {
        let listener = TcpListener::bind(loopback(0))?;
        let address = listener.local_addr()?;
        let ending = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&ending);
        let thread = Some(std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                if seen.load(Ordering::Relaxed) {
                    return;
                }
                std::thread::spawn(move || serve_bulk(connection, bytes));
            }
        }));
        Ok(Bulk { address, ending, thread })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Bulk {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address); // wakes the thread, which then sees the flag
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve_bulk(mut connection: TcpStream, bytes: u64) -> io::Result<()> {
    bulk_load::bound_waits(&connection)?;
    let mut asked = [0];
    connection.read_exact(&mut asked)?;
    if asked == bulk_load::DOWNLOAD {
        bulk_load::send(&connection, bytes)?;
        connection.shutdown(Shutdown::Write)?;
    }
    bulk_load::discard(&connection).map(drop)
}
