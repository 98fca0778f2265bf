use std::io;
use std::path::{Path, PathBuf};

/// Why TLS cannot be set up: one line that names the file.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// A self-signed certificate cannot be kept.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// What a file holds is of no use.
    #[error("{}: {wrong}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what it should be.
        wrong: String,
    },
    /// A server without a certificate.
    #[error("a TLS server needs at least one certificate")]
    NoCertificate,
    /// The machine trusts nobody.
    #[error("the system has no certificate authorities ({0}); install ca-certificates or name a CA bundle")]
    SystemRoots(rustls::Error),
    /// A server name that cannot be one.
    #[error("\"{0}\" is neither a host name nor an IP address")]
    ServerName(String),
    /// The library refuses, for no fault of a file.
    #[error("TLS: {0}")]
    Library(#[from] rustls::Error),
}

impl TlsError {
    pub(super) fn file(path: &Path, wrong: impl Into<String>) -> TlsError {
        TlsError::File { path: path.into(), wrong: wrong.into() }
    }
}

/// Why a client's handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum TlsAcceptError {
    /// The client closed midway.
    #[error("the client closed during the TLS handshake")]
    Closed,
    /// The socket broke.
    #[error(transparent)]
    Io(io::Error),
    /// The client broke the protocol, or refused us.
    #[error("TLS handshake: {0}")]
    Protocol(rustls::Error),
    /// The client has not proved who it is.
    #[error("the client's certificate is refused: {0}")]
    Refused(rustls::Error),
    /// `strict_sni` is set, and no certificate bears the name asked for.
    #[error("no certificate for {}", .server_name.as_deref().unwrap_or("a client that names no server"))]
    NoCertificate {
        /// The name asked for.
        server_name: Option<String>,
    },
}

impl TlsAcceptError {
    pub(super) fn of(error: rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidCertificate(_)
            | rustls::Error::NoCertificatesPresented
            | rustls::Error::InvalidCertRevocationList(_) => TlsAcceptError::Refused(error),
            error => TlsAcceptError::Protocol(error),
        }
    }
}

impl From<io::Error> for TlsAcceptError {
    fn from(error: io::Error) -> Self {
        match Broken::of(error) {
            Broken::Closed => TlsAcceptError::Closed,
            Broken::Io(error) => TlsAcceptError::Io(error),
            Broken::Protocol(error) => TlsAcceptError::of(error),
        }
    }
}

/// Why the handshake with an upstream failed.
#[derive(Debug, thiserror::Error)]
pub enum TlsConnectError {
    /// The upstream closed midway.
    #[error("the upstream closed during the TLS handshake")]
    Closed,
    /// The socket broke.
    #[error(transparent)]
    Io(io::Error),
    /// The upstream's certificate proves nothing.
    #[error("the upstream's certificate is refused: {0}")]
    Certificate(rustls::CertificateError),
    /// The upstream broke the protocol, or refused us.
    #[error("TLS handshake: {0}")]
    Protocol(rustls::Error),
    /// The name to ask for cannot be one.
    #[error("\"{0}\" is neither a host name nor an IP address")]
    ServerName(String),
}

impl From<io::Error> for TlsConnectError {
    fn from(error: io::Error) -> Self {
        match Broken::of(error) {
            Broken::Closed => TlsConnectError::Closed,
            Broken::Io(error) => TlsConnectError::Io(error),
            Broken::Protocol(rustls::Error::InvalidCertificate(why)) => TlsConnectError::Certificate(why),
            Broken::Protocol(error) => TlsConnectError::Protocol(error),
        }
    }
}

enum Broken {
    Closed,
    Io(io::Error),
    Protocol(rustls::Error),
}

impl Broken {
    fn of(error: io::Error) -> Broken {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return Broken::Closed;
        }
        match error.downcast::<rustls::Error>() {
            Ok(error) => Broken::Protocol(error),
            Err(error) => Broken::Io(error),
        }
    }
}
