//! A service at a local address.

use std::fmt;
use std::future::poll_fn;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, bail};
use tieline_base::Address;
use tieline_transport::{Acceptor, Adopted, Bound, Duplex, Io, ListenOptions, Meter, Side, UdpBound};
use tieline_tunnel::{ConnectError, LinkState, UserLink};
use tokio::task::JoinSet;

use super::{flows, opened};
use crate::logging::say;

/// A local address that is listened at, and where it leads.
pub(super) struct Forward {
    service: String,
    bound: Place,
}

/// Where it is to be had.
enum Place {
    Streams(Bound),
    Datagrams(UdpBound),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Streams(bound) => bound.address().fmt(f),
            Place::Datagrams(bound) => write!(f, "udp:{}", bound.address()),
        }
    }
}

/// The most conversations at once: as many as a link takes.
const CLIENTS_MAX: usize = 1_024;

/// How long accepting pauses when this machine has run out of something.
const EXHAUSTION_PAUSE: Duration = Duration::from_millis(100);

impl Forward {
    /// Listens at `address`: a port of the loopback address, host:port, or unix:/path; for datagrams with
    /// udp: before a port or host:port.
    pub(super) fn bind(service: &str, address: &str, expose: bool) -> anyhow::Result<Forward> {
        let (address, datagrams) = match address.strip_prefix("udp:") {
            Some(address) => (local(address)?, true),
            None => (local(address)?, false),
        };
        if let Address::Socket(socket) = &address
            && !socket.ip().is_loopback()
            && !expose
        {
            bail!("whoever reaches {address} would reach {service} as you; write --expose if that is meant");
        }
        if datagrams {
            let Address::Socket(socket) = address else {
                bail!("udp: stands before a port, or an IP address and port")
            };
            return Ok(Forward { service: service.into(), bound: Place::Datagrams(UdpBound::bind(socket)?) });
        }
        // Only its owner may connect.
        let options = ListenOptions { keepalive: None, unix_mode: 0o600 };
        Ok(Forward { service: service.into(), bound: Place::Streams(Bound::bind(&address, &options)?) })
    }
}

fn local(text: &str) -> anyhow::Result<Address> {
    if let Ok(port) = text.parse::<u16>() {
        return Ok(Address::Socket(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)));
    }
    let address: Address = text.parse().with_context(|| format!("\"{}\"", text.escape_debug()))?;
    match address {
        Address::Name { host, port } if host == "localhost" => {
            Ok(Address::Socket(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)))
        }
        Address::Socket(_) | Address::Unix(_) => Ok(address),
        other => bail!(
            "{other} is no address of this machine; write a port, an IP address and port, or unix:/path"
        ),
    }
}

/// Counts nothing.
struct Uncounted;

impl Meter for Uncounted {
    fn moved(&self, _: Side, _: usize) {}
}

/// Serves all of `forwards` until the server wants no link any more.
#[allow(clippy::disallowed_methods)] // conversations live and end with the command
pub(super) async fn all(
    link: Rc<UserLink>,
    why: Rc<str>,
    forwards: Vec<Forward>,
) -> Result<(), (String, ConnectError)> {
    let mut accepting = JoinSet::new();
    for forward in forwards {
        let Forward { service, bound } = forward;
        say(&format!("{service} is at {bound}"));
        let (link, why) = (link.clone(), why.clone());
        match bound {
            Place::Streams(bound) => drop(accepting.spawn_local(accept(link, why, service, bound))),
            Place::Datagrams(bound) => drop(accepting.spawn_local(receive(link, why, service, bound))),
        }
    }
    let mut watched = (*link).clone();
    // Both arms may be dropped.
    tokio::select! {
        Some(Ok((service, error))) = accepting.join_next() => Err((service, error)),
        error = refused(&mut watched) => Err(("the server".into(), error)),
    }
}

async fn refused(link: &mut UserLink) -> ConnectError {
    while link.state() != LinkState::Refused {
        link.changed().await;
    }
    ConnectError::Refused("it takes no link by this token any more".into())
}

/// Accepts for ever; ends only if nothing can be accepted at all.
#[allow(clippy::disallowed_methods)]
async fn accept(link: Rc<UserLink>, why: Rc<str>, service: String, bound: Bound) -> (String, ConnectError) {
    let mut clients = JoinSet::new();
    let acceptor = match Acceptor::new(&bound) {
        Ok(acceptor) => acceptor,
        Err(error) => return (service, ConnectError::Broken(error.to_string())),
    };
    let service: Rc<str> = service.into();
    loop {
        while clients.try_join_next().is_some() {}
        if clients.len() >= CLIENTS_MAX {
            clients.join_next().await;
        }
        match acceptor.accept().await.and_then(|accepted| accepted.adopt()) {
            Ok(Adopted::Io(io)) => {
                drop(clients.spawn_local(serve(link.clone(), service.clone(), why.clone(), io)))
            }
            // Nothing here listens for it.
            Ok(Adopted::Quic(_)) => {}
            Err(error) => {
                say(&format!("tieline: {service}: cannot accept: {error}"));
                tokio::time::sleep(EXHAUSTION_PAUSE).await;
            }
        }
    }
}

/// Takes datagrams for ever; ends only if nothing can be received at all.
async fn receive(
    link: Rc<UserLink>,
    why: Rc<str>,
    service: String,
    bound: UdpBound,
) -> (String, ConnectError) {
    let error = match bound.listen() {
        Ok(listener) => flows::serve(&link, &service, &why, listener).await,
        Err(error) => error,
    };
    (service, ConnectError::Broken(error.to_string()))
}

async fn serve(link: Rc<UserLink>, service: Rc<str>, why: Rc<str>, client: Io) {
    // Both arms may be dropped: a stream that is dropped while it opens is taken back.
    let opened = tokio::select! {
        opened = opened(&link, &service, &why) => opened,
        () = client.broken() => return,
    };
    let far = match opened {
        Ok(far) => far,
        Err(error) => {
            say(&format!("tieline: {service}: {error}"));
            return client.abort_on_close();
        }
    };
    let mut duplex = Duplex::new(client, far, Vec::new());
    let closed = poll_fn(|cx| duplex.poll(&Uncounted, cx)).await;
    if let (Side::Upstream, Some(error)) = (closed.first, closed.error) {
        say(&format!("tieline: {service}: {}", link.error(&error)));
    }
}
