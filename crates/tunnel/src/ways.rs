//! The ways to the server: each makes a pipe that is encrypted to the server's own authority, or says why
//! the network does not let it through.

use std::fmt;
use std::io;
use std::sync::Arc;

use data_encoding::BASE64;
use tieline_base::{Address, Secret};
use tieline_transport::tls::{
    Alpn, ClientTls, ClientTlsSettings, TlsConnectError, TlsError, Verify, connect_tls,
};
use tieline_transport::{DialOptions, Family, Io, QuicClient, QuicError, dial_named, dial_quic};
use tieline_wire::tunnel::{HANDSHAKE_MAX, Way};
use tokio::io::AsyncWriteExt;

use crate::authority::SERVER_NAME;
use crate::identity::{to_link, to_link_by_quic};
use crate::websocket::{self, UpgradeError};

/// A proxy of HTTP that leads out of a network, by `CONNECT` (RFC 9110 §9.3.6).
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Where it is.
    pub address: Address,
    /// Who asks, as `user:password`, where it wants to know (RFC 7617).
    pub login: Option<Secret>,
}

/// Where the server is, and how it is reached.
#[derive(Clone)]
pub(crate) struct Reach {
    pub(crate) server: Address,
    pub(crate) proxy: Option<Proxy>,
    pub(crate) tls: Arc<ClientTls>,
}

/// Why a way came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WayError {
    #[error("cannot connect: {0}")]
    Dial(io::Error),
    #[error("cannot connect to the proxy {0}: {1}")]
    Proxy(Address, io::Error),
    #[error("the proxy {0} leads to no server: {1}")]
    Connect(Address, UpgradeError),
    #[error(
        "the proxy {0} wants to know who asks: set `proxy_user`, or put user and password into HTTPS_PROXY"
    )]
    Login(Address),
    #[error("{0}")]
    Tls(#[from] TlsConnectError),
    #[error("{0}")]
    Outer(TlsConnectError),
    #[error(transparent)]
    Settings(#[from] TlsError),
    #[error(transparent)]
    Upgrade(#[from] UpgradeError),
    #[error(transparent)]
    Quic(#[from] QuicError),
}

impl Reach {
    /// Goes one way to the server, up to where the first frame can be sent.
    pub(crate) async fn go(self, way: Way) -> Result<Io, String> {
        let late = |_| Err(format!("no answer within {HANDSHAKE_MAX:?}"));
        let by = async { self.by(way).await.map_err(|error| error.to_string()) };
        tokio::time::timeout(HANDSHAKE_MAX, by).await.unwrap_or_else(late)
    }

    async fn by(&self, way: Way) -> Result<Io, WayError> {
        match way {
            Way::Quic6 => self.quic(Family::V6, &to_link_by_quic()).await,
            Way::Quic4 => self.quic(Family::V4, &to_link_by_quic()).await,
            Way::Tls => self.tls(to_link()).await,
            Way::WebSocket => self.websocket(to_link()).await,
        }
    }

    /// QUIC to the server itself, for one of `protocols`.
    pub(crate) async fn quic(&self, family: Family, protocols: &[Alpn]) -> Result<Io, WayError> {
        let client = QuicClient::new(&self.tls, protocols)?;
        Ok(dial_quic(&self.server, family, &client, SERVER_NAME).await?)
    }

    /// TLS to the server itself, for one of `protocols`.
    pub(crate) async fn tls(&self, protocols: Vec<Alpn>) -> Result<Io, WayError> {
        let io = self.tcp().await?;
        Ok(connect_tls(io, &self.tls, SERVER_NAME, Some(protocols)).await?.0)
    }

    /// The same inside a WebSocket, inside TLS to whoever answers: it may be one who looks at what passes.
    pub(crate) async fn websocket(&self, protocols: Vec<Alpn>) -> Result<Io, WayError> {
        let (name, host) = host(&self.server);
        let io = self.tcp().await?;
        let (io, _) = connect_tls(io, &outer()?, &name, None).await.map_err(WayError::Outer)?;
        let io = websocket::ask(io, &host).await?;
        Ok(connect_tls(io, &self.tls, SERVER_NAME, Some(protocols)).await?.0)
    }

    /// A connection of TCP that leads to the server.
    pub(crate) async fn tcp(&self) -> Result<Io, WayError> {
        let options = DialOptions::default();
        match &self.proxy {
            None => dial_named(&self.server, &options).await.map_err(WayError::Dial),
            Some(proxy) => {
                let failed = |error| WayError::Proxy(proxy.address.clone(), error);
                let io = dial_named(&proxy.address, &options).await.map_err(failed)?;
                proxy.connect(io, &self.server).await
            }
        }
    }
}

impl Proxy {
    /// Has the proxy lead `io` on to `server`.
    async fn connect(&self, mut io: Io, server: &Address) -> Result<Io, WayError> {
        let mut asked = format!("CONNECT {server} HTTP/1.1\r\nHost: {server}\r\n");
        if let Some(login) = &self.login {
            let login = BASE64.encode(login.reveal().as_bytes());
            asked.push_str(&format!("Proxy-Authorization: Basic {login}\r\n"));
        }
        asked.push_str("\r\n");
        let answered = async {
            io.write_all(asked.as_bytes()).await?;
            io.flush().await?;
            websocket::read_status(&mut io).await
        };
        match answered.await {
            Ok(200) => Ok(io),
            Ok(407) => Err(WayError::Login(self.address.clone())),
            Ok(status) => Err(WayError::Connect(self.address.clone(), UpgradeError::Status(status))),
            Err(error) => Err(WayError::Connect(self.address.clone(), error)),
        }
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").field("address", &self.address).finish_non_exhaustive()
    }
}

/// The name that is asked for in TLS, and what stands in `Host` (RFC 9110 §7.2: without the usual port).
pub(crate) fn host(server: &Address) -> (String, String) {
    let text = server.to_string();
    let (name, port) = text.rsplit_once(':').unwrap_or((&text, ""));
    let bare = name.trim_start_matches('[').trim_end_matches(']').to_owned();
    let host = if port == "443" { name.to_owned() } else { text.clone() };
    (bare, host)
}

/// Whoever terminates it proves nothing by it, be it a proxy that shows a certificate of its own. What must
/// be proved, and hidden, is inside.
pub(crate) fn outer() -> Result<ClientTls, TlsError> {
    ClientTls::load(&ClientTlsSettings {
        verify: Verify::DangerouslyNone,
        alpn: Alpn::new(b"http/1.1").into_iter().collect(),
        ..ClientTlsSettings::default()
    })
}

#[cfg(test)]
mod tests {
    use super::host;

    #[test]
    fn a_host_is_named_as_browsers_do() {
        for (server, name, expected) in [
            ("gate.test:443", "gate.test", "gate.test"),
            ("gate.test:7443", "gate.test", "gate.test:7443"),
            ("10.0.0.1:443", "10.0.0.1", "10.0.0.1"),
            ("[2001:db8::1]:443", "2001:db8::1", "[2001:db8::1]"),
            ("[2001:db8::1]:8443", "2001:db8::1", "[2001:db8::1]:8443"),
        ] {
            assert_eq!(host(&server.parse().unwrap()), (name.into(), expected.into()), "{server}");
        }
    }
}
