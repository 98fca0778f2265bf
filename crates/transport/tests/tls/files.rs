//! Files that are wrong, change, or are made by us.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use tieline_transport::tls::{
    CertificateFiles, ClientCertificates, ClientTls, ClientTlsSettings, Roots, ServerTls, ServerTlsSettings,
    self_signed,
};

use crate::met;
use crate::pki::{Authority, load, load_client};

/// Why a server with these files cannot be; `~` stands for the folder.
fn refusal(authority: &Authority, pair: CertificateFiles, clients: Option<ClientCertificates>) -> String {
    let settings = ServerTlsSettings {
        certificates: vec![pair],
        client_certificates: clients,
        ..ServerTlsSettings::default()
    };
    let line = ServerTls::load(&settings).unwrap_err().to_string();
    line.replace(&*authority.folder().to_string_lossy(), "~/")
}

#[test]
fn a_wrong_file_is_named_with_what_is_wrong() {
    let authority = Authority::new();
    let (good, other) = (authority.issue(&["a.test"]), authority.issue(&["b.test"]));
    let file = |name: &str, text: &str| {
        fs::write(authority.path(name), text).unwrap();
        authority.path(name)
    };
    let torn = "-----BEGIN CERTIFICATE-----\nAAAA\n";
    let not_der = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let not_crl = "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n";
    let locked = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let bad_key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let chain = |chain| CertificateFiles { chain, ..good.clone() };
    let key = |key| CertificateFiles { key, ..good.clone() };
    let pairs = [
        (chain(authority.path("none.crt")), "cannot read ~/none.crt: No such file or directory (os error 2)"),
        (chain(good.key.clone()), "~/a.test.key: holds no certificate (-----BEGIN CERTIFICATE-----)"),
        (chain(file("torn.crt", torn)), "~/torn.crt: is not well-formed PEM"),
        (chain(file("der.crt", not_der)), "~/der.crt: the certificate is malformed: "),
        (key(good.chain.clone()), "~/a.test.crt: holds no private key (-----BEGIN PRIVATE KEY-----)"),
        (key(other.key), "~/b.test.key: is not the key of the certificate in ~/a.test.crt"),
        (
            key(file("locked.key", locked)),
            "~/locked.key: the key is encrypted; decrypt it with `openssl pkey`",
        ),
        (key(file("bad.key", bad_key)), "~/bad.key: the key is of no use: "),
    ];
    for (pair, wanted) in pairs {
        let line = refusal(&authority, pair, None);
        assert!(line.starts_with(wanted) && !line.contains('\n'), "{line}");
    }
    let clients = |ca, crl| Some(ClientCertificates { ca, crl, required: true });
    let ca = authority.ca();
    let bundles = [
        (clients(good.key.clone(), None), "~/a.test.key: holds no certificate"),
        (clients(file("bad.pem", not_der), None), "~/bad.pem: certificate 1 is malformed: "),
        (
            clients(ca.clone(), Some(ca.clone())),
            "~/ca.pem: holds no revocation list (-----BEGIN X509 CRL-----)",
        ),
        (clients(ca, Some(file("bad.crl", not_crl))), "~/bad.crl: a revocation list is malformed: "),
    ];
    for (clients, wanted) in bundles {
        let line = refusal(&authority, good.clone(), clients);
        assert!(line.starts_with(wanted) && !line.contains('\n'), "{line}");
    }
}

#[test]
fn a_server_needs_a_certificate_and_a_client_a_name_that_is_one() {
    let error = ServerTls::load(&ServerTlsSettings::default()).unwrap_err();
    assert_eq!(error.to_string(), "a TLS server needs at least one certificate");
    let authority = Authority::new();
    let settings = ClientTlsSettings { server_name: Some("no name".into()), ..authority.client() };
    let error = ClientTls::load(&settings).unwrap_err();
    assert_eq!(error.to_string(), "\"no name\" is neither a host name nor an IP address");
}

#[test]
fn changed_files_are_noticed_and_touched_ones_are_not() {
    let authority = Authority::new();
    let settings = authority.server(&[&["a.test"]]);
    let server = load(&settings);
    assert!(!server.changed());
    let chain = &settings.certificates[0].chain;
    let text = fs::read(chain).unwrap();
    fs::write(authority.path("copy"), &text).unwrap();
    fs::rename(authority.path("copy"), chain).unwrap();
    assert!(!server.changed(), "another file with the same content");
    authority.issue(&["a.test"]);
    assert!(server.changed());
    assert!(!load(&settings).changed());
    let server = load(&settings);
    fs::remove_file(chain).unwrap();
    assert!(server.changed());
}

#[test]
fn a_key_that_others_can_reach_is_warned_of_and_never_shown() {
    let authority = Authority::new();
    let settings = authority.server(&[&["a.test"]]);
    assert_eq!(load(&settings).warnings(), [""; 0]);
    let key = &settings.certificates[0].key;
    fs::set_permissions(key, fs::Permissions::from_mode(0o644)).unwrap();
    let server = load(&settings);
    assert!(server.warnings()[0].starts_with(&format!("{}: every user can reach", key.display())));
    let client =
        ClientTlsSettings { certificate: Some(settings.certificates[0].clone()), ..authority.client() };
    let client = load_client(&client);
    assert_eq!(client.warnings().len(), 1);
    let secret = fs::read_to_string(key).unwrap();
    let line = secret.lines().nth(1).unwrap();
    let shown = format!("{server:?} {client:?} {settings:?}");
    assert!(!shown.contains(line) && !shown.contains("PRIVATE"), "{shown}");
}

#[tokio::test]
async fn a_self_signed_certificate_stays_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("state");
    let names = ["a.test".to_owned(), "127.0.0.1".to_owned()];
    let made = self_signed(&folder, &names).unwrap();
    let text = fs::read(&made.key).unwrap();
    assert_eq!(self_signed(&folder, &names).unwrap(), made);
    assert_eq!(fs::read(&made.key).unwrap(), text);
    assert_eq!(fs::metadata(&made.key).unwrap().permissions().mode() & 0o777, 0o600);
    assert_ne!(self_signed(&folder, &names[..1]).unwrap(), made);
    let roots = Roots::Bundle(made.chain.with_extension("crt"));
    let server = load(&ServerTlsSettings { certificates: vec![made], ..ServerTlsSettings::default() });
    let client = load_client(&ClientTlsSettings { roots, ..ClientTlsSettings::default() });
    for name in ["a.test", "127.0.0.1"] {
        met(&server, &client, name).await;
    }
    let error = self_signed(std::path::Path::new("/dev/null/x"), &names).unwrap_err();
    assert!(error.to_string().starts_with("cannot write /dev/null/x/self-signed-"), "{error}");
}
