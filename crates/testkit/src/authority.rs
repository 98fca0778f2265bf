//! A certificate authority, and what it makes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DistinguishedName,
    DnType, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
    date_time_ymd,
};
use tempfile::TempDir;
use tieline_base::Clock;

/// An authority whose files lie in a folder of its own.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: TempDir,
}

/// What a certificate says.
#[derive(Clone, Copy, Default, Debug)]
pub struct Wanted<'a> {
    /// The common name; none if empty.
    pub common_name: &'a str,
    /// The alternative names: `URI:`, `email:`, or else a DNS name or an IP address.
    pub names: &'a [&'a str],
    /// The authority's number for it.
    pub serial: u64,
    /// Whether it was good for the year 2020 alone.
    pub expired: bool,
    /// For how many seconds from now it is good, if not for ever.
    pub seconds: Option<u64>,
}

/// The files of a certificate and of its key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pair {
    /// The certificate.
    pub certificate: PathBuf,
    /// The key.
    pub key: PathBuf,
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Authority {
    /// A new authority, which nobody trusts yet.
    ///
    /// # Panics
    /// If it cannot write.
    pub fn new() -> Authority {
        let mut wanted = CertificateParams::new([]).expect("no names are good names");
        let directory = tempfile::tempdir().expect("the temporary directory is writable");
        // Two authorities of one name are hard to tell apart, in messages above all.
        let name = format!("Test Authority {}", directory.path().display());
        wanted.distinguished_name.push(DnType::CommonName, name);
        wanted.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        wanted.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(wanted, new_key()).expect("an authority can sign itself");
        let authority = Authority { issuer, directory };
        authority.write(&authority.ca(), &authority.issuer.pem());
        authority
    }

    /// Where its own certificate lies.
    pub fn ca(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// A file of that name in its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A certificate for a server of these names, in `NAME.crt` and `NAME.key` by the first of them.
    pub fn server(&self, names: &[&str]) -> Pair {
        self.issue(names[0], Wanted { common_name: names[0], names, serial: 1, ..Wanted::default() })
    }

    /// A certificate in `FILE.crt`, with its key in `FILE.key`; both take the place of those before them.
    ///
    /// # Panics
    /// If a name is none.
    pub fn issue(&self, file: &str, wanted: Wanted<'_>) -> Pair {
        let (mut kinds, mut plain) = (Vec::new(), Vec::new());
        for name in wanted.names {
            match (name.strip_prefix("URI:"), name.strip_prefix("email:")) {
                (Some(uri), _) => kinds.push(SanType::URI(uri.try_into().expect("a URI is ASCII"))),
                (_, Some(mail)) => kinds.push(SanType::Rfc822Name(mail.try_into().expect("so is mail"))),
                _ => plain.push((*name).to_owned()),
            }
        }
        let mut params = CertificateParams::new(plain).expect("names of tests are names");
        params.subject_alt_names.extend(kinds);
        params.distinguished_name = DistinguishedName::new();
        if !wanted.common_name.is_empty() {
            params.distinguished_name.push(DnType::CommonName, wanted.common_name);
        }
        params.serial_number = Some(SerialNumber::from(wanted.serial));
        if wanted.expired {
            (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2020, 12, 31));
        }
        if let Some(seconds) = wanted.seconds {
            let now = Clock::wall().duration_since(UNIX_EPOCH).expect("it is later than 1970");
            params.not_after = date_time_ymd(1970, 1, 1) + now + Duration::from_secs(seconds);
        }
        let key = new_key();
        let certificate = params.signed_by(&key, &self.issuer).expect("the authority can sign");
        let (crt, key_file) = (self.path(&format!("{file}.crt")), self.path(&format!("{file}.key")));
        // The key first: who reads between the two finds a pair that does not fit, and tries again.
        self.write(&key_file, &key.serialize_pem());
        self.write(&crt, &certificate.pem());
        Pair { certificate: crt, key: key_file }
    }

    /// Writes the list that revokes `serials` into `list.crl`.
    ///
    /// # Panics
    /// If it cannot write.
    pub fn revoke(&self, serials: &[u64]) -> PathBuf {
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
        let signed = list.signed_by(&self.issuer).and_then(|list| list.pem());
        let path = self.path("list.crl");
        self.write(&path, &signed.expect("the authority can sign"));
        path
    }

    /// Puts a file in its place whole, as people are told to.
    fn write(&self, path: &Path, text: &str) {
        let beside = path.with_extension("new");
        fs::write(&beside, text).expect("our own directory is writable");
        fs::set_permissions(&beside, fs::Permissions::from_mode(0o600)).expect("and its files are ours");
        fs::rename(&beside, path).expect("and can be renamed");
    }
}

fn new_key() -> KeyPair {
    KeyPair::generate().expect("this machine has random numbers")
}
