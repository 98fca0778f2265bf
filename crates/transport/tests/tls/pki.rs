//! Certificates for tests: those of the testkit's authority, in the words of this crate.

use std::ops::Deref;
use std::path::PathBuf;

use tieline_testkit::{Pair, Wanted};
use tieline_transport::tls::{
    CertificateFiles, ClientTls, ClientTlsSettings, Roots, ServerTls, ServerTlsSettings,
};

/// An authority, and the folder that all it makes lies in.
pub(crate) struct Authority(tieline_testkit::Authority);

impl Deref for Authority {
    type Target = tieline_testkit::Authority;

    fn deref(&self) -> &tieline_testkit::Authority {
        &self.0
    }
}

impl Authority {
    pub(crate) fn new() -> Authority {
        Authority(tieline_testkit::Authority::new())
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.path("")
    }

    /// A certificate for `names`, the first being the common name too, in files of that name.
    pub(crate) fn issue(&self, names: &[&str]) -> CertificateFiles {
        self.issue_number(names, 1)
    }

    pub(crate) fn issue_number(&self, names: &[&str], serial: u64) -> CertificateFiles {
        let kind = |name: &&str| if name.contains('@') { format!("email:{name}") } else { name.to_string() };
        let kinds: Vec<String> = names.iter().map(kind).collect();
        let kinds: Vec<&str> = kinds.iter().map(String::as_str).collect();
        let wanted = Wanted { common_name: names[0], names: &kinds, serial, ..Wanted::default() };
        let Pair { certificate, key } = self.0.issue(names[0], wanted);
        CertificateFiles { chain: certificate, key }
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
