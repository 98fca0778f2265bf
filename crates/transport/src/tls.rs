//! TLS towards clients and upstreams: rustls on aws-lc-rs, versions 1.2 and 1.3, AEAD with forward secrecy
//! only. Start with [`ServerTls`] and [`accept_tls`].
//!
//! What is loaded never changes: a caller asks `changed` now and then, loads anew and swaps the `Arc`. That
//! also forgets every session, so none outlives the certificates and revocations it was made under.

mod accept;
mod ahead;
mod certificates;
mod client;
mod end_point;
mod error;
mod files;
mod names;
mod peer;
mod self_signed;
mod server;
mod stream;
mod vouching;

use std::fmt;
use std::sync::Arc;

use rustls::ProtocolVersion;
use rustls::crypto::CryptoProvider;

pub use accept::{Handshake, accept_tls, accept_tls_after};
pub use certificates::CertificateFiles;
pub use client::{ClientTls, ClientTlsSettings, Roots, Verify, connect_tls};
pub use error::{TlsAcceptError, TlsConnectError, TlsError};
pub use peer::{ClientCertificate, Fingerprint, ServerCertificate, serial_of, valid_since, valid_until};
pub use self_signed::self_signed;
pub use server::{ClientCertificates, ServerTls, ServerTlsSettings};
pub use stream::TlsStream;
pub use vouching::Voucher;

/// An application protocol (RFC 7301) by its registered bytes; what they mean is known on floor 5.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Alpn(Vec<u8>);

impl Alpn {
    /// A name of 1 to 255 bytes, which is all that RFC 7301 §3.1 can carry.
    pub fn new(name: &[u8]) -> Option<Alpn> {
        (1..=255).contains(&name.len()).then(|| Alpn(name.into()))
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Alpn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.escape_ascii().fmt(f)
    }
}

impl fmt::Debug for Alpn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Alpn({self})")
    }
}

/// A version of the protocol; older ones are not spoken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum TlsVersion {
    /// RFC 5246.
    #[default]
    Tls12,
    /// RFC 8446.
    Tls13,
}

impl TlsVersion {
    /// As everybody calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            TlsVersion::Tls12 => "TLSv1.2",
            TlsVersion::Tls13 => "TLSv1.3",
        }
    }

    /// Itself and what is newer.
    fn and_newer(self) -> &'static [&'static rustls::SupportedProtocolVersion] {
        match self {
            TlsVersion::Tls12 => rustls::ALL_VERSIONS,
            TlsVersion::Tls13 => TLS13_ONLY,
        }
    }

    fn of(negotiated: Option<ProtocolVersion>) -> TlsVersion {
        if negotiated == Some(ProtocolVersion::TLSv1_2) { TlsVersion::Tls12 } else { TlsVersion::Tls13 }
    }
}

static TLS13_ONLY: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
