//! Connecting by QUIC.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

use quinn::{Endpoint, TokioRuntime};
use socket2::{Domain, Protocol, Socket, Type};
use tieline_base::Address;

use super::door::widen;
use super::stream::QuicStream;
use super::{QuicClient, QuicError, endpoint};
use crate::Io;

/// A family of addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// RFC 791.
    V4,
    /// RFC 8200.
    V6,
}

/// Connects to `address` by its first address of `family` and begins a conversation, without a deadline: the
/// caller has one. `server_name` is asked for and checked.
///
/// # Errors
/// [`QuicError`]. Where nothing answers there is none: it waits.
pub async fn dial_quic(
    address: &Address,
    family: Family,
    client: &QuicClient,
    server_name: &str,
) -> Result<Io, QuicError> {
    let to = resolve(address, family).await?;
    let endpoint = Endpoint::new(endpoint(), None, bind(family)?, Arc::new(TokioRuntime))?;
    let connection = endpoint.connect_with(client.towards(to), to, server_name)?.await?;
    let (send, receive) = connection.open_bi().await?;
    Ok(Io::Stream(Box::new(QuicStream::new(connection, send, receive, Some(endpoint)))))
}

async fn resolve(address: &Address, family: Family) -> Result<SocketAddr, QuicError> {
    let fits = |socket: &SocketAddr| socket.is_ipv4() == (family == Family::V4);
    crate::resolve(address).await?.into_iter().find(fits).ok_or(QuicError::NoAddress)
}

pub(super) fn bind(family: Family) -> std::io::Result<UdpSocket> {
    let (domain, any): (_, SocketAddr) = match family {
        Family::V4 => (Domain::IPV4, (Ipv4Addr::UNSPECIFIED, 0).into()),
        Family::V6 => (Domain::IPV6, (Ipv6Addr::UNSPECIFIED, 0).into()),
    };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    widen(&socket);
    socket.set_nonblocking(true)?;
    socket.bind(&any.into())?;
    Ok(socket.into())
}
