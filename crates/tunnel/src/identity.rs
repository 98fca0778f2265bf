//! Who an agent is: its key, which never leaves the device, and its certificate.

use std::fs::{DirBuilder, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, KeyPair};
use tieline_base::Secret;
use tieline_transport::tls::{
    Alpn, CertificateFiles, ClientTls, ClientTlsSettings, Fingerprint, Roots, TlsError, TlsVersion, Verify,
    valid_since, valid_until,
};

use crate::authority::{BACKDATED, LIFETIME, SERVER_NAME, bears, der};
use crate::store::{StoreError, write};
use crate::{ALPN_ENROL, ALPN_LINK, ALPN_PROBE, ALPN_QUIC};

/// The folder of an agent's key and certificate: `agent.pem` holds both, `ca.crt` the server's authority.
#[derive(Clone, Debug)]
pub struct Identity {
    folder: PathBuf,
}

/// For how long an agent's certificate is of use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Term {
    /// Until when it links up by it.
    pub until: SystemTime,
    /// Until when it can be renewed.
    pub renewable_until: SystemTime,
}

/// Why an agent has no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// There is none in the folder.
    #[error("{0} holds no agent's certificate; `tieline agent join` makes one")]
    None(String),
    /// There is one already.
    #[error("{0} holds an agent's certificate already; take the folder away to join anew")]
    Already(String),
    /// Another process is this agent.
    #[error("another `tieline agent run` has {0}; an agent runs once")]
    Busy(String),
    /// What the server answered does not belong together.
    #[error("the server's answer does not fit: {0}")]
    Unfit(&'static str),
    /// A file of it is of no use.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A file cannot be written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A key cannot be made.
    #[error("cannot make a key: {0}")]
    Key(#[from] rcgen::Error),
}

/// A key that was just made, and what asks for a certificate for it.
pub(crate) struct Fresh {
    key: KeyPair,
    /// In DER.
    pub(crate) request: Vec<u8>,
}

impl Fresh {
    pub(crate) fn make() -> Result<Fresh, IdentityError> {
        let key = KeyPair::generate()?;
        // Nothing of what it asks for counts but the key.
        let request = CertificateParams::default().serialize_request(&key)?.der().to_vec();
        Ok(Fresh { key, request })
    }

    /// TLS towards the server whose authority has the hash `authority`, showing `chain`, which was issued for
    /// this key.
    pub(crate) fn shown(&self, chain: &str, authority: Fingerprint) -> Result<ClientTls, TlsError> {
        let pem = Secret::new(format!("{chain}{}", self.key.serialize_pem()));
        ClientTls::showing(&settings(Roots::Pinned(authority), None), &pem)
    }
}

impl Identity {
    /// The identity in `folder`; nothing is read.
    pub fn of(folder: &Path) -> Identity {
        Identity { folder: folder.into() }
    }

    /// # Errors
    /// [`IdentityError::Already`].
    pub fn must_be_new(&self) -> Result<(), IdentityError> {
        if self.pem().exists() {
            return Err(IdentityError::Already(self.folder.display().to_string()));
        }
        Ok(())
    }

    /// Keeps what the server issued for `fresh`; `authority` is its authority's certificate.
    pub(crate) fn keep(
        &self,
        fresh: &Fresh,
        chain: &str,
        authority: Option<&str>,
    ) -> Result<(), IdentityError> {
        if !der(chain).is_some_and(|der| bears(&der, &fresh.key)) {
            return Err(IdentityError::Unfit("it is a certificate for another key"));
        }
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.folder);
        made.map_err(|error| StoreError::File { path: self.folder.clone(), error })?;
        if let Some(authority) = authority {
            write(&self.folder.join("ca.crt"), authority.as_bytes())?;
        }
        // One file, so that neither is ever without the other.
        write(&self.pem(), format!("{chain}{}", fresh.key.serialize_pem()).as_bytes())?;
        Ok(())
    }

    /// TLS towards the server, as the agent. Blocks.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn tls(&self) -> Result<ClientTls, IdentityError> {
        if !self.pem().exists() {
            return Err(IdentityError::None(self.folder.display().to_string()));
        }
        let certificate = CertificateFiles { chain: self.pem(), key: self.pem() };
        let roots = Roots::Bundle(self.folder.join("ca.crt"));
        Ok(ClientTls::load(&settings(roots, Some(certificate)))?)
    }

    /// When the certificate is to be renewed: at half of its life, some a little earlier and some later, so
    /// that agents that joined together do not come together. Whatever a copy or a backup makes of the file's
    /// own time, this is what the certificate says. Blocks.
    pub(crate) fn renewal(&self, random: u64) -> Option<SystemTime> {
        let text = std::fs::read_to_string(self.pem()).ok()?;
        let since = valid_since(&der(&text)?)? + BACKDATED;
        let tenth = LIFETIME / 10;
        let spread = tenth.mul_f64((random % 1_000) as f64 / 1_000.0);
        Some(since + LIFETIME / 2 - tenth / 2 + spread)
    }

    /// The term of its certificate, by what that says; `None` if it cannot be read. Blocks.
    pub fn term(&self) -> Option<Term> {
        let der = der(&std::fs::read_to_string(self.pem()).ok()?)?;
        let since = valid_since(&der)? + BACKDATED;
        Some(Term { until: since + LIFETIME, renewable_until: valid_until(&der)? })
    }

    /// Keeps other processes from being this agent, for as long as what comes back lives. Blocks.
    ///
    /// # Errors
    /// [`IdentityError::Busy`] if one is.
    pub(crate) fn hold(&self) -> Result<std::fs::File, IdentityError> {
        let path = self.folder.join("lock");
        let opened = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = opened.map_err(|error| StoreError::File { path, error })?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(_) => Err(IdentityError::Busy(self.folder.display().to_string())),
        }
    }

    fn pem(&self) -> PathBuf {
        self.folder.join("agent.pem")
    }
}

