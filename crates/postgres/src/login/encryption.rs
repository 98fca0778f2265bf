//! TLS towards servers: for sessions, and for the requests that cancel what those do.

use std::io;
use std::sync::Arc;

use tieline_transport::Io;
use tieline_transport::tls::{Alpn, ClientTls, connect_tls};
use tieline_wire::postgres::startup;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::ALPN;
use super::server::LogInError;

/// How servers are spoken to under TLS.
#[derive(Clone, Debug)]
pub struct Encryption {
    /// How they prove who they are, and we to them.
    pub tls: Arc<ClientTls>,
    /// TLS is the first thing that they hear, without being asked whether they speak it (PostgreSQL 17,
    /// `sslnegotiation=direct`): a round trip less.
    pub direct: bool,
}

impl Encryption {
    /// What it is told apart by, for as long as it lives.
    pub(crate) fn place(&self) -> (usize, bool) {
        (Arc::as_ptr(&self.tls) as usize, self.direct)
    }

    /// Begins TLS. `host` is the name or address that the server's certificate must be for, where the
    /// settings name none.
    ///
    /// # Errors
    /// The server speaks none, or does not prove who it is: nothing was said to it then.
    async fn begin(&self, mut io: Io, host: &str) -> Result<Io, LogInError> {
        if !self.direct {
            ask(&mut io).await?;
        }
        let connected = connect_tls(io, &self.tls, host, None).await;
        let (io, agreed) = connected.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        // Whoever answers to anything must not be taken for a server ("ALPACA" attacks); one that was asked
        // first has said in its own words that it is one.
        if self.direct && agreed.as_ref().map(Alpn::as_bytes) != Some(ALPN) {
            return Err(LogInError::Credential("the server does not speak TLS directly, without a request"));
        }
        Ok(io)
    }
}

/// Asks a server for TLS.
async fn ask(io: &mut Io) -> Result<(), LogInError> {
    io.write_all(&startup::ssl_request()).await?;
    io.flush().await?;
    // One byte alone is read: what else came in the clear would fail as part of the handshake
    // (CVE-2021-23222).
    match io.read_u8().await? {
        b'S' => Ok(()),
        // An error of a server that is not proved is nothing to repeat (CVE-2024-10977).
        _ => Err(LogInError::Credential("the server speaks no TLS, which `tls` asks for")),
    }
}

/// `io`, under TLS where it is asked for; `host` is whom it leads to.
///
/// # Errors
/// As [`Encryption`]'s: nothing was said to the server then.
pub(crate) async fn secured(io: Io, encryption: Option<&Encryption>, host: &str) -> Result<Io, LogInError> {
    match encryption {
        Some(encryption) => encryption.begin(io, host).await,
        None => Ok(io),
    }
}
