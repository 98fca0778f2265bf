//! Sockets of UDP beside those of TCP, at listeners that take clients of QUIC.

use std::collections::HashMap;
use std::io::ErrorKind;

use tieline_base::{Address, WorkerId};
use tieline_config as config;
use tieline_conn::Quic;
use tieline_transport::tls::ServerTls;
use tieline_transport::{BindError, Bound, ListenOptions, QuicBound, QuicServer};

use crate::assembly::{DoorKey, door_keys};

/// Those that are bound. They outlive configs.
#[derive(Default)]
pub(crate) struct QuicSockets(HashMap<DoorKey, (QuicBound, WorkerId)>);

/// How often another port is asked for where the kernel may choose, and the one that it chose for TCP is
/// taken for UDP.
const PORTS_MAX: u32 = 16;

/// Listens at `key`, by UDP too where `listener` says so.
pub(crate) fn bind(
    key: &DoorKey,
    listener: &config::Listener,
    options: &ListenOptions,
) -> Result<(Bound, Option<QuicBound>), BindError> {
    let mut left = PORTS_MAX;
    loop {
        let bound = Bound::bind(&key.address, options)?;
        left -= 1;
        match beside(&bound, listener) {
            Err(error) if key.any_port() && left > 0 && error.source.kind() == ErrorKind::AddrInUse => {}
            quic => return Ok((bound, quic?)),
        }
    }
}

/// The socket beside `bound`, where `listener` wants one.
pub(crate) fn beside(bound: &Bound, listener: &config::Listener) -> Result<Option<QuicBound>, BindError> {
    match bound.address() {
        Address::Socket(address) if wants(listener) => QuicBound::bind(*address).map(Some),
        _ => Ok(None),
    }
}

/// A PROXY header has no place in QUIC: where one must come, clients of QUIC would be taken for the proxy.
fn wants(listener: &config::Listener) -> bool {
    listener.protocol == config::Protocol::Tunnel && listener.quic && listener.proxy_protocol.is_none()
}

impl QuicSockets {
    pub(crate) fn insert(&mut self, key: DoorKey, bound: QuicBound, worker: WorkerId) {
        self.0.insert(key, (bound, worker));
    }

    pub(crate) fn has(&self, key: &DoorKey) -> bool {
        self.0.contains_key(key)
    }

    /// Closes those that `live` does not name.
    pub(crate) fn retire(&mut self, live: &config::Live) {
        let wanted = live.listeners.iter().filter(|listener| wants(listener));
        let named: Vec<DoorKey> = wanted.flat_map(door_keys).collect();
        self.0.retain(|key, _| named.contains(key));
    }

    /// How `listener`, whose TLS is `tls`, takes clients of QUIC.
    pub(crate) fn of(&self, listener: &config::Listener, tls: &ServerTls) -> Option<Quic> {
        if !wants(listener) {
            return None;
        }
        let doors = door_keys(listener).filter_map(|key| self.0.get(&key).cloned()).collect();
        match QuicServer::new(tls, &tieline_tunnel::alpn_quic()) {
            Ok(server) => Some(Quic { server, doors }),
            Err(error) => {
                tracing::error!(listener = listener.name, %error, "no links go over QUIC");
                None
            }
        }
    }
}