/// TLS towards a server of which nothing is known but the hash of its authority. Blocks.
pub(crate) fn first_contact(authority: Fingerprint) -> Result<ClientTls, TlsError> {
    ClientTls::load(&settings(Roots::Pinned(authority), None))
}

/// TLS towards the server whose authority's certificate is in the file `authority`, showing `certificate`.
/// Blocks.
pub(crate) fn shown_by(certificate: CertificateFiles, authority: &Path) -> Result<ClientTls, TlsError> {
    ClientTls::load(&settings(Roots::Bundle(authority.into()), Some(certificate)))
}

fn settings(roots: Roots, certificate: Option<CertificateFiles>) -> ClientTlsSettings {
    ClientTlsSettings {
        roots,
        verify: Verify::Full,
        certificate,
        alpn: Vec::new(),
        server_name: Some(SERVER_NAME.into()),
        version_min: TlsVersion::Tls13,
    }
}

/// What is offered by ALPN to link up.
pub(crate) fn to_link() -> Vec<Alpn> {
    Alpn::new(ALPN_LINK).into_iter().collect()
}

/// The same by QUIC.
pub(crate) fn to_link_by_quic() -> Vec<Alpn> {
    Alpn::new(ALPN_QUIC).into_iter().collect()
}

/// What is offered by ALPN to get a certificate.
pub(crate) fn to_enrol() -> Vec<Alpn> {
    Alpn::new(ALPN_ENROL).into_iter().collect()
}

/// What is offered by ALPN to hear whom one is taken for.
pub(crate) fn to_probe() -> Vec<Alpn> {
    Alpn::new(ALPN_PROBE).into_iter().collect()
}

/// How often a renewal that failed is tried again.
pub(crate) const RENEWAL_AGAIN: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::Authority;
    use crate::store::Store;
    use tieline_base::Clock;

    fn identity() -> (tempfile::TempDir, Identity, Authority) {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::open(&Store::of(&folder.path().join("data"))).unwrap();
        let identity = Identity::of(&folder.path().join("me"));
        (folder, identity, authority)
    }

    #[test]
    fn a_certificate_is_renewed_by_what_it_says_and_not_by_the_age_of_its_file() {
        let (_folder, identity, authority) = identity();
        let fresh = Fresh::make().unwrap();
        let issued = authority.issue("a", &fresh.request).unwrap();
        identity.keep(&fresh, &issued.chain, Some(authority.certificate())).unwrap();
        let old = std::fs::File::options().write(true).open(identity.pem()).unwrap();
        old.set_modified(Clock::wall() - LIFETIME * 3).unwrap();
        for (random, tenths) in [(0, 45), (500, 50), (999, 55)] {
            let left = identity.renewal(random).unwrap().duration_since(Clock::wall()).unwrap();
            let expected = LIFETIME * tenths / 100;
            assert!(left.abs_diff(expected) < LIFETIME / 200, "{left:?} {expected:?}");
        }
    }

    #[test]
    fn a_certificate_for_another_key_is_not_kept() {
        let (_folder, identity, authority) = identity();
        let (fresh, other) = (Fresh::make().unwrap(), Fresh::make().unwrap());
        let issued = authority.issue("a", &other.request).unwrap();
        let kept = identity.keep(&fresh, &issued.chain, None);
        assert!(matches!(kept, Err(IdentityError::Unfit(_))) && !identity.pem().exists());
    }

    #[test]
    fn an_agent_runs_once() {
        let (folder, identity, _) = identity();
        std::fs::create_dir(folder.path().join("me")).unwrap();
        let held = identity.hold().unwrap();
        assert!(matches!(identity.hold(), Err(IdentityError::Busy(_))));
        drop(held);
        identity.hold().unwrap();
    }
}
