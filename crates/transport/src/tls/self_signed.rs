//! A certificate for trying things out, or for peers that pin it.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use rcgen::{CertificateParams, DnType, KeyPair};

use super::certificates::CertificateFiles;
use super::error::TlsError;
use super::peer::Fingerprint;

/// A certificate for `names` (host names and IP addresses) that vouches for itself: the one in `folder`, or a
/// new one that is kept there. Certificate and key share a file that only its owner can read, so that one is
/// never without the other; `.crt` beside it holds the certificate alone, for those who shall trust it.
///
/// # Errors
/// [`TlsError`]: a name that is none, or a folder that cannot be written.
pub fn self_signed(folder: &Path, names: &[String]) -> Result<CertificateFiles, TlsError> {
    let stem = format!("self-signed-{}", &Fingerprint::of(names.join(",").as_bytes()).to_string()[..16]);
    let both = folder.join(&stem).with_extension("pem");
    if !both.exists() {
        let (certificate, key) = make(names)?;
        let write = || {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
            replace(&folder.join(&stem).with_extension("crt"), &certificate, 0o644)?;
            replace(&both, &format!("{certificate}{key}"), 0o600)
        };
        write().map_err(|source| TlsError::Write { path: both.clone(), source })?;
    }
    Ok(CertificateFiles { chain: both.clone(), key: both })
}

/// The certificate and its key, in PEM. It does not expire: nobody would renew it, and whom it must not
/// outlive can stop trusting it.
fn make(names: &[String]) -> Result<(String, String), TlsError> {
    let wrong = |error: rcgen::Error| TlsError::ServerName(format!("{}: {error}", names.join(", ")));
    let mut wanted = CertificateParams::new(names).map_err(wrong)?;
    let first = names.first().map_or("tieline", String::as_str);
    wanted.distinguished_name.push(DnType::CommonName, first);
    let key = KeyPair::generate().map_err(wrong)?;
    let certificate = wanted.self_signed(&key).map_err(wrong)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

/// Puts a file in its place whole: a crash leaves the old one or the new one.
fn replace(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let beside = path.with_extension(format!("{}.new", std::process::id()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)
}
