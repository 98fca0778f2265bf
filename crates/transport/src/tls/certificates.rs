//! Certificates, keys and revocations out of PEM files.

use std::path::{Path, PathBuf};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, RootCertStore};

use super::error::TlsError;
use super::files::Files;

/// A certificate and its key, in PEM; both may be in one file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CertificateFiles {
    /// The certificate, then the ones that lead to its authority.
    pub chain: PathBuf,
    /// Its private key, not encrypted.
    pub key: PathBuf,
}

/// Loads one pair and proves that its halves belong together.
pub(super) fn load_pair(
    files: &mut Files,
    pair: &CertificateFiles,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    let chain = load_chain(files, &pair.chain)?;
    let key = load_key(files, &pair.key)?;
    CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            let chain = pair.chain.display();
            TlsError::file(&pair.key, format!("is not the key of the certificate in {chain}"))
        }
        rustls::Error::InvalidCertificate(error) => {
            TlsError::file(&pair.chain, format!("the certificate is malformed: {error}"))
        }
        error => TlsError::file(&pair.key, format!("the key is of no use: {error}")),
    })
}

/// The pair in a PEM text.
pub(super) fn pair_in(pem: &[u8], provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let nowhere = Path::new("the certificate that was issued");
    let chain = sections(nowhere, CertificateDer::pem_slice_iter(pem))?;
    let key = PrivateKeyDer::from_pem_slice(pem).map_err(|_| malformed(nowhere))?;
    CertifiedKey::from_der(chain, key, provider)
        .map_err(|error| TlsError::file(nowhere, format!("is of no use: {error}")))
}

/// The authorities in a bundle.
pub(super) fn load_roots(files: &mut Files, path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for (at, certificate) in (1..).zip(load_chain(files, path)?) {
        let wrong = |error| TlsError::file(path, format!("certificate {at} is malformed: {error}"));
        roots.add(certificate).map_err(wrong)?;
    }
    Ok(roots)
}

/// The lists of revocations in a file.
pub(super) fn load_revocations(
    files: &mut Files,
    path: &Path,
) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let bytes = files.read(path)?;
    let lists = sections(path, CertificateRevocationListDer::pem_slice_iter(&bytes))?;
    if lists.is_empty() {
        return Err(TlsError::file(path, "holds no revocation list (-----BEGIN X509 CRL-----)"));
    }
    Ok(lists)
}

fn load_chain(files: &mut Files, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = files.read(path)?;
    let chain = sections(path, CertificateDer::pem_slice_iter(&bytes))?;
    if chain.is_empty() {
        return Err(TlsError::file(path, "holds no certificate (-----BEGIN CERTIFICATE-----)"));
    }
    Ok(chain)
}

fn load_key(files: &mut Files, path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let bytes = files.read_secret(path)?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| match error {
        pem::Error::NoItemsFound if contains(&bytes, b"ENCRYPTED PRIVATE KEY") => {
            TlsError::file(path, "the key is encrypted; decrypt it with `openssl pkey`")
        }
        pem::Error::NoItemsFound => {
            TlsError::file(path, "holds no private key (-----BEGIN PRIVATE KEY-----)")
        }
        _ => malformed(path),
    })
}

fn sections<T>(path: &Path, found: impl Iterator<Item = Result<T, pem::Error>>) -> Result<Vec<T>, TlsError> {
    found.collect::<Result<_, _>>().map_err(|_| malformed(path))
}

/// The library's own words may quote a line of the file, which may be a key's.
fn malformed(path: &Path) -> TlsError {
    TlsError::file(path, "is not well-formed PEM")
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
