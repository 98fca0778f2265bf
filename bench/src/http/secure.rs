//! The clients' side of TLS 1.3, the same towards every product.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use anyhow::Context;
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tieline_testkit::{Authority, Pair};

use super::load::Carrier;

/// The name that the certificate is for.
const NAME: &str = "bench.test";

/// A certificate by ECDSA P-256, and clients that trust it. They agree on keys by X25519, which all products
/// speak, and resume nothing.
pub(crate) struct Trust {
    authority: Authority,
    pair: Pair,
    config: Arc<ClientConfig>,
}

impl Trust {
    pub(crate) fn new() -> anyhow::Result<Trust> {
        Trust::for_protocol("http/1.1")
    }

    /// [`Trust::new`] with clients that offer another protocol by ALPN.
    pub(crate) fn for_protocol(name: &str) -> anyhow::Result<Trust> {
        let authority = Authority::new();
        let pair = authority.server(&[NAME]);
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(authority.ca())?)?;
        let mut provider = aws_lc_rs::default_provider();
        provider.kx_groups = vec![aws_lc_rs::kx_group::X25519];
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        config.alpn_protocols = vec![name.as_bytes().into()];
        let (certificate, key) = (std::fs::read(&pair.certificate)?, std::fs::read(&pair.key)?);
        std::fs::write(authority.path("both.pem"), [certificate, key].concat())?;
        Ok(Trust { authority, pair, config: Arc::new(config) })
    }

    /// The files of the certificate and of its key.
    pub(crate) fn pair(&self) -> &Pair {
        &self.pair
    }

    /// Both in one file.
    pub(crate) fn both(&self) -> std::path::PathBuf {
        self.authority.path("both.pem")
    }

    /// Connects, and completes the handshake.
    pub(crate) fn connect(&self, proxy: SocketAddr) -> io::Result<Secured> {
        self.over(TcpStream::connect(proxy)?)
    }

    /// Completes the handshake over `socket`.
    pub(crate) fn over(&self, mut socket: TcpStream) -> io::Result<Secured> {
        let name = ServerName::try_from(NAME).map_err(io::Error::other)?;
        let mut session = ClientConnection::new(self.config.clone(), name).map_err(io::Error::other)?;
        while session.is_handshaking() {
            session.complete_io(&mut socket)?;
        }
        Ok(Secured(StreamOwned::new(session, socket)))
    }

    /// The first bytes of a handshake, as a client that goes no further sends them.
    pub(crate) fn hello(&self) -> anyhow::Result<Vec<u8>> {
        let mut session = ClientConnection::new(self.config.clone(), ServerName::try_from(NAME)?)?;
        let mut bytes = Vec::new();
        session.write_tls(&mut bytes).context("writing into memory")?;
        Ok(bytes)
    }
}

/// A connection under TLS.
pub(crate) struct Secured(StreamOwned<ClientConnection, TcpStream>);

impl Read for Secured {
    fn read(&mut self, place: &mut [u8]) -> io::Result<usize> {
        self.0.read(place)
    }
}

impl Write for Secured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl AsFd for Secured {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.sock.as_fd()
    }
}

impl Carrier for Secured {
    // What has been decrypted already wakes nobody.
    fn holds_unread(&mut self) -> bool {
        self.0.conn.process_new_packets().is_ok_and(|state| state.plaintext_bytes_to_read() > 0)
    }
}
