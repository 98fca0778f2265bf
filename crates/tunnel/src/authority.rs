//! The built-in authority: it vouches for this server towards its agents, and for them towards it, and nobody
//! else believes it or is believed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use data_encoding::BASE64;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ED25519,
    PublicKeyData, SanType, SerialNumber, date_time_ymd,
};
use tieline_base::{Clock, is_far_name};
use tieline_transport::tls::{
    CertificateFiles, ClientCertificates, Fingerprint, ServerTlsSettings, TlsVersion, serial_of,
};

use crate::known::{GRACE_SECONDS, Good};
use crate::people::{self, PersonEntry};
use crate::sha::random;
use crate::store::{Issued, Store, StoreError, now, write};

/// What stands before an agent's name where it says who it is: no person bears such a name.
pub const AGENT_PREFIX: &str = "agent:";

/// The name in the server's certificate: agents dial addresses that change, and mean always this server.
pub const SERVER_NAME: &str = "tieline-server";

/// How long an agent links up by a certificate. It is renewed at half of that.
pub(crate) const LIFETIME: Duration = Duration::from_secs(DAY);

/// A certificate is good from so long before it is issued, for agents whose clock is behind.
pub(crate) const BACKDATED: Duration = Duration::from_secs(300);

const DAY: u64 = 86_400;

/// The authority of one server.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
    fingerprint: Fingerprint,
    folder: PathBuf,
}

/// Why the authority is of no use.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file of it cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file of it does not hold what it should.
    #[error("{0}: does not hold what the server wrote there; put it back, or take {1} away to begin anew")]
    Damaged(String, String),
    /// A certificate could not be made.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// The kernel gives no randomness.
    #[error("the kernel gives no random bytes: {0}")]
    Random(#[from] std::io::Error),
}

