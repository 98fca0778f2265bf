//! TLS on both sides: what we show to clients, and what we ask of endpoints.

use std::path::{Path, PathBuf};

use tieline_base::Address;

use crate::fields::{Fields, Taken};
use crate::files;
use crate::place::{Place, Spot};
use crate::problem::Problems;
use crate::upstream::Endpoint;
use crate::value::Value;
use crate::words::{ClientWord, Negotiation, UpstreamTlsWord, Verify};

/// How a listener proves itself to its clients.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ListenerTls {
    /// By a certificate that nobody has signed, made at the start: to try things out.
    SelfSigned,
    /// By these, one at least. The name that the client asks for chooses; the first is for those that ask for
    /// none of them.
    Certificates(Vec<Certificate>),
}

/// One certificate of a listener.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Certificate {
    /// Where it stands.
    pub place: Place,
    /// The file of the certificate, and of those that lead to its root.
    pub certificate: PathBuf,
    /// The file of its private key.
    pub key: PathBuf,
    /// How clients prove themselves; none: not by certificate.
    pub client: Option<ClientCertificates>,
}

/// How clients prove themselves by certificates.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientCertificates {
    /// The file of the roots that sign them.
    pub ca: PathBuf,
    /// The file of their revocation lists; none: nobody is asked.
    pub crl: Option<PathBuf>,
    /// Whether a client without one is refused.
    pub required: bool,
}

/// How an upstream's endpoints are spoken to by TLS.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UpstreamTls {
    /// What of their certificates is verified.
    pub verify: Verify,
    /// The file of the roots that sign them; none: those of the system.
    pub ca: Option<PathBuf>,
    /// The name that they are asked for and must prove, in lower case; none: that of the endpoint's address.
    pub server_name: Option<String>,
    /// What we show if they ask.
    pub identity: Option<TlsIdentity>,
    /// Whether servers of PostgreSQL are not asked for TLS first.
    pub direct: bool,
}

/// A certificate of ours with its key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsIdentity {
    /// The file of the certificate.
    pub certificate: PathBuf,
    /// The file of its private key.
    pub key: PathBuf,
}

impl UpstreamTls {
    /// All is verified, by the roots of the system.
    pub(crate) const VERIFY_FULL: UpstreamTls =
        UpstreamTls { verify: Verify::Full, ca: None, server_name: None, identity: None, direct: false };
}

/// Reads `tls` of a listener. `folder` is the config file's.
pub(crate) fn of_listener(
    fields: &mut Fields,
    folder: &Path,
    problems: &mut Problems,
) -> Option<Spot<ListenerTls>> {
    let Taken { value, place, .. } = fields.take::<Value>("tls")?;
    let Value::List(items) = value else { return Some(Spot { value: ListenerTls::SelfSigned, place }) };
    let table = |item: Spot<Value>| if let Value::Table(fields) = item.value { Some(fields) } else { None };
    let tables = items.into_iter().filter_map(table);
    let certificates: Vec<_> = tables.filter_map(|table| certificate(table, folder, problems)).collect();
    tell_of_differing_ones(&certificates, problems);
    (!certificates.is_empty()).then_some(Spot { value: ListenerTls::Certificates(certificates), place })
}

fn certificate(mut fields: Fields, folder: &Path, problems: &mut Problems) -> Option<Certificate> {
    let place = fields.place();
    let certificate = file(&mut fields, "certificate", folder, problems);
    let key = file(&mut fields, "key", folder, problems);
    let client = client(&mut fields, folder, problems);
    fields.done();
    Some(Certificate { place, certificate: certificate?.value, key: key?.value, client })
}

/// Reads who vouches for people at a listener of tunnels. `folder` is the config file's.
pub(crate) fn of_people(
    fields: &mut Fields,
    folder: &Path,
    problems: &mut Problems,
) -> Option<ClientCertificates> {
    let lacking = fields.lacks("client_ca");
    let ca = file(fields, "client_ca", folder, problems);
    let crl = file(fields, "client_crl", folder, problems);
    if let Some(crl) = crl.as_ref().filter(|_| lacking) {
        let message = "`client_crl` means nothing without `client_ca`, whose certificates it revokes";
        problems.error(crl.place, message).hint("write client_ca = \"ca.pem\"");
    }
    Some(ClientCertificates { ca: ca?.value, crl: crl.map(|crl| crl.value), required: false })
}

fn client(fields: &mut Fields, folder: &Path, problems: &mut Problems) -> Option<ClientCertificates> {
    let (place, written) = (fields.place_of("client"), fields.has("client"));
    let lacking = fields.lacks("client_ca");
    let ca = file(fields, "client_ca", folder, problems);
    let crl = file(fields, "client_crl", folder, problems);
    if let Some(crl) = crl.as_ref().filter(|_| lacking) {
        let message = "`client_crl` means nothing without `client_ca`, whose certificates it revokes";
        problems.error(crl.place, message).hint("write client_ca = \"ca.pem\"");
    }
    let word = fields.word("client", ClientWord::from_word);
    if written && lacking {
        problems
            .error(place, "`client` means nothing without `client_ca`, which says whose certificates count")
            .hint("write client_ca = \"ca.pem\"");
    }
    let required = word != Some(ClientWord::Optional);
    Some(ClientCertificates { ca: ca?.value, crl: crl.map(|crl| crl.value), required })
}

