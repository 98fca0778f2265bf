//! TLS towards upstreams.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tieline_base::Secret;
use tokio_rustls::TlsConnector;

use super::ahead::Ahead;
use super::certificates::{CertificateFiles, load_pair, load_roots, pair_in};
use super::error::{TlsConnectError, TlsError};
use super::files::Files;
use super::peer::Fingerprint;
use super::stream::TlsStream;
use super::{Alpn, TlsVersion, provider};
use crate::Io;

/// What TLS towards an upstream is made of.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ClientTlsSettings {
    /// Who may vouch for the upstream.
    pub roots: Roots,
    /// Whether anybody must.
    pub verify: Verify,
    /// Who we prove to be, if the upstream asks.
    pub certificate: Option<CertificateFiles>,
    /// What is offered, the preferred one first.
    pub alpn: Vec<Alpn>,
    /// The name to ask for and to check, where it is not the endpoint's own.
    pub server_name: Option<String>,
    /// The oldest version that is spoken.
    pub version_min: TlsVersion,
}

/// Certificate authorities.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Roots {
    /// Whom this machine trusts.
    #[default]
    System,
    /// Those in a PEM file and nobody else.
    Bundle(PathBuf),
    /// The one whose certificate has this SHA-256, as the server itself shows it, and nobody else.
    Pinned(Fingerprint),
}

/// Whether the upstream must prove who it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Verify {
    /// Its name and its chain of authorities are checked.
    #[default]
    Full,
    /// Dangerous: whoever answers is taken for the upstream. Stops eavesdroppers, not impostors.
    DangerouslyNone,
}

/// TLS towards an upstream, ready to connect. Sessions are resumed among all that share one.
pub struct ClientTls {
    pub(crate) config: Arc<ClientConfig>,
    server_name: Option<ServerName<'static>>,
    files: Files,
    warnings: Vec<String>,
}

/// Upstreams whose last sessions are kept.
const SESSIONS_MAX: usize = 256;

impl ClientTls {
    /// Reads every file. Blocks: not for a thread that serves connections.
    ///
    /// # Errors
    /// [`TlsError`]: the first file that is of no use, and why.
    pub fn load(settings: &ClientTlsSettings) -> Result<ClientTls, TlsError> {
        let (provider, mut files) = (provider(), Files::default());
        let pair = settings.certificate.as_ref().map(|pair| load_pair(&mut files, pair, &provider));
        ClientTls::make(settings, pair.transpose()?, files, &provider)
    }

    /// The same, showing a certificate that is in no file: `pem` holds it, those that lead to its authority,
    /// and its key. The settings name none.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn showing(settings: &ClientTlsSettings, pem: &Secret) -> Result<ClientTls, TlsError> {
        let provider = provider();
        let pair = pair_in(pem.reveal().as_bytes(), &provider)?;
        ClientTls::make(settings, Some(pair), Files::default(), &provider)
    }

    fn make(
        settings: &ClientTlsSettings,
        pair: Option<CertifiedKey>,
        mut files: Files,
        provider: &Arc<CryptoProvider>,
    ) -> Result<ClientTls, TlsError> {
        let named = settings
            .server_name
            .as_deref()
            .map(|name| server_name(name).ok_or_else(|| TlsError::ServerName(name.into())));
        let verifier = verifier(&mut files, settings, provider)?;
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(settings.version_min.and_newer())?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match pair {
            Some(pair) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(pair))),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = settings.alpn.iter().map(|alpn| alpn.as_bytes().into()).collect();
        config.resumption = Resumption::in_memory_sessions(SESSIONS_MAX);
        let warnings = warnings(&files, settings);
        Ok(ClientTls { config: Arc::new(config), server_name: named.transpose()?, files, warnings })
    }

    /// Whether a file no longer holds what was loaded from it. The system's own authorities are not watched.
    pub fn changed(&self) -> bool {
        self.files.changed()
    }

    /// What is unwise but works: one line each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Nothing that could hold a key.
        let name = &self.server_name;
        f.debug_struct("ClientTls")
            .field("server_name", name)
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

/// Completes the handshake with an upstream, without a deadline: the caller has one. `endpoint` is the name,
/// or the IP address, that is asked for and checked where the settings name none;
/// `offer` is what is offered by ALPN, where that is not what the settings say.
///
/// # Errors
/// [`TlsConnectError`]; `io` is closed then.
pub async fn connect_tls(
    io: Io,
    tls: &ClientTls,
    endpoint: &str,
    offer: Option<Vec<Alpn>>,
) -> Result<(Io, Option<Alpn>), TlsConnectError> {
    let own = || server_name(endpoint).ok_or_else(|| TlsConnectError::ServerName(endpoint.into()));
    let name = tls.server_name.clone().map_or_else(own, Ok)?;
    let connector = TlsConnector::from(tls.config.clone());
    let io = Ahead::new(io);
    let shaking = match offer {
        None => connector.connect(name, io),
        Some(offer) => {
            let offer = offer.into_iter().map(|alpn| alpn.0).collect();
            connector.with_alpn(offer).connect(name, io)
        }
    };
    // Boxed: some kilobytes that a connection needs for a moment should not be part of it for life.
    let stream = Box::pin(shaking).await?;
    let alpn = stream.get_ref().1.alpn_protocol().and_then(Alpn::new);
    Ok((Io::Tls(Box::new(TlsStream::new(stream.into()))), alpn))
}

fn server_name(text: &str) -> Option<ServerName<'static>> {
    ServerName::try_from(text.to_owned()).ok()
}

fn warnings(files: &Files, settings: &ClientTlsSettings) -> Vec<String> {
    let mut warnings = files.warnings().to_vec();
    if settings.verify == Verify::DangerouslyNone {
        let name = settings.server_name.as_deref().unwrap_or("the upstream");
        warnings.push(format!("the certificate of {name} is not verified: anyone in between can pose as it"));
    }
    warnings
}

fn verifier(
    files: &mut Files,
    settings: &ClientTlsSettings,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
    match (settings.verify, &settings.roots) {
        (Verify::DangerouslyNone, _) => Ok(Arc::new(Unverified(provider.clone()))),
        (Verify::Full, Roots::System) => {
            let verifier = rustls_platform_verifier::Verifier::new(provider.clone());
            Ok(Arc::new(verifier.map_err(TlsError::SystemRoots)?))
        }
        (Verify::Full, Roots::Pinned(authority)) => {
            Ok(Arc::new(Pinned { authority: *authority, keys: Unverified(provider.clone()) }))
        }
        (Verify::Full, Roots::Bundle(path)) => {
            let roots = Arc::new(load_roots(files, path)?);
            let builder = WebPkiServerVerifier::builder_with_provider(roots, provider.clone());
            Ok(builder.build().map_err(|error| TlsError::file(path, error.to_string()))?)
        }
    }
}

/// Believes one authority, known by the hash of its certificate, which the server shows behind its own.
#[derive(Debug)]
struct Pinned {
    authority: Fingerprint,
    /// The proof of having its key is the same for all.
    keys: Unverified,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let unknown = || rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let pinned = others.iter().find(|der| Fingerprint::of(der) == self.authority).ok_or_else(unknown)?;
        let mut roots = RootCertStore::empty();
        roots.add(pinned.clone().into_owned())?;
        let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.keys.0.clone());
        let verifier = builder.build().map_err(|_| unknown())?;
        verifier.verify_server_cert(own, others, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.keys.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.keys.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.keys.supported_verify_schemes()
    }
}

/// Takes every certificate, but still wants proof that the peer has its key.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