impl Authority {
    /// The authority of `store`; it is made, with the server's own certificate, if it is not there: one,
    /// however many processes ask for it at once. Blocks.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub fn open(store: &Store) -> Result<Authority, AuthorityError> {
        store.make()?;
        let _alone = store.alone()?;
        let folder = store.folder();
        let key_path = folder.join("ca.key");
        let key = match text(&key_path)? {
            Some(text) => KeyPair::from_pem(&text).map_err(|_| damaged(&key_path, folder))?,
            None => {
                let key = KeyPair::generate()?;
                write(&key_path, key.serialize_pem().as_bytes())?;
                key
            }
        };
        let path = certificate_path(folder);
        let certificate = match text(&path)? {
            Some(text) => text,
            None => {
                let made = own_params().self_signed(&key)?.pem();
                write(&path, made.as_bytes())?;
                made
            }
        };
        let der = der(&certificate).filter(|der| bears(der, &key)).ok_or_else(|| damaged(&path, folder))?;
        let authority = Authority {
            issuer: Issuer::new(own_params(), key),
            fingerprint: Fingerprint::of(&der),
            certificate,
            folder: folder.into(),
        };
        let server = server_path(folder);
        match text(&server)? {
            Some(text) if text.contains(&authority.certificate) => {}
            Some(_) => return Err(damaged(&server, folder)),
            None => write(&server, authority.server_certificate()?.as_bytes())?,
        }
        Ok(authority)
    }

    /// The hash of its certificate, by which agents know it before they have ever seen it.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Its certificate, in PEM.
    pub(crate) fn certificate(&self) -> &str {
        &self.certificate
    }

    /// How TLS ends at listeners of tunnels: whoever links up must show a certificate of this authority, and
    /// only who redeems a token shows none.
    pub fn listener(&self) -> ServerTlsSettings {
        let server = server_path(&self.folder);
        ServerTlsSettings {
            certificates: vec![CertificateFiles { chain: server.clone(), key: server }],
            alpn: crate::alpn(),
            version_min: TlsVersion::Tls13,
            client_certificates: Some(ClientCertificates {
                ca: certificate_path(&self.folder),
                crl: None,
                required: false,
            }),
            guests: None,
            strict_sni: false,
            // A session would carry a certificate past its revocation.
            no_sessions: true,
        }
    }

    /// Whose key is in `request`, a certificate request in DER; `None` if it is of a kind that nobody here
    /// makes: what signs slowly, or is verified slowly, has no place in a hello.
    pub(crate) fn key_of(request: &[u8]) -> Result<Option<Fingerprint>, AuthorityError> {
        let request = CertificateSigningRequestParams::from_der(&request.into())?;
        let kind = request.public_key.algorithm();
        let ours = [&PKCS_ECDSA_P256_SHA256, &PKCS_ED25519].contains(&kind);
        Ok(ours.then(|| Fingerprint::of(request.public_key.der_bytes())))
    }

    /// Issues a certificate for the key in `request`, whose holder has proved to have it. All that it says
    /// comes from here, whatever the request asks for.
    pub(crate) fn issue(&self, agent: &str, request: &[u8]) -> Result<Issued, AuthorityError> {
        if !is_far_name(agent) {
            return Err(StoreError::Name(agent.escape_debug().to_string()).into());
        }
        let mut params = leaf_params(agent, ExtendedKeyUsagePurpose::ClientAuth)?;
        params.subject_alt_names.push(SanType::URI(format!("{AGENT_PREFIX}{agent}").try_into()?));
        // TLS lets it through for as long as it can be renewed; that nobody links up by it after its time is
        // what the roster says.
        self.sign(params, request, LIFETIME, LIFETIME + Duration::from_secs(GRACE_SECONDS))
    }

    /// A certificate by which somebody who has the token of `who` proves it, for as long as that is good.
    pub(crate) fn issue_to_person(
        &self,
        who: &PersonEntry,
        request: &[u8],
    ) -> Result<Issued, AuthorityError> {
        let mut params = leaf_params(&who.name, ExtendedKeyUsagePurpose::ClientAuth)?;
        params.serial_number = Some(SerialNumber::from_slice(&people::serial_for(&who.id)?));
        let lifetime = Duration::from_secs(who.expires.saturating_sub(now()));
        self.sign(params, request, lifetime, lifetime)
    }

    /// Signs what `params` say, for the key of `request`: good for `lifetime`, to TLS for as long as `valid`.
    fn sign(
        &self,
        mut params: CertificateParams,
        request: &[u8],
        lifetime: Duration,
        valid: Duration,
    ) -> Result<Issued, AuthorityError> {
        let mut request = CertificateSigningRequestParams::from_der(&request.into())?;
        let since = Clock::wall().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let epoch = date_time_ymd(1970, 1, 1);
        params.not_before = epoch + since.saturating_sub(BACKDATED);
        params.not_after = epoch + since + valid;
        request.params = params;
        let certificate = request.signed_by(&self.issuer)?;
        let serial = serial_of(certificate.der()).unwrap_or_default();
        let (since, until) = (since.as_secs(), (since + lifetime).as_secs());
        let chain = format!("{}{}", certificate.pem(), self.certificate);
        Ok(Issued { chain, good: Good { serial, since, until } })
    }

    /// The server's own certificate, its authority's and its key, in PEM. It does not expire: whoever has the
    /// key has the authority's, too.
    fn server_certificate(&self) -> Result<String, AuthorityError> {
        let key = KeyPair::generate()?;
        let mut params = leaf_params("tieline", ExtendedKeyUsagePurpose::ServerAuth)?;
        params.subject_alt_names.push(SanType::DnsName(SERVER_NAME.try_into()?));
        let made = params.signed_by(&key, &self.issuer)?.pem();
        Ok(format!("{made}{}{}", self.certificate, key.serialize_pem()))
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Nothing that could hold a key.
        f.debug_struct("Authority").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

fn own_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named("Tieline agents");
    // It vouches for holders of keys, never for another authority.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn leaf_params(name: &str, purpose: ExtendedKeyUsagePurpose) -> Result<CertificateParams, AuthorityError> {
    let mut serial: [u8; 16] = random()?;
    // RFC 5280 §4.1.2.2: positive, and of the same length every time.
    serial[0] = serial[0] & 0x7f | 0x40;
    let mut params = CertificateParams::default();
    params.distinguished_name = named(name);
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![purpose];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn named(name: &str) -> DistinguishedName {
    let mut whole = DistinguishedName::new();
    whole.push(DnType::CommonName, name);
    whole
}

fn certificate_path(folder: &Path) -> PathBuf {
    folder.join("ca.crt")
}

fn server_path(folder: &Path) -> PathBuf {
    folder.join("server.pem")
}

fn damaged(path: &Path, folder: &Path) -> AuthorityError {
    AuthorityError::Damaged(path.display().to_string(), folder.display().to_string())
}

fn text(path: &Path) -> Result<Option<String>, StoreError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::File { path: path.into(), error }),
    }
}

