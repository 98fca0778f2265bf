//! Certificates for tests.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use tempfile::TempDir;
use tieline_transport::tls::{
    CertificateFiles, ClientTls, ClientTlsSettings, Roots, ServerTls, ServerTlsSettings,
};

/// An authority, and the folder that all it makes lies in.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    pub(crate) folder: TempDir,
}

impl Authority {
    pub(crate) fn new() -> Authority {
        let mut wanted = CertificateParams::new([]).unwrap();
        wanted.distinguished_name.push(DnType::CommonName, "Test Authority");
        wanted.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        wanted.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(wanted, KeyPair::generate().unwrap()).unwrap();
        let authority = Authority { issuer, folder: tempfile::tempdir().unwrap() };
        std::fs::write(authority.ca(), authority.issuer.pem()).unwrap();
        authority
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.path("ca.pem")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A certificate for `names`, the first being the common name too, in files of that name.
    pub(crate) fn issue(&self, names: &[&str]) -> CertificateFiles {
        self.issue_number(names, 1)
    }

    pub(crate) fn issue_number(&self, names: &[&str], serial: u64) -> CertificateFiles {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let (mail, hosts): (Vec<_>, Vec<_>) = names.iter().cloned().partition(|name| name.contains('@'));
        let mut wanted = CertificateParams::new(hosts).unwrap();
        let mail = mail.into_iter().map(|name| SanType::Rfc822Name(name.try_into().unwrap()));
        wanted.subject_alt_names.extend(mail);
        wanted.distinguished_name = rcgen::DistinguishedName::new();
        wanted.distinguished_name.push(DnType::CommonName, names[0].clone());
        wanted.serial_number = Some(SerialNumber::from(serial));
        let key = KeyPair::generate().unwrap();
        let certificate = wanted.signed_by(&key, &self.issuer).unwrap();
        let chain = self.path(&format!("{}.crt", names[0]));
        let key_path = chain.with_extension("key");
        std::fs::write(&chain, certificate.pem()).unwrap();
        write_secret(&key_path, &key.serialize_pem());
        CertificateFiles { chain, key: key_path }
    }

    /// A list that revokes `serials`.
    pub(crate) fn revoke(&self, serials: &[u64]) -> PathBuf {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(2090, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let path = self.path("list.crl");
        std::fs::write(&path, list.signed_by(&self.issuer).unwrap().pem().unwrap()).unwrap();
        path
    }

    /// A server with one certificate for each list of names.
    pub(crate) fn server(&self, names: &[&[&str]]) -> ServerTlsSettings {
        let certificates = names.iter().map(|names| self.issue(names)).collect();
        ServerTlsSettings { certificates, ..ServerTlsSettings::default() }
    }

    /// A client that trusts this authority alone.
    pub(crate) fn client(&self) -> ClientTlsSettings {
        ClientTlsSettings { roots: Roots::Bundle(self.ca()), ..ClientTlsSettings::default() }
    }

    /// A server for `a.test` and a client that trusts it.
    pub(crate) fn both(&self) -> (ServerTls, ClientTls) {
        (load(&self.server(&[&["a.test"]])), load_client(&self.client()))
    }
}

pub(crate) fn load(settings: &ServerTlsSettings) -> ServerTls {
    ServerTls::load(settings).unwrap()
}

pub(crate) fn load_client(settings: &ClientTlsSettings) -> ClientTls {
    ClientTls::load(settings).unwrap()
}

fn write_secret(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}
