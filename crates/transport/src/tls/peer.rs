//! Who a client proved to be.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// What a verified client certificate says. Text of it comes from the authority, control characters replaced.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientCertificate {
    /// The one name that it gives its holder: the first of a URI, a DNS name and an e-mail address among the
    /// alternative names, else the common name, else `sha256:` and the fingerprint.
    pub holder: String,
    /// The distinguished name, like `CN=alice, O=Example`.
    pub subject: String,
    /// The alternative names, each with its kind: `DNS:`, `email:`, `URI:` or `IP:`.
    pub names: Vec<String>,
    /// Of the whole certificate.
    pub fingerprint: Fingerprint,
    /// The authority's number for it, in hexadecimal.
    pub serial: String,
    /// It and what the client showed behind it, in DER.
    pub chain: Vec<Box<[u8]>>,
}

/// A SHA-256; shown in lower-case hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl ClientCertificate {
    /// Of what a client showed, its own first. `None` when it cannot be read, or names its holder so that it
    /// cannot be told from another.
    pub(crate) fn read(shown: &[CertificateDer<'_>]) -> Option<ClientCertificate> {
        let der = shown.first()?;
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let alternatives = certificate.subject_alternative_name().ok()?;
        let alternatives: Vec<_> =
            alternatives.iter().flat_map(|extension| &extension.value.general_names).collect();
        let fingerprint = Fingerprint::of(der);
        let common = || certificate.subject().iter_common_name().find_map(|name| name.as_str().ok());
        let named = bare_name(&alternatives).or_else(common).filter(|name| !name.is_empty());
        if named.is_some_and(|name| !is_plain(name)) {
            return None;
        }
        Some(ClientCertificate {
            holder: named.map_or_else(|| format!("sha256:{fingerprint}"), str::to_owned),
            subject: printable(&certificate.subject().to_string()),
            names: alternatives.into_iter().filter_map(alternative_name).collect(),
            fingerprint,
            serial: hexadecimal(certificate.raw_serial()),
            chain: shown.iter().map(|der| der.as_ref().into()).collect(),
        })
    }
}

/// What the certificate of a server says, whether or not anybody believes it. Control characters are
/// replaced.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerCertificate {
    /// The distinguished name, like `CN=gate.example.com`.
    pub subject: String,
    /// That of who vouches for it.
    pub issuer: String,
    /// Of the whole certificate.
    pub fingerprint: Fingerprint,
}

impl ServerCertificate {
    /// `None` if it cannot be read.
    pub(super) fn read(der: &[u8]) -> Option<ServerCertificate> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        Some(ServerCertificate {
            subject: printable(&certificate.subject().to_string()),
            issuer: printable(&certificate.issuer().to_string()),
            fingerprint: Fingerprint::of(der),
        })
    }
}

/// The authority's number for a certificate in DER, in hexadecimal; `None` if it is none.
pub fn serial_of(certificate: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    Some(hexadecimal(certificate.raw_serial()))
}

/// Since when a certificate in DER is valid; `None` if it is none.
pub fn valid_since(certificate: &[u8]) -> Option<SystemTime> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let seconds = u64::try_from(certificate.validity().not_before.timestamp()).ok()?;
    Some(UNIX_EPOCH + Duration::from_secs(seconds))
}

/// Until when a certificate in DER is valid; `None` if it is none.
pub fn valid_until(certificate: &[u8]) -> Option<SystemTime> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let seconds = u64::try_from(certificate.validity().not_after.timestamp()).ok()?;
    Some(UNIX_EPOCH + Duration::from_secs(seconds))
}

/// The longest name that a holder may have, in bytes: it goes into headers, logs and lists.
const HOLDER_MAX: usize = 255;

/// Whether a name can be shown and compared without a second thought.
fn is_plain(name: &str) -> bool {
    name.len() <= HOLDER_MAX && !name.chars().any(char::is_control) && name.trim() == name
}

/// The alternative name that stands for the holder.
fn bare_name<'n>(names: &[&GeneralName<'n>]) -> Option<&'n str> {
    let uri = |name: &&GeneralName<'n>| if let GeneralName::URI(uri) = name { Some(*uri) } else { None };
    let dns = |name: &&GeneralName<'n>| if let GeneralName::DNSName(dns) = name { Some(*dns) } else { None };
    let mail =
        |name: &&GeneralName<'n>| if let GeneralName::RFC822Name(it) = name { Some(*it) } else { None };
    let first = |of: &dyn Fn(&&GeneralName<'n>) -> Option<&'n str>| names.iter().find_map(of);
    first(&uri).or_else(|| first(&dns)).or_else(|| first(&mail))
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
