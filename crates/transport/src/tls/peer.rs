//! Who a client proved to be.

use std::fmt;

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// What a verified client certificate says. Text of it comes from the authority, control characters replaced.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientCertificate {
    /// The distinguished name, like `CN=alice, O=Example`.
    pub subject: String,
    /// The alternative names, each with its kind: `DNS:`, `email:`, `URI:` or `IP:`.
    pub names: Vec<String>,
    /// Of the whole certificate.
    pub fingerprint: Fingerprint,
    /// The authority's number for it, in hexadecimal.
    pub serial: String,
}

/// A SHA-256; shown in lower-case hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl ClientCertificate {
    /// `None` when it cannot be read: it then proves nothing that a policy could name.
    pub(super) fn read(der: &CertificateDer<'_>) -> Option<ClientCertificate> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let alternatives = certificate.subject_alternative_name().ok()?;
        let names = alternatives.iter().flat_map(|extension| &extension.value.general_names);
        Some(ClientCertificate {
            subject: printable(&certificate.subject().to_string()),
            names: names.filter_map(alternative_name).collect(),
            fingerprint: Fingerprint::of(der),
            serial: hexadecimal(certificate.raw_serial()),
        })
    }
}

impl Fingerprint {
    /// Of `bytes`.
    pub fn of(bytes: &[u8]) -> Fingerprint {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
        Fingerprint(digest.as_ref().try_into().expect("a SHA-256 has 32 bytes"))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hexadecimal(&self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

fn alternative_name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(printable(&format!("DNS:{name}"))),
        GeneralName::RFC822Name(name) => Some(printable(&format!("email:{name}"))),
        GeneralName::URI(uri) => Some(printable(&format!("URI:{uri}"))),
        GeneralName::IPAddress(bytes) => address(bytes).map(|address| format!("IP:{address}")),
        _ => None,
    }
}

fn address(bytes: &[u8]) -> Option<std::net::IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(Into::into);
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(Into::into)).ok()
}

/// A name with a control character in it must not be taken for one without.
fn printable(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
