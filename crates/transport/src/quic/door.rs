//! Where QUIC is accepted.

use std::fmt;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use quinn::crypto::rustls::HandshakeData;
use quinn::{Connecting, Endpoint, Incoming, TokioRuntime};
use rustls::pki_types::CertificateDer;
use socket2::{Domain, Protocol, Socket, Type};
use tieline_base::{Address, ClientAddr};

use super::stream::QuicStream;
use super::{QuicError, QuicServer, endpoint};
use crate::Io;
use crate::listen::{Accepted, BindError};
use crate::tls::{Alpn, ClientCertificate, Handshake, TlsVersion};

/// A socket of UDP that QUIC is accepted at. It is bound once and shared.
#[derive(Clone, Debug)]
pub struct QuicBound {
    socket: Arc<UdpSocket>,
    address: SocketAddr,
}

/// What may wait in the kernel, either way: what comes for all connections waits here.
const BUFFER: usize = 2 << 20;

impl QuicBound {
    /// Binds `address`, which says the port too.
    ///
    /// # Errors
    /// [`BindError`], in one line that says what to do.
    pub fn bind(address: SocketAddr) -> Result<QuicBound, BindError> {
        let bound = bind(address);
        bound.map_err(|source| BindError { address: Address::Socket(address), source })
    }

    /// The address it has.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

fn bind(address: SocketAddr) -> io::Result<QuicBound> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        // As listeners of TCP have it: [::] means IPv6 and nothing else.
        socket.set_only_v6(true)?;
    }
    widen(&socket);
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    let socket = UdpSocket::from(socket);
    let address = socket.local_addr()?;
    Ok(QuicBound { socket: Arc::new(socket), address })
}

/// Asks for more room in the kernel than it gives by itself; it gives what the machine's limits allow.
pub(super) fn widen(socket: &Socket) {
    let _ = (socket.set_recv_buffer_size(BUFFER), socket.set_send_buffer_size(BUFFER));
}

/// Takes connections of QUIC from a [`QuicBound`], on the worker that it was made on.
pub struct QuicAcceptor {
    endpoint: Endpoint,
    /// How many it has given out whose handshake is not over.
    unshaken: Arc<AtomicUsize>,
}

/// Handshakes under way from which on a client must prove that its address is its own: a flood of first
/// packets from made-up addresses then costs an answer each and nothing else (RFC 9000 §8.1.2).
const TRUSTING_MAX: usize = 64;

impl QuicAcceptor {
    /// Watches `bound` on the current worker, for clients that `server` shakes hands with.
    ///
    /// # Errors
    /// When the kernel cannot watch it: out of descriptors or memory.
    pub fn new(bound: &QuicBound, server: &QuicServer) -> io::Result<QuicAcceptor> {
        let socket = bound.socket.try_clone()?;
        let (config, server) = (endpoint(), Some((*server.far).clone()));
        let endpoint = Endpoint::new(config, server, socket, Arc::new(TokioRuntime))?;
        Ok(QuicAcceptor { endpoint, unshaken: Arc::default() })
    }

    /// Shakes hands by `server` from now on.
    pub fn renew(&self, server: &QuicServer) {
        self.endpoint.set_server_config(Some((*server.far).clone()));
    }

    /// The next client; `None` when there will be no more. May be dropped at any time.
    pub async fn accept(&self) -> Option<Accepted> {
        loop {
            let incoming = self.endpoint.accept().await?;
            if self.unshaken.load(Relaxed) >= TRUSTING_MAX && incoming.may_retry() {
                // It cannot fail where it may.
                let _ = incoming.retry();
                continue;
            }
            let client = ClientAddr::from_socket(incoming.remote_address());
            self.unshaken.fetch_add(1, Relaxed);
            let under_way = UnderWay(self.unshaken.clone());
            return Some(Accepted::quic(QuicIncoming { incoming: Box::new(incoming), under_way }, client));
        }
    }

    /// Takes no more clients: those that come are refused. Connections that live go on.
    pub fn close(&self) {
        self.endpoint.set_server_config(None);
    }
}

impl fmt::Debug for QuicAcceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicAcceptor").field("unshaken", &self.unshaken).finish_non_exhaustive()
    }
}

/// A client of which a first packet has come, and nothing was computed yet. Dropped, it is refused.
#[derive(Debug)]
pub struct QuicIncoming {
    incoming: Box<Incoming>,
    under_way: UnderWay,
}

/// Counts a handshake for as long as it lasts.
#[derive(Debug)]
struct UnderWay(Arc<AtomicUsize>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Completes a client's handshake, by `server`, and waits for its conversation to begin; without a deadline:
/// the caller has one. Dropped midway, it closes the connection.
///
/// # Errors
/// [`QuicError`]; the client was told as far as QUIC can tell.
pub async fn accept_quic(incoming: QuicIncoming, server: &QuicServer) -> Result<(Io, Handshake), QuicError> {
    let QuicIncoming { incoming, under_way } = incoming;
    let server = server.towards(incoming.remote_address()).clone();
    let mut connecting = incoming.accept_with(server)?;
    let (protocol, server_name) = agreed(&mut connecting).await?;
    let connection = connecting.await?;
    let client_certificate = match connection.peer_identity() {
        None => None,
        Some(shown) => Some(certificate(shown).ok_or_else(unreadable)?),
    };
    drop(under_way);
    let (send, receive) = connection.accept_bi().await?;
    let handshake = Handshake {
        server_name: server_name.map(|name| name.to_ascii_lowercase()),
        alpn: protocol.as_deref().and_then(Alpn::new),
        version: TlsVersion::Tls13,
        resumed: false,
        client_certificate,
    };
    Ok((Io::Stream(Box::new(QuicStream::new(connection, send, receive, None))), handshake))
}

/// The protocol that was agreed on, and the server that was asked for.
async fn agreed(connecting: &mut Connecting) -> Result<(Option<Vec<u8>>, Option<String>), QuicError> {
    let said = connecting.handshake_data().await?.downcast::<HandshakeData>();
    Ok(said.map(|said| (said.protocol, said.server_name)).unwrap_or_default())
}

fn certificate(shown: Box<dyn std::any::Any>) -> Option<ClientCertificate> {
    ClientCertificate::read(&shown.downcast::<Vec<CertificateDer<'static>>>().ok()?)
}

/// What cannot be read must not pass for a client that showed none.
fn unreadable() -> QuicError {
    QuicError::Certificate("the client's cannot be read".into())
}
