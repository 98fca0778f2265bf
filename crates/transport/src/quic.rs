//! QUIC (RFC 9000, RFC 9001): one conversation over UDP, encrypted as TLS 1.3 is.
//!
//! A connection carries one conversation: the bidirectional stream that its dialer opens first, and
//! datagrams (RFC 9221) beside it. Whoever
//! accepts decides about a client before any cryptography, and asks those for a proof of their address
//! when many are at it. Start with [`QuicAcceptor`] and [`dial_quic`].

mod dial;
mod door;
mod error;
mod pace;
mod soundings;
mod stream;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    ClientConfig, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, ServerConfig, TransportConfig, VarInt,
};

pub use dial::{Family, dial_quic};
pub use door::{QuicAcceptor, QuicBound, QuicIncoming, accept_quic};
pub use error::QuicError;
pub use soundings::{SIZE_MIN, Sounding, Soundings, sound};

use self::pace::PaceConfig;
use crate::tls::{Alpn, ClientTls, ServerTls};

/// How QUIC ends at a listener.
#[derive(Clone)]
pub struct QuicServer {
    here: Arc<ServerConfig>,
    far: Arc<ServerConfig>,
}

/// How QUIC begins towards a server.
#[derive(Clone)]
pub struct QuicClient(ClientConfig);

/// The largest packet on one machine: ten of them are handed to the kernel at once, which takes 64 KiB.
const PACKET_MAX_HERE: u16 = 6_500;

/// Handshakes that nobody has decided about yet; what comes beyond is refused.
const INCOMING_MAX: usize = 1_024;

/// What clients may send before somebody has decided about them: one, and all together.
const INCOMING_BYTES_MAX: u64 = 64 << 10;
const INCOMING_BYTES_ALL_MAX: u64 = 16 << 20;

/// What a peer may send ahead of being read. Everything is read as it comes, so this bounds nothing but what
/// is under way.
const RECEIVE_WINDOW: u32 = 4 << 20;

/// What is written and not acknowledged before the path is known; later it follows the path.
const SEND_WINDOW: u64 = 256 << 10;

/// Datagrams that wait: for the path, and to be read. Of the latter the oldest make room.
const DATAGRAMS_MAX: usize = 128 << 10;
const DATAGRAMS_CAME_MAX: usize = 256 << 10;

/// Whoever uses the conversation finds out long before that its peer is silent, and asks often enough that
/// one at rest is not taken for dead.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// Where the peer is: paths of one machine lose nothing, and carry packets of any size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reach {
    Here,
    Far,
}

impl Reach {
    fn of(peer: IpAddr) -> Reach {
        if peer.to_canonical().is_loopback() { Reach::Here } else { Reach::Far }
    }
}

/// What either side tells the other of itself, whoever that is.
fn endpoint() -> EndpointConfig {
    let mut endpoint = EndpointConfig::default();
    endpoint.max_udp_payload_size(PACKET_MAX_HERE).expect("it is above what every peer must take");
    endpoint
}

fn transport(reach: Reach) -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(RECEIVE_WINDOW))
        .receive_window(VarInt::from_u32(2 * RECEIVE_WINDOW))
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(Some(DATAGRAMS_CAME_MAX))
        .datagram_send_buffer_size(DATAGRAMS_MAX)
        .max_idle_timeout(IdleTimeout::try_from(IDLE_MAX).ok())
        .keep_alive_interval(None);
    match reach {
        Reach::Here => {
            let mut discovery = MtuDiscoveryConfig::default();
            discovery.upper_bound(PACKET_MAX_HERE);
            transport.mtu_discovery_config(Some(discovery));
        }
        Reach::Far => {
            transport.congestion_controller_factory(Arc::new(PaceConfig));
        }
    }
    Arc::new(transport)
}

impl QuicServer {
    /// With the certificates of `tls`, which judges clients too; one of `alpn` must be agreed on.
    ///
    /// # Errors
    /// `tls` has no cipher that QUIC begins with.
    pub fn new(tls: &ServerTls, alpn: &[Alpn]) -> Result<QuicServer, QuicError> {
        let mut config = (*tls.config).clone();
        config.alpn_protocols = alpn.iter().map(|alpn| alpn.as_bytes().into()).collect();
        let crypto = QuicServerConfig::try_from(config).map_err(|_| QuicError::NoCipher)?;
        let mut server = ServerConfig::with_crypto(Arc::new(crypto));
        server
            .transport_config(transport(Reach::Far))
            .max_incoming(INCOMING_MAX)
            .incoming_buffer_size(INCOMING_BYTES_MAX)
            .incoming_buffer_size_total(INCOMING_BYTES_ALL_MAX);
        let far = Arc::new(server.clone());
        server.transport_config(transport(Reach::Here));
        Ok(QuicServer { here: Arc::new(server), far })
    }

    /// How it ends towards `peer`.
    fn towards(&self, peer: SocketAddr) -> &Arc<ServerConfig> {
        match Reach::of(peer.ip()) {
            Reach::Here => &self.here,
            Reach::Far => &self.far,
        }
    }
}

impl QuicClient {
    /// As whom, and towards whom, `tls` has it; one of `alpn` must be agreed on.
    ///
    /// # Errors
    /// `tls` has no cipher that QUIC begins with.
    pub fn new(tls: &ClientTls, alpn: &[Alpn]) -> Result<QuicClient, QuicError> {
        let mut config = (*tls.config).clone();
        config.alpn_protocols = alpn.iter().map(|alpn| alpn.as_bytes().into()).collect();
        let crypto = QuicClientConfig::try_from(config).map_err(|_| QuicError::NoCipher)?;
        let mut client = ClientConfig::new(Arc::new(crypto));
        client.transport_config(transport(Reach::Far));
        Ok(QuicClient(client))
    }

    /// How it begins towards `peer`.
    fn towards(&self, peer: SocketAddr) -> ClientConfig {
        let mut client = self.0.clone();
        client.transport_config(transport(Reach::of(peer.ip())));
        client
    }
}

impl fmt::Debug for QuicServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Nothing that could hold a key.
        f.debug_struct("QuicServer").finish_non_exhaustive()
    }
}

impl fmt::Debug for QuicClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Nothing that could hold a key.
        f.debug_struct("QuicClient").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
