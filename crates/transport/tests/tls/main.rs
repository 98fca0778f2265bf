//! TLS and QUIC over real sockets: between our two ends, and against the openssl command line.
#![allow(clippy::unwrap_used, reason = "a helper of tests may fail as a test may")]
#![allow(clippy::disallowed_types, reason = "the far ends are sockets of tokio::net")]

mod clients;
mod files;
mod openssl;
mod pki;
mod quic;
mod servers;
mod streams;

use tieline_transport::Io;
use tieline_transport::tls::{
    Alpn, ClientTls, Handshake, ServerTls, TlsAcceptError, TlsConnectError, accept_tls, connect_tls,
};

type Accepted = Result<(Io, Handshake), TlsAcceptError>;
type Connected = Result<(Io, Option<Alpn>), TlsConnectError>;

/// Two connected sockets.
async fn pair() -> (Io, Io) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let far = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (Io::Tcp(listener.accept().await.unwrap().0), Io::Tcp(far))
}

/// A handshake between both, the client asking for `name`.
async fn meet(server: &ServerTls, client: &ClientTls, name: &str) -> (Accepted, Connected) {
    let (near, far) = pair().await;
    tokio::join!(accept_tls(near, server), connect_tls(far, client, name, None))
}

/// As [`meet`], which must succeed.
async fn met(server: &ServerTls, client: &ClientTls, name: &str) -> (Io, Io, Handshake) {
    let (accepted, connected) = meet(server, client, name).await;
    let (near, handshake) = accepted.unwrap();
    (near, connected.unwrap().0, handshake)
}