/// Whether the certificate `der` is one for `key`.
pub(crate) fn bears(der: &[u8], key: &KeyPair) -> bool {
    let own = key.der_bytes();
    der.windows(own.len()).any(|window| window == own)
}

/// The first certificate of a PEM text (RFC 7468), in DER.
pub(crate) fn der(pem: &str) -> Option<Vec<u8>> {
    let body = pem.split_once("-----BEGIN CERTIFICATE-----")?.1.split_once("-----END CERTIFICATE-----")?.0;
    let digits: String = body.split_ascii_whitespace().collect();
    BASE64.decode(digits.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(agent: &str) -> (KeyPair, Vec<u8>) {
        let key = KeyPair::generate().unwrap();
        let mut params = leaf_params(agent, ExtendedKeyUsagePurpose::ServerAuth).unwrap();
        params.serial_number = None;
        params.use_authority_key_identifier_extension = false;
        let request = params.serialize_request(&key).unwrap();
        (key, request.der().to_vec())
    }

    #[test]
    fn it_is_the_same_authority_when_it_is_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::of(folder.path());
        let first = Authority::open(&store).unwrap();
        let again = Authority::open(&store).unwrap();
        assert_eq!(first.fingerprint(), again.fingerprint());
        assert_eq!(first.certificate(), again.certificate());
    }

    #[test]
    fn every_certificate_has_a_number_of_its_own_and_says_what_we_say() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::open(&Store::of(folder.path())).unwrap();
        let (key, request) = request("somebody-else");
        let (one, two) =
            (authority.issue("plant-7", &request).unwrap(), authority.issue("plant-7", &request).unwrap());
        assert_ne!(one.good.serial, two.good.serial);
        assert_eq!(one.good.serial.len(), 32);
        assert_eq!(one.good.until - one.good.since, LIFETIME.as_secs());
        assert_eq!(Authority::key_of(&request).unwrap(), Some(Fingerprint::of(key.der_bytes())));
        let der = der(&one.chain).unwrap();
        let says = |text: &str| der.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(says("agent:plant-7") && !says("somebody-else"));
        assert!(authority.issue("../x", &request).is_err());
        assert!(authority.issue("a", b"no request").is_err());
    }

    #[test]
    fn a_key_of_another_kind_gets_no_certificate() {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let request = CertificateParams::default().serialize_request(&key).unwrap();
        assert_eq!(Authority::key_of(request.der()).unwrap(), None);
        assert!(Authority::key_of(b"no request").is_err());
    }

    #[test]
    fn however_many_open_it_at_once_they_open_one() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Authority::open(&Store::of(folder.path())).unwrap().fingerprint();
        let all: Vec<Fingerprint> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(all.windows(2).all(|two| two[0] == two[1]), "{all:?}");
    }

    #[test]
    fn files_of_two_authorities_are_told() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (one, other) = (Store::of(one.path()), Store::of(other.path()));
        Authority::open(&one).unwrap();
        Authority::open(&other).unwrap();
        for name in ["ca.key", "ca.crt", "server.pem"] {
            let own = std::fs::read(one.folder().join(name)).unwrap();
            std::fs::copy(other.folder().join(name), one.folder().join(name)).unwrap();
            assert!(Authority::open(&one).is_err(), "{name}");
            std::fs::write(one.folder().join(name), own).unwrap();
        }
        Authority::open(&one).unwrap();
    }

    #[test]
    fn a_damaged_file_is_told_and_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::of(folder.path());
        Authority::open(&store).unwrap();
        std::fs::write(store.folder().join("ca.key"), "x").unwrap();
        let error = Authority::open(&store).unwrap_err().to_string();
        assert!(error.contains("ca.key: does not hold"), "{error}");
    }
}
