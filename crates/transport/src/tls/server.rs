//! TLS towards clients.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    NoServerSessionStorage, ServerSessionMemoryCache, VerifierBuilderError, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;

use super::certificates::{CertificateFiles, load_pair, load_revocations, load_roots};
use super::end_point::end_point;
use super::error::{TlsAcceptError, TlsError};
use super::files::Files;
use super::names::ByName;
use super::vouching::{Voucher, Vouching};
use super::{Alpn, TlsVersion, provider};

/// What a TLS server is made of.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ServerTlsSettings {
    /// Chosen by the name the client asks for; the first is for all others.
    pub certificates: Vec<CertificateFiles>,
    /// What may be negotiated, the preferred one first. Empty: nothing is.
    pub alpn: Vec<Alpn>,
    /// The oldest version that is spoken.
    pub version_min: TlsVersion,
    /// Whether clients prove who they are.
    pub client_certificates: Option<ClientCertificates>,
    /// Who else may vouch for clients, where somebody must; told apart by [`ServerTls::voucher`].
    pub guests: Option<ClientCertificates>,
    /// Refuses clients that ask for a name that no certificate bears, or for none.
    pub strict_sni: bool,
    /// No session is resumed: every connection proves anew who both ends are.
    pub no_sessions: bool,
}

/// How clients prove who they are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientCertificates {
    /// The authorities that may vouch for a client.
    pub ca: PathBuf,
    /// Their revocation lists. One of each authority in a client's chain is needed then, and none may have
    /// expired: what is not known to be valid is refused.
    pub crl: Option<PathBuf>,
    /// Refuses clients without a certificate; a wrong one is refused in any case.
    pub required: bool,
}

/// A TLS server, ready to accept.
pub struct ServerTls {
    pub(crate) config: Arc<ServerConfig>,
    pub(super) names: Arc<ByName>,
    clients: Arc<dyn ClientCertVerifier>,
    /// The same, where there are two.
    vouching: Option<Arc<Vouching>>,
    files: Files,
}

/// Sessions that are kept for clients that take no tickets; the oldest makes room.
const SESSIONS_MAX: usize = 4_096;

impl ServerTls {
    /// Reads every file. Blocks: not for a thread that serves connections.
    ///
    /// # Errors
    /// [`TlsError`]: the first file that is of no use, and why.
    pub fn load(settings: &ServerTlsSettings) -> Result<ServerTls, TlsError> {
        let (provider, mut files) = (provider(), Files::default());
        let mut load = |pair| load_pair(&mut files, pair, &provider).map(Arc::new);
        let pairs: Vec<Arc<CertifiedKey>> =
            settings.certificates.iter().map(&mut load).collect::<Result<_, _>>()?;
        if pairs.is_empty() {
            return Err(TlsError::NoCertificate);
        }
        let names = Arc::new(ByName::new(pairs, settings.strict_sni));
        let house = match &settings.client_certificates {
            Some(clients) => client_verifier(&mut files, clients, &provider)?,
            None => WebPkiClientVerifier::no_client_auth(),
        };
        let guests = settings.guests.as_ref().filter(|_| settings.client_certificates.is_some());
        let guests = guests.map(|guests| client_verifier(&mut files, guests, &provider)).transpose()?;
        let vouching = guests.map(|guests| Arc::new(Vouching::new(house.clone(), guests)));
        let clients = vouching.clone().map_or(house, |both| both);
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(settings.version_min.and_newer())?
            .with_client_cert_verifier(clients.clone())
            .with_cert_resolver(names.clone());
        config.alpn_protocols = settings.alpn.iter().map(|alpn| alpn.as_bytes().into()).collect();
        if settings.no_sessions {
            config.send_tls13_tickets = 0;
            config.session_storage = Arc::new(NoServerSessionStorage {});
            return Ok(ServerTls { config: Arc::new(config), names, clients, vouching, files });
        }
        // Made anew with every load: a session must not carry an identity past the revocation of it.
        config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
        config.session_storage = ServerSessionMemoryCache::new(SESSIONS_MAX);
        Ok(ServerTls { config: Arc::new(config), names, clients, vouching, files })
    }

    /// Who vouches now for a client that has shown this, its own first, in DER; `None` if nobody does.
    pub fn voucher(&self, shown: &[Box<[u8]>]) -> Option<Voucher> {
        let Some(vouching) = &self.vouching else {
            return self.judge_again(shown).ok().map(|()| Voucher::House);
        };
        let shown: Vec<CertificateDer<'_>> = shown.iter().map(|der| CertificateDer::from(&**der)).collect();
        let (own, others) = shown.split_first()?;
        vouching.judge(own, others, UnixTime::now()).ok()
    }

    /// Judges again the certificates that a client has shown, its own first, in DER: as if it came now.
    ///
    /// # Errors
    /// Why it would not be let in.
    pub fn judge_again(&self, shown: &[Box<[u8]>]) -> Result<(), TlsAcceptError> {
        let shown: Vec<CertificateDer<'_>> = shown.iter().map(|der| CertificateDer::from(&**der)).collect();
        let Some((own, others)) = shown.split_first() else {
            return Err(TlsAcceptError::Refused(rustls::Error::NoCertificatesPresented));
        };
        if !self.clients.offer_client_auth() {
            let nobody = rustls::CertificateError::UnknownIssuer;
            return Err(TlsAcceptError::Refused(nobody.into()));
        }
        let judged = self.clients.verify_client_cert(own, others, UnixTime::now());
        judged.map(drop).map_err(TlsAcceptError::Refused)
    }

    /// What a conversation with a client that asked for `server_name` can be bound to: the hash of our
    /// certificate (RFC 5929 §4). `None` where it may be one of several, or no hash of it is agreed on.
    pub fn end_point(&self, server_name: Option<&str>) -> Option<Box<[u8]>> {
        let [only] = self.names.of(server_name) else { return None };
        end_point(only.cert.first()?)
    }

    /// Whether a file no longer holds what was loaded from it: time to load anew. Cheap enough for every few
    /// seconds.
    pub fn changed(&self) -> bool {
        self.files.changed()
    }

    /// What is unwise but works: one line each.
    pub fn warnings(&self) -> &[String] {
        self.files.warnings()
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Nothing that could hold a key.
        f.debug_struct("ServerTls").field("files", &self.files).finish_non_exhaustive()
    }
}

fn client_verifier(
    files: &mut Files,
    clients: &ClientCertificates,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let roots = load_roots(files, &clients.ca)?;
    let mut builder = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
    if let Some(path) = &clients.crl {
        builder = builder.with_crls(load_revocations(files, path)?).enforce_revocation_expiration();
    }
    if !clients.required {
        builder = builder.allow_unauthenticated();
    }
    builder.build().map_err(|error| match (&error, &clients.crl) {
        (VerifierBuilderError::InvalidCrl(_), Some(path)) => {
            TlsError::file(path, format!("a revocation list is malformed: {error}"))
        }
        _ => TlsError::file(&clients.ca, error.to_string()),
    })
}
