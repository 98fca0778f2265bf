//! Which certificate answers which server name.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// The certificates of a server, found by the names they bear: exactly, by wildcard, else the first.
#[derive(Debug, Default)]
pub(super) struct ByName {
    all: Vec<Arc<CertifiedKey>>,
    exact: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// By what stands behind `*.`, which stands for one label (RFC 9525 §6.3).
    wildcard: HashMap<String, Vec<Arc<CertifiedKey>>>,
    strict: bool,
}

impl ByName {
    /// With `strict`, the first certificate does not answer for names that none bears.
    pub(super) fn new(all: Vec<Arc<CertifiedKey>>, strict: bool) -> ByName {
        let mut by_name = ByName { strict, ..ByName::default() };
        for certificate in &all {
            for name in dns_names(certificate) {
                let (map, name) = match name.strip_prefix("*.") {
                    Some(suffix) => (&mut by_name.wildcard, suffix.to_owned()),
                    None => (&mut by_name.exact, name),
                };
                map.entry(name).or_default().push(certificate.clone());
            }
        }
        by_name.all = all;
        by_name
    }

    /// The certificates for `name`, the preferred one first; none when strict and none bears it.
    pub(super) fn of(&self, name: Option<&str>) -> &[Arc<CertifiedKey>] {
        let bearing = name.and_then(|name| {
            let name = normal(name);
            let suffix = || self.wildcard.get(name.split_once('.')?.1);
            self.exact.get(&name).or_else(suffix)
        });
        match bearing {
            Some(bearing) => bearing,
            None if self.strict => &[],
            None => &self.all,
        }
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let certificates = self.of(hello.server_name());
        usable(certificates, hello.signature_schemes()).cloned()
    }
}

/// The first that the client can check: a name may have one certificate for each kind of key.
fn usable<'c>(
    certificates: &'c [Arc<CertifiedKey>],
    offered: &[SignatureScheme],
) -> Option<&'c Arc<CertifiedKey>> {
    let fits = |certificate: &&Arc<CertifiedKey>| certificate.key.choose_scheme(offered).is_some();
    certificates.iter().find(fits).or(certificates.first())
}

fn dns_names(certificate: &CertifiedKey) -> Vec<String> {
    let leaf = certificate.cert.first().and_then(|der| X509Certificate::from_der(der).ok());
    let Some((_, leaf)) = leaf else { return Vec::new() };
    let alternatives = leaf.subject_alternative_name().ok().flatten();
    let names = alternatives.iter().flat_map(|extension| &extension.value.general_names);
    let dns = names.filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(normal(name)),
        _ => None,
    });
    dns.collect()
}

/// Names are compared without regard to case or to a dot at the end.
pub(super) fn normal(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}