/// A listener asks all of its clients for the same proof, whatever name they ask for: the name in their first
/// bytes binds them to nothing that they say later.
fn tell_of_differing_ones(certificates: &[Certificate], problems: &mut Problems) {
    let Some(strict) = certificates.iter().find(|it| it.client.is_some()) else { return };
    for other in certificates.iter().filter(|it| it.client != strict.client) {
        let message = format!(
            "this certificate asks clients for another proof than the one in line {}, \
             and a listener asks all of its clients for one",
            strict.place.line
        );
        let hint = "give both the same `client_ca`, `client_crl` and `client`, or a listener each";
        problems.error(other.place, message).hint(hint);
    }
}

/// Reads `tls` of an upstream; `usual` holds where it is left out. `folder` is the config file's.
pub(crate) fn of_upstream(
    fields: &mut Fields,
    endpoints: &[Endpoint],
    usual: Option<UpstreamTls>,
    folder: &Path,
    problems: &mut Problems,
) -> Option<UpstreamTls> {
    if fields.lacks("tls") {
        fields.take::<Value>("tls");
        return usual;
    }
    let Taken { value, place, .. } = fields.take::<Value>("tls")?;
    let tls = match value {
        Value::Table(table) => from_table(table, folder, problems),
        Value::Word(word) => from_word(UpstreamTlsWord::from_word(word)?, place, problems)?,
        _ => return None,
    };
    // Without a name there is nothing that a certificate could be compared with.
    let nameless =
        |it: &&Endpoint| matches!(it.address, Address::Unix(_) | Address::Agent(_) | Address::Group(_));
    let nameless = endpoints.iter().find(nameless);
    if let Some(endpoint) = nameless.filter(|_| tls.verify == Verify::Full && tls.server_name.is_none()) {
        let message =
            format!("endpoint \"{}\" has no name that its certificate could be for", endpoint.address);
        problems
            .error(place, message)
            .hint("write tls = { server_name = \"db.internal\" } with the name in its certificate");
    }
    Some(tls)
}

fn from_word(word: UpstreamTlsWord, place: Place, problems: &mut Problems) -> Option<UpstreamTls> {
    let verify = match word {
        UpstreamTlsWord::Off => return None,
        UpstreamTlsWord::VerifyFull => Verify::Full,
        UpstreamTlsWord::Require | UpstreamTlsWord::Insecure => Verify::None,
    };
    if verify == Verify::None {
        warn_of_trust(place, problems);
    }
    Some(UpstreamTls { verify, ..UpstreamTls::VERIFY_FULL })
}

fn from_table(mut fields: Fields, folder: &Path, problems: &mut Problems) -> UpstreamTls {
    let verify_place = fields.place_of("verify");
    let identity = identity(&mut fields, folder, problems);
    let verify = fields.word("verify", Verify::from_word).unwrap_or(Verify::Full);
    let ca = file(&mut fields, "ca", folder, problems);
    let server_name = fields.maybe("server_name");
    let direct = fields.word("negotiation", Negotiation::from_word) == Some(Negotiation::Direct);
    fields.done();
    match &ca {
        Some(ca) if verify == Verify::None => {
            problems
                .error(ca.place, "`ca` means nothing with verify = \"none\"")
                .hint("take one of them away");
        }
        _ if verify == Verify::None => warn_of_trust(verify_place, problems),
        _ => {}
    }
    UpstreamTls { verify, ca: ca.map(|ca| ca.value), server_name, identity, direct }
}

fn warn_of_trust(place: Place, problems: &mut Problems) {
    let message = "certificates are not verified, so whoever stands between can read and change everything";
    problems.warning(place, message).hint("write tls = { ca = \"ca.pem\" } with the root that signs them");
}

fn identity(fields: &mut Fields, folder: &Path, problems: &mut Problems) -> Option<TlsIdentity> {
    for (one, other) in [("certificate", "key"), ("key", "certificate")] {
        if fields.has(one) && fields.lacks(other) {
            problems.error(fields.place_of(one), format!("`{one}` needs `{other}` beside it"));
        }
    }
    let certificate = file(fields, "certificate", folder, problems);
    let key = file(fields, "key", folder, problems);
    Some(TlsIdentity { certificate: certificate?.value, key: key?.value })
}

/// The file that the key `name` names.
fn file(fields: &mut Fields, name: &str, folder: &Path, problems: &mut Problems) -> Option<Spot<PathBuf>> {
    let Taken { value, place, .. } = fields.take::<PathBuf>(name)?;
    let found = files::found(name, Spot { value, place }, folder, problems);
    Some(Spot { value: found, place })
}
