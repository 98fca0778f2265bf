//! A client's handshake.

use rustls::server::{Accepted, Acceptor};
use rustls::{HandshakeKind, ServerConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::StartHandshake;

use super::ahead::Ahead;
use super::error::TlsAcceptError;
use super::names::normal;
use super::peer::ClientCertificate;
use super::server::ServerTls;
use super::stream::TlsStream;
use super::{Alpn, TlsVersion};
use crate::Io;

/// What a client and we agreed on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Handshake {
    /// The server asked for, in lower case.
    pub server_name: Option<String>,
    /// The protocol that will be spoken inside.
    pub alpn: Option<Alpn>,
    /// The version of TLS.
    pub version: TlsVersion,
    /// Whether it goes on with the keys of an earlier connection.
    pub resumed: bool,
    /// Who the client proved to be.
    pub client_certificate: Option<ClientCertificate>,
}

/// Completes a client's handshake, without a deadline: the caller has one. Dropped midway, it closes `io`.
///
/// # Errors
/// [`TlsAcceptError`]; the client was told as far as TLS can tell.
pub async fn accept_tls(io: Io, tls: &ServerTls) -> Result<(Io, Handshake), TlsAcceptError> {
    accept_tls_after(io, Vec::new(), tls, std::future::ready(())).await
}

/// As [`accept_tls`], with `opening` read of the client already. `turn` is awaited when the client has said
/// all that the costly part of the handshake needs, and that part comes in the same poll.
///
/// # Errors
/// As [`accept_tls`].
pub async fn accept_tls_after(
    io: Io,
    opening: Vec<u8>,
    tls: &ServerTls,
    turn: impl Future<Output = ()>,
) -> Result<(Io, Handshake), TlsAcceptError> {
    // Boxed: some kilobytes that a connection needs for a moment should not be part of it for life.
    Box::pin(accept(io, opening, tls, turn)).await
}

async fn accept(
    mut io: Io,
    opening: Vec<u8>,
    tls: &ServerTls,
    turn: impl Future<Output = ()>,
) -> Result<(Io, Handshake), TlsAcceptError> {
    let (accepted, rest) = read_hello(&mut io, opening).await?;
    let server_name = accepted.client_hello().server_name().map(normal);
    if tls.names.of(server_name.as_deref()).is_empty() {
        let _ = io.write_all(&UNRECOGNIZED_NAME).await;
        return Err(TlsAcceptError::NoCertificate { server_name });
    }
    turn.await;
    let start = StartHandshake::from_parts(accepted, Ahead::new(io));
    let stream = start.into_stream_with(tls.config.clone(), |connection| feed(connection, &rest)).await?;
    let handshake = describe(stream.get_ref().1, server_name)?;
    Ok((Io::Tls(Box::new(TlsStream::new(stream.into()))), handshake))
}

/// RFC 6066 §3: a fatal alert, unrecognized_name(112), in a record of TLS 1.2 as RFC 8446 §5.1 wants it.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// Reads the ClientHello, and what happens to be read behind it.
async fn read_hello(io: &mut Io, mut bytes: Vec<u8>) -> Result<(Accepted, Vec<u8>), TlsAcceptError> {
    let mut acceptor = Acceptor::default();
    loop {
        let mut unread = bytes.as_slice();
        while !unread.is_empty() {
            acceptor.read_tls(&mut unread)?;
            match acceptor.accept() {
                Ok(Some(accepted)) => return Ok((accepted, unread.to_vec())),
                Ok(None) => {}
                Err((error, mut alert)) => {
                    let mut words = Vec::new();
                    alert.write_all(&mut words)?;
                    let _ = io.write_all(&words).await;
                    return Err(TlsAcceptError::Protocol(error));
                }
            }
        }
        bytes.clear();
        bytes.reserve(READ_MAX);
        if io.read_buf(&mut bytes).await? == 0 {
            return Err(TlsAcceptError::Closed);
        }
    }
}

/// The most that is read at once, in bytes: a ClientHello fits with room to spare.
const READ_MAX: usize = 4 * 1024;

/// Hands over what was read beyond the ClientHello. An error stays with the connection, which tells it next.
fn feed(connection: &mut ServerConnection, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        if connection.read_tls(&mut bytes).is_err() || connection.process_new_packets().is_err() {
            return;
        }
    }
}

fn describe(connection: &ServerConnection, server_name: Option<String>) -> Result<Handshake, TlsAcceptError> {
    let shown = connection.peer_certificates().filter(|shown| !shown.is_empty());
    // What cannot be read must not pass for a client that showed none.
    let unreadable = || rustls::Error::InvalidCertificate(rustls::CertificateError::BadEncoding);
    let read = |shown| ClientCertificate::read(shown).ok_or_else(unreadable);
    Ok(Handshake {
        server_name,
        alpn: connection.alpn_protocol().and_then(Alpn::new),
        version: TlsVersion::of(connection.protocol_version()),
        resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
        client_certificate: shown.map(read).transpose().map_err(TlsAcceptError::Refused)?,
    })
}
